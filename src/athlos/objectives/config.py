"""Schemas of the objectives that more than one method uses, and the parts of `reward_config.py`."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from athlos.config.fields import above, at_least, bounded
from athlos.config.registry import Part
from athlos.config.schema import MISSING, Batching, ObjectiveConfig
from athlos.objectives.reward_config import REWARD_PARTS

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig


@dataclass(kw_only=True)
class NextTokenConfig(ObjectiveConfig):
    label_smoothing: float = bounded("[0, 1)", default=0.0)
    """Share of the target mass spread evenly over the vocabulary."""
    chunk_tokens: int = at_least(1, default=1024)
    """Positions whose logits exist at one time; bounds memory at large vocabularies."""


@dataclass(kw_only=True)
class UnigramSmoothingConfig(ObjectiveConfig):
    smoothing: float = bounded("[0, 1)")
    """Share of the target mass spread as the training split's targets are distributed."""
    chunk_tokens: int = at_least(1, default=1024)
    """Positions whose logits exist at one time."""


@dataclass(kw_only=True)
class MultiTokenConfig(ObjectiveConfig):
    num_future: int = at_least(1, why="; 0 is objective=next_token")
    """Tokens behind the next one that are predicted too, each by a head of its own."""
    weight: float = above(0)
    """Weight of each of them beside the next token's 1."""
    chunk_tokens: int = at_least(1, default=1024)
    """Positions whose logits exist at one time."""


def _multi_token_errors(config: "RunConfig") -> Iterable[str]:
    node = config.objective
    assert isinstance(node, MultiTokenConfig)
    most = config.train.max_length - 2
    if config.num_steps and node.num_future > most:
        yield (
            f"objective.num_future: got {node.num_future}, expected at most {most}: a row of train.max_length="
            f"{config.train.max_length} tokens has no later ones"
        )


@dataclass(kw_only=True)
class DistillConfig(ObjectiveConfig):
    ce: float = at_least(0)
    """Weight of the cross-entropy with the labels."""
    kd: float = at_least(0)
    """Weight of T^2 KL(teacher || student); not both weights 0."""
    temperature: float = above(0)
    """T, on both sides of the divergence."""
    teacher: str = MISSING
    """`base` = the run's model as loaded, or a source as in `model.source` with the same tokenizer."""
    chunk_tokens: int = at_least(1, default=1024)
    """Positions whose logits exist at one time."""


def _distill_errors(config: "RunConfig") -> Iterable[str]:
    node = config.objective
    assert isinstance(node, DistillConfig)
    if node.ce == 0 and node.kd == 0:
        yield "objective: ce and kd are both 0, so nothing is learned"
    if node.teacher == "base" and node.kd > 0 and config.model.source == "random" and config.num_steps:
        yield "objective.teacher: the base model has random weights, which teach nothing; name another, or set kd=0"


@dataclass(kw_only=True)
class DistillTopkConfig(DistillConfig):
    topk: int = at_least(1, why="; objective=distill compares all tokens")
    """The teacher's most probable tokens that the divergence lists one by one, fewer than the vocabulary has."""


AdvantageStd = StrEnum("AdvantageStd", ["sample", "population", "none"])
"""What a group's centred rewards are divided by: the standard deviation with n - 1, with n, or nothing."""


class Denominator(StrEnum):
    """`sequence`: mean over a response's tokens, then over responses. `token`: one mean over all tokens of the
    mini-batch. `constant`: sum over tokens / (responses x `max_new_tokens`)."""

    sequence = "sequence"
    token = "token"
    constant = "constant"


@dataclass(kw_only=True)
class PolicyConfig(ObjectiveConfig):
    group_size: int = at_least(2, why=": a group of one has no advantage")
    """Responses to a prompt."""
    temperature: float = above(0, why=": greedy rollouts of a group are all alike")
    """Of the rollouts and of their log-probabilities."""
    max_new_tokens: int = at_least(1)
    """Longest response, in tokens."""
    adv_std: AdvantageStd = MISSING
    clip_low: float = bounded("(0, 1)")
    """The ratio counts down to 1 - this."""
    clip_high: float = above(0)
    """The ratio counts up to 1 + this."""
    denominator: Denominator = MISSING
    kl: float = at_least(0)
    """Weight of the divergence from the model as loaded; 0 = no reference model is kept."""
    skip_zero: bool = True
    """Leave out responses with advantage 0 in the update; gradient and denominator are the same."""
    share_prompts: bool = True
    """Compute a prompt once for several of its responses where that costs less; loss and gradient are the same."""
    chunk_tokens: int = at_least(1, default=1024)
    """Positions whose logits exist at one time."""


def _policy_errors(config: "RunConfig") -> Iterable[str]:
    node = config.objective
    assert isinstance(node, PolicyConfig)
    if not config.method.makes_rollouts and config.num_steps:
        yield "objective=policy: it needs rollouts, which this method does not make; use method=lang"


