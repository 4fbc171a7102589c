"""Word problems: accuracy of the final answer, and whether the working is in the language of the question.

`acc`, `lc` (language consistency) and `lc_acc` are macro means over languages, with `name/<language>` and, for the
groups of `language_groups`, `name/<group>` beside them. `lc_acc` is the mean of acc * lc of each answer, never the
product of the means. With `samples` > 1 an item counts by the mean of its answers. Prompts hold no hints.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from athlos.config.schema import RunConfig
from athlos.data.records import MathRecord, Record
from athlos.evaluation.asking import ask
from athlos.evaluation.config import MathConfig
from athlos.evaluation.macro import POLYMATH_WEIGHTS, mean_of_parts, polymath_score
from athlos.evaluation.metrics import Computed, MacroMean
from athlos.evaluation.suite import Answerer, SuiteResult
from athlos.text.consistency import language_consistent
from athlos.text.language import detector
from athlos.text.maths import answers_equal, extract_answer


class MathSuite:
    is_seeded = True

    def __init__(self, config: MathConfig, run: RunConfig) -> None:
        self.config, self.run = config, run

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        asked = ask(
            self.run,
            answerer,
            records,
            record_type=MathRecord,
            suite="math",
            shots_pool=shots_pool,
            progress=progress,
            samples=self.config.samples,
        )
        extracted = [extract_answer(answer) for answer in asked.answers]
        golds = [record.answer for record in asked.records]
        judge = detector(self.config.language_detector, asked.languages)
        acc = [float(answers_equal(number, gold)) for number, gold in zip(extracted, golds, strict=True)]
        lc = [
            float(language_consistent(answer, language, judge))
            for answer, language in zip(asked.answers, asked.languages, strict=True)
        ]
        values = {
            "acc": acc,
            "lc": lc,
            "lc_acc": [is_right * other for is_right, other in zip(acc, lc, strict=True)],
            "runaway_rate": asked.runaway,
            "answer_tokens": asked.num_tokens,
        }
        result = SuiteResult(
            predictions=asked.rows(golds, extracted=extracted, acc=acc, lc=lc),
            signatures={**asked.signatures, "language_detector": judge.id},
        )
        items = asked.records[:: self.config.samples]
        for name, scores in values.items():
            means = item_means(scores, samples=self.config.samples)
            for computed in self._summaries(name, means, items):
                result.add(*computed)
        return result

    def _summaries(self, name: str, values: Sequence[float], items: Sequence[MathRecord]) -> Iterator[Computed]:
        """Of all languages, of each group, and over the parts of a benchmark that has some."""
        languages = [record.language for record in items]
        yield self._macro(name, values, languages)
        for group, members in self.config.language_groups.items():
            chosen = [index for index, language in enumerate(languages) if language in members]
            metrics, details = self._macro(
                name, [values[index] for index in chosen], [languages[index] for index in chosen]
            )
            yield {f"{name}/{group}": metrics[name]}, {f"{name}/{group}": details[name]}
        if name in ("acc", "lc_acc"):
            yield _over_parts(name, values, items), {}

    def _macro(self, name: str, values: Sequence[float], groups: Sequence[str]) -> Computed:
        mean = MacroMean(name, evaluation=self.run.eval)
        mean.update(values, groups)
        return mean.compute()


def item_means(values: Sequence[float], *, samples: int) -> list[float]:
    """The mean of each item over its answers, which stand together."""
    return [float(mean) for mean in np.asarray(values, dtype=np.float64).reshape(-1, samples).mean(axis=1)]


def _over_parts(name: str, values: Sequence[float], items: Sequence[MathRecord]) -> dict[str, float]:
    """`<name>_macro` where items have several sources (MMATH), `<name>_weighted` where they have PolyMath's levels.

    Each is the mean over languages of what a language has.
    """
    rows: Mapping[str, list[tuple[float, MathRecord]]] = {record.language: [] for record in items}
    for value, record in zip(values, items, strict=True):
        rows[record.language].append((value, record))
    metrics: dict[str, float] = {}
    if len({record.meta.get("source") for record in items}) > 1:
        means = [
            mean_of_parts([value for value, _ in group], [str(record.meta.get("source")) for _, record in group])
            for group in rows.values()
        ]
        metrics[f"{name}_macro"] = float(np.mean(means))
    if items and {record.meta.get("level") for record in items} == set(POLYMATH_WEIGHTS):
        scores = []
        for group in rows.values():
            by_level: dict[str, list[float]] = {}
            for value, record in group:
                by_level.setdefault(record.meta["level"], []).append(value)
            scores.append(polymath_score({level: float(np.mean(some)) for level, some in by_level.items()}))
        metrics[f"{name}_weighted"] = float(np.mean(scores))
    return metrics
