"""CLAP-NQ: a question, one gold passage, and a long answer that joins sentences of it (arXiv:2404.02103).

Official files are JSON lines, one file of answerable and one of unanswerable questions a split. Several annotators may
have answered a question; the second round revised the first. The answer of the latest round that was not skipped is
the record's `answer`; all of them, in file order, stand in `meta["references"]`, because the official scores take the
best match over them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from athlos.config.registry import Part
from athlos.config.schema import DataConfig
from athlos.data.records import LongAnswerRecord, Passage
from athlos.data.source import Source, read_json_lines, require
from athlos.errors import DataError


@dataclass(kw_only=True)
class ClapNqConfig(DataConfig):
    files: dict[str, list[str]] = field(default_factory=dict)
    """File names below `data.dir` of each split, read one after another."""


class ClapNqSource(Source[ClapNqConfig]):
    record_type = LongAnswerRecord

    def files(self, split: str) -> list[Path]:
        if split not in self.config.files:
            raise DataError(f"split '{split}' is unknown; accepted: {', '.join(self.config.files)}")
        return [self.file(name) for name in self.config.files[split]]

    def read(self, split: str) -> Iterator[LongAnswerRecord]:
        for path in self.files(split):
            yield from read_json_lines(self, path, partial(_record, file=path))


def _record(row: dict[str, Any], line: int, *, file: Path) -> LongAnswerRecord:
    given = [_output(item, file=file, line=line) for item in require(row, "output", list, file=file, line=line)]
    if not given:
        raise DataError("empty; expected one annotation or more", file=file, line=line, field="output")
    outputs = [output for output in given if not output["skip"]]
    if not outputs:
        # Not the same as unanswerable: there an annotator looked and left the answer empty.
        raise DataError("every annotator skipped the question", file=file, line=line, field="output")
    best = max(outputs, key=lambda output: output["round"])
    return LongAnswerRecord(
        identifier=require(row, "id", str, file=file, line=line),
        question=require(row, "input", str, file=file, line=line),
        answer=best["answer"],
        passages=[
            _passage(item, is_gold=bool(best["answer"]), file=file, line=line)
            for item in require(row, "passages", list, file=file, line=line)
        ],
        meta={
            "references": [output["answer"] for output in outputs if output["answer"]],
            "selected_sentences": best["selected_sentences"],
            "round": best["round"],
            "has_minimal_answer": best["has_minimal_answer"],
            "non_consecutive": best["non_consecutive"],
        },
    )


def _output(item: Any, *, file: Path, line: int) -> dict[str, Any]:
    """One annotation, its `meta` fields lifted beside the answer."""
    if not isinstance(item, dict):
        raise DataError(f"expected objects, got {type(item).__name__}", file=file, line=line, field="output")
    meta = require(item, "meta", dict, file=file, line=line)
    return {
        "answer": require(item, "answer", str, file=file, line=line),
        "selected_sentences": _texts(item, "selected_sentences", file=file, line=line),
        "skip": require(meta, "skip", bool, file=file, line=line),
        "round": require(meta, "round", int, file=file, line=line),
        "has_minimal_answer": require(meta, "has_minimal_answer", bool, file=file, line=line),
        "non_consecutive": require(meta, "non_consecutive", bool, file=file, line=line),
    }


def _passage(item: Any, *, is_gold: bool, file: Path, line: int) -> Passage:
    if not isinstance(item, dict):
        raise DataError(f"expected objects, got {type(item).__name__}", file=file, line=line, field="passages")
    return Passage(
        title=require(item, "title", str, file=file, line=line),
        text=require(item, "text", str, file=file, line=line),
        sentences=_texts(item, "sentences", file=file, line=line),
        # Not from the selected sentences: the real files have an answer without any.
        is_supporting=is_gold,
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
        name="clapnq",
        schema=ClapNqConfig,
        target=f"{__name__}.ClapNqSource",
        summary="CLAP-NQ: long answers grounded in one Wikipedia passage, and unanswerable questions",
    )
]
