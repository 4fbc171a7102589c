"""Questions whose answers the run's judge scores.

`judged` is the mean score, `judged_supported` the share of scores from the judge's threshold on; macro means over
languages. They end in `@reward_judge` where the training was rewarded by the same judge. What the judge is worth
against people stands in the signatures and is logged.
"""

from collections.abc import Sequence
from typing import Any

from athlos.config.schema import RunConfig
from athlos.data.records import QuestionRecord, Record
from athlos.evaluation.asking import ask
from athlos.evaluation.config import JudgedConfig
from athlos.evaluation.judges import evaluation_judge
from athlos.evaluation.metrics import MacroMean
from athlos.evaluation.suite import Answerer, SuiteResult
from athlos.judging.answers import answer_scores
from athlos.text.prompt_styles import gold_answers


class JudgedSuite:
    is_seeded = True

    def __init__(self, config: JudgedConfig, run: RunConfig) -> None:
        self.config, self.run = config, run

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        asked = ask(
            self.run,
            answerer,
            records,
            record_type=QuestionRecord,
            suite="judged",
            shots_pool=shots_pool,
            progress=progress,
        )
        judge = evaluation_judge(self.run)
        scores = answer_scores(judge.judge, asked.answers, asked.records, premise=self.config.premise)
        result = SuiteResult(
            predictions=asked.rows([gold_answers(record) for record in asked.records], judged=scores),
            signatures={
                **asked.signatures,
                **judge.signatures,
                "judge_premise": self.config.premise.value,
            },
        )
        supported = [float(score >= judge.threshold) for score in scores]
        for name, values in (("judged", scores), ("judged_supported", supported)):
            mean = MacroMean(name, evaluation=self.run.eval)
            mean.update(values, asked.languages)
            metrics, details = mean.compute()
            result.add(
                {f"{key}{judge.suffix}": value for key, value in metrics.items()},
                {f"{key}{judge.suffix}": detail for key, detail in details.items()},
            )
        return result
