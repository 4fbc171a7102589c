"""What the configs of all methods without gradients share. No torch here."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from athlos.config.fields import at_least
from athlos.config.schema import MethodConfig

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig


@dataclass(kw_only=True)
class PipelineMethodConfig(MethodConfig):
    """Base of a method that answers by calls of a model and searches, and trains nothing."""

    in_flight: int = at_least(1)
    """Questions under way at once: their calls share a batch, and a stopped run loses at most these."""


def pipeline_errors(config: "RunConfig") -> Iterator[str]:
    """Contradictions that every pipeline refuses."""
    if config.num_steps:
        yield (
            f"train.max_steps: got {config.num_steps}, but this method trains nothing; set train.max_steps=0 and take "
            "weights that another method trained by model.source=run:<experiment>"
        )
