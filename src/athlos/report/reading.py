"""Run folders and records files -> records, whatever state they are in. All that shows runs reads through here.

Nothing in a run folder stops the reading: a file that is missing, half-written, damaged or of a strange shape becomes a
line in the record's `problems`, and the rest of the run is read. Damaged lines of a records file are named in warnings.
"""

import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from athlos.errors import DataError
from athlos.runs.folder import flat
from athlos.runs.records import (
    SUFFIX,
    Curve,
    Predictions,
    RunRecord,
    curve_of,
    detail_of,
    is_records_file,
    is_step,
    read_records,
)
from athlos.runs.values import as_number, one_line, parse_json, printable, reason_of, shortened
from athlos.training.events import RESERVED, events_file

try:
    from yaml import CSafeLoader as SafeLoader  # ten times faster; absent where PyYAML was built without libyaml
except ImportError:
    from yaml import SafeLoader

log = logging.getLogger(__name__)

CONFIG, STATUS, METRICS = "config.yaml", "status.json", "metrics.json"
DETAILS, PROVENANCE = "metric_details.json", "provenance.json"
PREDICTIONS, FIGURES = "predictions", "figures"

PNG = b"\x89PNG\r\n\x1a\n"
MAX_NAMED = 10
"""Damaged lines of a records file that are named one by one."""


def collect(
    results: Path,
    *,
    num_predictions: int = 50,
    with_curves: bool = True,
    progress: Callable[[int], None] | None = None,
) -> list[RunRecord]:
    """All runs in `results`, by name: a folder with run folders and records files in it, or one of either.

    `progress(num_read)` is called on the way. Raises `DataError` when `results` is neither or holds no run.
    """
    if not results.is_dir() and not is_records_file(results):
        raise DataError(f"no such folder; expected a folder with run folders or *{SUFFIX} files in it", file=results)
    records = []
    for place in run_places(results):
        if place.is_dir():
            name = place.name if place == results else str(place.relative_to(results))
            run = read_run(place, name=printable(name), num_predictions=num_predictions, with_curves=with_curves)
            records.append(run)
        else:
            records += _records_in(place, results=results, with_curves=with_curves)
        if progress:
            progress(len(records))
    if not records:
        raise DataError(
            f"no run folder found; looked in all folders below for {CONFIG} beside {STATUS} or {METRICS}, and for "
            f"*{SUFFIX}",
            file=results,
        )
    return sorted(records, key=lambda record: record.name)


def run_places(results: Path) -> Iterator[Path]:
    """Run folders and records files below `results`, itself included; none inside a run folder or a hidden one.

    `results` may be a link. Links to folders below it are not followed, with a warning: they may lead in a circle.
    """
    if is_records_file(results):
        yield results
    for folder, children, files in os.walk(results):
        if CONFIG in files and (STATUS in files or METRICS in files):
            children.clear()
            yield Path(folder)
            continue
        yield from (path for file in sorted(files) if is_records_file(path := Path(folder, file)))
        for child in children:
            if (linked := Path(folder, child)).is_symlink():
                log.warning("%s: a link to a folder is not followed", one_line(str(linked)))
        children[:] = sorted(child for child in children if not child.startswith("."))


def _records_in(file: Path, *, results: Path, with_curves: bool) -> list[RunRecord]:
    """The records of a file, named by the folder of the file below `results`; what is damaged is named in warnings."""
    damage: list[DataError] = []
    records = list(read_records(file, damage=damage, with_curves=with_curves))
    above = file.parent.relative_to(results) if results.is_dir() else Path()
    for record in records:
        record.name = printable(str(above / record.name))
    for error in damage[:MAX_NAMED]:
        log.warning("passed over %s", one_line(str(error)))
    if len(damage) > MAX_NAMED:
        log.warning("passed over %d more lines of %s", len(damage) - MAX_NAMED, one_line(str(file)))
    return records


