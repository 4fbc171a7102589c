"""ExpertQA: questions by experts, long answers by systems, claims judged by the same experts (arXiv:2309.07852).

Official files are JSON lines, whatever their suffix, in three layouts:
- `lfqa`: example_id, context, question, and one revised answer (`rand_lfqa_*.json`, `domain_lfqa_*.json`);
- `claims`: the answers of one or more systems with their claims, evidence and labels (`rand_test.jsonl`, ...). One
  record a system answer; `Claim.support` is the label as it stands in the file, `N/A` included;
- `questions`: the first round of the annotation, questions without answers (`r1_data_anon.jsonl`). `answer` is empty.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from athlos.config.schema import DataConfig
from athlos.data.records import Claim, LongAnswerRecord, Passage
from athlos.data.rows import Row, file_of_layout, json_rows
from athlos.data.source import Source, data_part
from athlos.errors import DataError


class Layout(StrEnum):
    """Which of the official files are read."""

    lfqa = "lfqa"
    claims = "claims"
    questions = "questions"


IS_SUPPORTED = {"Complete": True, "Incomplete": False}
"""`Partial` lies in between; a `Missing` claim has no evidence at all, so that telling it apart proves nothing."""
LABELS = ("informativeness", "worthiness", "correctness", "reliability", "reason_missing_support")
"""Further labels of a claim; kept in `meta["claim_labels"]`, one mapping a claim. The file has null in places."""


@dataclass(kw_only=True)
class ExpertQaConfig(DataConfig):
    layout: Layout = Layout.lfqa
    """`lfqa` (revised answers), `claims` (judged claims of system answers) or `questions` (no answers)."""
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    """Layout -> split -> file name below `data.dir`."""


class ExpertQaSource(Source[ExpertQaConfig]):
    record_type = LongAnswerRecord

    def files(self, split: str) -> list[Path]:
        return file_of_layout(self, self.config.files, self.config.layout.value, split)

    def read(self, split: str) -> Iterator[LongAnswerRecord]:
        [path] = self.files(split)
        parse = PARSERS[self.config.layout]
        for row in json_rows(path, self.bad):
            try:
                records = parse(row)
            except DataError as error:
                self.bad(error)
                continue
            yield from records


def _lfqa(row: Row) -> list[LongAnswerRecord]:
    context = row.need("context", str)
    return [
        LongAnswerRecord(
            identifier=str(row.need("example_id", (int, str))),
            question=row.need("question", str),
            answer=row.need("answer", str),
            passages=[Passage(title="", text=context)] if context else [],
        )
    ]


def _claims(row: Row) -> list[LongAnswerRecord]:
    answers = row.below("answers")
    if not answers.values:
        raise row.error("empty; data.layout=questions reads questions without answers", field="answers")
    [question] = _questions(row)
    return [_system_answer(answers.below(system), system, question) for system in answers.values]


def _questions(row: Row) -> list[LongAnswerRecord]:
    """The question, and in `meta` what the file says of it: field, specific field, question type."""
    meta = dict(row.need("metadata", dict))
    return [LongAnswerRecord(identifier=str(row.index), question=row.need("question", str), answer="", meta=meta)]


PARSERS: dict[Layout, Callable[[Row], list[LongAnswerRecord]]] = {
    Layout.lfqa: _lfqa,
    Layout.claims: _claims,
    Layout.questions: _questions,
}


def _system_answer(answer: Row, system: str, asked: LongAnswerRecord) -> LongAnswerRecord:
    claims = list(answer.children("claims"))
    return LongAnswerRecord(
        # The file has no identifier of its own; the line number is stable.
        identifier=f"{asked.identifier}-{system}",
        question=asked.question,
        answer=answer.need("answer_string", str),
        passages=[Passage(title="", text=text) for text in answer.texts("attribution")],
        claims=[
            Claim(
                text=claim.need("claim_string", str),
                evidence=claim.texts("evidence"),
                support=(support := claim.need("support", str)),
                is_supported=IS_SUPPORTED.get(support),
            )
            for claim in claims
        ],
        meta={
            **asked.meta,
            "system": system,
            "revised_answer": answer.need("revised_answer_string", str),
            "usefulness": answer.values.get("usefulness"),
            "claim_labels": [{label: claim.values.get(label) for label in LABELS} for claim in claims],
        },
    )


PARTS = [
    data_part(
        "expertqa",
        ExpertQaConfig,
        ExpertQaSource,
        "ExpertQA: expert questions, long answers, claims with evidence and human labels of support",
    )
]
