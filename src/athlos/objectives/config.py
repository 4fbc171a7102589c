"""Schemas of the objectives that more than one method uses."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from athlos.config.registry import Part
from athlos.config.schema import ObjectiveConfig

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig


@dataclass(kw_only=True)
class NextTokenConfig(ObjectiveConfig):
    label_smoothing: float = 0.0
    """Share of the target mass spread evenly over the vocabulary, in [0, 1)."""
    chunk_tokens: int = 1024
    """Positions whose logits exist at one time; bounds memory at large vocabularies. >= 1."""


def _next_token_errors(config: "RunConfig") -> Iterable[str]:
    node = config.objective
    assert isinstance(node, NextTokenConfig)
    if not 0 <= node.label_smoothing < 1:
        yield f"objective.label_smoothing: got {node.label_smoothing}, expected a number in [0, 1)"
    if node.chunk_tokens < 1:
        yield f"objective.chunk_tokens: got {node.chunk_tokens}, expected an integer >= 1"


PARTS = [
    Part(
        group="objective", name="next_token", schema=NextTokenConfig,
        target="athlos.objectives.next_token.NextTokenObjective", summary="cross-entropy of the next token",
        check=_next_token_errors,
    )
]  # fmt: skip
