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
from athlos.data.records import ChoiceRecord
from athlos.data.rows import check_split
from athlos.data.source import Source, data_part, escaped_lines, refuse_broken_text
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

    def read(self, split: str) -> Iterator[ChoiceRecord]:
        for language, path in self._files(split).items():
            yield from self._read_file(path, language)

    def _limited_groups(self, split: str) -> Iterable[Iterator[ChoiceRecord]]:
        return [self._read_file(path, language) for language, path in self._files(split).items()]

    def _files(self, split: str) -> dict[str, Path]:
        check_split(split, list(self.config.files))
        known = self.config.files[split]
        for language in self.config.languages:
            if language not in known:
                near = did_you_mean(language, list(known))
                raise DataError(f"data.languages: got '{language}', accepted: {', '.join(known)}{near}")
        return {language: self.file(known[language]) for language in self.config.languages or known}

    def _read_file(self, path: Path, language: str) -> Iterator[ChoiceRecord]:
        shared = _shared_pictures(path)
        for line, row in _rows(path):
            try:
                if isinstance(row, DataError):
                    raise row
                record = _record(row, language=language, shared=shared, file=path, line=line)
            except DataError as error:
                self.bad(error)
                continue
            yield record


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str] | DataError]]:
    """(line where it starts, row or what is wrong with it); a quoted field may hold line breaks."""
    # The limit is one of the whole process: raise it, and never lower what another reader has set.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD))
    reader = csv.reader((f"{line}\n" for line in escaped_lines(path)), delimiter="\t")
    header = next(reader, [])
    for name in NEEDED:
        if name not in header:
            raise DataError(
                f"missing column; the file has {', '.join(header) or 'none'}", file=path, line=1, field=name
            )
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, DataError(str(error), file=path, line=line)
            continue
        if not cells:
            continue
        if len(cells) != len(header):
            yield line, DataError(f"expected {len(header)} columns, got {len(cells)}", file=path, line=line)
            continue
        row = dict(zip(header, cells, strict=True))
        try:
            refuse_broken_text(row, file=path, line=line)
        except DataError as error:
            yield line, error
        else:
            yield line, row


def _shared_pictures(path: Path) -> dict[str, str]:
    """index -> base64 of the rows whose picture other rows refer to; the only pictures kept in memory."""
    wanted = {
        row["image"].strip()
        for _, row in _rows(path)
        if isinstance(row, dict) and 0 < len(row.get("image", "").strip()) <= MAX_REFERENCE
    }
    if not wanted:
        return {}
    return {
        row["index"]: row["image"]
        for _, row in _rows(path)
        if isinstance(row, dict) and row["index"] in wanted and len(row["image"]) > MAX_REFERENCE
    }


def _record(row: dict[str, str], *, language: str, shared: dict[str, str], file: Path, line: int) -> ChoiceRecord:
    letters = [name for name in row if len(name) == 1 and name in ascii_uppercase and _given(row[name])]
    if len(letters) < 2:
        raise DataError(f"expected two choices or more, got {len(letters)}", file=file, line=line, field="A")
    answer = row["answer"].strip()
    if answer not in letters:
        accepted = ", ".join(letters)
        raise DataError(f"got '{answer}', expected one of {accepted}", file=file, line=line, field="answer")
    for name in ("index", "question"):
        if not _given(row[name]):
            raise DataError("empty", file=file, line=line, field=name)
    hint, category = row.get("hint", ""), row.get("category", "")
    return ChoiceRecord(
        identifier=f"{language}-{row['index']}",
        language=language,
        question=row["question"],
        choices=[row[letter] for letter in letters],
        answer_index=letters.index(answer),
        hint=hint if _given(hint) else "",
        category=category if _given(category) else "",
        image=_picture(row["image"].strip(), shared=shared, file=file, line=line) if "image" in row else None,
        meta={name: value for name, value in row.items() if name not in NOT_META and len(name) > 1 and _given(value)},
    )


def _given(cell: str) -> bool:
    """Whether a cell holds a value; data-frame libraries write an absent one as `nan`."""
    return cell.strip().lower() not in ("", "nan")


def _picture(cell: str, *, shared: dict[str, str], file: Path, line: int) -> bytes:
    """The encoded picture of a cell that holds it or names the row that does."""
    if not _given(cell):
        raise DataError("empty; expected a picture or the index of its row", file=file, line=line, field="image")
    if len(cell) <= MAX_REFERENCE:
        if cell not in shared:
            raise DataError(f"no row '{cell}' with a picture in the file", file=file, line=line, field="image")
        cell = shared[cell].strip()
    try:
        return base64.b64decode(cell, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"not base64: {error}", file=file, line=line, field="image") from error


PARTS = [
    data_part(
        "mmbench",
        MmBenchConfig,
        MmBenchSource,
        "MMBench and MMMB: multiple-choice questions about pictures, by language",
    )
]
