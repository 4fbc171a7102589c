"""Does the model's confidence in an answer tell whether it is right?

Confidence is exp of the mean log-probability of the generated tokens. Right means `acc` for word problems and `em` for
questions. This suite asks by itself and gives that measure too (as `calibration_accuracy`), so it can stand alone.

With `held_out`, a share of the items, dealt by the hash of the fact that they ask about, is kept for fitting alone: the
temperature (`temperature`, and measures that end in `_scaled`). All measures are of the other items.
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from athlos.config.schema import RunConfig
from athlos.data.fact_variants import FACT
from athlos.data.records import MathRecord, QuestionRecord, Record
from athlos.data.splits import fraction_of
from athlos.errors import ConfigError
from athlos.evaluation.calibration import Bin, defined, fit_temperature, measures, reliability, scaled
from athlos.evaluation.config import CalibrationConfig, QuestionsConfig
from athlos.evaluation.metrics import Confidence, MacroMean
from athlos.evaluation.suite import Answerer, MetricDetail, SuiteResult
from athlos.evaluation.suites.math import MathSuite
from athlos.evaluation.suites.qa import QuestionSuite

CHANGED_BY_SCALING = ("ece_mass", "ece_debiased", "ece_width", "mce", "brier", "mean_confidence")
"""Beginnings of the names of measures that scaling changes; those of the order stay as they are."""


def sequence_confidence(log_prob: float | None, num_tokens: int) -> float:
    """exp(log_prob / num_tokens), in [0, 1]; nan without a token or a log-probability."""
    if log_prob is None or num_tokens == 0:
        return math.nan
    return min(1.0, math.exp(log_prob / num_tokens))  # rounding can leave a log-probability of 1e-8


def is_held_out(record: Record, share: float) -> bool:
    """Whether an item is for fitting: all questions about one fact are, or none."""
    return fraction_of(f"held out: {record.meta.get(FACT, record.identifier)}") < share


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
                "calibration": f"confidence:seq_prob|right:{right}|bins:{self.config.num_bins}"
                + (f"|held_out:{self.config.held_out:g}" if self.config.held_out else ""),
            },
        )
        asked = {record.identifier: record for record in records}
        add_calibration(
            result,
            self.config,
            run=self.run,
            # A further sample of an item has its number behind a #.
            records=[asked.get(row["id"]) or asked[row["id"].rpartition("#")[0]] for row in answered.predictions],
            conf=confidences,
            correct=[row[right] for row in answered.predictions],
        )
        return result


def add_calibration(
    result: SuiteResult,
    config: CalibrationConfig,
    *,
    run: RunConfig,
    records: Sequence[Record],
    conf: Sequence[float],
    correct: Sequence[float],
) -> None:
    """Measure confidences, one an item with its record: of the items that are not held out.

    Adds the measures, the points of the reliability diagram (`reliability/<bin>/<coordinate>`) with its figure, means
    by group, and what temperature scaling makes of it.
    """
    held = np.array([is_held_out(record, config.held_out) for record in records], dtype=bool)
    conf_N, correct_N = np.asarray(conf, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if held.all():
        raise ConfigError(f"eval.suites: held_out={config.held_out:g} leaves none of {len(records)} items to measure")
    measured = Confidence(measures(config.num_bins))
    measured.update(conf_N[~held], correct_N[~held])
    result.add(*measured.compute())
    tested_conf, tested_correct, _ = defined(conf_N[~held], correct_N[~held])
    curves = {"as it is": reliability(tested_conf, tested_correct, num_bins=config.num_bins)}
    if config.held_out:
        fitted_conf, fitted_correct, _ = defined(conf_N[held], correct_N[held])
        temperature = fit_temperature(fitted_conf, fitted_correct)
        result.add({"temperature": temperature}, {"temperature": MetricDetail(n=len(fitted_conf))})
        scaled_conf = scaled(tested_conf, temperature)
        curves["temperature-scaled"] = reliability(scaled_conf, tested_correct, num_bins=config.num_bins)
        for name, measure in measures(config.num_bins).items():
            if name.startswith(CHANGED_BY_SCALING):
                head, at, bins = name.partition("@")
                result.metrics[f"{head}_scaled{at}{bins}"] = measure(scaled_conf, tested_correct)
                result.details[f"{head}_scaled{at}{bins}"] = MetricDetail(n=len(scaled_conf))
    result.metrics |= points(curves)
    result.figures["reliability"] = reliability_figure(curves)
    if config.by:
        groups = [str(record.meta[config.by]) for record, out in zip(records, held, strict=True) if not out]
        for name, values in (("acc_by", correct_N[~held]), ("conf_by", conf_N[~held])):
            mean = MacroMean(name, evaluation=run.eval)
            mean.update(values.tolist(), groups)
            metrics, details = mean.compute()
            for key in metrics:
                if "/" in key:  # the mean over groups of unlike size is nothing that anybody asks for
                    own = key.replace("_by/", "_")
                    result.add({own: metrics[key]}, {own: details[key]})


def points(curves: Mapping[str, Sequence[Bin]]) -> dict[str, float]:
    """The points of reliability diagrams as metrics, so that a record of the run can draw them."""
    return {
        f"reliability{'' if name == 'as it is' else '_scaled'}/{index}/{coordinate}": value
        for name, bins in curves.items()
        for index, point in enumerate(bins)
        for coordinate, value in vars(point).items()
    }


def reliability_figure(curves: Mapping[str, Sequence[Bin]]) -> bytes:
    """PNG of accuracy against confidence, a point a bin, with the interval of its accuracy."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    page = Figure(figsize=(5, 4.6), layout="constrained")
    FigureCanvasAgg(page)
    axes = page.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    for name, bins in curves.items():
        accuracy = np.array([point.accuracy for point in bins])
        ends = [accuracy - [point.low for point in bins], [point.high for point in bins] - accuracy]
        # An interval around half a wrong item more and half a right one more need not hold an accuracy of 0 or 1.
        axes.errorbar([point.confidence for point in bins], accuracy, yerr=np.maximum(ends, 0), marker="o", label=name)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("confidence, mean of a bin of equal count")
    axes.set_ylabel("share right")
    axes.legend(frameon=False)
    stored = io.BytesIO()
    page.savefig(stored, format="png", dpi=110)
    return stored.getvalue()
