"""What the configs of all methods without gradients share. No torch here."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from athlos.config.fields import at_least
from athlos.config.schema import MethodConfig
from athlos.generation.config import GreedyConfig, NativeConfig, SelfGeneratorConfig, SidConfig

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
    decoding = config.decoding
    if isinstance(decoding, SidConfig):
        if decoding.temperature:
            yield "decoding: got sid, but a pipeline asks for the most probable answer; decoding=sid_greedy"
        if not (isinstance(config.generator, SelfGeneratorConfig) and isinstance(config.engine, NativeConfig)):
            yield "decoding: got sid, which a pipeline takes from its own model; use generator=self engine=native"
    elif not isinstance(decoding, GreedyConfig):
        yield (
            f"decoding: got {type(decoding).__name__}, but a pipeline asks for the most probable answer; "
            "decoding=greedy, or decoding=sid_greedy where the model has control tokens"
        )
    if config.eval.shots:
        yield f"eval.shots: got {config.eval.shots}, expected 0: a pipeline writes its own prompts"
