"""Translation with a memory, measured: by bucket of the best match, against zero-shot and against the match itself.

Names end in `_zero` (the same model without the memory), `_copy` (the target of the best match, TM-copy) or the name of
a system whose translations stand in the data, and in `@b0` .. `@b4` within a bucket: systems are compared within one,
since sentences with a better match are easier.
`chrf_gain_zero` is a difference with the interval of a paired bootstrap, `chrf_p_zero` its p value.
"""

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from scipy import stats

from athlos.config.schema import RunConfig
from athlos.data.records import ParallelRecord, Record
from athlos.errors import DataError
from athlos.evaluation.asking import Asked, ask
from athlos.evaluation.metrics import MacroMean
from athlos.evaluation.sharding import in_shares
from athlos.evaluation.suite import Answerer, MetricDetail, SuiteResult
from athlos.evaluation.suites.translation import length_ratio
from athlos.evaluation.translation import CorpusScores, paired_bootstrap
from athlos.methods.tm import scores
from athlos.methods.tm.config import StoredTranslationsConfig, TmConfig, TmSuiteConfig
from athlos.methods.tm.memory import is_counted, normalised
from athlos.methods.tm.module import Matched, TmModule
from athlos.text.prompts import prompt_hash, read_answer, style_name

log = logging.getLogger(__name__)

COMPARED = ("bleu", "chrf")


