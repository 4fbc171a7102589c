"""One's own data: a file, a folder or a data set of the hub, whose columns tell what its records are (`data/forms.py`).

Lines of JSON, JSON arrays and tables are read by the readers of `rows.py`, which know the line of each record and go on
behind a bad one; Parquet, folders that `datasets` saved, and the hub are read by that library. All of them are streamed
or mapped into memory. In Parquet and saved folders the line of an error is the number of the row.

Splits go by the names of files, folders, or the splits of the hub, as `datasets` reads them. Where there is no
`validation` or no `test`, `data.test_share` of the records of the training split is set aside for each; the hash of a
record's text (of its prompt, where it has one) decides, so that equal prompts never stand on both sides.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from athlos.config.fields import bounded
from athlos.config.registry import Part
from athlos.config.schema import DataConfig, RunConfig
from athlos.data.forms import Cells, Form, recognised
from athlos.data.hub import hub_commit, hub_splits
from athlos.data.records import (
    ChatRecord,
    InstructionRecord,
    ParallelRecord,
    PreferenceRecord,
    QuestionRecord,
    Record,
    TextRecord,
)
from athlos.data.rows import Row, check_split, json_rows, rows_of_hub, tsv_rows
from athlos.data.source import OnError, Source, files_hash, read_json, require
from athlos.data.splits import fraction_of, split_at
from athlos.errors import DataError, choices, did_you_mean
from athlos.stages import content_hash

JSON_FILES, TABLES, PARQUET = (".jsonl", ".ndjson", ".json"), {".csv": ",", ".tsv": "\t"}, ".parquet"
EXTENSIONS = (*JSON_FILES, *TABLES, PARQUET)
HUB_NAME = re.compile(r"(?:hub:)?(\w[\w.-]*/\w[\w.-]*|(?<=hub:)\w[\w.-]*)(?::([\w.-]+))?")
"""`owner/name`, or `hub:name`, and behind a colon the configuration."""
SET_ASIDE = ("test", "validation")
"""Splits that are cut from the training split where the data have none of that name."""


@dataclass(kw_only=True)
class FieldsConfig:
    """Name of the column of each field; empty = that of the field itself."""

    text: str | None = None
    prompt: str | None = None
    completion: str | None = None
    messages: str | None = None
    system: str | None = None
    tools: str | None = None
    instruction: str | None = None
    input: str | None = None
    output: str | None = None
    history: str | None = None
    question: str | None = None
    answers: str | None = None
    passages: str | None = None
    context: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    source: str | None = None
    """Segments in `source_language`; empty = the column is named by the code of the language."""
    target: str | None = None


@dataclass(kw_only=True)
class OwnConfig(DataConfig):
    path: str = MISSING
    """A file (.jsonl, .ndjson, .json, .csv, .tsv, .parquet), a folder of such files or one that `datasets` saved, or a
    data set of the hub: `owner/name`, with a configuration `owner/name:configuration`."""
    fields: FieldsConfig = field(default_factory=FieldsConfig)
    """Columns whose names are not those of the fields: `{prompt: question, completion: answer}`."""
    test_share: float = bounded("[0, 0.5)")
    """Share of the training split that is set aside for `test`, and as much for `validation`, where the run wants them
    and the data have none; 0 = none."""
    language: str = "en"
    """Code of the language of the texts."""
    source_language: str | None = None
    """For pairs of segments: the language translated from, and name of its column; empty = no pairs."""
    target_language: str | None = None

    @property
    def languages(self) -> tuple[str, str] | None:
        if self.source_language is None or self.target_language is None:
            return None
        return self.source_language, self.target_language

    @property
    def columns(self) -> dict[str, str]:
        """Column of each field that is given one; segments are fields by their language."""
        named = {name: column for name, column in vars(self.fields).items() if column is not None}
        codes = dict(zip(("source", "target"), self.languages or (), strict=False))
        return {codes.get(name, name): column for name, column in named.items()}


class OwnSource(Source[OwnConfig]):
    record_type = Record
    holds_conversations = True

    def __init__(self, config: OwnConfig) -> None:
        super().__init__(config)
        self._reported: set[str] = set()

    def bad(self, error: DataError) -> None:
        """As in any source, but a record is counted once, though several splits are cut from one file."""
        if str(error) not in self._reported:
            super().bad(error)
            self._reported.add(str(error))

    @cached_property
    def hub_name(self) -> tuple[str, str | None] | None:
        """(repository, configuration) where `data.path` names a data set of the hub."""
        path = self._path
        name = HUB_NAME.fullmatch(self.config.path)
        if (
            name is None
            or path.exists()
            or path.suffix in EXTENSIONS
            or (path.parent != Path() and path.parent.is_dir())
        ):
            return None
        return name[1], name[2]

    @cached_property
    def _path(self) -> Path:
        return Path(self.config.path).expanduser()

    @cached_property
    def named(self) -> dict[str, list[Path]]:
        """The splits that the data name, each with its files, or the one folder that `datasets` saved it in.

        On the hub they have no files. Raises `DataError` where there is nothing to read.
        """
        if self.hub_name is not None:
            return {split: [] for split in hub_splits(*self.hub_name)}
        path = self._path
        if path.is_file():
            if path.suffix not in EXTENSIONS:
                raise DataError(f"unknown extension '{path.suffix}'; accepted: {', '.join(EXTENSIONS)}", file=path)
            return {"train": [path]}
        if not path.is_dir():
            raise DataError(f"data.path: '{self.config.path}' is no file and no folder{_beside(path)}")
        if (path / "state.json").is_file():
            return {"train": [path]}
        if (path / "dataset_dict.json").is_file():
            listing = path / "dataset_dict.json"
            names = require(read_json(listing), "splits", list, file=listing)
            return {str(name): [self._inside(path / str(name))] for name in names}
        return self._files_by_name(path)

    def _files_by_name(self, folder: Path) -> dict[str, list[Path]]:
        """Data files by the split in the name of the file or its folder; all of them are `train` where none has one."""
        from datasets.data_files import DataFilesPatternsDict, EmptyDatasetError, get_data_patterns

        try:
            patterns = DataFilesPatternsDict.from_patterns(get_data_patterns(str(folder))).resolve(str(folder))
        except EmptyDatasetError:
            patterns = {}
        splits = {
            str(split): sorted({self._inside(Path(name)) for name in names if Path(name).suffix in EXTENSIONS})
            for split, names in patterns.items()
        }
        splits = {split: files for split, files in splits.items() if files}
        if not splits:
            there = sorted(entry.name for entry in folder.iterdir())
            raise DataError(
                f"no data file in the folder; accepted: {', '.join(EXTENSIONS)}; it holds: "
                f"{', '.join(there[:12]) or 'nothing'}",
                file=folder,
            )
        return splits

    def _inside(self, path: Path) -> Path:
        """The path; `DataError` where it, or a link, leads out of the folder or to nothing."""
        if not path.exists():
            raise DataError("no such file or folder", file=path)
        if not path.resolve().is_relative_to(self._path.resolve()):
            raise DataError("leads out of data.path; copy it into the folder", file=path)
        return path

    def _shares(self) -> dict[str, float]:
        """Share of each split that is cut from the training split, the rest of that included; empty where none is."""
        whole = self.config.train_split
        wanted = (self.config.val_split, self.config.test_split) if self.config.test_share else ()
        aside = [name for name in SET_ASIDE if name in wanted and name not in self.named]
        if whole not in self.named or not aside:
            return {}
        return {name: self.config.test_share for name in aside} | {whole: 1 - len(aside) * self.config.test_share}

    def files(self, split: str) -> list[Path]:
        files: list[Path] = []
        for path in self.named[self._origin(split)]:
            files += sorted(path.glob("*.arrow")) if path.is_dir() else [path]
        return files

    def _origin(self, split: str) -> str:
        """The split of the data that a split is, or is cut from."""
        accepted = list(dict.fromkeys((*self.named, *self._shares())))
        if split in SET_ASIDE and split not in accepted:
            raise DataError(
                f"data.path={self.config.path} has no split '{split}' but {', '.join(accepted)}; "
                "data.test_share above 0 cuts one from data.train_split"
            )
        check_split(split, accepted)
        return split if split in self.named else str(self.config.train_split)

    def read(self, split: str) -> Iterator[Record]:
        origin, shares, columns = self._origin(split), self._shares(), self.config.columns
        form: Form | None = None
        num_records = num_kept = 0
        for row in self._rows(origin):
            form = form or recognised(row, columns=columns, languages=self.config.languages)
            try:
                record = self._record(Cells(row=row, columns=columns), form)
            except DataError as error:
                self.bad(error)
                continue
            num_records += 1
            if split not in shares or split_at(fraction_of(split_key(record)), shares) == split:
                num_kept += 1
                yield record
        if not num_records:
            raise DataError(f"data.path={self.config.path}: split '{origin}' is empty")
        if not num_kept:
            raise DataError(
                f"data.test_share: got {self.config.test_share}, which leaves none of {num_records} records for "
                f"'{split}'; raise it, give a file of that name, or name no such split"
            )

    def read_hub(self, split: str) -> Iterator[Record]:
        return self.read(split)

    def _rows(self, split: str) -> Iterator[Row]:
        if self.hub_name is not None:
            yield from rows_of_hub(*self.hub_name, split)
        for path in self.named[split]:
            yield from self._saved_rows(path) if path.is_dir() else file_rows(path, self.bad)

    def _saved_rows(self, folder: Path) -> Iterator[Row]:
        from datasets import load_from_disk

        def load() -> Iterable[dict[str, Any]]:
            dataset = load_from_disk(str(folder))
            for file in dataset.cache_files:
                self._inside(Path(file["filename"]))
            rows: Iterable[dict[str, Any]] = dataset
            return rows

        return _library_rows(load, folder)

    def _record(self, cells: Cells, form: Form) -> Record:
        """Identified by the file below `data.path`, or the name on the hub, and the row's place in it."""
        row = cells.row
        file = Path(row.file)
        is_below = isinstance(row.file, Path) and file != self._path
        name = file.relative_to(self._path).as_posix() if is_below else file.name
        language = row.values.get("language")
        language = language if isinstance(language, str) and language else self.config.language
        return form.parse(cells, f"{name}:{row.index}", language)

    def fingerprint(self, split: str) -> str:
        """Hash of the content of the data and of the settings that say which records are the split's."""
        content = files_hash(self.files(split))
        if self.hub_name is not None:
            content = f"{':'.join(filter(None, self.hub_name))}@{hub_commit(*self.hub_name)}"
        settings = [self.config.columns, self.config.languages, self.config.language, self._shares()]
        return content_hash([content, split, *settings])


