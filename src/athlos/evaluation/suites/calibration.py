"""Does the model's confidence in an answer tell whether it is right?

Confidence is exp of the mean log-probability of the generated tokens. Right means `acc` for word problems and `em` for
questions. This suite asks by itself and gives that measure too (as `calibration_accuracy`), so it can stand alone.
"""

import math
from collections.abc import Sequence
from typing import Any

from athlos.config.schema import RunConfig
from athlos.data.records import MathRecord, QuestionRecord, Record
from athlos.errors import ConfigError
from athlos.evaluation.calibration import MEASURES, NUM_BINS
from athlos.evaluation.config import CalibrationConfig, QuestionsConfig
from athlos.evaluation.metrics import Confidence
from athlos.evaluation.suite import Answerer, SuiteResult
from athlos.evaluation.suites.math import MathSuite
from athlos.evaluation.suites.qa import QuestionSuite


def sequence_confidence(log_prob: float | None, num_tokens: int) -> float:
    """exp(log_prob / num_tokens), in [0, 1]; nan without a token or a log-probability."""
    if log_prob is None or num_tokens == 0:
        return math.nan
    return min(1.0, math.exp(log_prob / num_tokens))  # rounding can leave a log-probability of 1e-8


class CalibrationSuite:
    is_seeded = True

    def __init__(self, config: CalibrationConfig, run: RunConfig) -> None:
        self.config, self.run = config, run

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        task: MathSuite | QuestionSuite
        if any(isinstance(record, MathRecord) for record in records):
            task, right = MathSuite(self.config, self.run), "acc"
        elif any(isinstance(record, QuestionRecord) for record in records):
            task, right = QuestionSuite(QuestionsConfig(), self.run), "em"
        else:
            raise ConfigError(
                f"eval.suites: calibration needs word problems or questions, data={self.run.data.name} has neither"
            )
        answered = task.evaluate(answerer, records, shots_pool=shots_pool, progress=progress)
        confidences = [sequence_confidence(row["log_prob"], row["num_tokens"]) for row in answered.predictions]
        for row, confidence in zip(answered.predictions, confidences, strict=True):
            row["confidence"] = None if math.isnan(confidence) else confidence
        result = SuiteResult(
            predictions=answered.predictions,
            signatures={
                **{f"calibration_{name}": text for name, text in answered.signatures.items()},
                "calibration": f"confidence:seq_prob|right:{right}|bins:{NUM_BINS}",
            },
        )
        measured = Confidence(MEASURES)
        measured.update(confidences, [row[right] for row in answered.predictions])
        result.add(*measured.compute())
        return result
