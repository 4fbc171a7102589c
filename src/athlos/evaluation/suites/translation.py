"""Translation at corpus level: BLEU, chrF and TER by sacrebleu (0-100), and the length of the output.

With one target language the names are plain. With several each has `name/<language>`, and the plain name is their mean:
BLEU of mixed languages would need one tokeniser for all. `length_ratio` = words of the output / words of the reference,
characters for languages written without spaces.
"""

import math
from collections.abc import Sequence
from typing import Any

from athlos.config.schema import RunConfig
from athlos.data.records import ParallelRecord, Record
from athlos.evaluation.asking import ask
from athlos.evaluation.metrics import by_language
from athlos.evaluation.suite import Answerer, MetricDetail, SuiteResult
from athlos.evaluation.translation import corpus_scores
from athlos.text.language import base_language
from athlos.text.normalisation import UNSPACED_LANGUAGES


class TranslationSuite:
    is_seeded = True

    def __init__(self, config: RunConfig) -> None:
        self.config = config

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        evaluation = self.config.eval
        asked = ask(
            self.config, answerer, records,
            record_type=ParallelRecord, suite="translation", shots_pool=shots_pool, progress=progress,
        )  # fmt: skip
        references = [record.target for record in asked.records]
        result = SuiteResult(predictions=asked.rows(references), signatures=asked.signatures)
        for row, record in zip(result.predictions, asked.records, strict=True):
            row["source"] = record.source
        languages = list(dict.fromkeys(asked.languages))
        for language in languages:
            chosen = [index for index, of_item in enumerate(asked.languages) if of_item == language]
            metrics, details, signatures = corpus_scores(
                [asked.answers[index] for index in chosen],
                [references[index] for index in chosen],
                target_language=language,
                resamples=evaluation.bootstrap,
                seed=evaluation.bootstrap_seed,
            )
            hypotheses = " ".join(asked.answers[index] for index in chosen)
            metrics["length_ratio"] = length_ratio(
                hypotheses, " ".join(references[index] for index in chosen), language=language
            )
            details["length_ratio"] = MetricDetail(n=len(chosen))
            suffix = f"/{language}" if len(languages) > 1 else ""
            result.metrics.update({f"{name}{suffix}": value for name, value in metrics.items()})
            result.details.update({f"{name}{suffix}": detail for name, detail in details.items()})
            result.signatures.update({f"sacrebleu_{name}{suffix}": text for name, text in signatures.items()})
        if len(languages) > 1:
            for name in ("bleu", "chrf", "ter", "length_ratio"):
                result.metrics[name] = math.fsum(result.metrics[f"{name}/{one}"] for one in languages) / len(languages)
                result.details[name] = MetricDetail(n=len(asked.records))
        for name, items in (("runaway_rate", asked.runaway), ("answer_tokens", asked.num_tokens)):
            metrics, details = by_language(
                items, asked.languages, name=name, resamples=evaluation.bootstrap, seed=evaluation.bootstrap_seed
            )
            result.metrics.update(metrics)
            result.details.update(details)
        return result


def length_ratio(hypotheses: str, references: str, *, language: str) -> float:
    """Words of one text over words of another; characters in languages without spaces; nan for an empty reference."""
    if base_language(language) in UNSPACED_LANGUAGES:
        lengths = [len("".join(text.split())) for text in (hypotheses, references)]
    else:
        lengths = [len(text.split()) for text in (hypotheses, references)]
    return lengths[0] / lengths[1] if lengths[1] else math.nan


SUITE = TranslationSuite