def file_rows(path: Path, on_error: OnError) -> Iterator[Row]:
    """Rows of a data file, streamed; its extension tells the format."""
    if path.suffix in JSON_FILES:
        return json_rows(path, on_error)
    if path.suffix in TABLES:
        return tsv_rows(path, on_error, delimiter=TABLES[path.suffix])

    def load() -> Iterable[dict[str, Any]]:
        from datasets import load_dataset

        rows: Iterable[dict[str, Any]] = load_dataset("parquet", data_files=str(path), split="train", streaming=True)
        return rows

    return _library_rows(load, path)


def _library_rows(load: Any, path: Path) -> Iterator[Row]:
    """Rows of a data set that `datasets` loads; its many kinds of errors become `DataError`."""
    number = 0
    try:
        for number, values in enumerate(load(), start=1):
            yield Row(values=dict(values), file=path, index=number, line=number)
    except DataError:
        raise
    except Exception as error:  # of Arrow, of the library, of the file system: no base class
        reason = (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"cannot be read: {reason}", file=path, line=number + 1) from error


def split_key(record: Record) -> str:
    """Records with equal keys share a split: what is asked, or the text where nothing is."""
    if isinstance(record, ChatRecord):
        before = [message["role"] for message in record.messages[record.num_given :]].index("assistant")
        asked = record.messages[: record.num_given + before]
        return json.dumps(asked or record.messages, ensure_ascii=False)
    if isinstance(record, PreferenceRecord):
        return record.prompt if isinstance(record.prompt, str) else json.dumps(record.prompt, ensure_ascii=False)
    if isinstance(record, InstructionRecord):
        return record.prompt or record.completion
    if isinstance(record, QuestionRecord):
        return record.question
    if isinstance(record, ParallelRecord):
        return record.source
    assert isinstance(record, TextRecord)
    return record.text


def _beside(path: Path) -> str:
    """What stands where a missing path should, for the end of an error."""
    folder = path.parent
    if not folder.is_dir():
        return f"; there is no folder '{folder}' either"
    there = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    near = did_you_mean(path.name, there)
    return (
        f"{near} A data set of the hub is written owner/name"
        if near
        else choices(path.name, there[:12], label="there are")
    )


def _errors(config: RunConfig) -> Iterable[str]:
    data = config.data
    assert isinstance(data, OwnConfig)
    if data.dir is not None:
        yield f"data.dir: got '{data.dir}', expected null: data=own reads data.path"
    if (data.source_language is None) is not (data.target_language is None) or (
        data.languages is not None and data.source_language == data.target_language
    ):
        got = f"{data.source_language} and {data.target_language}"
        yield f"data.source_language, data.target_language: got {got}, expected two different codes, or neither"
    if data.languages is None and (data.fields.source or data.fields.target):
        yield "data.fields.source, data.fields.target: set data.source_language and data.target_language too"


PARTS = [
    Part(
        group="data",
        name="own",
        schema=OwnConfig,
        target=f"{__name__}.OwnSource",
        check=_errors,
        summary="one's own file, folder or data set of the hub, in any of the usual forms",
    )
]
