"""What a data source is: a config, a list of splits, and a stream of typed records.

A source reads the official files below `data.dir`, or the hub where `hub` names a data set. A record it cannot read
raises `DataError` with file, line and field; with `data.on_bad=skip` it is left out and counted in `num_bad`.
"""

import hashlib
import itertools
import json
import logging
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from hydra.utils import get_class

from athlos.config.registry import Part
from athlos.config.schema import DataConfig, OnBad, RunConfig
from athlos.data.records import Record
from athlos.errors import DataError, choices, did_you_mean
from athlos.stages import content_hash

log = logging.getLogger(__name__)
ConfigT = TypeVar("ConfigT", bound=DataConfig)
OnError = Callable[[DataError], None]
BROKEN_TEXT = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
"""What a JSON text holds where one of its strings may have half of a surrogate pair, which no file can be written
with: the escape of a half, also of one that has its other half, or a byte that was no UTF-8."""
SHIPPED = "package:"


def shipped_dir() -> Path:
    return Path(__file__).resolve().parent / "shipped"


class Source(ABC, Generic[ConfigT]):
    """Base of all sources. Subclasses give `record_type`, `files` and `read`."""

    record_type: ClassVar[type[Record]]
    """Of the records that are evaluated; `Record` itself where they depend on config or files, or are of several."""
    hub: str | None = None
    """Data set on the Hugging Face hub with the same fields, read through `datasets` when `data.dir` is empty."""

    holds_conversations: ClassVar[bool] = False
    """Whether its rows depend on the chat template of the model."""

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

    def languages_of(self, split: str) -> Iterable[str]:
        """Languages each of which `limit` applies to by itself; empty = it applies to the split as a whole."""
        return ()

    def _limited_groups(self, split: str) -> Iterable[Iterator[Record]]:
        """Streams that `limit` applies to one by one."""
        languages = self.languages_of(split)
        return [self._of_language(split, language) for language in languages] or [self._stream(split)]

    def _of_language(self, split: str, language: str) -> Iterator[Record]:
        return (record for record in self._stream(split) if record.language == language)

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
        return files_hash(self.files(split))


class GeneratedSource(Source[ConfigT]):
    """Base of the sources that read no files: every record follows from the config. Subclasses give `decides`."""

    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")
    version: ClassVar[int] = 1
    """Raised when the same config gives other records."""

    def files(self, split: str) -> list[Path]:
        """None: only checks the name of the split."""
        if split not in self.splits:
            raise DataError(f"data={self.config.name} has no split '{split}'{choices(split, list(self.splits))}")
        return []

    @abstractmethod
    def decides(self, split: str) -> dict[str, Any]:
        """Everything that decides the records of a split."""

    def fingerprint(self, split: str) -> str:
        """Hash of the generator's version and of everything that decides the records."""
        self.files(split)
        return content_hash({"generator": self.version, "split": split, **self.decides(split)})

    def _stream(self, split: str) -> Iterator[Record]:
        return self.read(split)


