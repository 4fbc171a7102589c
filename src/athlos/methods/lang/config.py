"""Schema of LANG and of the recipes it is compared with, which are values of the same switches."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from omegaconf import MISSING

from athlos.config.fields import at_least, bounded
from athlos.config.registry import Part
from athlos.training.rollout_config import RolloutMethodConfig, rollout_errors

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig

# Made by calls because `global`, which stands in YAML, is a keyword.
HintSchedule = StrEnum("HintSchedule", ["cosine", "linear", "exp", "constant", "steps", "none"])
"""How the shown share of a hint falls; `steps` is QuestA's: p0, and half of it in the second half of the run."""
SwitchScope = StrEnum("SwitchScope", ["none", "global", "group", "language"])
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


@dataclass(kw_only=True)
class HintConfig:
    schedule: HintSchedule = MISSING
    p0: float = bounded("(0, 1]", why="; hint.schedule=none shows nothing")
    """Share of the units shown at the start."""
    select: HintSelect = MISSING
    unit: HintUnit = MISSING
    language: HintLanguage = MISSING
    strip_answer: bool = MISSING
    """End the trace before its final answer, so that no hint holds it."""


@dataclass(kw_only=True)
class SwitchConfig:
    scope: SwitchScope = MISSING
    ema_alpha: float = bounded("[0, 1)")
    """Weight of the past in the average; the average begins at 0 and is not corrected for that."""
    tau: float = bounded("(0, 1]")
    """Average from which hints stop."""
    t_min: int = at_least(0)
    """First RL step that may switch."""
    signal: SwitchSignal = MISSING
    measure: SwitchMeasure = MISSING


@dataclass(kw_only=True)
class LangConfig(RolloutMethodConfig):
    version: ClassVar[int] = 3
    evaluation_only: ClassVar[tuple[str, ...]] = ("lens_prompts",)

    groups: dict[str, list[str]] = MISSING
    """Groups of languages by name; every language of the data stands in one."""
    hint: HintConfig = field(default_factory=HintConfig)
    switch: SwitchConfig = field(default_factory=SwitchConfig)
    teacher: str = ""
    """Whose traces are used, where records name their teacher in `meta.teacher`; empty = all."""
    lens_prompts: int = at_least(0, default=0)
    """Test prompts, at most, that the logit lens reads after training; 0 = none."""


def _errors(config: "RunConfig") -> Iterable[str]:
    method = config.method
    assert isinstance(method, LangConfig)
    yield from rollout_errors(config, slug="lang")
    yield from _group_errors(method)


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
        group="method",
        name="lang",
        schema=LangConfig,
        target="athlos.methods.lang.module.LangModule",
        check=_errors,
        summary="reinforcement learning with hints that fade, and stop for each language group by itself",
    )
]
