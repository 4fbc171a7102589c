"""Rows of official files and of the hub, and the two bases of sources made of rows.

A `Row` knows where it stands, so that every error names file, line and field. JSON lines, a JSON array and a table of
tab-separated values with a header all become rows; `RowSource` has one file a split, `LanguageSource` one a language.
"""

import csv
import itertools
import json
import logging
import re
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from omegaconf import MISSING

from athlos.config.schema import DataConfig
from athlos.data.hub import hub_rows
from athlos.data.records import Record
from athlos.data.source import (
    BROKEN_TEXT,
    OnError,
    Source,
    escaped_lines,
    json_reason,
    parse_json_line,
    read_lines,
    refuse_broken_text,
    require,
)
from athlos.errors import DataError, did_you_mean

log = logging.getLogger(__name__)

JSON_SPACE = re.compile(r"[ \t\n\r]*")
"""The white space that JSON knows; `str.isspace` knows more."""
CHUNK = 1 << 20
"""Characters of a JSON array that are read at a time."""
HUB_SPLITS = {"dev": "validation"}
"""What the hub calls a split, where it differs from the name in the official files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One record as it stands in a file: its values and its place."""

    values: dict[str, Any]
    file: Path | str
    index: int
    """1-based: the line in a file of lines, the element in an array or a list, the row on the hub."""
    line: int | None = None
    """Line where the row begins; empty inside a JSON document that is one record."""
    prefix: str = ""
    """Where `values` stands within the record, such as `paragraphs[3].`; put before the field in errors."""

    def need(self, key: str, kind: type | tuple[type, ...]) -> Any:
        """The value of a field; `DataError` when it is missing or of another type."""
        try:
            return require(self.values, key, kind, file=self.file, line=self.line)
        except DataError as error:
            raise self.error(error.reason, field=key) from error

    def texts(self, key: str) -> list[str]:
        """A field that is a list of strings."""
        value: list[str] = self.need(key, list)
        for position, item in enumerate(value):
            if not isinstance(item, str):
                raise self.error(f"expected str, got {type(item).__name__}", field=f"{key}[{position}]")
        return value

    def children(self, key: str) -> Iterator["Row"]:
        """A field that is a list of objects, each as a row of its own."""
        for position, item in enumerate(self.need(key, list)):
            if not isinstance(item, dict):
                raise self.error(f"expected dict, got {type(item).__name__}", field=f"{key}[{position}]")
            yield replace(self, values=item, index=position + 1, prefix=f"{self.prefix}{key}[{position}].")

    def below(self, key: str) -> "Row":
        """A field that is an object, as a row of its own."""
        return replace(self, values=self.need(key, dict), prefix=f"{self.prefix}{key}.")

    def pairs(self, key: str, first: str, second: str) -> list[tuple[Any, Any]]:
        """A field that is an object of two parallel lists, as the hub stores a list of pairs."""
        lists = self.below(key)
        left, right = lists.need(first, list), lists.need(second, list)
        if len(left) != len(right):
            raise self.error(f"'{first}' has {len(left)} items, '{second}' has {len(right)}", field=key)
        return list(zip(left, right, strict=True))

    def error(self, message: str, *, field: str) -> DataError:
        return DataError(message, file=self.file, line=self.line, field=f"{self.prefix}{field}")


def json_rows(path: Path, on_error: OnError) -> Iterator[Row]:
    """Rows of a file of JSON lines, streamed, or of one JSON array, decoded one element after the other.

    The first byte that is no space tells which. A bad line goes to `on_error` and reading goes on; after a syntax
    error inside an array there is no next element to go on with, so that raises `DataError`.
    """
    if _first_character(path) == "[":
        yield from _array_rows(path, on_error)
        return
    for number, line in read_lines(path, on_error=on_error):
        if not line.strip():
            continue
        try:
            values = parse_json_line(line, file=path, number=number)
        except DataError as error:
            on_error(error)
        else:
            yield Row(values=values, file=path, index=number, line=number)