def files_hash(paths: Iterable[Path]) -> str:
    """sha256 over the names and bytes of files, in their order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode())
        with path.open("rb") as handle:
            while chunk := handle.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def read_lines(path: Path, *, on_error: OnError | None = None) -> Iterator[tuple[int, str]]:
    """Stream (1-based number, line without its newline) of a UTF-8 file; only `\\n` and `\\r\\n` end a line.

    A line that is not UTF-8 goes to `on_error` and is left out; without `on_error` it raises.
    """
    for number, line in decoded_lines(path):
        if not isinstance(line, DataError):
            yield number, line
        elif on_error is None:
            raise line
        else:
            on_error(line)


def decoded_lines(path: Path) -> Iterator[tuple[int, str | DataError]]:
    """`read_lines` with an error in the place of each line that is not UTF-8."""
    for number, raw in _raw_lines(path):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            yield number, DataError(f"not UTF-8 at byte {error.start}", file=path, line=number)
        else:
            yield number, line.rstrip("\n").removesuffix("\r")


def escaped_lines(path: Path) -> Iterator[str]:
    """The lines of a file whose records go over several lines, with each byte that is not UTF-8 as a lone surrogate.

    So the structure of the file stays, and `refuse_broken_text` refuses the record alone.
    """
    for number, raw in _raw_lines(path):
        line = raw.decode("utf-8-sig" if number == 1 else "utf-8", errors="surrogateescape")
        yield line.rstrip("\n").removesuffix("\r")


def _raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as handle:
            yield from enumerate(handle, start=1)
    except OSError as error:
        raise DataError(error.strerror or str(error), file=path) from error


def refuse_broken_text(values: Any, *, file: Path | str, line: int | None = None, field: str = "") -> None:
    """`DataError` that names the first string below `values`, at any depth, which has half of a surrogate pair.

    JSON can write such a half (`"\\ud83d"`), but no file and no tokenizer takes it. `field` is where `values` stands.
    """
    if isinstance(values, dict):
        for key, value in values.items():
            refuse_broken_text(str(key), file=file, line=line, field=field)
            refuse_broken_text(value, file=file, line=line, field=f"{field}.{key}" if field else str(key))
    elif isinstance(values, list):
        for position, value in enumerate(values):
            refuse_broken_text(value, file=file, line=line, field=f"{field}[{position}]")
    elif isinstance(values, str) and (broken := re.search("[\ud800-\udfff]", values)):
        # A byte that was no UTF-8 stands for itself above U+DC80, see `escaped_lines`.
        is_byte = "\udc80" <= broken[0] <= "\udcff"
        reason = "not UTF-8" if is_byte else f"half of a surrogate pair: \\u{ord(broken[0]):x}"
        raise DataError(f"{reason} at character {broken.start()}", file=file, line=line, field=field or None)


def json_reason(error: ValueError | RecursionError) -> str:
    """Why a text is no JSON that can be read: bad syntax, a number of too many digits, brackets nested too deep."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg}"
    return f"JSON that cannot be read: {str(error).partition(';')[0]}"


def read_json(path: Path) -> Any:
    """A whole JSON file; a syntax error names the line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        document = json.loads(text)
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}", file=path) from error
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else None
        raise DataError(json_reason(error), file=path, line=line) from error
    except OSError as error:
        raise DataError(error.strerror or str(error), file=path) from error
    if BROKEN_TEXT.search(text):
        refuse_broken_text(document, file=path)
    return document


def parse_json_line(line: str, *, file: Path, number: int) -> dict[str, Any]:
    """One JSON object of a JSON-lines file."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        at = f" at column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{json_reason(error)}{at}", file=file, line=number) from error
    if not isinstance(row, dict):
        raise DataError(f"expected a JSON object, got {type(row).__name__}", file=file, line=number)
    if BROKEN_TEXT.search(line):
        refuse_broken_text(row, file=file, line=number)
    return row


def require(
    row: dict[str, Any], key: str, kind: type | tuple[type, ...], *, file: Path | str, line: int | None = None
) -> Any:
    """The value of a field; `DataError` with file, line and field when it is missing or of another type.

    Python's JSON takes `NaN` and `Infinity` for floats, and its `true` is an int: none of them passes as a number.
    """
    if key not in row:
        near = did_you_mean(key, list(row))
        raise DataError(f"missing{near}", file=file, line=line, field=key)
    value = row[key]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(accepted.__name__ for accepted in kinds)
        raise DataError(f"expected {wanted}, got {type(value).__name__}", file=file, line=line, field=key)
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"expected a finite number, got {value}", file=file, line=line, field=key)
    return value


def data_part(
    name: str,
    schema: type[ConfigT],
    source: type[Source[ConfigT]],
    summary: str,
    *,
    check: Callable[[ConfigT, RunConfig], Iterable[str]] | None = None,
) -> Part:
    """The choice `data=<name>`; `check` gives one line for each reason why a run with these data makes no sense."""

    def errors(run: RunConfig) -> Iterable[str]:
        assert isinstance(run.data, schema)
        return () if check is None else check(run.data, run)

    target = f"{source.__module__}.{source.__qualname__}"
    return Part(group="data", name=name, schema=schema, target=target, summary=summary, check=errors)


def build_source(config: RunConfig) -> Source[Any]:
    """The data source of a run, from its `_target_` (the allow-list was checked at compose time)."""
    source = get_class(config.data._target_)(config.data)
    assert isinstance(source, Source)
    return source


def test_split(config: DataConfig) -> str:
    """The split that is evaluated; raises `DataError` where the data name none."""
    if config.test_split is None:
        raise DataError(f"data.test_split: data={config.name} names no test split; set one")
    return config.test_split
