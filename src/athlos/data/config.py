"""Schema of the construction that makes nothing."""

from dataclasses import dataclass

from athlos.config.registry import Part
from athlos.config.schema import ConstructConfig


@dataclass(kw_only=True)
class NoConstructConfig(ConstructConfig):
    """No values."""


PARTS = [
    Part(
        group="construct", name="none", schema=NoConstructConfig, target="athlos.data.construct.NoConstruct",
        summary="trains on the data as it is",
    )
]  # fmt: skip
