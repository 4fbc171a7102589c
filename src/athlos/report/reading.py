"""Run folders -> records, whatever state the folders are in. The report, the tables and notebooks read through here.

Nothing in a run folder stops the reading: a file that is missing, half-written, damaged or of a strange shape becomes a
line in the record's `problems`, and the rest of the run is read.
"""

import json
import logging
import math
import os
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from athlos.errors import DataError
from athlos.report.bounded import excess, is_inside, open_inside, parse_json, parse_yaml, read_inside
from athlos.training.events import RESERVED, events_file
from athlos.runs.folder import flat

log = logging.getLogger(__name__)

CONFIG, STATUS, METRICS = "config.yaml", "status.json", "metrics.json"
DETAILS, PROVENANCE = "metric_details.json", "provenance.json"
PREDICTIONS, FIGURES = "predictions", "figures"

MAX_JSON_BYTES = 20_000_000
"""A larger config, metrics or provenance file is no file of Athlos."""
MAX_LINE_BYTES = 1_000_000
"""A longer line of predictions is passed over."""
MAX_ROWS_BYTES = 1_000_000_000
"""A larger file of curves or predictions is not read."""
MAX_FIGURE_BYTES = 100_000_000
PNG = b"\x89PNG\r\n\x1a\n"
NO_LIMIT = 1 << 62


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
    """What a run folder holds. `path` is the folder, `name` its path below the results."""

    path: Path
    name: str
    state: str = "unknown"
    """running, finished, failed, interrupted; `unknown` where status.json cannot be read."""
    status: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    """Dotted key -> value; lists and empty mappings are values."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Undefined values are nan."""
    details: dict[str, Detail] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
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


def collect(
    results: Path,
    *,
    num_predictions: int = 50,
    with_curves: bool = True,
    progress: Callable[[int], None] | None = None,
) -> list[RunRecord]:
    """All runs in `results`, which may be a run folder itself, by name. `progress(num_read)` is called on the way.

    Raises `DataError` when `results` is no folder or holds no run folder.
    """
    if not results.is_dir():
        raise DataError("no such folder; expected a folder with run folders in it", file=results)
    records = []
    for folder in run_folders(results):
        name = folder.name if folder == results else str(folder.relative_to(results))
        records.append(read_run(folder, name=printable(name), num_predictions=num_predictions, with_curves=with_curves))
        if progress:
            progress(len(records))
    if not records:
        raise DataError(
            f"no run folder found; looked in all folders below for {CONFIG} beside {STATUS} or {METRICS}", file=results
        )
    return sorted(records, key=lambda record: record.name)


def run_folders(results: Path) -> Iterator[Path]:
    """Run folders below `results`, itself included; nothing is looked for inside a run folder or a hidden one.

    `results` may be a link. Links to folders below it are not followed, with a warning: results come from anybody, and
    a link can lead to anything of the reader.
    """
    for folder, children, files in os.walk(results):
        if CONFIG in files and (STATUS in files or METRICS in files):
            children.clear()
            yield Path(folder)
        for child in children:
            if (linked := Path(folder, child)).is_symlink():
                log.warning("%s: a link to a folder is not followed", one_line(str(linked)))
        children[:] = sorted(child for child in children if not child.startswith("."))


def read_run(folder: Path, *, name: str, num_predictions: int = 50, with_curves: bool = True) -> RunRecord:
    """Read one run folder; never raises for what is in it."""
    record = RunRecord(path=folder, name=name)
    problems = record.problems
    top = os.path.realpath(folder)
    record.config = _config(folder / CONFIG, problems, top=top)
    record.status = _json_object(folder / STATUS, problems, top=top)
    state = record.status.get("state")
    record.state = state if isinstance(state, str) and state else "unknown"
    if record.state == "unknown":
        problems.append(f"{STATUS}: no state")
    is_done = record.state == "finished"
    for metric, value in _json_object(folder / METRICS, problems, top=top, is_needed=is_done).items():
        number = as_number(value)
        if number is None:
            problems.append(f"{METRICS}: {_short(metric)} is no number")
        else:
            record.metrics[metric] = number
    for metric, detail in _json_object(folder / DETAILS, problems, top=top, is_needed=False).items():
        if isinstance(detail, Mapping):
            record.details[metric] = _detail(detail)
    record.provenance = _json_object(folder / PROVENANCE, problems, top=top, is_needed=is_done)
    if with_curves:
        record.curves = _curves(events_file(folder), problems, top=top)
    if num_predictions > 0:
        record.predictions = _predictions(folder / PREDICTIONS, problems, top=top, limit=num_predictions)
    record.figures = _figures(folder / FIGURES, problems, top=top)
    problems[:] = [one_line(problem) for problem in problems[:100]]  # a page is no place for more
    return record


