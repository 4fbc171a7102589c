"""ALCE: long answers with citations on ASQA, ELI5 and QAMPARI (arXiv:2305.14627), in three layouts:

- `evaluation`: one JSON list of questions with up to a hundred retrieved `docs`. ASQA adds `qa_pairs` (accepted short
  answers of each reading of the question), ELI5 `claims`, QAMPARI `answers` (a list of aliases for each answer). The
  list is streamed. Checked against the published description and evaluation code, not against the files themselves;
- `demos`: the few-shot sets, `instruction` and `demos` of question, answer with `[n]` citations, and five documents;
- `utility`: answers of systems with human scores from 1 to 5, `human_eval_utility_completed.json`. The split is the
  top-level key of the file.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from athlos.config.registry import Part
from athlos.config.schema import DataConfig
from athlos.data.records import Claim, LongAnswerRecord, Passage
from athlos.data.source import Source, read_json, require
from athlos.errors import DataError

CHUNK = 1 << 20
"""Characters read at a time from an evaluation file."""
NOT_SPACE = re.compile(r"[^ \t\r\n]")
END = object()
"""Stands for the end of a streamed list."""
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
        known = self.config.files.get(self.config.layout.value, {})
        if split not in known:
            accepted = ", ".join(known) or "none"
            raise DataError(
                f"split '{split}' is unknown for data.layout={self.config.layout.value}; accepted: {accepted}"
            )
        return [self.file(known[split])]

    def read(self, split: str) -> Iterator[LongAnswerRecord]:
        [path] = self.files(split)
        if self.config.layout is Layout.evaluation:
            yield from self._read_evaluation(path)
        elif self.config.layout is Layout.demos:
            yield from self._read_demos(path)
        else:
            yield from self._read_utility(path, split)

    def _read_evaluation(self, path: Path) -> Iterator[LongAnswerRecord]:
        for position, (line, row) in enumerate(stream_json_list(path)):
            try:
                record = _evaluation_record(row, position=position, file=path, line=line)
            except DataError as error:
                self.bad(error)
                continue
            yield record

    def _read_demos(self, path: Path) -> Iterator[LongAnswerRecord]:
        content = _object(read_json(path), file=path)
        instruction = require(content, "instruction", str, file=path)
        for position, item in enumerate(require(content, "demos", list, file=path)):
            name = f"demos.{position}"
            try:
                demo = _object(item, file=path, field=name)
                record = LongAnswerRecord(
                    identifier=str(position),
                    question=require(demo, "question", str, file=path),
                    answer=require(demo, "answer", str, file=path),
                    passages=_passages(require(demo, "docs", list, file=path), file=path, line=None),
                    meta={"instruction": instruction},
                )
            except DataError as error:
                self.bad(_within(error, name))
                continue
            yield record

    def _read_utility(self, path: Path, split: str) -> Iterator[LongAnswerRecord]:
        content = _object(read_json(path), file=path)
        systems = require(content, split, dict, file=path)
        for system, answers in systems.items():
            for key, item in _object(answers, file=path, field=f"{split}.{system}").items():
                if key == SUMMARY_KEY:
                    continue
                name = f"{split}.{system}.{key}"
                try:
                    row = _object(item, file=path, field=name)
                    record = LongAnswerRecord(
                        identifier=f"{system}/{require(row, 'id', str, file=path)}",
                        question=require(row, "question", str, file=path),
                        answer=require(row, "output", str, file=path),
                        meta={
                            "system": system,
                            "utility_score": require(row, "utility_score", int, file=path),
                            "automatic_correctness_scores": require(
                                row, "automatic_correctness_scores", list, file=path
                            ),
                        },
                    )
                except DataError as error:
                    self.bad(_within(error, name))
                    continue
                yield record


def stream_json_list(path: Path) -> Iterator[tuple[int, Any]]:
    """(1-based line, element) of a file that holds one JSON list, with about one element in memory at a time.

    Raises `DataError` with the line for anything that is not one JSON list.
    """
    decoder = json.JSONDecoder()
    buffer, position, line, opener = "", 0, 1, "["
    try:
        with path.open(encoding="utf-8-sig") as handle:
            while True:
                try:
                    start, end, element = _next_element(decoder, buffer, position, opener)
                except json.JSONDecodeError as error:
                    # Either the element goes on beyond the buffer, or the file is broken: the file's end tells.
                    more = handle.read(max(CHUNK, len(buffer) - position))
                    if not more:
                        at = line + buffer.count("\n", position, error.pos)
                        raise DataError(f"not JSON: {error.msg}", file=path, line=at) from error
                    buffer, position = buffer[position:] + more, 0
                    continue
                line += buffer.count("\n", position, start)
                if element is END:
                    if buffer[end:].strip() or handle.read().strip():
                        raise DataError("not JSON: text after the end of the list", file=path, line=line)
                    return
                yield line, element
                line += buffer.count("\n", start, end)
                position, opener = end, ","
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8: {error.reason}", file=path) from error
    except OSError as error:
        raise DataError(error.strerror or str(error), file=path) from error


def _next_element(decoder: json.JSONDecoder, text: str, position: int, opener: str) -> tuple[int, int, Any]:
    """(start, end, value) of the list element behind `opener`, or END at the closing bracket.

    Raises `JSONDecodeError` when the text is broken or ends too early.
    """
    start = _skip_space(text, position)
    if text[start : start + 1] == "]" and opener == ",":
        return start, start + 1, END
    if text[start : start + 1] != opener:
        raise json.JSONDecodeError(f"expected '{opener}'", text, start)
    start = _skip_space(text, start + 1)
    if text[start : start + 1] == "]" and opener == "[":
        return start, start + 1, END
    value, end = decoder.raw_decode(text, start)
    return start, end, value


def _skip_space(text: str, position: int) -> int:
    found = NOT_SPACE.search(text, position)
    return found.start() if found else len(text)


def _evaluation_record(item: Any, *, position: int, file: Path, line: int) -> LongAnswerRecord:
    row = _object(item, file=file, line=line)
    pairs = _objects(row, "qa_pairs", file=file, line=line)
    aliases = _optional(row, "answers", file=file, line=line)
    if not all(names and _are_texts(names) for names in aliases):
        raise DataError("expected a list of lists of aliases", file=file, line=line, field="answers")
    short_answers = [_texts(pair, "short_answers", file=file, line=line) for pair in pairs] or aliases
    if aliases and row.get("answer") is None:
        # QAMPARI has no reference text; it asks for a list with commas between the items.
        answer = ", ".join(names[0] for names in aliases)
    else:
        answer = require(row, "answer", str, file=file, line=line)
    claims = [] if row.get("claims") is None else _texts(row, "claims", file=file, line=line)
    notes = _objects(row, "annotations", file=file, line=line)
    return LongAnswerRecord(
        identifier=str(next((row[key] for key in ("sample_id", "id", "qid") if key in row), position)),
        question=require(row, "question", str, file=file, line=line),
        answer=answer,
        passages=_passages(require(row, "docs", list, file=file, line=line), file=file, line=line),
        claims=[Claim(text=claim) for claim in claims],
        short_answers=short_answers,
        meta={
            # ASQA has two reference answers and its scores take the better match; `answer` is one of them.
            "references": [require(note, "long_answer", str, file=file, line=line) for note in notes] or [answer],
            "qa_questions": [require(pair, "question", str, file=file, line=line) for pair in pairs],
        },
    )


def _passages(docs: list[Any], *, file: Path, line: int | None) -> list[Passage]:
    """Documents in file order: citation `[n]` means the n-th, counted from 1, which is also its identifier.

    `answers_found` has a 0 or 1 for each short answer; any 1 makes the document supporting.
    """
    return [
        Passage(
            title=require(doc, "title", str, file=file, line=line),
            text=require(doc, "text", str, file=file, line=line),
            is_supporting=any(_optional(doc, "answers_found", file=file, line=line)),
            identifier=str(number),
        )
        for number, doc in enumerate((_object(doc, file=file, field="docs", line=line) for doc in docs), start=1)
    ]


def _optional(row: dict[str, Any], key: str, *, file: Path, line: int | None) -> list[Any]:
    """A list that only one of the three data sets has; null counts as absent."""
    return [] if row.get(key) is None else require(row, key, list, file=file, line=line)


def _objects(row: dict[str, Any], key: str, *, file: Path, line: int) -> list[dict[str, Any]]:
    return [_object(item, file=file, line=line, field=key) for item in _optional(row, key, file=file, line=line)]


def _object(value: Any, *, file: Path, line: int | None = None, field: str | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"expected a JSON object, got {type(value).__name__}", file=file, line=line, field=field)
    return value


def _texts(row: dict[str, Any], key: str, *, file: Path, line: int) -> list[str]:
    """A list of strings."""
    values: list[str] = require(row, key, list, file=file, line=line)
    if not _are_texts(values):
        raise DataError("expected a list of strings", file=file, line=line, field=key)
    return values


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _within(error: DataError, name: str) -> DataError:
    """The error with its place inside a JSON document, where a line number is not to be had."""
    inner = f".{error.field}" if error.field and error.field != name else ""
    return DataError(error.reason, file=error.file, line=error.line, field=f"{name}{inner}")


PARTS = [
    Part(
        group="data",
        name="alce",
        schema=AlceConfig,
        target=f"{__name__}.AlceSource",
        summary="ALCE: ASQA, ELI5 and QAMPARI with documents to cite; few-shot sets and human scores",
    )
]
