"""What is kept of a run for good: `experiments/<slug>/records.jsonl.gz`, one line of JSON a run. No torch here.

A line holds name, config (dotted keys), status, metrics with their intervals, provenance with the command, curves and
phases; no weights, no predictions, no figures, and no path of the machine. The same runs give the same bytes. What is
damaged in a file is named with file and line and passed over.

To change all lines of a file, read them, change them and write them back:

    damage = []
    lines = [changed(line) for _, line in read_lines(path, damage=damage)]
    write_lines(path, lines)  # after a look at `damage`: what is not in `lines` is gone
"""

import gzip
import json
import math
import os
import re
import shlex
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from athlos.errors import DataError
from athlos.runs.values import as_number, one_line, parse_json, printable, reason_of, shortened

RECORDS, SUFFIX = "records.jsonl.gz", ".jsonl.gz"

MAX_STEP = 1 << 62

PLACES = ("run_dir", "results_dir", "cache_dir")
"""Keys whose overrides are left out of a stored command: they name folders of the machine."""
PATH_IN_TEXT = re.compile(r"(?<![\w./<~])(?:file://)?~?(?:/[^\s/'\"`,;:()\[\]{}]+)+/([^\s/'\"`,;:()\[\]{}]+)")
"""An absolute path of two parts or more, with its last part."""


@dataclass(kw_only=True)
class Curve:
    """One metric by step, in order of steps; undefined values are nan."""

    steps: "array[int]"
    values: "array[float]"


@dataclass(kw_only=True)
class Detail:
    """What stands beside a metric: n items, how many undefined, the ends of its 95 % interval over items."""

    n: int | None = None
    undefined: int = 0
    low: float | None = None
    high: float | None = None


@dataclass(kw_only=True)
class Predictions:
    """The first rows of a prediction file, and how many it has."""

    rows: list[dict[str, Any]]
    total: int


