"""Word problems: accuracy of the final answer, and whether the working is in the language of the question.

`acc`, `lc` (language consistency) and `lc_acc` are macro means over languages, with `name/<language>` beside them.
`lc_acc` is the mean of acc * lc of each item, never the product of the means.
"""

from collections.abc import Sequence
from typing import Any

from athlos.config.schema import RunConfig
from athlos.data.records import MathRecord, Record
from athlos.evaluation.asking import ask
from athlos.evaluation.metrics import by_language
from athlos.evaluation.suite import Answerer, SuiteResult
from athlos.text.language import detector, language_consistent
from athlos.text.maths import answers_equal, extract_answer


class MathSuite:
    is_seeded = True

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        evaluation = self.config.eval
        asked = ask(
            self.config,
            answerer,
            records,
            record_type=MathRecord,
            suite="math",
            shots_pool=shots_pool,
            progress=progress,
        )
        found = [extract_answer(answer) for answer in asked.answers]
        golds = [record.answer for record in asked.records]
        judge = detector(evaluation.language_detector, asked.languages)
        acc = [float(answers_equal(one, gold)) for one, gold in zip(found, golds, strict=True)]
        lc = [
            float(language_consistent(answer, language, judge))
            for answer, language in zip(asked.answers, asked.languages, strict=True)
        ]
        values = {
            "acc": acc,
            "lc": lc,
            "lc_acc": [one * other for one, other in zip(acc, lc, strict=True)],
            "runaway_rate": asked.runaway,
            "answer_tokens": asked.num_tokens,
        }
        result = SuiteResult(
            predictions=asked.rows(golds, extracted=found, acc=acc, lc=lc),
            signatures={**asked.signatures, "language_detector": judge.id},
        )
        for name, items in values.items():
            metrics, details = by_language(
                items, asked.languages, name=name, resamples=evaluation.bootstrap, seed=evaluation.bootstrap_seed
            )
            result.metrics.update(metrics)
            result.details.update(details)
        return result


SUITE = MathSuite