def read_run(folder: Path, *, name: str, num_predictions: int = 50, with_curves: bool = True) -> RunRecord:
    """Read one run folder; never raises for what is in it."""
    record = RunRecord(path=folder, name=name)
    problems = record.problems
    record.config = _config(folder / CONFIG, problems)
    record.status = _json_object(folder / STATUS, problems)
    state = record.status.get("state")
    record.state = state if isinstance(state, str) and state else "unknown"
    if record.state == "unknown":
        problems.append(f"{STATUS}: no state")
    is_done = record.state == "finished"
    for metric, value in _json_object(folder / METRICS, problems, is_needed=is_done).items():
        number = as_number(value)
        if number is None:
            problems.append(f"{METRICS}: {shortened(metric)} is no number")
        else:
            record.metrics[metric] = number
    for metric, detail in _json_object(folder / DETAILS, problems, is_needed=False).items():
        if isinstance(detail, Mapping):
            record.details[metric] = detail_of(detail)
    record.provenance = _json_object(folder / PROVENANCE, problems, is_needed=is_done)
    phases = record.provenance.get("phases", [])
    record.phases = [phase for phase in phases if isinstance(phase, dict)] if isinstance(phases, list) else []
    if with_curves:
        record.curves = _curves(events_file(folder), problems)
    if num_predictions > 0:
        record.predictions = _predictions(folder / PREDICTIONS, problems, limit=num_predictions)
    record.figures = _figures(folder / FIGURES, problems)
    problems[:] = [one_line(problem) for problem in problems[:100]]  # a page is no place for more
    return record


def _config(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=SafeLoader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        problems.append(f"{CONFIG}: cannot be read: {reason_of(error)}")
        return {}
    if not isinstance(config, dict):
        problems.append(f"{CONFIG}: holds no mapping")
        return {}
    return flat(_plain(config))


def _json_object(path: Path, problems: list[str], *, is_needed: bool = True) -> dict[str, Any]:
    """A JSON object; empty, with a problem, when it cannot be read. A missing file is one only where needed."""
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if is_needed:
            problems.append(f"{path.name}: missing")
        return {}
    except (OSError, ValueError) as error:
        problems.append(f"{path.name}: cannot be read: {reason_of(error)}")
        return {}
    if not isinstance(value, dict):
        problems.append(f"{path.name}: holds no object")
        return {}
    return value


def _plain(value: Any) -> Any:
    """YAML's dates, bytes, sets and keys of any type as what JSON knows."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _curves(path: Path, problems: list[str]) -> dict[str, Curve]:
    """Curves by metric. Lines that are no records are passed over and counted; a half-written last one silently."""
    points: dict[str, dict[int, float]] = {}
    bad = 0
    try:
        with path.open("rb") as handle:
            for line in handle:
                if not line.endswith(b"\n"):
                    break
                try:
                    record = json.loads(line)
                    step = record["step"]
                    if not is_step(step):
                        raise TypeError("step")
                except (ValueError, TypeError, KeyError):
                    bad += 1
                    continue
                for metric, value in record.items():
                    if metric not in RESERVED and (number := as_number(value)) is not None:
                        points.setdefault(metric, {})[step] = number  # a step written twice counts as written last
    except FileNotFoundError:
        return {}
    except OSError as error:
        problems.append(f"events/{path.name}: cannot be read: {reason_of(error)}")
        return {}
    if bad:
        problems.append(f"events/{path.name}: {bad} damaged {'line' if bad == 1 else 'lines'} left out")
    return {metric: curve_of(curve_points) for metric, curve_points in points.items()}


def _predictions(folder: Path, problems: list[str], *, limit: int) -> dict[str, Predictions]:
    predictions = {}
    for path in sorted(folder.glob("*.jsonl")):
        try:
            predictions[printable(path.stem)] = _first_rows(path, problems, limit=limit)
        except OSError as error:
            problems.append(f"{PREDICTIONS}/{path.name}: cannot be read: {reason_of(error)}")
    return predictions


def _first_rows(path: Path, problems: list[str], *, limit: int) -> Predictions:
    rows: list[dict[str, Any]] = []
    bad = total = 0
    with path.open("rb") as handle:
        for line in handle:
            total += 1
            if len(rows) == limit:
                continue
            try:
                row = parse_json(line)
            except ValueError:
                row = None
            if isinstance(row, dict):
                rows.append(row)
            else:
                bad += 1
    if bad:
        problems.append(f"{PREDICTIONS}/{path.name}: {bad} damaged {'line' if bad == 1 else 'lines'} left out")
    return Predictions(rows=rows, total=total)


def _figures(folder: Path, problems: list[str]) -> list[Path]:
    """PNG files below `figures/`. Other pictures are named as problems: an SVG may carry a script."""
    figures = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() == ".png":
            figures.append(path)
        elif path.suffix.lower() in (".svg", ".pdf", ".jpg", ".jpeg", ".gif", ".webp"):
            problems.append(f"{FIGURES}/{shortened(path.relative_to(folder))}: not shown; expected .png")
    return figures