class Preference(StrEnum):
    """`dpo`: log-ratios to the reference, summed over an answer. `dpo_norm`: the same, a mean over its tokens. `simpo`:
    mean log-probability, no reference, a margin. `ipo`: squared distance of the mean log-ratios' difference from
    1 / (2 beta). `sft_chosen`: next-token loss on the better answers, the control."""

    dpo = "dpo"
    dpo_norm = "dpo_norm"
    simpo = "simpo"
    ipo = "ipo"
    sft_chosen = "sft_chosen"

    @property
    def has_reference(self) -> bool:
        return self not in (Preference.simpo, Preference.sft_chosen)


@dataclass(kw_only=True)
class PreferenceConfig(ObjectiveConfig):
    takes_pairs: ClassVar[bool] = True

    kind: Preference = MISSING
    beta: float = above(0)
    """How far a log-ratio counts; of `ipo` the regularisation tau."""
    gamma: float = at_least(0, default=0.0)
    """Margin that `simpo` asks for, on the scale of beta times a mean log-probability."""
    sft_weight: float = at_least(0)
    """Weight of the better answer's negative log-likelihood, a mean over its tokens, beside the preference loss."""
    label_smoothing: float = bounded("[0, 0.5)", default=0.0)
    """Probability that a pair is the wrong way round, for the losses with a sigmoid."""
    chunk_tokens: int = at_least(1, default=1024)
    """Positions whose logits exist at one time."""


def _preference_errors(config: "RunConfig") -> Iterable[str]:
    node = config.objective
    assert isinstance(node, PreferenceConfig)
    if config.num_steps and config.train.batching is not Batching.bucket:
        yield f"train.batching: got {config.train.batching}, expected bucket: objective=preference has a pair a row"
    if node.gamma and node.kind is not Preference.simpo:
        yield f"objective.gamma: got {node.gamma}, expected 0: of the kinds only simpo has a margin, not {node.kind}"
    if node.sft_weight and node.kind is Preference.sft_chosen:
        yield f"objective.sft_weight: got {node.sft_weight}, expected 0: sft_chosen is that term alone"
    if node.label_smoothing and node.kind in (Preference.ipo, Preference.sft_chosen):
        yield f"objective.label_smoothing: got {node.label_smoothing}, expected 0: {node.kind} has no sigmoid"


@dataclass(kw_only=True)
class ControlConfig(ObjectiveConfig):
    takes_pairs: ClassVar[bool] = True
    teaches_control: ClassVar[bool] = True

    control_lr: float = above(0)
    """Peak learning rate of the embedding rows of the two control tokens."""
    chunk_tokens: int = at_least(1, default=1024)
    """Positions whose logits exist at one time."""


def _control_errors(config: "RunConfig") -> Iterable[str]:
    if config.num_steps and config.train.batching is not Batching.bucket:
        yield f"train.batching: got {config.train.batching}, expected bucket: objective=control has a pair a row"
    if config.hardware.strategy == "fsdp2":
        yield "hardware: objective=control trains two rows of the embedding, which fsdp2 would shard; use ddp"


PARTS = [
    Part(
        group="objective",
        name="control",
        schema=ControlConfig,
        target="athlos.objectives.control.ControlObjective",
        summary="better answers behind [POS], worse ones behind [NEG]: both are learned",
        check=_control_errors,
    ),
    Part(
        group="objective",
        name="distill",
        schema=DistillConfig,
        target="athlos.objectives.distillation.DistillObjective",
        summary="cross-entropy plus divergence from a teacher",
        check=_distill_errors,
    ),
    Part(
        group="objective",
        name="distill_topk",
        schema=DistillTopkConfig,
        target="athlos.objectives.distillation.TopkDistillObjective",
        summary="cross-entropy plus divergence from a teacher's most probable tokens",
        check=_distill_errors,
    ),
    Part(
        group="objective",
        name="multi_token",
        schema=MultiTokenConfig,
        target="athlos.objectives.multi_token.MultiTokenObjective",
        summary="cross-entropy of the next token and of later ones",
        check=_multi_token_errors,
    ),
    Part(
        group="objective",
        name="next_token",
        schema=NextTokenConfig,
        target="athlos.objectives.next_token.NextTokenObjective",
        summary="cross-entropy of the next token",
    ),
    Part(
        group="objective",
        name="policy",
        schema=PolicyConfig,
        target="athlos.objectives.policy.PolicyObjective",
        summary="the clipped loss of GRPO and its kin on rollouts",
        check=_policy_errors,
    ),
    Part(
        group="objective",
        name="preference",
        schema=PreferenceConfig,
        target="athlos.objectives.preference.PreferenceObjective",
        summary="better answers against worse ones: DPO, length-normalised DPO, SimPO, IPO",
        check=_preference_errors,
    ),
    Part(
        group="objective",
        name="unigram_smoothing",
        schema=UnigramSmoothingConfig,
        target="athlos.objectives.unigram_smoothing.UnigramSmoothingObjective",
        summary="cross-entropy with a share of the target spread by token frequency",
    ),
    *REWARD_PARTS,
]