def as_number(value: Any) -> float | None:
    """A JSON value as a float: null and infinite ones as nan, None for what is no number."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def printable(text: str) -> str:
    """`text` with what UTF-8 cannot hold (bytes of a file name, half of a surrogate pair) replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


def one_line(text: str) -> str:
    """`text` with what is not printable replaced: names of files and metrics come from anywhere."""
    return "".join(character if character.isprintable() else "?" for character in printable(text))


def _short(value: object) -> str:
    text = printable(str(value))
    return text if len(text) <= 80 else text[:79] + "\N{HORIZONTAL ELLIPSIS}"


def _config(path: Path, problems: list[str], *, top: str) -> dict[str, Any]:
    try:
        found = parse_yaml(read_inside(path, top=top, max_bytes=MAX_JSON_BYTES))
    except (OSError, ValueError, TypeError) as error:
        problems.append(f"{CONFIG}: cannot be read: {_reason(error)}")
        return {}
    if not isinstance(found, dict):
        problems.append(f"{CONFIG}: holds no mapping")
        return {}
    if too_much := excess(found):
        problems.append(f"{CONFIG}: {too_much}")
        return {}
    return flat(_plain(found))


def _json_object(path: Path, problems: list[str], *, top: str, is_needed: bool = True) -> dict[str, Any]:
    """A JSON object; empty, with a problem, when it cannot be read. A missing file is one only where needed."""
    try:
        found = parse_json(read_inside(path, top=top, max_bytes=MAX_JSON_BYTES))
    except FileNotFoundError:
        if is_needed:
            problems.append(f"{path.name}: missing")
        return {}
    except (OSError, ValueError) as error:
        problems.append(f"{path.name}: cannot be read: {_reason(error)}")
        return {}
    if not isinstance(found, dict) or (too_much := excess(found)):
        problems.append(f"{path.name}: {too_much if isinstance(found, dict) else 'holds no object'}")
        return {}
    return found


def _reason(error: Exception) -> str:
    """Why a file cannot be read, without its path."""
    return _short(error.strerror if isinstance(error, OSError) and error.strerror else error)


