"""Schemas of the rewards. No torch."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, is_dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from athlos.config.fields import at_least
from athlos.config.registry import Part
from athlos.config.schema import JudgeConfig, RewardConfig
from athlos.errors import did_you_mean
from athlos.judging.answers import Premise
from athlos.judging.config import ScoringJudgeConfig, judge_errors, scoring_values

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig


class RewardRule(StrEnum):
    """How language consistency, format and accuracy become a reward; see `rewards.group_rewards`."""

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
class NoRewardConfig(RewardConfig):
    """Nothing is scored."""


@dataclass(kw_only=True)
class ReasoningRewardConfig(RewardConfig):
    """Is a worked answer in the language of the question, well formed, right?"""

    rule: RewardRule = MISSING
    lc: bool = MISSING
    """Whether language consistency counts; so for the next two."""
    format: bool = MISSING
    accuracy: bool = MISSING
    format_rule: FormatRule = MISSING
    min_chars: int = at_least(0)
    """Fewest characters of a well-formed response."""

    def errors(self, path: str) -> Iterator[str]:
        if not (self.lc or self.format or self.accuracy):
            yield f"{path}: lc, format and accuracy are all false, so every response has the same reward"
        if self.rule is not RewardRule.conjunction and not self.accuracy:
            yield f"{path}.accuracy: got false, but {path}.rule={self.rule.value} counts it"


@dataclass(kw_only=True)
class ExactMatchConfig(RewardConfig):
    """1 for an answer that matches a gold one, else 0."""


@dataclass(kw_only=True)
class JudgeRewardConfig(RewardConfig):
    """What a judge says of an answer."""

    judge: JudgeConfig = MISSING
    """A choice of the group `judge`, another than the run's: `judge@reward.judge=nli`."""
    premise: Premise = Premise.answers
    """What must support an answer: one of the gold answers, or the passages."""

    def errors(self, path: str) -> Iterator[str]:
        if not isinstance(self.judge, ScoringJudgeConfig):
            yield f"{path}.judge: got none, expected one: judge@{path}.judge=<judge>"
        yield from judge_errors(self.judge, path=f"{path}.judge")


@dataclass(kw_only=True)
class SumConfig(RewardConfig):
    """A weighted sum of rewards."""

    parts: dict[str, RewardConfig] = MISSING
    """Rewards by a name of one's own, which their curve `train/reward/<name>` has; chosen by
    `defaults: [/reward/exact_match@parts.em]` in YAML or `+reward@reward.parts.em=exact_match` on the command line."""
    weights: dict[str, float] = field(default_factory=dict)
    """Name of a part -> its factor; 1 where none is named."""

    def errors(self, path: str) -> Iterator[str]:
        if not self.parts:
            yield f"{path}.parts: got none, expected at least one: +reward@{path}.parts.<name>=<reward>"
        for name, part in self.parts.items():
            if type(part) in (RewardConfig, NoRewardConfig):
                yield f"{path}.parts.{name}: got no reward, expected one: +reward@{path}.parts.{name}=<reward>"
            yield from part.errors(f"{path}.parts.{name}")
        for name, weight in self.weights.items():
            if name not in self.parts:
                near = did_you_mean(name, list(self.parts))
                yield f"{path}.weights.{name}: no part has this name, expected one of {', '.join(self.parts)}{near}"
            if weight == 0 or math.isinf(weight):
                yield f"{path}.weights.{name}: got {weight}, expected a finite number other than 0"


TRAINS = ("method", "construct", "objective", "reward")
"""Groups of a run whose judges decide what is trained: on what is rewarded, chosen or filtered by them."""


def training_judges(run: "RunConfig") -> Iterator[tuple[str, ScoringJudgeConfig]]:
    """(path, config) of the judges that the training asks, at any depth of the groups of `TRAINS`."""
    for group in TRAINS:
        yield from _judges_in(vars(run)[group], path=group)


def _judges_in(config: Any, *, path: str) -> Iterator[tuple[str, ScoringJudgeConfig]]:
    if isinstance(config, ScoringJudgeConfig):
        yield path, config
    elif is_dataclass(config) or isinstance(config, dict):
        for name, value in (config if isinstance(config, dict) else vars(config)).items():
            yield from _judges_in(value, path=f"{path}.{name}")


def _same_judge_errors(config: "RunConfig") -> Iterator[str]:
    if not isinstance(config.judge, ScoringJudgeConfig) or config.judge.allow_same:
        return
    for path, judge in training_judges(config):
        if scoring_values(judge) == scoring_values(config.judge):
            yield same_judge(path)


def same_judge(path: str) -> str:
    """Why one judge at both places is refused, and what allows it."""
    return (
        f"{path}: is the run's judge, so the evaluation would measure what the training was rewarded for; choose "
        "another judge, or judge.allow_same=true, and the metrics say so"
    )


def _errors(config: "RunConfig") -> Iterable[str]:
    is_none = type(config.reward) is NoRewardConfig
    if (config.num_steps or config.dry_run) and is_none and config.method.makes_rollouts:
        yield "reward: got none, but this method learns from its responses' rewards; choose one of `athlos list parts`"
    if config.num_steps and not is_none and not config.method.makes_rollouts:
        yield "reward: this method makes no responses to score; use reward=none"
    yield from reward_errors(config)


def reward_errors(config: "RunConfig") -> Iterator[str]:
    """One line for each contradiction within a reward, and for a judge that is the run's."""
    yield from config.reward.errors("reward")
    yield from _same_judge_errors(config)


REWARD_PARTS = [
    Part(
        group="reward",
        name="none",
        schema=NoRewardConfig,
        target="athlos.objectives.rewards.NoReward",
        summary="nothing is scored: for methods without rollouts",
        check=_errors,
    ),
    Part(
        group="reward",
        name="reasoning",
        schema=ReasoningRewardConfig,
        target="athlos.objectives.rewards.ReasoningReward",
        summary="language, format and accuracy of a worked answer, by one of several rules",
        check=_errors,
    ),
    Part(
        group="reward",
        name="exact_match",
        schema=ExactMatchConfig,
        target="athlos.objectives.rewards.ExactMatchReward",
        summary="1 for an answer that matches a gold one",
        check=_errors,
    ),
    Part(
        group="reward",
        name="judge",
        schema=JudgeRewardConfig,
        target="athlos.objectives.judged_reward.JudgeReward",
        summary="what a judge says of an answer",
        check=_errors,
    ),
    Part(
        group="reward",
        name="sum",
        schema=SumConfig,
        target="athlos.objectives.rewards.SumReward",
        summary="a weighted sum of rewards",
        check=_errors,
    ),
]
