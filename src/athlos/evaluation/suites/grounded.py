"""Questions over numbered documents: is the answer borne out by them, and by those that it cites?

`faith` is the share of sentences that the documents support, all joined; ALCE's citation scores are those of
`evaluation/citation.py`; `correct` and `em` look for short gold answers, `claim_recall` for claims, where the data have
some. Beside them stands what makes such scores easy: the length of the answer, how much of it is copied, how much of
the reference it covers. All are means over answers, then over languages, or over the groups that `by` names. What the
run's judge decided ends in `@reward_judge` where the training was rewarded by the same judge. Citations are not part of
the text that is judged, matched or counted.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from athlos.config.schema import RunConfig
from athlos.data.records import LongAnswerRecord, Passage, QuestionRecord, Record
from athlos.errors import DataError
from athlos.evaluation.asking import Asked, ask
from athlos.evaluation.citation import citation_scores, claim_recall, em_recall, macro_f1, str_hit
from athlos.evaluation.config import GroundedConfig
from athlos.evaluation.faithfulness import AnswerClass, class_of, faithfulness, shape
from athlos.evaluation.judges import EvaluationJudge, evaluation_judge
from athlos.evaluation.metrics import MacroMean
from athlos.evaluation.suite import Answerer, SuiteResult
from athlos.judging.answers import passage_text
from athlos.judging.support import SentenceSupport, cited_support, joint_scores
from athlos.text.citations import CitedAnswer, read_citations, splitter_named
from athlos.text.matching import exact_match
from athlos.text.normalisation import default_normaliser
from athlos.training.pipeline_module import PipelineModule

GroundedRecord = LongAnswerRecord | QuestionRecord


@dataclass(frozen=True, kw_only=True)
class Read:
    """An answer as it was read, and what it answers."""

    record: GroundedRecord
    documents: list[str]
    """As the judge reads them; `[n]` cites the n-th."""
    answer: CitedAnswer
    kind: AnswerClass

    @property
    def text(self) -> str:
        return " ".join(sentence.text for sentence in self.answer.sentences)

    @property
    def short_answers(self) -> list[list[str]]:
        record = self.record
        if isinstance(record, LongAnswerRecord):
            return record.short_answers
        return [record.answers] if record.answers else []

    @property
    def reference(self) -> str:
        record = self.record
        return record.answer if isinstance(record, LongAnswerRecord) else next(iter(record.answers), "")


class GroundedSuite:
    is_seeded = True

    def __init__(self, config: GroundedConfig, run: RunConfig) -> None:
        self.config, self.run = config, run

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        """Raises `DataError` for a question without documents, and for a worked example that is a test item too."""
        kind: type[Any] = QuestionRecord
        if any(isinstance(record, LongAnswerRecord) for record in records):
            kind = LongAnswerRecord
        if self.run.eval.shots:
            _check_apart(records, shots_pool)
        asked = ask(
            self.run,
            answerer,
            records,
            record_type=kind,
            suite="grounded",
            shots_pool=shots_pool,
            progress=progress,
        )
        passages = [record.passages for record in asked.records]
        if isinstance(answerer, PipelineModule):
            passages = answerer.documents(asked.predictions)
        read = [self._read(*item) for item in zip(asked.records, asked.answers, passages, strict=True)]
        judge = evaluation_judge(self.run)
        answers, documents = [reading.answer for reading in read], [reading.documents for reading in read]
        supports = cited_support(judge.judge, answers, documents, threshold=judge.threshold)
        joint = joint_scores(judge.judge, answers, documents)
        judged = self._judged(read, supports, joint, judge)
        plain = _plain(read, asked)
        splitter, by = splitter_named(self.config.splitter).name, self.config.by or "language"
        result = SuiteResult(
            predictions=asked.rows(
                [reading.reference for reading in read],
                **{"class": [reading.kind.value for reading in read]},
                sentences=[_sentences(*of_answer, judge) for of_answer in zip(supports, joint, strict=True)],
                **judged,
                **plain,
            ),
            signatures={
                **asked.signatures,
                **judge.signatures,
                "citations": f"alce|mode:{self.config.mode.value}|splitter:{splitter}|by answer, {by}",
                "overlap": "words unstemmed",
            },
        )
        groups = [self._group(record) for record in asked.records]
        for name, values in judged.items():
            self._add(result, name, values, groups, suffix=judge.suffix)
        f1 = macro_f1("cite_f1", judged["cite_rec"], judged["cite_prec"], groups, evaluation=self.run.eval)
        result.add(*({f"{key}{judge.suffix}": value for key, value in of_f1.items()} for of_f1 in f1))  # type: ignore[arg-type]
        for name, values in plain.items():
            self._add(result, name, values, groups)
        return result

    def _group(self, record: GroundedRecord) -> str:
        by = self.config.by
        if by and by not in record.meta:
            raise DataError(f"question '{record.identifier}' has no '{by}', by which eval.suites.grounded.by groups")
        return str(record.meta[by]) if by else record.language

    def _read(self, record: GroundedRecord, text: str, passages: Sequence[Passage]) -> Read:
        if not passages:
            raise DataError(f"question '{record.identifier}' has no documents to answer from", field="passages")
        answer = read_citations(
            text,
            num_documents=len(passages),
            language=record.language,
            mode=self.config.mode,
            splitter=splitter_named(self.config.splitter, question=record.question),
        )
        return Read(
            record=record,
            documents=[passage_text(passage) for passage in passages],
            answer=answer,
            kind=class_of(answer, language=record.language),
        )

    def _judged(
        self,
        read: Sequence[Read],
        supports: Sequence[Sequence[SentenceSupport]],
        joint: Sequence[Sequence[float]],
        judge: EvaluationJudge,
    ) -> dict[str, list[float]]:
        """What the judge says of each answer."""
        by_answer = [citation_scores(of_answer) for of_answer in supports]
        scores = {
            "faith": [
                faithfulness(of_answer, reading.kind, threshold=judge.threshold)
                for reading, of_answer in zip(read, joint, strict=True)
            ],
            **{name: [of_answer[name] for of_answer in by_answer] for name in by_answer[0]},
        }
        claims = [
            [claim.text for claim in reading.record.claims] if isinstance(reading.record, LongAnswerRecord) else []
            for reading in read
        ]
        if any(claims):
            texts = [reading.text for reading in read]
            scores["claim_recall"] = claim_recall(judge.judge, texts, claims, threshold=judge.threshold)
        return scores

    def _add(
        self, result: SuiteResult, name: str, values: Sequence[float], groups: Sequence[str], *, suffix: str = ""
    ) -> None:
        mean = MacroMean(name, evaluation=self.run.eval)
        mean.update(values, groups)
        metrics, details = mean.compute()
        result.add(
            {f"{key}{suffix}": value for key, value in metrics.items()},
            {f"{key}{suffix}": detail for key, detail in details.items()},
        )


def _sentences(
    supports: Sequence[SentenceSupport], joint: Sequence[float], judge: EvaluationJudge
) -> list[dict[str, Any]]:
    """Each sentence with what it cites, whether that supports it, and whether all documents do."""
    return [
        {**asdict(support.sentence), "is_supported": support.is_supported, "is_faithful": score >= judge.threshold}
        for support, score in zip(supports, joint, strict=True)
    ]


def _plain(read: Sequence[Read], asked: Asked[Any]) -> dict[str, list[float]]:
    """What needs no judge: short answers, form, and counts of citations."""
    shapes = [
        shape(reading.answer, reading.documents, reading.reference, language=reading.record.language)
        for reading in read
    ]
    scores = {name: [of_answer[name] for of_answer in shapes] for name in shapes[0]}
    if any(reading.short_answers for reading in read):
        for name, measure in (("correct", em_recall), ("str_hit", str_hit)):
            scores[name] = [
                measure(reading.text, reading.short_answers, language=reading.record.language) for reading in read
            ]
    if any(isinstance(reading.record, QuestionRecord) and reading.record.answers for reading in read):
        scores["em"] = [_em(reading) for reading in read]
    for name in read[0].answer.counts:
        scores[f"cite_{name}"] = [float(reading.answer.counts[name]) for reading in read]
    scores["refusal_rate"] = [float(reading.kind is AnswerClass.refused) for reading in read]
    scores["empty_rate"] = [float(reading.kind is AnswerClass.empty) for reading in read]
    scores["runaway_rate"] = asked.runaway
    return scores


def _em(reading: Read) -> float:
    record = reading.record
    if not isinstance(record, QuestionRecord) or not record.answers:
        return math.nan
    normaliser = default_normaliser(record.language)
    return exact_match(reading.text, record.answers, language=record.language, normaliser=normaliser)


def _check_apart(records: Sequence[Record], shots_pool: Sequence[Record]) -> None:
    """Raises `DataError` where a worked example could be an item of the test."""
    both = {record.identifier for record in records} & {record.identifier for record in shots_pool}
    if both:
        raise DataError(
            f"'{min(both)}' and {len(both) - 1} more are in the training split and in the test: a worked example "
            "would show an answer that is asked for; eval.shots=0, or other splits",
            field="identifier",
        )
