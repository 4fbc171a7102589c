"""Translation at corpus level: BLEU, chrF and TER by sacrebleu (0-100), and the length of the output.

With one pair of languages the names are plain. With several target languages each has `name/<language>`; with several
source languages and one target, `name/<source language>`; the plain name is then their mean: BLEU of mixed languages
would need one tokeniser for all. `length_ratio` = words of the output / words of the reference, characters for
languages written without spaces. `exact` = share of segments equal to the reference, for texts with one translation.
"""

import math
from collections.abc import Sequence
from typing import Any

from athlos.config.schema import RunConfig
from athlos.data.records import ParallelRecord, Record
from athlos.evaluation.asking import ask
from athlos.evaluation.config import TranslationConfig
from athlos.evaluation.metrics import MacroMean
from athlos.evaluation.suite import Answerer, MetricDetail, SuiteResult
from athlos.evaluation.translation import CorpusScores
from athlos.text.language import base_language
from athlos.text.normalisation import UNSPACED_LANGUAGES


class TranslationSuite:
    is_seeded = True

    def __init__(self, config: TranslationConfig, run: RunConfig) -> None:
        self.config, self.run = config, run

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        asked = ask(
            self.run,
            answerer,
            records,
            record_type=ParallelRecord,
            suite="translation",
            shots_pool=shots_pool,
            progress=progress,
        )
        references = [record.target for record in asked.records]
        result = SuiteResult(predictions=asked.rows(references), signatures=asked.signatures)
        for row, record in zip(result.predictions, asked.records, strict=True):
            row["source"] = record.source
        groups = grouped_by(asked.records)
        languages = list(dict.fromkeys(groups))
        exact = [float(answer == gold) for answer, gold in zip(asked.answers, references, strict=True)]
        for row, value in zip(result.predictions, exact, strict=True):
            row["exact"] = value
        for language in languages:
            chosen = [index for index, of_item in enumerate(groups) if of_item == language]
            target = asked.languages[chosen[0]]
            hypotheses, golds = [asked.answers[index] for index in chosen], [references[index] for index in chosen]
            scores = CorpusScores(target, evaluation=self.run.eval)
            scores.update(hypotheses, golds)
            metrics, details = scores.compute()
            metrics["length_ratio"] = length_ratio(" ".join(hypotheses), " ".join(golds), language=target)
            details["length_ratio"] = MetricDetail(n=len(chosen))
            suffix = f"/{language}" if len(languages) > 1 else ""
            result.metrics.update({f"{name}{suffix}": value for name, value in metrics.items()})
            result.details.update({f"{name}{suffix}": detail for name, detail in details.items()})
            result.signatures.update({f"sacrebleu_{name}{suffix}": text for name, text in scores.signatures.items()})
        if len(languages) > 1:
            for name in ("bleu", "chrf", "ter", "length_ratio"):
                result.metrics[name] = math.fsum(result.metrics[f"{name}/{language}"] for language in languages) / len(
                    languages
                )
                result.details[name] = MetricDetail(n=len(asked.records))
        values = {"exact": exact, "runaway_rate": asked.runaway, "answer_tokens": asked.num_tokens}
        for name, items in values.items():
            mean = MacroMean(name, evaluation=self.run.eval)
            mean.update(items, groups)
            result.add(*mean.compute())
        return result


def grouped_by(records: Sequence[ParallelRecord]) -> list[str]:
    """The language that tells a record's pair from the others: the target's, or the source's if all have one target."""
    if len({record.language for record in records}) > 1:
        return [record.language for record in records]
    return [record.source_language for record in records]


def length_ratio(hypotheses: str, references: str, *, language: str) -> float:
    """Words of one text over words of another; characters in languages without spaces; nan for an empty reference."""
    if base_language(language) in UNSPACED_LANGUAGES:
        lengths = [len("".join(text.split())) for text in (hypotheses, references)]
    else:
        lengths = [len(text.split()) for text in (hypotheses, references)]
    return lengths[0] / lengths[1] if lengths[1] else math.nan