def _first_character(path: Path) -> str:
    """The first character that is no space; empty for an empty file. An array may be one line of gigabytes."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as handle:
            while chunk := handle.read(4096):
                if start := chunk.lstrip():
                    return start[0]
    except OSError as error:
        raise DataError(error.strerror or str(error), file=path) from error
    return ""


def _array_rows(path: Path, on_error: OnError) -> Iterator[Row]:
    """About one element is in memory at a time. A byte that is no UTF-8 costs its own element, see `escaped_lines`."""
    decoder = json.JSONDecoder()
    text, at, line = "", 0, 1
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as handle:
        for position in itertools.count():
            while True:
                failure: ValueError | RecursionError | None = None
                start, end = len(text), len(text)
                try:
                    start, end, values = _element(decoder, text, at, opener="," if position else "[")
                except (ValueError, RecursionError) as error:
                    failure = error
                # Also an element that ends where the text does may go on behind it: `1` of `12`.
                more = handle.read(max(CHUNK, len(text) - at)) if failure or end == len(text) else ""
                if not more:
                    break
                text, at = text[at:] + more, 0
            if failure is not None:
                failed_at = (
                    failure.pos if isinstance(failure, json.JSONDecodeError) else _behind(text, _behind(text, at) + 1)
                )
                place = line + text.count("\n", at, failed_at)
                raise DataError(f"{json_reason(failure)} in element [{position}]", file=path, line=place) from failure
            line += text.count("\n", at, start)
            if end == start:
                if text[end + 1 :].strip() or handle.read().strip():
                    raise DataError("not JSON: text after the end of the list", file=path, line=line)
                return
            try:
                if not isinstance(values, dict):
                    raise DataError(f"expected a JSON object, got {type(values).__name__}", file=path, line=line)
                if BROKEN_TEXT.search(text, start, end):
                    refuse_broken_text(values, file=path, line=line)
            except DataError as error:
                field = f"[{position}].{error.field}" if error.field else f"[{position}]"
                on_error(DataError(error.reason, file=path, line=line, field=field))
            else:
                yield Row(values=values, file=path, index=position + 1, line=line, prefix=f"[{position}].")
            line, at = line + text.count("\n", start, end), end


def _element(decoder: json.JSONDecoder, text: str, at: int, *, opener: str) -> tuple[int, int, Any]:
    """Where the element behind `opener` starts and ends, and its value; start and end are one at the closing bracket.

    Raises `JSONDecodeError` where the text is broken or ends too early.
    """
    start = _behind(text, at)
    if text[start : start + 1] == "]" and opener == ",":
        return start, start, None
    if text[start : start + 1] != opener:
        raise json.JSONDecodeError(f"Expecting '{opener}'", text, start)
    start = _behind(text, start + 1)
    if text[start : start + 1] == "]" and opener == "[":
        return start, start, None
    values, end = decoder.raw_decode(text, start)
    return start, end, values


def _behind(text: str, start: int) -> int:
    """Where the white space that begins at `start` ends."""
    space = JSON_SPACE.match(text, start)
    assert space is not None  # the pattern also matches nothing
    return space.end()


def tsv_rows(path: Path, on_error: OnError, *, delimiter: str = "\t", needed: Sequence[str] = ()) -> Iterator[Row]:
    """Rows of a table with a header, streamed; quoted cells may hold delimiters, quotes and line ends.

    A row that cannot be read goes to `on_error`; a header without the `needed` columns raises `DataError`.
    """
    reader = csv.reader((f"{line}\n" for line in escaped_lines(path)), delimiter=delimiter)
    header: list[str] | None = None
    while True:
        start = reader.line_num + 1
        try:
            cells = next(reader, None)
            if cells is None:
                return
            if header is None and cells:
                header = cells
                for name in (name for name in needed if name not in cells):
                    raise DataError(f"missing column; the file has {', '.join(cells)}", file=path, line=1, field=name)
            elif header is not None and cells:
                if len(cells) != len(header):
                    raise csv.Error(f"{len(cells)} columns, the header has {len(header)}")
                values = dict(zip(header, cells, strict=True))
                try:
                    refuse_broken_text(values, file=path, line=start)
                except DataError as error:
                    on_error(error)
                    continue
                yield Row(values=values, file=path, index=start, line=start)
        except csv.Error as error:
            failure = DataError(str(error), file=path, line=start)
            if header is None:
                raise failure from error
            on_error(failure)


def rows_of_hub(repo: str, config_name: str | None, split: str) -> Iterator[Row]:
    """Rows of a split of a hub data set; errors name `hub:<repo>` and the 1-based number of the row."""
    for number, values in enumerate(hub_rows(repo, config_name, split), start=1):
        yield Row(values=values, file=f"hub:{repo}", index=number, line=number)


def parse_rows(source: Source[Any], rows: Iterable[Row], parse: Callable[[Row], Record]) -> Iterator[Record]:
    """Records of rows; one that `parse` refuses with `DataError` is raised or counted, as `data.on_bad` says."""
    for row in rows:
        try:
            record = parse(row)
        except DataError as error:
            source.bad(error)
        else:
            yield record


def check_split(split: str, accepted: Sequence[str]) -> None:
    """`DataError` that lists the accepted splits when this is none of them."""
    if split not in accepted:
        near = did_you_mean(split, accepted)
        raise DataError(f"split '{split}' is unknown{near or ';'} accepted: {', '.join(accepted) or 'none'}")


@dataclass(kw_only=True)
class SplitFilesConfig(DataConfig):
    files: dict[str, str] = field(default_factory=dict)
    """File name below `data.dir` of each split."""
    language: str = "en"
    """Code of the language of the texts; another one for a translated copy of the data set."""


SplitFilesT = TypeVar("SplitFilesT", bound=SplitFilesConfig)


class RowSource(Source[SplitFilesT]):
    """One file a split, one row a record."""

    hub_config: str | None = None
    """Configuration of the hub data set."""

    @abstractmethod
    def parse(self, row: Row, split: str) -> Record:
        """The record of a row; raises `DataError` for one that cannot be read."""

    def rows(self, path: Path) -> Iterator[Row]:
        return json_rows(path, self.bad)

    def from_hub(self, row: Row) -> Row:
        """A row of the hub with the fields of the official file."""
        return row

    def files(self, split: str) -> list[Path]:
        check_split(split, list(self.config.files))
        return [self.file(self.config.files[split])]

    def read(self, split: str) -> Iterator[Record]:
        for path in self.files(split):
            yield from parse_rows(self, self.rows(path), lambda row: self.parse(row, split))

    def read_hub(self, split: str) -> Iterator[Record]:
        if self.hub is None:
            yield from super().read_hub(split)
            return
        check_split(split, list(self.config.files))
        rows = rows_of_hub(self.hub, self.hub_config, HUB_SPLITS.get(split, split))
        yield from parse_rows(self, rows, lambda row: self.parse(self.from_hub(row), split))


def file_of_layout(source: Source[Any], files: Mapping[str, Mapping[str, str]], layout: str, split: str) -> list[Path]:
    """The file of a split in the layout that the run reads; `files` maps layouts to splits to names of files."""
    known = files.get(layout, {})
    if split not in known:
        accepted = ", ".join(known) or "none"
        raise DataError(f"split '{split}' is unknown for data.layout={layout}; accepted: {accepted}")
    return [source.file(known[split])]


@dataclass(kw_only=True)
class LanguagesConfig(DataConfig):
    languages: list[str] = MISSING
    """Codes of the languages to read, in this order."""


LanguagesT = TypeVar("LanguagesT", bound=LanguagesConfig)


class LanguageSource(Source[LanguagesT]):
    """One file a language, all of one split. A limit on the records is a limit on each language."""

    accepted: ClassVar[tuple[str, ...]]
    """Languages of the official data set."""
    splits: ClassVar[tuple[str, ...]] = ("test",)
    hub_split: ClassVar[str] = "test"
    pairs_english: ClassVar[bool] = False
    """Whether the English file, where it is there, gives each record its question in English."""

    def __init__(self, config: LanguagesT) -> None:
        super().__init__(config)
        for language in config.languages:
            if language not in self.accepted:
                near = did_you_mean(language, self.accepted)
                raise DataError(f"data.languages: '{language}' is unknown{near or ';'} {self._accepted_list()}")
        if not config.languages or len(set(config.languages)) < len(config.languages):
            got = ", ".join(config.languages) or "none"
            raise DataError(f"data.languages: got {got}, expected each language once; {self._accepted_list()}")

    def _accepted_list(self) -> str:
        return f"accepted: {', '.join(self.accepted)}"

    @abstractmethod
    def file_name(self, language: str) -> str:
        """Official name of the file of a language."""

    @abstractmethod
    def parse(self, row: Row, language: str) -> Record:
        """The record of a row; raises `DataError` for one that cannot be read."""

    def rows(self, path: Path, on_error: OnError) -> Iterator[Row]:
        return json_rows(path, on_error)

    def hub_config(self, language: str) -> str:
        """Configuration of the hub data set that holds a language."""
        return language

    def from_hub(self, row: Row) -> Row:
        """A row of the hub with the fields of the official file."""
        return row

    def pair_key(self, row: Row) -> Hashable:
        """What a row has in common with the same question in English."""
        return row.index

    def english(self, row: Row) -> str:
        """The question of a row in English; empty where the English file is absent or lacks it."""
        return self._english_questions.get(self.pair_key(row), "")

    def files(self, split: str) -> list[Path]:
        check_split(split, self.splits)
        paths = [self.file(self.file_name(language)) for language in self.config.languages]
        english = self.folder / self.file_name("en")
        if self.pairs_english and "en" not in self.config.languages and english.is_file():
            paths.append(english)
        return paths

    def read(self, split: str) -> Iterator[Record]:
        return itertools.chain.from_iterable(self._limited_groups(split))

    read_hub = read

    def _limited_groups(self, split: str) -> Iterable[Iterator[Record]]:
        check_split(split, self.splits)
        for language in self.config.languages:
            yield self._read_language(language)

    def _read_language(self, language: str) -> Iterator[Record]:
        rows = self._language_rows(language, self.bad)
        if self.config.dir:
            return parse_rows(self, rows, lambda row: self.parse(row, language))
        return parse_rows(self, rows, lambda row: self.parse(self.from_hub(row), language))

    def _language_rows(self, language: str, on_error: OnError) -> Iterator[Row]:
        if self.config.dir:
            yield from self.rows(self.file(self.file_name(language)), on_error)
        elif self.hub is None:
            super().read_hub(self.splits[0])  # raises: no hub data set
        else:
            yield from rows_of_hub(self.hub, self.hub_config(language), self.hub_split)

    @cached_property
    def _english_questions(self) -> dict[Hashable, str]:
        if self.config.dir and not (self.folder / self.file_name("en")).is_file():
            return {}
        questions: dict[Hashable, str] = {}
        for row in self._language_rows("en", lambda error: log.warning("no English question: %s", error)):
            try:
                questions[self.pair_key(row)] = row.need("question", str)
            except DataError as error:
                log.warning("no English question: %s", error)
        return questions
