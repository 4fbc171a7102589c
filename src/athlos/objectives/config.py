"""Schemas of the objectives that more than one method uses, and the parts of `reward_config.py`."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TYPE_CHECKING

from athlos.config.registry import Part
from athlos.config.schema import MISSING, ObjectiveConfig
from athlos.objectives.reward_config import REWARD_PARTS

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
class UnigramSmoothingConfig(ObjectiveConfig):
    smoothing: float = MISSING
    """Share of the target mass spread as the training split's targets are distributed, in [0, 1)."""
    chunk_tokens: int = 1024
    """Positions whose logits exist at one time, >= 1."""


def _unigram_errors(config: "RunConfig") -> Iterable[str]:
    node = config.objective
    assert isinstance(node, UnigramSmoothingConfig)
    if not 0 <= node.smoothing < 1:
        yield f"objective.smoothing: got {node.smoothing}, expected a number in [0, 1)"
    if node.chunk_tokens < 1:
        yield f"objective.chunk_tokens: got {node.chunk_tokens}, expected an integer >= 1"


@dataclass(kw_only=True)
class MultiTokenConfig(ObjectiveConfig):
    num_future: int = MISSING
    """Tokens behind the next one that are predicted too, each by a head of its own, >= 1."""
    weight: float = MISSING
    """Weight of each of them beside the next token's 1, > 0."""
    chunk_tokens: int = 1024
    """Positions whose logits exist at one time, >= 1."""


def _multi_token_errors(config: "RunConfig") -> Iterable[str]:
    node = config.objective
    assert isinstance(node, MultiTokenConfig)
    if node.num_future < 1:
        yield f"objective.num_future: got {node.num_future}, expected an integer >= 1; 0 is objective=next_token"
    most = config.train.max_length - 2
    if config.num_steps and node.num_future > most:
        yield (
            f"objective.num_future: got {node.num_future}, expected at most {most}: a row of train.max_length="
            f"{config.train.max_length} tokens has no later ones"
        )
    if not 0 < node.weight < float("inf"):
        yield f"objective.weight: got {node.weight}, expected a number > 0"
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


@dataclass(kw_only=True)
class DistillTopkConfig(DistillConfig):
    topk: int = MISSING
    """The teacher's most probable tokens that the divergence lists one by one, >= 1 and below the vocabulary."""


def _distill_topk_errors(config: "RunConfig") -> Iterable[str]:
    node = config.objective
    assert isinstance(node, DistillTopkConfig)
    yield from _distill_errors(config)
    if node.topk < 1:
        yield f"objective.topk: got {node.topk}, expected an integer >= 1; objective=distill compares all tokens"


# Made by a call because `none` reads better in YAML than a null.
AdvantageStd = Enum("AdvantageStd", [(name, name) for name in ("sample", "population", "none")], type=str)
"""What a group's centred rewards are divided by: the standard deviation with n - 1, with n, or nothing."""


class Denominator(StrEnum):
    """`sequence`: mean over a response's tokens, then over responses. `token`: one mean over all tokens of the
    mini-batch. `constant`: sum over tokens / (responses x `max_new_tokens`)."""

    sequence = "sequence"
    token = "token"
    constant = "constant"


@dataclass(kw_only=True)
class PolicyConfig(ObjectiveConfig):
    group_size: int = MISSING
    """Responses to a prompt, >= 2."""
    temperature: float = MISSING
    """Of the rollouts and of their log-probabilities, > 0."""
    max_new_tokens: int = MISSING
    """Longest response, in tokens, >= 1."""
    adv_std: AdvantageStd = MISSING  # type: ignore[valid-type]
    clip_low: float = MISSING
    """The ratio counts down to 1 - this, in (0, 1)."""
    clip_high: float = MISSING
    """The ratio counts up to 1 + this, > 0."""
    denominator: Denominator = MISSING
    kl: float = MISSING
    """Weight of the divergence from the model as loaded, >= 0; 0 = no reference model is kept."""
    skip_zero: bool = True
    """Leave out responses with advantage 0 in the update; gradient and denominator are the same."""
    share_prompts: bool = True
    """Compute a prompt once for several of its responses where that costs less; loss and gradient are the same."""
    chunk_tokens: int = 1024
    """Positions whose logits exist at one time, >= 1."""


def _policy_errors(config: "RunConfig") -> Iterable[str]:
    node = config.objective
    assert isinstance(node, PolicyConfig)
    if not config.method.makes_rollouts and config.num_steps:
        yield "objective=policy: it needs rollouts, which this method does not make; use method=lang"
    accepted = {
        "group_size": (node.group_size >= 2, "an integer >= 2: a group of one has no advantage"),
        "temperature": (0 < node.temperature < float("inf"), "a number > 0: greedy rollouts of a group are all alike"),
        "max_new_tokens": (node.max_new_tokens >= 1, "an integer >= 1"),
        "clip_low": (0 < node.clip_low < 1, "a number in (0, 1)"),
        "clip_high": (0 < node.clip_high < float("inf"), "a number > 0"),
        "kl": (0 <= node.kl < float("inf"), "a number >= 0"),
        "chunk_tokens": (node.chunk_tokens >= 1, "an integer >= 1"),
    }
    for name, (is_good, expected) in accepted.items():
        if not is_good:
            yield f"objective.{name}: got {getattr(node, name)}, expected {expected}"


PARTS = [
    Part(
        group="objective", name="distill", schema=DistillConfig,
        target="athlos.objectives.distillation.DistillObjective",
        summary="cross-entropy plus divergence from a teacher", check=_distill_errors,
    ),
    Part(
        group="objective", name="distill_topk", schema=DistillTopkConfig,
        target="athlos.objectives.distillation.TopkDistillObjective",
        summary="cross-entropy plus divergence from a teacher's most probable tokens", check=_distill_topk_errors,
    ),
    Part(
        group="objective", name="multi_token", schema=MultiTokenConfig,
        target="athlos.objectives.multi_token.MultiTokenObjective",
        summary="cross-entropy of the next token and of later ones", check=_multi_token_errors,
    ),
    Part(
        group="objective", name="next_token", schema=NextTokenConfig,
        target="athlos.objectives.next_token.NextTokenObjective", summary="cross-entropy of the next token",
        check=_next_token_errors,
    ),
    Part(
        group="objective", name="policy", schema=PolicyConfig, target="athlos.objectives.policy.PolicyObjective",
        summary="the clipped loss of GRPO and its kin on rollouts", check=_policy_errors,
    ),
    Part(
        group="objective", name="unigram_smoothing", schema=UnigramSmoothingConfig,
        target="athlos.objectives.unigram_smoothing.UnigramSmoothingObjective",
        summary="cross-entropy with a share of the target spread by token frequency", check=_unigram_errors,
    ),
    *REWARD_PARTS,
]  # fmt: skip
