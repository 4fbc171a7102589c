"""Suites of DaPT: answers to questions of several steps, and two studies of retrieval alone, part A and part B."""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from hydra.utils import get_class

from athlos.config.schema import RunConfig
from athlos.data.records import QuestionRecord, Record
from athlos.data.source import Source, build_source
from athlos.data.sources.lab_chains import LabChainsConfig
from athlos.errors import ConfigError, DataError
from athlos.evaluation.metrics import MacroMean
from athlos.evaluation.suite import Answerer, MetricDetail, SuiteResult
from athlos.evaluation.suites.qa import QuestionSuite
from athlos.generation.interface import Request
from athlos.methods.dapt.components import damaged, with_lost_words
from athlos.methods.dapt.config import (
    BilingualRecallConfig,
    ChainSuiteConfig,
    RetrievalStudyConfig,
    StepRecallConfig,
    TranslatedSuiteConfig,
)
from athlos.methods.dapt.construct import REASONS, english_row
from athlos.methods.dapt.measures import bilingual_gain
from athlos.methods.dapt.prompts import ENGLISH
from athlos.methods.dapt.recall import check_equal_k, crossing, filled_steps, recall, shared_out, step_gold
from athlos.retrieval.building import build_index
from athlos.retrieval.corpora import gold_ids
from athlos.retrieval.hybrid import reciprocal_rank_fusion
from athlos.retrieval.interface import Index, Passage
from athlos.text.normalisation import default_normaliser, normalise
from athlos.text.scripts import script_of
from athlos.training.pipeline_module import PipelineModule


class ChainSuite(QuestionSuite):
    """`em_hop<n>` is the mean over the questions of n hops in all languages, by `meta.hops` of a record.

    `script_match` is the share of the answers with letters that are written as a gold answer is: one in English to a
    question in Chinese is not. In the lab the first language plays the part of English in `em_gap`.
    """

    def __init__(self, config: ChainSuiteConfig, run: RunConfig) -> None:
        super().__init__(config, run)
        self.normaliser = config.norm or None

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        questions = {
            (record.language, record.identifier): record for record in records if isinstance(record, QuestionRecord)
        }
        for record in questions.values():
            check_golds(record, normaliser=self.normaliser)
        result = super().evaluate(answerer, records, shots_pool=shots_pool, progress=progress)
        asked = [(row, questions[row["language"], row["id"]]) for row in result.predictions]
        written = [
            (in_script_of(row["prediction"], record.answers), record.language)
            for row, record in asked
            if scripts(row["prediction"]) and any(map(scripts, record.answers))
        ]
        if written:
            mean = MacroMean("script_match", evaluation=self.run.eval)
            mean.update([float(is_same) for is_same, _ in written], [language for _, language in written])
            result.add(*mean.compute())
        by_hops: dict[str, list[float]] = defaultdict(list)
        for row, record in asked:
            if "hops" in record.meta:
                by_hops[str(record.meta["hops"])[0]].append(row["em"])
        for number, right in sorted(by_hops.items()):
            result.metrics[f"em_hop{number}"] = float(np.mean(right))
            result.details[f"em_hop{number}"] = MetricDetail(n=len(right))
        if isinstance(self.run.data, LabChainsConfig):
            pivot = self.run.data.world.languages[0]
            others = [
                value for name, value in result.metrics.items() if name.startswith("em/") and name != f"em/{pivot}"
            ]
            result.metrics["em_gap"] = float(result.metrics[f"em/{pivot}"] - np.mean(others))
        return result


def check_golds(record: QuestionRecord, *, normaliser: str | None) -> None:
    """`DataError` for a gold answer of which its normaliser leaves nothing, as of "The The": silence would match it."""
    name = normaliser or default_normaliser(record.language)
    for gold in record.answers:
        if not normalise(gold, normaliser=name, language=record.language).strip():
            raise DataError(
                f"question '{record.identifier}': the normaliser {name} leaves nothing of the gold answer '{gold}'"
            )


def scripts(text: str) -> set[str]:
    return {script for letter in text if (script := script_of(letter)) is not None}


def in_script_of(answer: str, golds: Sequence[str]) -> bool:
    """Whether all letters of an answer are of scripts that one of the gold answers has."""
    return any(scripts(answer) <= scripts(gold) for gold in golds)


