"""Schema of LANG and of the recipes it is compared with, which are values of the same switches."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, ClassVar

from athlos.config.registry import Part
from athlos.config.schema import MISSING, MethodConfig
from athlos.objectives.config import PolicyConfig

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig

# Made by a call because `none` and `global` read better in YAML than what a class may hold.
HintSchedule = Enum(
    "HintSchedule", [(name, name) for name in ("cosine", "linear", "exp", "constant", "steps", "none")], type=str
)
"""How the shown share of a hint falls; `steps` is QuestA's: p0, and half of it in the second half of the run."""
SwitchScope = Enum("SwitchScope", [(name, name) for name in ("none", "global", "group", "language")], type=str)
"""What goes without hints together; `none` never does."""


class HintSelect(StrEnum):
    """Which units are shown: the first ones, or random ones in their order."""

    prefix = "prefix"
    random = "random"


class HintUnit(StrEnum):
    sentence = "sentence"
    token = "token"


class HintLanguage(StrEnum):
    """The language of the hint: the question's, or English."""

    native = "native"
    english = "english"


class SwitchSignal(StrEnum):
    """What a prompt must have: a response of positive advantage, or a right one (all may be right)."""

    pos_adv = "pos_adv"
    any_correct = "any_correct"


class SwitchMeasure(StrEnum):
    """On which prompts: all, or the eighth that gets no hint for this purpose."""

    hinted = "hinted"
    probe = "probe"


class RewardRule(StrEnum):
    """How language consistency, format and accuracy become a reward; see `rewards.py`."""

    conjunction = "conjunction"
    lc_penalty = "lc_penalty"
    m_thinker = "m_thinker"
    weighted = "weighted"
    adamame = "adamame"


class FormatRule(StrEnum):
    """What a well-formed response has: exactly one `</think>`, a closed `\\boxed{}`, or any answer; and an end."""

    think = "think"
    boxed = "boxed"
    answer = "answer"


@dataclass(kw_only=True)
class HintConfig:
    schedule: HintSchedule = MISSING  # type: ignore[valid-type]
    p0: float = MISSING
    """Share of the units shown at the start, in (0, 1]."""
    select: HintSelect = MISSING
    unit: HintUnit = MISSING
    language: HintLanguage = MISSING
    strip_answer: bool = MISSING
    """End the trace before its final answer, so that no hint holds it."""


@dataclass(kw_only=True)
class SwitchConfig:
    scope: SwitchScope = MISSING  # type: ignore[valid-type]
    ema_alpha: float = MISSING
    """Weight of the past in the average, in [0, 1); the average begins at 0 and is not corrected for that."""
    tau: float = MISSING
    """Average from which hints stop, in (0, 1]."""
    t_min: int = MISSING
    """First RL step that may switch, >= 0."""
    signal: SwitchSignal = MISSING
    measure: SwitchMeasure = MISSING


@dataclass(kw_only=True)
class RewardConfig:
    rule: RewardRule = MISSING
    lc: bool = MISSING
    """Whether language consistency counts; so for the next two."""
    format: bool = MISSING
    accuracy: bool = MISSING
    format_rule: FormatRule = MISSING
    min_chars: int = MISSING
    """Fewest characters of a well-formed response, >= 0."""