class TmSuite:
    is_seeded = True

    def __init__(self, config: TmSuiteConfig, run: RunConfig) -> None:
        self.config, self.run = config, run

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        assert isinstance(answerer, TmModule)
        chosen, buckets = self._chosen(answerer, [record for record in records if isinstance(record, ParallelRecord)])
        run = dataclasses.replace(self.run, eval=dataclasses.replace(self.run.eval, shots=0))
        asked = ask(run, answerer, chosen, record_type=ParallelRecord, suite="tm", shots_pool=(), progress=progress)
        matched = answerer.matched(asked.records)
        systems = {"": asked.answers, "_copy": [_copied(matches) for matches in matched]}
        if self.config.zero_shot:
            systems["_zero"] = self._zero_shot(answerer, asked)
        for name, field in self.config.systems.items():
            systems[f"_{name}"] = [_stored(record, field) for record in asked.records]
        result = SuiteResult(signatures=self._signatures(asked, method=answerer.method))
        result.predictions = asked.rows([record.target for record in asked.records], **self._of_items(asked, matched))
        for row, record, prediction, bucket in zip(
            result.predictions, asked.records, asked.predictions, buckets, strict=True
        ):
            row |= {"prompt": prediction.trace[-1]["prompt"], "source": record.source, "bucket": bucket}
        for suffix, outputs in systems.items():
            for row, output in zip(result.predictions, outputs, strict=True):
                row[f"prediction{suffix}"] = output
            self._score(result, suffix, outputs, asked.records, buckets)
        for other in [suffix for suffix in systems if suffix]:
            self._compare(result, other, systems, asked.records)
        self._add_terms(result, answerer, asked)
        if num_empty := sum(not answer for answer in asked.answers):
            log.warning("tm: %d of %d answers are empty", num_empty, len(asked.answers))
        return result

    def _chosen(self, module: TmModule, records: Sequence[ParallelRecord]) -> tuple[list[ParallelRecord], list[int]]:
        """The sentences that are asked, each source once, and their buckets."""
        method = module.method
        unique: dict[str, ParallelRecord] = {}
        for record in records:
            if is_counted(record.source, method=method):
                unique.setdefault(normalised(record.source), record)
        if not unique:
            raise DataError(f"tm: none of {len(records)} sentences has {_lengths(method)} words")
        if len({(record.source_language, record.language) for record in unique.values()}) > 1:
            raise DataError("tm: sentences of several language pairs; run each pair by itself")
        candidates = list(unique.values())
        buckets = [_bucket(matches) for matches in module.matched(candidates)]
        taken = [0] * len(scores.BUCKETS)
        kept: list[ParallelRecord] = []
        for record, bucket in zip(candidates, buckets, strict=True):
            taken[bucket] += 1
            if not self.config.per_bucket or taken[bucket] <= self.config.per_bucket:
                kept.append(record)
        by_record = {record.identifier: bucket for record, bucket in zip(candidates, buckets, strict=True)}
        return kept, [by_record[record.identifier] for record in kept]

    def _zero_shot(self, module: TmModule, asked: Asked[ParallelRecord]) -> list[str]:
        predictions = in_shares(asked.requests, module.zero_shot)
        style = style_name(ParallelRecord, self.run.prompt_style)
        return [
            read_answer(prediction.text, record, style=style)
            for prediction, record in zip(predictions, asked.records, strict=True)
        ]

    def _signatures(self, asked: Asked[ParallelRecord], *, method: TmConfig) -> dict[str, str]:
        prompts = prompt_hash(prediction.trace[-1]["prompt"] for prediction in asked.predictions)
        return asked.signatures | {
            "tm_prompt": f"{method.template}|k:{method.k}|{method.order}",
            "tm_prompt_hash": prompts,
        }

    def _of_items(self, asked: Asked[ParallelRecord], matched: Sequence[Matched]) -> dict[str, list[float]]:
        """The measures of single sentences, by name."""
        values_by_name: dict[str, list[float]] = {}
        for answer, record, matches in zip(asked.answers, asked.records, matched, strict=True):
            output, reference, memory = (
                scores.words_of(text, record.language) for text in (answer, record.target, _copied(matches))
            )
            values = {
                "exact": float(answer == record.target),
                "copy_rate": scores.copy_rate(output, memory),
                "changed_f1": scores.changed_f1(output, reference, memory),
                "placeholder_acc": scores.placeholder_acc(answer, record.source),
                "negation_edit": scores.negation_edit(answer, record.target, language=record.language),
                "number_edit": scores.number_edit(answer, record.target),
                "empty_rate": float(not answer),
                "best_fms": matches.best.score if matches.best else 0.0,
            }
            for name, value in values.items():
                values_by_name.setdefault(name, []).append(value)
        return values_by_name | {"runaway_rate": asked.runaway}

    def _score(
        self,
        result: SuiteResult,
        suffix: str,
        outputs: Sequence[str],
        records: Sequence[ParallelRecord],
        buckets: Sequence[int],
    ) -> None:
        """Corpus scores over all sentences and within each bucket; for our own system the means of items too."""
        places = {"": list(range(len(outputs)))}
        for number in range(len(scores.BUCKETS)):
            places[f"@b{number}"] = [place for place, bucket in enumerate(buckets) if bucket == number]
        for where, of_bucket in places.items():
            name = f"{suffix}{where}"
            hypotheses, references = ([texts[place] for place in of_bucket] for texts in (outputs, _targets(records)))
            self._add_corpus(result, name, hypotheses, references, language=records[0].language)
            if suffix:
                continue
            rows = [result.predictions[place] for place in of_bucket]
            for measure in (
                "exact",
                "copy_rate",
                "changed_f1",
                "placeholder_acc",
                "negation_edit",
                "number_edit",
                "empty_rate",
                "runaway_rate",
            ):
                values = [math.nan if row[measure] is None else row[measure] for row in rows]
                mean = MacroMean(f"{measure}{where}", evaluation=self.run.eval)
                mean.update(values, ["all"] * len(values))
                metrics, details = mean.compute()
                kept = f"{measure}{where}"
                result.add({kept: metrics[kept]}, {kept: details[kept]})

    def _add_corpus(
        self, result: SuiteResult, name: str, hypotheses: Sequence[str], references: Sequence[str], *, language: str
    ) -> None:
        """`bleu`, `chrf`, `ter` and `length_ratio` under a suffix; nan for no sentences, with the count 0."""
        if not references:
            for metric in ("bleu", "chrf", "ter", "length_ratio"):
                result.add({f"{metric}{name}": math.nan}, {f"{metric}{name}": MetricDetail(n=0)})
            return
        corpus = CorpusScores(language, evaluation=self.run.eval)
        corpus.update(hypotheses, references)
        metrics, details = corpus.compute()
        metrics["length_ratio"] = length_ratio(" ".join(hypotheses), " ".join(references), language=language)
        details["length_ratio"] = MetricDetail(n=len(references))
        result.add(
            {f"{metric}{name}": value for metric, value in metrics.items()},
            {f"{metric}{name}": detail for metric, detail in details.items()},
        )
        result.signatures |= {f"sacrebleu_{metric}": text for metric, text in corpus.signatures.items()}

    def _compare(
        self,
        result: SuiteResult,
        other: str,
        systems: Mapping[str, Sequence[str]],
        records: Sequence[ParallelRecord],
    ) -> None:
        """The gain over another system: paired over all sentences, and how it goes with the bucket."""
        for metric in COMPARED if self.run.eval.bootstrap else ():
            paired = paired_bootstrap(
                metric,
                systems[""],
                systems[other],
                _targets(records),
                target_language=records[0].language,
                evaluation=self.run.eval,
            )
            result.add(
                {f"{metric}_gain{other}": paired.difference, f"{metric}_p{other}": paired.p_value},
                {
                    f"{metric}_gain{other}": MetricDetail(n=len(records), low=paired.low, high=paired.high),
                    f"{metric}_p{other}": MetricDetail(n=len(records)),
                },
            )
        gains = []
        for number in range(len(scores.BUCKETS)):
            gain = result.metrics[f"chrf@b{number}"] - result.metrics[f"chrf{other}@b{number}"]
            detail = MetricDetail(n=result.details[f"chrf@b{number}"].n)
            result.add({f"chrf_gain{other}@b{number}": gain}, {f"chrf_gain{other}@b{number}": detail})
            gains += [] if math.isnan(gain) else [(number, gain)]
        differs = len(gains) > 2 and len({gain for _, gain in gains}) > 1
        rho = float(stats.spearmanr(*zip(*gains, strict=True)).statistic) if differs else math.nan
        result.add({f"gain_spearman{other}": rho}, {f"gain_spearman{other}": MetricDetail(n=len(gains))})

    def _add_terms(self, result: SuiteResult, module: TmModule, asked: Asked[ParallelRecord]) -> None:
        """Over all occurrences of terms, not over sentences."""
        terms = module.memory.terms
        hits = [
            scores.term_hits(record.source, answer, terms=terms)
            for record, answer in zip(asked.records, asked.answers, strict=True)
        ]
        total = sum(count for _, count in hits)
        value = sum(right for right, _ in hits) / total if total else math.nan
        result.add({"term_acc": value}, {"term_acc": MetricDetail(n=total)})