def _plain(value: Any) -> Any:
    """YAML's dates, bytes, sets and keys of any type as what JSON knows."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _detail(detail: Mapping[str, Any]) -> Detail:
    number = {key: as_number(detail.get(key)) for key in ("n", "undefined", "low", "high")}
    known = {key: value for key, value in number.items() if value is not None and not math.isnan(value)}
    return Detail(
        n=int(known["n"]) if "n" in known else None,
        undefined=int(known.get("undefined", 0)),
        low=known.get("low"),
        high=known.get("high"),
    )


def _curves(path: Path, problems: list[str], *, top: str) -> dict[str, Curve]:
    """Curves by metric. Lines that are no records are passed over and counted; a half-written last one silently."""
    points: dict[str, dict[int, float]] = {}
    bad = 0
    try:
        with open_inside(path, top=top, max_bytes=MAX_ROWS_BYTES) as handle:
            for line in _lines(handle):
                try:
                    record = json.loads(line or b"")
                    step = record["step"]
                    if not isinstance(step, int) or abs(step) > NO_LIMIT:
                        raise TypeError("step")
                except (ValueError, TypeError, KeyError, RecursionError):
                    bad += 1
                    continue
                for metric, value in record.items():
                    if metric not in RESERVED and (number := as_number(value)) is not None:
                        points.setdefault(metric, {})[step] = number  # a step written twice counts as written last
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        problems.append(f"events/{path.name}: cannot be read: {_reason(error)}")
        return {}
    if bad:
        problems.append(f"events/{path.name}: {bad} damaged {'line' if bad == 1 else 'lines'} left out")
    return {metric: _in_order(found) for metric, found in points.items()}


def _lines(handle: BinaryIO) -> Iterator[bytes | None]:
    """Every line that ends, None in place of a very long one; what stands behind the last line break is half a line."""
    while line := handle.readline(MAX_LINE_BYTES):
        is_whole = line.endswith(b"\n")
        while not line.endswith(b"\n") and (rest := handle.readline(MAX_LINE_BYTES)):
            line = rest
        if line.endswith(b"\n"):
            yield line if is_whole else None


def _in_order(points: dict[int, float]) -> Curve:
    steps = sorted(points)
    return Curve(steps=array("q", steps), values=array("d", (points[step] for step in steps)))


def _predictions(folder: Path, problems: list[str], *, top: str, limit: int) -> dict[str, Predictions]:
    if not _is_folder_inside(folder, problems, top=top):
        return {}
    found = {}
    for path in sorted(folder.glob("*.jsonl")):
        try:
            with open_inside(path, top=top, max_bytes=MAX_ROWS_BYTES) as handle:
                found[printable(path.stem)] = _first_rows(handle, path.name, problems, limit=limit)
        except (OSError, ValueError) as error:
            problems.append(f"{PREDICTIONS}/{path.name}: cannot be read: {_reason(error)}")
    return found


def _is_folder_inside(folder: Path, problems: list[str], *, top: str) -> bool:
    if folder.is_dir() and not is_inside(folder, top=top):
        problems.append(f"{folder.name}: not read: a link out of the run folder")
        return False
    return folder.is_dir()


def _first_rows(handle: BinaryIO, name: str, problems: list[str], *, limit: int) -> Predictions:
    rows: list[dict[str, Any]] = []
    bad = total = 0
    while len(rows) < limit and (line := handle.readline(MAX_LINE_BYTES)):
        total += 1
        is_whole = line.endswith(b"\n") or len(line) < MAX_LINE_BYTES
        while not line.endswith(b"\n") and (rest := handle.readline(MAX_LINE_BYTES)):
            line = rest
        try:
            row = parse_json(line) if is_whole else None
        except ValueError:
            row = None
        if isinstance(row, dict) and not excess(row):
            rows.append(row)
        else:
            bad += 1
    last = b"\n"
    while chunk := handle.read(1 << 20):
        total += chunk.count(b"\n")
        last = chunk[-1:]
    total += last != b"\n"
    if bad:
        problems.append(f"{PREDICTIONS}/{name}: {bad} damaged or very long lines left out")
    return Predictions(rows=rows, total=total)


def _figures(folder: Path, problems: list[str], *, top: str) -> list[Path]:
    """PNG files below `figures/`. Other pictures are named as problems: an SVG may carry a script."""
    if not _is_folder_inside(folder, problems, top=top):
        return []
    found = []
    for path in sorted(folder.rglob("*")):
        name = f"{FIGURES}/{_short(path.relative_to(folder))}"
        if path.suffix.lower() == ".png":
            try:
                with open_inside(path, top=top, max_bytes=MAX_FIGURE_BYTES) as handle:
                    is_png = handle.read(len(PNG)) == PNG
            except (OSError, ValueError) as error:
                problems.append(f"{name}: not shown: {_reason(error)}")
                continue
            if is_png:
                found.append(path)
            else:
                problems.append(f"{name}: not shown: no PNG")
        elif path.suffix.lower() in (".svg", ".pdf", ".jpg", ".jpeg", ".gif", ".webp"):
            problems.append(f"{name}: not shown; expected .png")
    return found