@dataclass(kw_only=True)
class RunRecord:
    """A run as it was read. `path` is its folder, or its records file, study and name; `name` is shown."""

    path: Path
    name: str
    state: str = "unknown"
    """running, finished, failed, interrupted; `unknown` where the status cannot be read."""
    status: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    """Dotted key -> value; lists and empty mappings are values."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Undefined values are nan."""
    details: dict[str, Detail] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    phases: list[dict[str, Any]] = field(default_factory=list)
    """Name, key and steps of each phase of the training, in order; its metrics are those with its name in them."""
    predictions: dict[str, Predictions] = field(default_factory=dict)
    figures: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What could not be read, one line each."""
    is_imported: bool = False
    """Whether the run comes from another tracker."""

    @property
    def study(self) -> str:
        return str(self.config.get("study", ""))

    @property
    def seed(self) -> int | None:
        seed = self.config.get("seed")
        return seed if isinstance(seed, int) and not isinstance(seed, bool) else None

    @property
    def command(self) -> str | None:
        """The command that made the run, quoted for a shell; None where its record does not say."""
        stored, overrides = self.provenance.get("command"), self.provenance.get("overrides")
        if isinstance(stored, str):
            return one_line(stored)
        if isinstance(overrides, list):
            return one_line(shlex.join(["athlos", "run", *map(str, overrides)]))
        return _benchmark_command(self.config) if "benchmark" in self.config else None


def _benchmark_command(config: Mapping[str, Any]) -> str:
    words = ["python", f"benchmarks/{config['benchmark']}.py"]
    for key, value in config.items():
        if key.startswith("options.") and value is not None and value is not False:
            values = [] if value is True else value if isinstance(value, list) else [value]
            words += [f"--{key.removeprefix('options.').replace('_', '-')}", *map(str, values)]
    return one_line(shlex.join(words))


# A record as a line


def line_of(record: RunRecord) -> dict[str, Any]:
    """What is kept of a record. The name of its folder is its name; undefined values become null."""
    curves = {
        metric: {"steps": list(curve.steps), "values": [_or_null(value) for value in curve.values]}
        for metric, curve in record.curves.items()
    }
    overrides = record.provenance.get("overrides")
    provenance = dict(record.provenance)
    if isinstance(overrides, list):
        provenance["overrides"] = [word for word in overrides if _overridden(str(word)) not in PLACES]
    return {
        "run": printable(record.path.name),
        "config": without_paths(record.config),
        "status": without_paths(record.status),
        "metrics": {metric: _or_null(value) for metric, value in record.metrics.items()},
        "details": {metric: vars(detail) for metric, detail in record.details.items()},
        "provenance": without_paths(provenance),
        "curves": curves,
        "phases": without_paths(record.phases),
        "problems": record.problems,
    }


def _overridden(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def record_of(line: Mapping[str, Any], *, file: Path, with_curves: bool = True) -> RunRecord:
    """The record of a line of `file`. Raises `ValueError` with the reason for a line that is none."""
    run = line.get("run")
    if not isinstance(run, str) or not run:
        raise ValueError("no name of a run")
    config, status = _part(line, "config"), _part(line, "status")
    state = status.get("state")
    curves = _part(line, "curves").items() if with_curves else ()
    return RunRecord(
        path=file / str(config.get("study", "")) / run,
        name=printable(run),
        state=state if isinstance(state, str) and state else "unknown",
        status=status,
        config=config,
        metrics={metric: _number(value, metric) for metric, value in _part(line, "metrics").items()},
        details={
            metric: detail_of(detail)
            for metric, detail in _part(line, "details").items()
            if isinstance(detail, Mapping)
        },
        provenance=_part(line, "provenance"),
        curves={metric: _curve(metric, stored) for metric, stored in curves},
        phases=_part(line, "phases", kind=list),
        problems=[one_line(str(problem)) for problem in _part(line, "problems", kind=list)],
    )


def detail_of(detail: Mapping[str, Any]) -> Detail:
    number = {key: as_number(detail.get(key)) for key in ("n", "undefined", "low", "high")}
    known = {key: value for key, value in number.items() if value is not None and not math.isnan(value)}
    return Detail(
        n=int(known["n"]) if "n" in known else None,
        undefined=int(known.get("undefined", 0)),
        low=known.get("low"),
        high=known.get("high"),
    )


def curve_of(points: Mapping[int, float]) -> Curve:
    """Values by step in order of steps."""
    steps = sorted(points)
    return Curve(steps=array("q", steps), values=array("d", (points[step] for step in steps)))


def is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_STEP


def without_paths(value: Any) -> Any:
    """The same value where of each absolute path in a text the last part alone is left: the rest names a machine."""
    if isinstance(value, Mapping):
        return {key: without_paths(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_paths(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if value.startswith(("/", "~/")) and "\n" not in value and value.count("/") > 1:
        return PurePosixPath(value).name  # as a whole, for a path may hold spaces
    return PATH_IN_TEXT.sub(r"\1", value)


def _or_null(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _part(line: Mapping[str, Any], key: str, *, kind: type = dict) -> Any:
    part = line.get(key, kind())
    if not isinstance(part, kind):
        raise ValueError(f"'{key}' is no {'object' if kind is dict else 'list'}")
    return part


def _number(value: Any, metric: str) -> float:
    number = as_number(value)
    if number is None:
        raise ValueError(f"'metrics': {shortened(metric)} is no number")
    return number


def _curve(metric: str, stored: Any) -> Curve:
    steps, values = (stored.get("steps"), stored.get("values")) if isinstance(stored, Mapping) else (None, None)
    if not isinstance(steps, list) or not isinstance(values, list) or len(steps) != len(values):
        raise ValueError(f"'curves': {shortened(metric)} has not as many steps as values")
    numbers = [as_number(value) for value in values]
    if not all(map(is_step, steps)) or None in numbers:
        raise ValueError(f"'curves': {shortened(metric)} has a step or a value that is no number")
    return curve_of({step: number for step, number in zip(steps, numbers, strict=True) if number is not None})


# Lines in files


def is_records_file(path: Path) -> bool:
    return path.name.endswith(SUFFIX) and not path.name.startswith(".") and path.is_file()


def read_records(file: Path, *, damage: list[DataError], with_curves: bool = True) -> Iterator[RunRecord]:
    """The records of a file, in its order; what is damaged joins `damage` and is passed over."""
    for number, line in read_lines(file, damage=damage):
        try:
            yield record_of(line, file=file, with_curves=with_curves)
        except ValueError as error:
            damage.append(DataError(str(error), file=file, line=number))


def read_lines(file: Path, *, damage: list[DataError]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of a file, counted from 1, each a JSON object; what is none joins `damage` and is passed over.

    A file whose end is missing gives the lines before it.
    """
    number = 0
    try:
        with gzip.open(file) as text:
            for number, line in enumerate(text, start=1):
                try:
                    yield number, _object(line)
                except ValueError as error:
                    damage.append(DataError(reason_of(error), file=file, line=number))
    except (OSError, EOFError, zlib.error) as error:
        damage.append(DataError(f"cannot be read beyond line {number}: {reason_of(error)}", file=file))


def _object(line: bytes) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise ValueError("no line break at its end")
    value = parse_json(line)
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    return value


def add_records(file: Path, records: Iterable[RunRecord]) -> int:
    """Write records into a file, each in place of an older line of its study and name; returns how many it replaced.

    Raises `DataError` for a damaged file, which is left as it is.
    """
    damage: list[DataError] = []
    lines = {_key(line): line for _, line in read_lines(file, damage=damage)} if file.exists() else {}
    if damage:
        raise DataError(f"{damage[0].reason}; nothing was written", file=file, line=damage[0].line)
    fresh = {_key(line): line for line in map(line_of, records)}
    num_replaced = len(lines.keys() & fresh.keys())
    write_lines(file, [*(lines | fresh).values()])
    return num_replaced


def write_lines(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write a records file beside its place and rename it: lines by study and name, keys in order, no time stamp.

    Raises `DataError` when the file cannot be written.
    """
    texts = [
        json.dumps(line, sort_keys=True, allow_nan=False, separators=(",", ":")) + "\n"
        for line in sorted(lines, key=_key)
    ]
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        scratch.write_bytes(gzip.compress("".join(texts).encode("ascii"), mtime=0))
        scratch.replace(file)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise DataError(f"cannot be written: {reason_of(error)}", file=file) from error


def _key(line: Mapping[str, Any]) -> tuple[str, str]:
    config = line.get("config")
    return str(config.get("study", "")) if isinstance(config, Mapping) else "", str(line.get("run"))