class TranslatedSuite:
    """`kept_share`, and `rejected/<reason>` of the questions; the predictions are rows of data=translated_questions.

    Behind the translations stand the English questions that were kept, with their passages.
    """

    is_seeded = False

    def __init__(self, config: TranslatedSuiteConfig, run: RunConfig) -> None:
        self.config, self.run = config, run

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        questions = [record for record in records if isinstance(record, QuestionRecord) and record.answers]
        requests = [
            Request(identifier=record.identifier, prompt=record.question, record=record) for record in questions
        ]
        if not requests:
            raise DataError(f"eval.suites: translated has no question with an answer, among {len(records)} records")
        rows = [json.loads(prediction.text) for prediction in answerer.answer(requests, progress=progress)]
        reasons = Counter(row.get("rejected", "") for row in rows)
        kept = [record for record, row in zip(questions, rows, strict=True) if "rejected" not in row]
        result = SuiteResult(predictions=[*rows, *map(english_row, kept)])
        shares = {"kept_share": reasons[""], **{f"rejected/{reason}": reasons[reason] for reason in REASONS}}
        for name, count in shares.items():
            result.metrics[name] = count / len(rows)
            result.details[name] = MetricDetail(n=len(rows))
        return result


class _RetrievalStudy:
    """What the studies of retrieval share: an index over the passages of a source, and searches in it."""

    is_seeded = True

    def __init__(self, config: RetrievalStudyConfig, run: RunConfig) -> None:
        self.config, self.run = config, run

    def index(self, answerer: Answerer, source: Source[Any]) -> Index:
        assert isinstance(answerer, PipelineModule)  # the methods that bring these suites are pipelines
        return build_index(self.run, source=source, stages=answerer.context.stages)

    def hits(self, index: Index, queries: Sequence[str], *, languages: Sequence[str]) -> list[list[Passage]]:
        """The passages of each query, in order; queries of one language are searched together."""
        hits_by_place: dict[int, list[Passage]] = {}
        for language in dict.fromkeys(languages):
            places = [place for place, own in enumerate(languages) if own == language]
            hits = index.search([queries[place] for place in places], k=max(self.config.ks), language=language)
            hits_by_place |= dict(zip(places, hits, strict=True))
        return [hits_by_place[place] for place in range(len(queries))]

    def found(self, index: Index, queries: Sequence[str], *, languages: Sequence[str]) -> list[list[str]]:
        hits = self.hits(index, queries, languages=languages)
        return [[hit.identifier for hit in of_query] for of_query in hits]

    def rng(self, record: QuestionRecord, *purpose: object) -> random.Random:
        return random.Random("/".join(map(str, (self.run.seed, record.identifier, *purpose))))

    def add(self, result: SuiteResult, name: str, values: Sequence[float], groups: Sequence[str]) -> None:
        mean = MacroMean(name, evaluation=self.run.eval)
        mean.update(values, groups)
        result.add(*mean.compute())


class StepRecallSuite(_RetrievalStudy):
    """`recall@k` of whole questions, and with gold steps three ways of asking by sub-questions.

    `_sub`: each sub-question looks for its own passage. `_shared`: the sub-questions of a question share its k
    passages, `_shared_p<share>` after damage: a sub-question is left out, or loses a third of its words.
    """

    config: StepRecallConfig

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        result = SuiteResult()
        self._study(result, "", records, self.index(answerer, build_source(self.run)))
        limit = self.run.data.limit_test
        for ending, config in self.config.pools.items():
            source: Source[Any] = get_class(config._target_)(config)
            of_pool = list(source.records(str(config.test_split), limit=limit))
            self._study(result, f"_{ending}", of_pool, self.index(answerer, source))
        return result

    def _study(self, result: SuiteResult, ending: str, records: Sequence[Record], index: Index) -> None:
        """Questions without a gold passage look for nothing and are left out."""
        asked = [record for record in records if isinstance(record, QuestionRecord) and gold_ids(record)]
        if not asked:
            raise DataError(
                f"eval.suites: step_recall has no question with a gold passage, among {len(records)} records"
            )
        languages = [record.language for record in asked]
        gold = [gold_ids(record) for record in asked]
        whole = self.found(index, [record.question for record in asked], languages=languages)
        self._recalls(result, ending, whole, gold, languages)
        stepped = [record for record in asked if record.steps and all(step.supporting for step in record.steps)]
        if not ending and len(stepped) == len(asked):
            self._steps(result, stepped, index, whole)

    def _steps(
        self,
        result: SuiteResult,
        records: Sequence[QuestionRecord],
        index: Index,
        whole: Sequence[Sequence[str]],
    ) -> None:
        languages = [record.language for record in records]
        queries = [filled_steps(record) for record in records]
        lists = self._lists(index, queries, languages=languages)
        places = [place for record in records for place in step_gold(record)]
        flat = [names for of_question in lists for names in of_question]
        of_steps = _repeated(languages, lists)
        self._recalls(result, "_sub", flat, [[place] for place in places], of_steps)
        gold = [gold_ids(record) for record in records]
        for share in self.config.noise:
            ending = f"_shared_p{share:g}" if share else "_shared"
            noisy = queries
            if share:
                noisy = [
                    damaged(steps, share, self.rng(record)) or [record.question]
                    for steps, record in zip(queries, records, strict=True)
                ]
            shared_lists = self._lists(index, noisy, languages=languages) if share else lists
            for k in self.config.ks:
                read = [shared_out(of_question, k=k) for of_question in shared_lists]
                budgets = {"whole": most(names[:k] for names in whole), ending.strip("_"): most(read)}
                check_equal_k(budgets, allow_unequal_k=self.config.allow_unequal_k)
                values = [recall(names, of_gold) for names, of_gold in zip(read, gold, strict=True)]
                self.add(result, f"recall@{k}{ending}", values, languages)

    def _lists(
        self, index: Index, queries: Sequence[Sequence[str]], *, languages: Sequence[str]
    ) -> list[list[list[str]]]:
        of_queries = _repeated(languages, queries)
        flat = iter(
            self.found(index, [query for of_question in queries for query in of_question], languages=of_queries)
        )
        return [[next(flat) for _ in of_question] for of_question in queries]

    def _recalls(
        self,
        result: SuiteResult,
        ending: str,
        lists: Sequence[Sequence[str]],
        gold: Sequence[Sequence[str]],
        languages: Sequence[str],
    ) -> None:
        for k in self.config.ks:
            values = [recall(names[:k], of_gold) for names, of_gold in zip(lists, gold, strict=True)]
            self.add(result, f"recall@{k}{ending}", values, languages)
            every = [float(value == 1) for value in values]
            self.add(result, f"all_gold@{k}{ending}", every, languages)


