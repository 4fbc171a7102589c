"""Evaluation of ClueAnchor: questions over passages with more and more distractors, and the exploration's own answers.

`acc` is the metric that the config names, at the run's own noise; `acc@noise50` at half distractors; `acc_<evidence>`
by `meta.evidence` of a record; `acc_gold_present` and `acc_gold_absent` over the questions that can be answered without
passages, with and without those that hold the answer. `clue_overlap` is the share of the gold sentences' content words
that occur in the thought; with every substring metric stand the length of the answers and exact match.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bm25s.stopwords import STOPWORDS_EN_PLUS

from athlos.config.schema import RunConfig
from athlos.data.records import QuestionRecord, Record
from athlos.errors import DataError
from athlos.evaluation.answers import score_answers
from athlos.evaluation.asking import Asked, ask
from athlos.evaluation.metrics import MacroMean
from athlos.evaluation.suite import Answerer, MetricDetail, SuiteResult
from athlos.generation.interface import Request
from athlos.methods.clueanchor.config import (
    PATHS,
    ClueAnchorConstructConfig,
    ClueAnchorSuiteConfig,
    GoldPassages,
    NoiseConfig,
    PathsSuiteConfig,
)
from athlos.methods.clueanchor.construct import longest_reply, question_of, supporting_text, with_prompts
from athlos.methods.clueanchor.module import ClueAnchorModule, PathsModule
from athlos.methods.clueanchor.pipeline import gold_of
from athlos.methods.clueanchor.prompts import parse
from athlos.methods.clueanchor.selection import first_right, selected
from athlos.stages import content_hash
from athlos.text.matching import clue_acc
from athlos.text.normalisation import default_normaliser, normalise

KINDS = "evidence"
"""Key of `meta` by which `acc_<kind>` is told apart."""
STORED = "stored"
"""Key of `meta` of a question that can be answered without passages, where the data tell."""


class ClueAnchorSuite:
    is_seeded = True

    def __init__(self, config: ClueAnchorSuiteConfig, run: RunConfig) -> None:
        self.config, self.run = config, run
        self._done: dict[str, tuple[Asked[QuestionRecord], dict[str, list[float]]]] = {}

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        """Raises `DataError` for questions without an answer to look for."""
        assert isinstance(answerer, ClueAnchorModule)
        own = answerer.method.noise
        questions = [record for record in records if isinstance(record, QuestionRecord) and record.answers]
        for record in questions:
            gold_of(record)
        result = SuiteResult()
        self._done.clear()  # another answerer gives other answers
        asked, scores = self._pass(answerer, questions, own, progress=progress)
        golds = [record.answers for record in asked.records]
        kinds = [str(record.meta.get(KINDS, "")) for record in asked.records]
        result.predictions = asked.rows(golds, **scores, **({KINDS: kinds} if any(kinds) else {}))
        result.signatures = {**asked.signatures, "acc": self.config.metric}
        for name, values in {**scores, "runaway_rate": asked.runaway}.items():
            self._add(result, name, values)
        for kind in sorted(set(kinds) - {""}):
            self._add(
                result,
                f"acc_{kind}",
                [value for value, other in zip(scores["acc"], kinds, strict=True) if other == kind],
            )
        for share in self.config.noise_shares:
            noise = NoiseConfig(share=share, gold=GoldPassages.present)
            _, noisy_scores = self._pass(answerer, questions, noise, progress=progress)
            self._add(result, f"acc@noise{round(100 * share)}", noisy_scores["acc"])
            if share < 1:
                self._add(result, f"clue_overlap@noise{round(100 * share)}", noisy_scores["clue_overlap"])
        if self.config.gold_absent:
            self._gold(answerer, questions, result, progress=progress)
        return result

    def _gold(
        self, answerer: ClueAnchorModule, questions: Sequence[QuestionRecord], result: SuiteResult, *, progress: Any
    ) -> None:
        """With and without the passages that hold the answer: the same questions."""
        told = any(STORED in record.meta for record in questions)
        known = [record for record in questions if not told or record.meta.get(STORED, "") in record.answers]
        share = answerer.method.noise.share
        for gold in GoldPassages if known else ():
            _, scores = self._pass(answerer, known, NoiseConfig(share=share, gold=gold), progress=progress)
            self._add(result, f"acc_gold_{gold.value}", scores["acc"])

    def _pass(
        self, answerer: ClueAnchorModule, questions: Sequence[QuestionRecord], noise: NoiseConfig, *, progress: Any
    ) -> tuple[Asked[QuestionRecord], dict[str, list[float]]]:
        """The answers at one level of noise, and what they are worth; the same prompts are asked once."""
        shown, _ = with_prompts(questions, answerer.method, noise=noise, context=answerer.context)
        key = content_hash([[record.identifier, [passage.text for passage in record.passages]] for record in shown])
        if key not in self._done:
            asked = ask(
                self.run,
                answerer,
                shown,
                record_type=QuestionRecord,
                suite="clueanchor",
                shots_pool=(),
                progress=progress,
            )
            self._done[key] = asked, self._scores(asked, questions)
        return self._done[key]

    def _scores(self, asked: Asked[QuestionRecord], questions: Sequence[QuestionRecord]) -> dict[str, list[float]]:
        golds = [record.answers for record in questions]
        scores = score_answers(asked.answers, golds, asked.languages)
        pairs = list(zip(asked.answers, questions, strict=True))
        if self.config.metric == "clue_acc":
            acc = [clue_acc(answer, gold_of(record)) for answer, record in pairs]
        elif self.config.metric == "rouge_l":
            acc = [rouge_l(answer, gold_of(record), language=record.language) for answer, record in pairs]
        else:
            acc = scores[self.config.metric]
        replies = [parse(prediction.text) for prediction in asked.predictions]
        overlaps = [
            clue_overlap(reply.think, supporting_text(record), language=record.language)
            for reply, record in zip(replies, questions, strict=True)
        ]
        return {
            "acc": acc,
            **scores,
            "format_rate": [float(reply.is_formatted) for reply in replies],
            "clue_overlap": overlaps,
        }

    def _add(self, result: SuiteResult, name: str, values: Sequence[float]) -> None:
        mean = MacroMean(name, evaluation=self.run.eval)
        mean.update(values, ["all"] * len(values))
        metrics, details = mean.compute()
        result.add({name: metrics[name]}, {name: details[name]})


def rouge_l(answer: str, gold: str, *, language: str) -> float:
    """F of the longest common subsequence of words, as `rouge_score` has it; its stemmer on for English."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=language == "en")
    return float(scorer.score(gold, answer)["rougeL"].fmeasure)


