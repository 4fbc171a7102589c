"""ALCE: long answers with citations on ASQA, ELI5 and QAMPARI (arXiv:2305.14627), in three layouts:

- `evaluation`: one JSON list of questions with up to a hundred retrieved `docs`. ASQA adds `qa_pairs` (accepted short
  answers of each reading of the question), ELI5 `claims`, QAMPARI `answers` (a list of aliases for each answer). The
  list is streamed. Checked against the published description and evaluation code, not against the files themselves;
- `demos`: the few-shot sets, `instruction` and `demos` of question, answer with `[n]` citations, and five documents;
- `utility`: answers of systems with human scores from 1 to 5, `human_eval_utility_completed.json`. The split is the
  top-level key of the file.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from athlos.config.schema import DataConfig
from athlos.data.records import Claim, LongAnswerRecord, Passage, Record
from athlos.data.rows import Row, file_of_layout, json_rows, parse_rows
from athlos.data.source import Source, data_part, read_json
from athlos.errors import DataError

SUMMARY_KEY = "overall_results"
"""Entry of a system in the utility file that holds its mean scores instead of an answer."""


class Layout(StrEnum):
    """Which of the official files are read."""

    evaluation = "evaluation"
    demos = "demos"
    utility = "utility"


@dataclass(kw_only=True)
class AlceConfig(DataConfig):
    layout: Layout = Layout.evaluation
    """`evaluation` (questions with retrieved documents), `demos` (few-shot sets) or `utility` (human scores)."""
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    """Layout -> split -> file name below `data.dir`."""


class AlceSource(Source[AlceConfig]):
    record_type = LongAnswerRecord

    def files(self, split: str) -> list[Path]:
        return file_of_layout(self, self.config.files, self.config.layout.value, split)

    def read(self, split: str) -> Iterator[Record]:
        [path] = self.files(split)
        if self.config.layout is Layout.evaluation:
            yield from parse_rows(self, json_rows(path, self.bad), _evaluation_record)
            return
        whole = Row(values={"file": read_json(path)}, file=path, index=0)
        document = replace(whole.below("file"), prefix="")
        if self.config.layout is Layout.demos:
            instruction = document.need("instruction", str)
            yield from parse_rows(self, document.children("demos"), lambda demo: _demo(demo, instruction))
            return
        systems = document.below(split)
        for system in systems.values:
            answers = systems.below(system)
            for key in answers.values:
                try:
                    if key != SUMMARY_KEY:
                        yield _scored(answers.below(key), system)
                except DataError as error:
                    self.bad(error)


def _demo(row: Row, instruction: str) -> LongAnswerRecord:
    return LongAnswerRecord(
        identifier=str(row.index - 1),
        question=row.need("question", str),
        answer=row.need("answer", str),
        passages=_passages(row),
        meta={"instruction": instruction},
    )


def _scored(row: Row, system: str) -> LongAnswerRecord:
    return LongAnswerRecord(
        identifier=f"{system}/{row.need('id', str)}",
        question=row.need("question", str),
        answer=row.need("output", str),
        meta={
            "system": system,
            "utility_score": row.need("utility_score", int),
            "automatic_correctness_scores": row.need("automatic_correctness_scores", list),
        },
    )


def _evaluation_record(row: Row) -> LongAnswerRecord:
    pairs, notes = list(_optional(row, "qa_pairs")), list(_optional(row, "annotations"))
    aliases = [] if row.values.get("answers") is None else row.need("answers", list)
    if not all(isinstance(names, list) and names and all(isinstance(name, str) for name in names) for names in aliases):
        raise row.error("expected a list of lists of aliases", field="answers")
    if aliases and row.values.get("answer") is None:
        # QAMPARI has no reference text; it asks for a list with commas between the items.
        answer = ", ".join(names[0] for names in aliases)
    else:
        answer = row.need("answer", str)
    claims = [] if row.values.get("claims") is None else row.texts("claims")
    identifiers = (row.values[key] for key in ("sample_id", "id", "qid") if key in row.values)
    return LongAnswerRecord(
        identifier=str(next(identifiers, row.index - 1)),
        question=row.need("question", str),
        answer=answer,
        passages=_passages(row),
        claims=[Claim(text=claim) for claim in claims],
        short_answers=[pair.texts("short_answers") for pair in pairs] or aliases,
        meta={
            # ASQA has two reference answers and its scores take the better match; `answer` is one of them.
            "references": [note.need("long_answer", str) for note in notes] or [answer],
            "qa_questions": [pair.need("question", str) for pair in pairs],
        },
    )


def _passages(row: Row) -> list[Passage]:
    """Documents in file order: citation `[n]` means the n-th, counted from 1, which is also its identifier.

    `answers_found` has a 0 or 1 for each short answer; any 1 makes the document supporting.
    """
    return [
        Passage(
            title=doc.need("title", str),
            text=doc.need("text", str),
            is_supporting=any(doc.values.get("answers_found") or ()),
            identifier=str(number),
        )
        for number, doc in enumerate(row.children("docs"), start=1)
    ]


def _optional(row: Row, key: str) -> Iterator[Row]:
    """A list of objects that only one of the three data sets has; null counts as absent."""
    return iter(()) if row.values.get(key) is None else row.children(key)


PARTS = [
    data_part(
        "alce",
        AlceConfig,
        AlceSource,
        "ALCE: ASQA, ELI5 and QAMPARI with documents to cite; few-shot sets and human scores",
    )
]
