"""Schemas of the objectives that more than one method uses."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from athlos.config.registry import Part
from athlos.config.schema import MISSING, ObjectiveConfig

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


@dataclass(kw_only=True)
class DistillConfig(ObjectiveConfig):
    ce: float = MISSING
    """Weight of the cross-entropy with the labels, >= 0."""
    kd: float = MISSING
    """Weight of T^2 KL(teacher || student), >= 0; not both weights 0."""
    temperature: float = MISSING
    """T > 0, on both sides of the divergence."""
    teacher: str = MISSING
    """`base` = the run's model as loaded, or a source as in `model.source` with the same tokenizer."""
    chunk_tokens: int = 1024
    """Positions whose logits exist at one time, >= 1."""


def _distill_errors(config: "RunConfig") -> Iterable[str]:
    node = config.objective
    assert isinstance(node, DistillConfig)
    for name, value in {"ce": node.ce, "kd": node.kd}.items():
        if value < 0:
            yield f"objective.{name}: got {value}, expected a number >= 0"
    if node.ce <= 0 and node.kd <= 0:
        yield "objective: ce and kd are both 0, so nothing is learned"
    if node.temperature <= 0:
        yield f"objective.temperature: got {node.temperature}, expected a number > 0"
    if node.chunk_tokens < 1:
        yield f"objective.chunk_tokens: got {node.chunk_tokens}, expected an integer >= 1"
    if node.teacher == "base" and node.kd > 0 and config.model.source == "random" and config.num_steps:
        yield "objective.teacher: the base model has random weights, which teach nothing; name another, or set kd=0"


PARTS = [
    Part(
        group="objective", name="distill", schema=DistillConfig,
        target="athlos.objectives.distillation.DistillObjective",
        summary="cross-entropy plus divergence from a teacher", check=_distill_errors,
    ),
    Part(
        group="objective", name="next_token", schema=NextTokenConfig,
        target="athlos.objectives.next_token.NextTokenObjective", summary="cross-entropy of the next token",
        check=_next_token_errors,
    ),
]  # fmt: skip