@dataclass(kw_only=True)
class LangConfig(MethodConfig):
    makes_rollouts: ClassVar[bool] = True

    prompts_per_step: int = MISSING
    """Prompts of an RL step over all devices, >= 1; `train.batch_size` counts responses, so the updates of a step are
    prompts_per_step x objective.group_size / train.batch_size."""
    chunk_prompts: int = MISSING
    """Prompts sampled together on a device, >= 1; the responses of a chunk are judged while the next is sampled."""
    groups: dict[str, list[str]] = MISSING
    """Groups of languages by name; every language of the data stands in one."""
    hint: HintConfig = field(default_factory=HintConfig)
    switch: SwitchConfig = field(default_factory=SwitchConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    teacher: str = ""
    """Whose traces are used, where records name their teacher in `meta.teacher`; empty = all."""
    lens_prompts: int = 0
    """Test prompts, at most, that the logit lens reads after training; 0 = none."""


def num_updates(config: "RunConfig") -> int:
    """Optimizer steps of an RL step."""
    assert isinstance(config.method, LangConfig)
    assert isinstance(config.objective, PolicyConfig)
    return max(1, config.method.prompts_per_step * config.objective.group_size // config.train.batch_size)


def num_policy_steps(config: "RunConfig") -> int:
    """RL steps of a run: T of the schedules."""
    return config.num_steps // num_updates(config)


def _errors(config: "RunConfig") -> Iterable[str]:
    method = config.method
    assert isinstance(method, LangConfig)
    if not isinstance(config.objective, PolicyConfig):
        if config.num_steps or config.dry_run:
            name = type(config.objective).__name__.removesuffix("Config")
            yield f"objective: got {name}, but method=lang learns from rewards: use objective=policy"
    elif config.num_steps:
        yield from _size_errors(config, method, config.objective)
    yield from _range_errors(method)
    yield from _group_errors(method)
    if config.hardware.strategy == "fsdp2":
        yield "hardware.strategy: got 'fsdp2', expected auto or ddp: rollouts need whole weights on each device"


def _size_errors(config: "RunConfig", method: LangConfig, objective: PolicyConfig) -> Iterable[str]:
    batch, size, devices = config.train.batch_size, objective.group_size, config.num_devices
    if method.prompts_per_step < 1 or size < 2 or batch < 1:
        return  # told elsewhere
    if batch % (size * devices):
        yield (
            f"train.batch_size: got {batch}, expected a multiple of objective.group_size x devices = {size * devices}: "
            "a mini-batch holds whole groups"
        )
    if method.prompts_per_step * size % batch:
        yield (
            f"method.prompts_per_step: got {method.prompts_per_step}, expected groups that fill whole mini-batches: "
            f"{method.prompts_per_step} x {size} responses are no multiple of train.batch_size = {batch}"
        )
        return
    updates = num_updates(config)
    if config.num_steps < updates:
        yield f"train.max_steps: got {config.num_steps}, expected at least {updates}, the updates of one RL step"
    if config.train.checkpoint_every % updates:
        yield (
            f"train.checkpoint_every: got {config.train.checkpoint_every}, expected a multiple of {updates}: rollouts "
            "are not stored, so a run resumes at the beginning of an RL step"
        )


def _range_errors(method: LangConfig) -> Iterable[str]:
    hint, switch, reward = method.hint, method.switch, method.reward
    accepted = {
        "prompts_per_step": (method.prompts_per_step, method.prompts_per_step >= 1, "an integer >= 1"),
        "chunk_prompts": (method.chunk_prompts, method.chunk_prompts >= 1, "an integer >= 1"),
        "lens_prompts": (method.lens_prompts, method.lens_prompts >= 0, "an integer >= 0"),
        "hint.p0": (hint.p0, 0 < hint.p0 <= 1, "a number in (0, 1]; hint.schedule=none shows nothing"),
        "switch.ema_alpha": (switch.ema_alpha, 0 <= switch.ema_alpha < 1, "a number in [0, 1)"),
        "switch.tau": (switch.tau, 0 < switch.tau <= 1, "a number in (0, 1]"),
        "switch.t_min": (switch.t_min, switch.t_min >= 0, "an integer >= 0"),
        "reward.min_chars": (reward.min_chars, reward.min_chars >= 0, "an integer >= 0"),
    }
    for key, (value, is_good, expected) in accepted.items():
        if not is_good:
            yield f"method.{key}: got {value}, expected {expected}"
    if not (reward.lc or reward.format or reward.accuracy):
        yield "method.reward: lc, format and accuracy are all false, so every response has the same reward"
    if reward.rule is not RewardRule.conjunction and not reward.accuracy:
        yield f"method.reward.accuracy: got false, but reward.rule={reward.rule.value} counts it"


def _group_errors(method: LangConfig) -> Iterable[str]:
    seen: dict[str, str] = {}
    for group, languages in method.groups.items():
        if not languages:
            yield f"method.groups.{group}: got no languages, expected at least one"
        for language in languages:
            if language in seen:
                yield f"method.groups.{group}: '{language}' is in {seen[language]} too"
            seen[language] = group


PARTS = [
    Part(
        group="method", name="lang", schema=LangConfig, target="athlos.methods.lang.module.LangModule", check=_errors,
        summary="reinforcement learning with hints that fade, and stop for each language group by itself",
    )
]  # fmt: skip