class BilingualRecallSuite(_RetrievalStudy):
    """`recall@k_src`, and over noise of the translator `recall@k_en_p<share>`, `_both_p<share>` and `gain@k_p<share>`.

    k passages are read in each arm; those of both come from two lists of k by reciprocal rank. Noise takes a share of
    the words of the parallel question. `crossing@k` is the noise from which on both is better than the better one.
    """

    config: BilingualRecallConfig

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        result = SuiteResult()
        questions = [record for record in records if isinstance(record, QuestionRecord)]
        english = {_parallel_key(record): record for record in questions if record.language == ENGLISH}
        pairs = [
            (record, english[_parallel_key(record)])
            for record in questions
            if record.language != ENGLISH and _parallel_key(record) in english and gold_ids(record)
        ]
        if not pairs:
            raise ConfigError(
                "eval.suites: bilingual_recall needs questions with gold passages, in English and in another language"
            )
        index = self.index(answerer, build_source(self.run))
        languages = [record.language for record, _ in pairs]
        gold = [gold_ids(record) for record, _ in pairs]
        source = self.hits(index, [record.question for record, _ in pairs], languages=languages)
        means: dict[str, float] = {}

        def add(name: str, lists: Sequence[Sequence[Passage]], k: int) -> float:
            values = [
                recall([hit.identifier for hit in hits[:k]], names) for hits, names in zip(lists, gold, strict=True)
            ]
            self.add(result, name, values, languages)
            return result.metrics[name]

        for k in self.config.ks:
            means[f"src{k}"] = add(f"recall@{k}_src", source, k)
        gains: dict[int, list[float]] = {k: [] for k in self.config.ks}
        for share in self.config.noise:
            queries = [with_lost_words(other.question, share, self.rng(record, share)) for record, other in pairs]
            translated = index.search(queries, k=max(self.config.ks), language=ENGLISH)
            for k in self.config.ks:
                fused = [
                    reciprocal_rank_fusion([hits[:k], others[:k]], k=k)
                    for hits, others in zip(source, translated, strict=True)
                ]
                arms = {"both": fused, "src": source, "en": translated}
                budgets = {arm: most(hits[:k] for hits in lists) for arm, lists in arms.items()}
                check_equal_k(budgets, allow_unequal_k=self.config.allow_unequal_k)
                in_english = add(f"recall@{k}_en_p{share:g}", translated, k)
                both = add(f"recall@{k}_both_p{share:g}", fused, k)
                gains[k].append(bilingual_gain(both, means[f"src{k}"], in_english))
                result.metrics[f"gain@{k}_p{share:g}"] = gains[k][-1]
        for k in self.config.ks:
            result.metrics[f"crossing@{k}"] = crossing(self.config.noise, gains[k])
        return result


def most(lists: Iterable[Sequence[object]]) -> int:
    """Passages that an arm reads for the question it reads most for."""
    return max(map(len, lists))


def _repeated(languages: Sequence[str], of_questions: Sequence[Sequence[object]]) -> list[str]:
    """The language of each question, once for each of its queries."""
    return [language for language, own in zip(languages, of_questions, strict=True) for _ in own]


def _parallel_key(record: QuestionRecord) -> str:
    """What a question has in common with its translations: the id behind the code of the language."""
    return record.identifier.removeprefix(f"{record.language}-")
