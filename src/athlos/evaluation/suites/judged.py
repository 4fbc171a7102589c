"""Questions whose answers the run's judge scores.

`judged` is the mean score, `judged_supported` the share of scores from the judge's threshold on; macro means over
languages. They end in `@reward_judge` where the training was rewarded by the same judge. What the judge is worth
against people stands in the signatures and is logged.
"""

import logging
from collections.abc import Sequence
from typing import Any

from athlos.config.schema import RunConfig
from athlos.data.records import QuestionRecord, Record
from athlos.evaluation.asking import ask
from athlos.evaluation.config import JudgedConfig
from athlos.evaluation.metrics import MacroMean
from athlos.evaluation.suite import Answerer, SuiteResult
from athlos.judging.answers import answer_scores
from athlos.judging.config import ScoringJudgeConfig
from athlos.judging.validation import caveat
from athlos.objectives.judged_reward import judges_of
from athlos.stages import StageStore, cache_dir
from athlos.text.prompt_styles import gold_answers

log = logging.getLogger(__name__)

SAME = "@reward_judge"


class JudgedSuite:
    is_seeded = True

    def __init__(self, config: JudgedConfig, run: RunConfig) -> None:
        self.config, self.run = config, run

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        assert isinstance(self.run.judge, ScoringJudgeConfig)
        asked = ask(
            self.run,
            answerer,
            records,
            record_type=QuestionRecord,
            suite="judged",
            shots_pool=shots_pool,
            progress=progress,
        )
        judges = judges_of(self.run, stages=StageStore(cache_dir(self.run.cache_dir)))
        judge = judges.pop("judge")
        scores = answer_scores(judge, asked.answers, asked.records, premise=self.config.premise)
        is_same = any(judge.id == other.id for other in judges.values())
        suffix = SAME if is_same else ""
        log.info("judge %s%s: %s", judge.id, ", the reward's too" if is_same else "", caveat(judge.id))
        result = SuiteResult(
            predictions=asked.rows([gold_answers(record) for record in asked.records], judged=scores),
            signatures={
                **asked.signatures,
                "judge": judge.id,
                **{f"judge_{name}": value for name, value in judge.identity.items() if name != "judge"},
                "judge_agreement": caveat(judge.id),
                "judge_premise": self.config.premise.value,
            },
        )
        supported = [float(score >= self.run.judge.threshold) for score in scores]
        for name, values in (("judged", scores), ("judged_supported", supported)):
            mean = MacroMean(name, evaluation=self.run.eval)
            mean.update(values, asked.languages)
            metrics, details = mean.compute()
            result.add(
                {f"{key}{suffix}": value for key, value in metrics.items()},
                {f"{key}{suffix}": detail for key, detail in details.items()},
            )
        return result
