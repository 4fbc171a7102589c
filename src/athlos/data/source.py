"""What a data source is: a config, a list of splits, and a stream of typed records.

A source reads the official files below `data.dir`, or the hub where `hub` names a data set. A record it cannot read
raises `DataError` with file, line and field; with `data.on_bad=skip` it is left out and counted in `num_bad`.
"""

import hashlib
import itertools
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from athlos.config.schema import DataConfig, OnBad
from athlos.data.records import Record
from athlos.errors import DataError, choices, did_you_mean

log = logging.getLogger(__name__)
ConfigT = TypeVar("ConfigT", bound=DataConfig)
RecordT = TypeVar("RecordT", bound=Record)
SHIPPED = "package:"


def shipped_dir() -> Path:
    return Path(__file__).resolve().parent / "shipped"


class Source(ABC, Generic[ConfigT]):
    """Base of all sources. Subclasses give `record_type`, `files` and `read`."""

    record_type: ClassVar[type[Record]]
    hub: ClassVar[str | None] = None
    """Data set on the Hugging Face hub with the same fields, read through `datasets` when `data.dir` is empty."""

    def __init__(self, config: ConfigT) -> None:
        self.config = config
        self.num_bad = 0

    @abstractmethod
    def files(self, split: str) -> list[Path]:
        """The files that `read(split)` will open; raises `DataError` for an unknown split or a missing file."""

    @abstractmethod
    def read(self, split: str) -> Iterator[Record]:
        """Stream the records of a split in file order."""

    def read_hub(self, split: str) -> Iterator[Record]:
        """The same records from the hub. Sources with a `hub` data set override this."""
        raise DataError(f"data={self.config.name} has no hub data set; set data.dir=<folder with the official files>")

    def words(self) -> Iterator[str]:
        """All words of the texts, those with a leading space that begin a word; for `model.tokenizer.kind=words`."""
        raise DataError(f"data={self.config.name} has no closed word list, which model.tokenizer.kind=words needs")

    def records(self, split: str, *, limit: int | None = None) -> Iterator[Record]:
        """Records of a split from the files or the hub; at most `limit` of each language, in order."""
        if limit is None:
            yield from self._stream(split)
            return
        for group in self._limited_groups(split):
            yield from itertools.islice(group, limit)

    def _stream(self, split: str) -> Iterator[Record]:
        return self.read(split) if self.config.dir else self.read_hub(split)

    def _limited_groups(self, split: str) -> Iterable[Iterator[Record]]:
        """Streams that `limit` applies to one by one; a source with several languages gives one a language."""
        return [self._stream(split)]

    @property
    def folder(self) -> Path:
        """`data.dir` resolved; raises `DataError` when it is no folder."""
        if not self.config.dir:
            raise DataError(f"data={self.config.name} reads files: set data.dir=<folder with the official files>")
        if self.config.dir.startswith(SHIPPED):
            folder = shipped_dir() / self.config.dir.removeprefix(SHIPPED)
        else:
            folder = Path(self.config.dir).expanduser()
        if not folder.is_dir():
            raise DataError(f"data.dir: '{self.config.dir}' is not a folder")
        return folder

    def file(self, name: str) -> Path:
        """A file below `data.dir`; raises `DataError` that lists near names when it is missing."""
        folder = self.folder
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise DataError(f"'{name}' lies outside data.dir")
        if not path.is_file():
            present = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
            raise DataError(f"no such file{choices(name, present, label='data.dir holds')}", file=folder / name)
        return path

    def bad(self, error: DataError) -> None:
        """Raise, or count and go on, as `data.on_bad` says. Call it for every unreadable record."""
        if self.config.on_bad is not OnBad.skip:
            raise error
        self.num_bad += 1
        log.warning("skipped: %s", error)

    def fingerprint(self, split: str) -> str:
        """sha256 over the names and bytes of the files of a split; the hub's data set name when there are none."""
        if not self.config.dir:
            return f"hub:{self.hub}:{split}"
        digest = hashlib.sha256()
        for path in self.files(split):
            digest.update(path.name.encode())
            with path.open("rb") as handle:
                while chunk := handle.read(1 << 20):
                    digest.update(chunk)
        return digest.hexdigest()


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Stream (1-based number, line without its newline) of a UTF-8 file; only `\\n` and `\\r\\n` end a line."""
    try:
        with path.open("rb") as handle:
            for number, raw in enumerate(handle, start=1):
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(f"not UTF-8 at byte {error.start}", file=path, line=number) from error
                yield number, line.rstrip("\n").removesuffix("\r")
    except OSError as error:
        raise DataError(error.strerror or str(error), file=path) from error


def read_json(path: Path) -> Any:
    """A whole JSON file; a syntax error names the line."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error.msg}", file=path, line=error.lineno) from error
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}", file=path) from error
    except OSError as error:
        raise DataError(error.strerror or str(error), file=path) from error


def parse_json_line(line: str, *, file: Path, number: int) -> dict[str, Any]:
    """One JSON object of a JSON-lines file."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error.msg} at column {error.colno}", file=file, line=number) from error
    if not isinstance(row, dict):
        raise DataError(f"expected a JSON object, got {type(row).__name__}", file=file, line=number)
    return row


def require(
    row: dict[str, Any], key: str, kind: type | tuple[type, ...], *, file: Path | str, line: int | None = None
) -> Any:
    """The value of a field; `DataError` with file, line and field when it is missing or of another type."""
    if key not in row:
        near = did_you_mean(key, list(row))
        raise DataError(f"missing{near}", file=file, line=line, field=key)
    value = row[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind in (int, float)):
        wanted = " or ".join(k.__name__ for k in kind) if isinstance(kind, tuple) else kind.__name__
        raise DataError(f"expected {wanted}, got {type(value).__name__}", file=file, line=line, field=key)
    return value


def read_json_lines(
    source: Source[Any], path: Path, parse: Callable[[dict[str, Any], int], Record]
) -> Iterator[Record]:
    """Stream the records of a JSON-lines file; `parse(row, line)` may raise `DataError`. Empty lines do not count."""
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            yield parse(parse_json_line(line, file=path, number=number), number)
        except DataError as error:
            source.bad(error)