def content_words(text: str, *, language: str) -> set[str]:
    """Normalised words, of English without the function words that bm25s lists."""
    words = set(normalise(text, normaliser=default_normaliser(language), language=language).split())
    return words - set(STOPWORDS_EN_PLUS) if language == "en" else words


def clue_overlap(think: str, clue: str, *, language: str) -> float:
    """Share of the content words of the gold sentences that occur in the thought; nan without gold sentences."""
    wanted = content_words(clue, language=language)
    return len(wanted & content_words(think, language=language)) / len(wanted) if wanted else math.nan


class PathsSuite:
    """By path `acc_<path>`, `em_<path>`, `f1_<path>`, `answer_tokens_<path>` and `format_rate_<path>`, over the
    questions that took it; `_selected` is the chosen reply of the questions that the selection keeps, and counts
    `case_<chosen>_<rejected>`, `case_drop`, `clue_acc` and `verified` those of the exploration."""

    is_seeded = True

    def __init__(self, config: PathsSuiteConfig, run: RunConfig) -> None:
        self.config, self.run = config, run

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        assert isinstance(answerer, PathsModule)
        construct = self.run.construct
        assert isinstance(construct, ClueAnchorConstructConfig)
        questions = [record for record in records if isinstance(record, QuestionRecord) and record.answers]
        if not questions:
            raise DataError(f"clueanchor_paths: data={self.run.data.name} has no question with an answer")
        shown, gold_cut = with_prompts(
            questions, answerer.method, noise=answerer.method.noise, context=answerer.context
        )
        requests = [Request(identifier=record.identifier, prompt=record.question, record=record) for record in shown]
        predictions = answerer.answer(requests, progress=progress)
        rows = [json.loads(prediction.text) for prediction in predictions]
        explorations = [question_of(record, row) for record, row in zip(shown, rows, strict=True)]
        chosen = [
            selected(
                exploration,
                construct.select,
                verify_gate=construct.explore.verify_gate,
                max_length=longest_reply(self.run, construct),
                seed=self.run.seed,
            )
            for exploration in explorations
        ]
        result = SuiteResult()
        by_path = {
            path: [
                (record, first_right(exploration.draws[path]))
                for record, exploration in zip(shown, explorations, strict=True)
                if exploration.draws.get(path)
            ]
            for path in PATHS
        }
        by_path["selected"] = [
            (record, pair[0]) for record, pair in zip(shown, chosen, strict=True) if pair is not None
        ]
        for path, taken in by_path.items():
            scores = score_answers(
                [reply.answer for _, reply in taken],
                [record.answers for record, _ in taken],
                [record.language for record, _ in taken],
            )
            scores = {
                "acc": [float(reply.is_right) for _, reply in taken],
                **{name: scores[name] for name in ("em", "f1", "answer_tokens")},
                "format_rate": [float(reply.is_formatted) for _, reply in taken],
                "clue_overlap": [
                    clue_overlap(reply.think, supporting_text(record), language=record.language)
                    for record, reply in taken
                ],
            }
            for name, values in scores.items():
                self._add(result, f"{name}_{path}", values)
        for name in ("clue_acc", "v"):
            self._add(result, {"v": "verified"}.get(name, name), [float(row[name]) for row in rows])
        cases = ["drop" if pair is None else f"{pair[0].path}_{pair[1].path}" for pair in chosen]
        for case in sorted(set(cases)):
            result.add({f"case_{case}": float(cases.count(case))}, {f"case_{case}": MetricDetail(n=len(cases))})
        result.add({"gold_truncated_rate": gold_cut}, {"gold_truncated_rate": MetricDetail(n=len(shown))})
        result.predictions = [
            {
                "id": record.identifier,
                "language": record.language,
                "question": record.question,
                "gold": record.answers,
                "case": case,
                **row,
                "chosen": asdict(pair[0]) if pair else None,
                "trace": prediction.trace,
            }
            for record, row, case, pair, prediction in zip(shown, rows, cases, chosen, predictions, strict=True)
        ]
        return result

    def _add(self, result: SuiteResult, name: str, values: Sequence[float]) -> None:
        mean = MacroMean(name, evaluation=self.run.eval)
        mean.update(values, ["all"] * len(values))
        metrics, details = mean.compute()
        result.add({name: metrics[name]}, {name: details[name]})
