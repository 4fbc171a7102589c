"""Schema of the construction that makes nothing."""

from dataclasses import dataclass

from athlos.config.registry import Part
from athlos.config.schema import ConstructConfig


@dataclass(kw_only=True)
class NoConstructConfig(ConstructConfig):
    """No values. A method puts it in place of the run's construction in a phase that trains on the data as it is."""

    _target_: str = "athlos.data.construct.NoConstruct"


PARTS = [
    Part(
        group="construct",
        name="none",
        schema=NoConstructConfig,
        target=NoConstructConfig._target_,
        summary="trains on the data as it is",
    )
]
