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
from typing import Any

from athlos.config.registry import Part
from athlos.config.schema import DataConfig
from athlos.data.records import Claim, LongAnswerRecord, Passage
from athlos.data.source import Source, parse_json_line, read_lines, require
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
        known = self.config.files.get(self.config.layout.value, {})
        if split not in known:
            accepted = ", ".join(known) or "none"
            raise DataError(
                f"split '{split}' is unknown for data.layout={self.config.layout.value}; accepted: {accepted}"
            )
        return [self.file(known[split])]

    def read(self, split: str) -> Iterator[LongAnswerRecord]:
        [path] = self.files(split)
        parse = PARSERS[self.config.layout]
        for number, line in read_lines(path, on_error=self.bad):
            if not line.strip():
                continue
            try:
                row = parse_json_line(line, file=path, number=number)
                records = parse(row, path, number)
            except DataError as error:
                self.bad(error)
                continue
            yield from records


def _lfqa(row: dict[str, Any], file: Path, line: int) -> list[LongAnswerRecord]:
    context = require(row, "context", str, file=file, line=line)
    return [
        LongAnswerRecord(
            identifier=str(require(row, "example_id", (int, str), file=file, line=line)),
            question=require(row, "question", str, file=file, line=line),
            answer=require(row, "answer", str, file=file, line=line),
            passages=[Passage(title="", text=context)] if context else [],
        )
    ]


def _claims(row: dict[str, Any], file: Path, line: int) -> list[LongAnswerRecord]:
    answers = require(row, "answers", dict, file=file, line=line)
    if not answers:
        raise DataError(
            "empty; data.layout=questions reads questions without answers", file=file, line=line, field="answers"
        )
    question, meta = _question(row, file, line)
    return [_system_answer(name, answers, question=question, meta=meta, file=file, line=line) for name in answers]


def _questions(row: dict[str, Any], file: Path, line: int) -> list[LongAnswerRecord]:
    question, meta = _question(row, file, line)
    return [LongAnswerRecord(identifier=str(line), question=question, answer="", meta=meta)]


PARSERS: dict[Layout, Callable[[dict[str, Any], Path, int], list[LongAnswerRecord]]] = {
    Layout.lfqa: _lfqa,
    Layout.claims: _claims,
    Layout.questions: _questions,
}


def _question(row: dict[str, Any], file: Path, line: int) -> tuple[str, dict[str, Any]]:
    """The question, and what the file says of it: field, specific field, question type."""
    return (
        require(row, "question", str, file=file, line=line),
        dict(require(row, "metadata", dict, file=file, line=line)),
    )


def _system_answer(
    system: str, answers: dict[str, Any], *, question: str, meta: dict[str, Any], file: Path, line: int
) -> LongAnswerRecord:
    answer = require(answers, system, dict, file=file, line=line)
    claims = require(answer, "claims", list, file=file, line=line)
    if not all(isinstance(claim, dict) for claim in claims):
        raise DataError("expected a list of objects", file=file, line=line, field="claims")
    attribution = _texts(answer, "attribution", file=file, line=line)
    return LongAnswerRecord(
        # The file has no identifier of its own; the line number is stable.
        identifier=f"{line}-{system}",
        question=question,
        answer=require(answer, "answer_string", str, file=file, line=line),
        passages=[Passage(title="", text=text) for text in attribution],
        claims=[
            Claim(
                text=require(claim, "claim_string", str, file=file, line=line),
                evidence=_texts(claim, "evidence", file=file, line=line),
                support=(support := require(claim, "support", str, file=file, line=line)),
                is_supported=IS_SUPPORTED.get(support),
            )
            for claim in claims
        ],
        meta={
            **meta,
            "system": system,
            "revised_answer": require(answer, "revised_answer_string", str, file=file, line=line),
            "usefulness": answer.get("usefulness"),
            "claim_labels": [{label: claim.get(label) for label in LABELS} for claim in claims],
        },
    )


def _texts(row: dict[str, Any], key: str, *, file: Path, line: int) -> list[str]:
    """A list of strings."""
    values: list[str] = require(row, key, list, file=file, line=line)
    if not all(isinstance(value, str) for value in values):
        raise DataError("expected a list of strings", file=file, line=line, field=key)
    return values


PARTS = [
    Part(
        group="data",
        name="expertqa",
        schema=ExpertQaConfig,
        target=f"{__name__}.ExpertQaSource",
        summary="ExpertQA: expert questions, long answers, claims with evidence and human labels of support",
    )
]