def _copied(matches: Matched) -> str:
    """TM-copy: the target of the best match; nothing where nothing matches."""
    return matches.best.pair.target if matches.best else ""


def _bucket(matches: Matched) -> int:
    return scores.bucket_of(matches.best.score if matches.best else 0.0)


def _targets(records: Sequence[ParallelRecord]) -> list[str]:
    return [record.target for record in records]


def _lengths(method: TmConfig) -> str:
    return f"{method.pairs.min_words} to {method.pairs.max_words}"


class StoredTranslationsSuite:
    """Scores the outputs of systems that stand in the data; the signature of each score goes with it."""

    is_seeded = False

    def __init__(self, config: StoredTranslationsConfig, run: RunConfig) -> None:
        self.config, self.run = config, run

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        segments = [record for record in records if isinstance(record, ParallelRecord)]
        if not segments:
            raise DataError("stored_translations: the data hold no parallel text")
        rows = [
            {"id": record.identifier, "language": record.language, "source": record.source, "gold": record.target}
            for record in segments
        ]
        result = SuiteResult(predictions=rows)
        for name, field in self.config.systems.items():
            outputs = [_stored(record, field) for record in segments]
            corpus = CorpusScores(segments[0].language, evaluation=self.run.eval)
            corpus.update(outputs, _targets(segments))
            metrics, details = corpus.compute()
            result.add(
                {f"{metric}_{name}": value for metric, value in metrics.items()},
                {f"{metric}_{name}": detail for metric, detail in details.items()},
            )
            result.signatures |= {f"sacrebleu_{metric}": text for metric, text in corpus.signatures.items()}
            for row, output in zip(rows, outputs, strict=True):
                row[f"prediction_{name}"] = output
        return result


def _stored(record: ParallelRecord, field: str) -> str:
    if not isinstance(record.meta.get(field), str):
        raise DataError(f"record '{record.identifier}': no text in this field", field=field)
    return str(record.meta[field])
