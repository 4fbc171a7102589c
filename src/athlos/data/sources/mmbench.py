"""MMBench and MMMB: multiple-choice questions about pictures, one TSV a language (arXiv:2307.06281, arXiv:2406.02539).

Columns: index, question, hint, A, B, C, D, answer (a letter), category, l2-category, image. `image` is base64, or the
`index` of another row with the same picture. A missing choice or hint is empty or `nan`; choices may be as few as two.
The public test files of MMBench have no answers: the missing column is an error, not a guess.

The format was checked against the published descriptions and readers, not against the files themselves.
"""

import base64
import binascii
import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase

from athlos.config.schema import DataConfig
from athlos.data.records import ChoiceRecord, Record
from athlos.data.rows import Row, check_split, parse_rows, tsv_rows
from athlos.data.source import Source, data_part
from athlos.errors import DataError, did_you_mean

MAX_FIELD = 1 << 26
"""Longest field in characters, a picture of 48 MB. Finite: an unclosed quote must not swallow a file into memory."""
MAX_REFERENCE = 64
"""An `image` up to this long is the index of another row, as the official readers have it; no picture is so small."""
NEEDED = ("index", "question", "answer")
NOT_META = {"index", "question", "hint", "answer", "category", "image"}


@dataclass(kw_only=True)
class MmBenchConfig(DataConfig):
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    """Split -> language -> file name below `data.dir`."""
    languages: list[str] = field(default_factory=list)
    """Languages to read, in this order; empty = all of the split."""


class MmBenchSource(Source[MmBenchConfig]):
    record_type = ChoiceRecord

    def files(self, split: str) -> list[Path]:
        return list(self._files(split).values())

    def read(self, split: str) -> Iterator[Record]:
        for language, path in self._files(split).items():
            yield from self._read_file(path, language)

    def _limited_groups(self, split: str) -> Iterable[Iterator[Record]]:
        return [self._read_file(path, language) for language, path in self._files(split).items()]

    def _files(self, split: str) -> dict[str, Path]:
        check_split(split, list(self.config.files))
        known = self.config.files[split]
        for language in self.config.languages:
            if language not in known:
                near = did_you_mean(language, list(known))
                raise DataError(f"data.languages: got '{language}', accepted: {', '.join(known)}{near}")
        return {language: self.file(known[language]) for language in self.config.languages or known}

    def _read_file(self, path: Path, language: str) -> Iterator[Record]:
        # The limit is one of the whole process: raise it, and never lower what another reader has set.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD))
        shared = _shared_pictures(path)
        rows = tsv_rows(path, self.bad, needed=NEEDED)
        yield from parse_rows(self, rows, lambda row: _record(row, language=language, shared=shared))


def _shared_pictures(path: Path) -> dict[str, str]:
    """index -> base64 of the rows whose picture other rows refer to; the only pictures kept in memory."""

    def pictures() -> Iterator[tuple[str, str]]:
        for row in tsv_rows(path, lambda error: None, needed=NEEDED):
            yield row.values["index"], row.values.get("image", "").strip()

    wanted = {image for _, image in pictures() if 0 < len(image) <= MAX_REFERENCE}
    if not wanted:
        return {}
    return {index: image for index, image in pictures() if index in wanted and len(image) > MAX_REFERENCE}


def _record(row: Row, *, language: str, shared: dict[str, str]) -> ChoiceRecord:
    cells = row.values
    letters = [name for name in cells if len(name) == 1 and name in ascii_uppercase and _given(cells[name])]
    if len(letters) < 2:
        raise row.error(f"expected two choices or more, got {len(letters)}", field="A")
    answer = cells["answer"].strip()
    if answer not in letters:
        raise row.error(f"got '{answer}', expected one of {', '.join(letters)}", field="answer")
    for name in ("index", "question"):
        if not _given(cells[name]):
            raise row.error("empty", field=name)
    hint, category = cells.get("hint", ""), cells.get("category", "")
    return ChoiceRecord(
        identifier=f"{language}-{cells['index']}",
        language=language,
        question=cells["question"],
        choices=[cells[letter] for letter in letters],
        answer_index=letters.index(answer),
        hint=hint if _given(hint) else "",
        category=category if _given(category) else "",
        image=_picture(row, shared=shared) if "image" in cells else None,
        meta={name: value for name, value in cells.items() if name not in NOT_META and len(name) > 1 and _given(value)},
    )


def _given(cell: str) -> bool:
    """Whether a cell holds a value; data-frame libraries write an absent one as `nan`."""
    return cell.strip().lower() not in ("", "nan")


def _picture(row: Row, *, shared: dict[str, str]) -> bytes:
    """The encoded picture of a cell that holds it or names the row that does."""
    cell = row.values["image"].strip()
    if not _given(cell):
        raise row.error("empty; expected a picture or the index of its row", field="image")
    if len(cell) <= MAX_REFERENCE:
        if cell not in shared:
            raise row.error(f"no row '{cell}' with a picture in the file", field="image")
        cell = shared[cell]
    try:
        return base64.b64decode(cell, validate=True)
    except (binascii.Error, ValueError) as error:
        raise row.error(f"not base64: {error}", field="image") from error


PARTS = [
    data_part(
        "mmbench",
        MmBenchConfig,
        MmBenchSource,
        "MMBench and MMMB: multiple-choice questions about pictures, by language",
    )
]
