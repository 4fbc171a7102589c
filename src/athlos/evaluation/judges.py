"""The judge of an evaluation, and what must be said of it beside every number that it gave."""

import logging
from dataclasses import dataclass

from athlos.config.schema import RunConfig
from athlos.judging.config import ScoringJudgeConfig
from athlos.judging.interface import Judge
from athlos.judging.validation import caveat
from athlos.objectives.judged_reward import judges_of
from athlos.stages import StageStore, cache_dir

log = logging.getLogger(__name__)

SAME = "@reward_judge"


@dataclass(frozen=True, kw_only=True)
class EvaluationJudge:
    judge: Judge
    threshold: float
    suffix: str
    """`@reward_judge`, which ends its metrics, where the training asked the same judge; else nothing."""
    signatures: dict[str, str]


def evaluation_judge(run: RunConfig) -> EvaluationJudge:
    """The run's judge, whose worth against people is logged; the config's checks have seen that there is one."""
    assert isinstance(run.judge, ScoringJudgeConfig)
    judges = judges_of(run, stages=StageStore(cache_dir(run.cache_dir)))
    judge = judges.pop("judge")
    is_same = any(judge.id == other.id for other in judges.values())
    log.info("judge %s%s: %s", judge.id, ", the reward's too" if is_same else "", caveat(judge.id))
    return EvaluationJudge(
        judge=judge,
        threshold=run.judge.threshold,
        suffix=SAME if is_same else "",
        signatures={
            "judge": judge.id,
            **{f"judge_{name}": value for name, value in judge.identity.items() if name != "judge"},
            "judge_agreement": caveat(judge.id),
        },
    )
