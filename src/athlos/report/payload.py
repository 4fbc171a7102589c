"""Records -> the data of the page: plain JSON values, kept small.

What a page of thousands of runs would repeat is stored once: equal config values, long texts, provenance blocks. Curves
and predictions have a budget over the whole page; what had to be cut is written into the notes of the page.
"""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import athlos
from athlos.report.comparison import value_columns
from athlos.report.downsampling import downsample
from athlos.report.ledger_text import page_claims
from athlos.report.names import by_language, direction, shown_config
from athlos.report.reading import PNG
from athlos.report.seeds import identity_key, t_quantile
from athlos.runs.records import Curve, Predictions, RunRecord

MAX_CURVE_POINTS, MIN_CURVE_POINTS = 300, 24
CURVE_POINTS = 1_000_000
"""Points of all curves of a page: about 12 MB."""
PREDICTION_CHARACTERS = 5_000_000
"""Characters of all predictions of a page, a text that stands in several rows counted once."""
MAX_TEXT = 20_000
"""Characters of one text of a prediction."""
MAX_FIGURE_BYTES, MAX_FIGURES_BYTES = 2_000_000, 6_000_000
"""Bytes of one figure and of all; base64 makes them a third larger."""
MAX_LABEL = 120
"""Characters of a study, a state or a time."""
MAX_CONFIG_TEXT = 4_000
"""Characters of one text of a config or of an error."""
LONG_TEXT = 32
"""Longer texts of predictions are stored once for all rows."""

DIGITS = 6
"""Significant digits of the numbers of the page; metrics.json has all of them."""
MAX_DEGREES = 100


def payload(
    records: Sequence[RunRecord],
    *,
    title: str,
    root: str,
    num_predictions: int,
    committed: Sequence[RunRecord] = (),
    now: datetime | None = None,
) -> dict[str, Any]:
    """Everything the page shows, JSON-able. `root` is shown as the folder that was read.

    Of `committed` runs, those of other days and machines, the page holds the claims alone, in a section of their own.
    """
    notes: list[str] = []
    metrics = sorted({metric for record in records for metric in record.metrics})
    curve_names = sorted({metric for record in records for metric in record.curves})
    position = {name: index for index, name in enumerate(metrics)}
    blocks = Interned()
    runs = [_run(record, position=position, blocks=blocks) for record in records]
    _add_groups(runs, records)
    _add_curves(runs, records, names=curve_names, notes=notes)
    texts = _add_predictions(runs, records, num_predictions=num_predictions, notes=notes)
    figures = _figures(records, notes=notes)
    columns = value_columns([_clipped(shown_config(record.config), MAX_CONFIG_TEXT) for record in records])
    readable = [position for position, record in enumerate(records) if record.config]
    return {
        "title": title,
        "root": root,
        "made": (now or datetime.now(UTC)).isoformat(timespec="seconds"),
        "version": athlos.__version__,
        "notes": notes,
        "runs": runs,
        "metrics": metrics,
        "directions": [direction(metric) for metric in metrics],
        "languages": {
            metric: {language: position[name] for language, name in names.items()}
            for metric, names in by_language(metrics).items()
        },
        "curves": curve_names,
        "config": [
            {"key": key, "values": values, "of": of_run}
            for key, (values, of_run) in columns.items()
            if len({of_run[position] for position in readable}) > 1
        ],
        "shared": {
            key: values[0]
            for key, (values, of_run) in columns.items()
            if {of_run[position] for position in readable} == {0}
        },
        "blocks": blocks.values,
        "texts": texts.values,
        "figures": figures,
        "claims": page_claims(records),
        "committed": page_claims(committed),
        "t": [round(t_quantile(degrees), 4) for degrees in range(1, MAX_DEGREES + 1)],
    }


class Interned:
    """Values by position, equal ones once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._position: dict[str, int] = {}

    def add(self, value: Any) -> int:
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        if text not in self._position:
            self._position[text] = len(self.values)
            self.values.append(value)
        return self._position[text]


def _round(value: float | None) -> float | None:
    """A number as the page stores it; None for one that is undefined."""
    if value is None or not math.isfinite(value):
        return None
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 2**53 else rounded


def _run(record: RunRecord, *, position: Mapping[str, int], blocks: Interned) -> dict[str, Any]:
    status, provenance = record.status, record.provenance
    run: dict[str, Any] = {
        "name": record.name,
        "study": record.study[:MAX_LABEL],
        "state": record.state[:MAX_LABEL],
        "start": _clipped(status.get("start"), MAX_LABEL),
        "end": _clipped(status.get("end"), MAX_LABEL),
        "seed": record.seed,
        "metrics": [_metric(record, metric, index) for metric, index in position.items() if metric in record.metrics],
    }
    optional = {
        "error": _clipped(status.get("error"), MAX_CONFIG_TEXT),
        "message": _clipped(status.get("message"), MAX_CONFIG_TEXT),
        "unread": not record.config,
        "problems": record.problems,
        "imported": record.is_imported,
        "provenance": {key: blocks.add(_clipped(value, MAX_TEXT)) for key, value in provenance.items()},
        "command": None if record.is_imported or not record.config else record.command,
    }
    return run | {key: value for key, value in optional.items() if value}


def _clipped(value: Any, length: int) -> Any:
    """The same value with every text in it cut to `length` characters."""
    if isinstance(value, str):
        return value if len(value) <= length else f"{value[:length]} [cut here: {len(value):,} characters in all]"
    if isinstance(value, dict):
        return {str(key)[:length]: _clipped(inner, length) for key, inner in value.items()}
    if isinstance(value, list):
        return [_clipped(inner, length) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _metric(record: RunRecord, metric: str, index: int) -> list[float | None]:
    """[position of the name, value or null for an undefined one, low, high, n, undefined], less empty ends."""
    row: list[float | None] = [index, _round(record.metrics[metric])]
    if detail := record.details.get(metric):
        row += [_round(detail.low), _round(detail.high), detail.n, detail.undefined]
    return row


def _add_groups(runs: Sequence[dict[str, Any]], records: Sequence[RunRecord]) -> None:
    """Number the groups of runs that differ only in the seed; a seed that occurs twice in one is a problem."""
    numbers: dict[str, int] = {}
    first: dict[tuple[int, int | None], str] = {}
    for run, record in zip(runs, records, strict=True):
        run["group"] = numbers.setdefault(identity_key(record), len(numbers))
        twin = first.setdefault((run["group"], record.seed), record.name)
        if twin != record.name:
            run.setdefault("problems", []).append(f"same study, config and seed as {twin}: not another seed")


def _add_curves(
    runs: Sequence[dict[str, Any]], records: Sequence[RunRecord], *, names: Sequence[str], notes: list[str]
) -> None:
    """`curves` of a run: position of the name -> [position of the steps (as differences), values, number of
    recorded points without a value, left out where 0]."""
    num_curves = sum(len(record.curves) for record in records)
    if not num_curves:
        return
    num_points = max(MIN_CURVE_POINTS, min(MAX_CURVE_POINTS, CURVE_POINTS // num_curves))
    position = {name: index for index, name in enumerate(names)}
    num_cut = 0
    for run, record in zip(runs, records, strict=True):
        steps_of, curves = Interned(), {}
        for name, curve in record.curves.items():
            shown = downsample(curve, max_points=num_points)
            num_cut += len(shown.steps) < len(curve.steps)
            values = [_round(value) for value in shown.values]
            curves[position[name]] = [steps_of.add(_differences(shown)), values]
            if num_undefined := sum(math.isnan(value) for value in curve.values):
                curves[position[name]].append(num_undefined)
        if curves:
            run["curves"], run["steps"] = curves, steps_of.values
    if num_cut:
        notes.append(
            f"{num_cut:,} of {num_curves:,} curves are drawn from at most {num_points} of their points; the least and "
            "the greatest value of each stretch are kept. Seed means and smoothing use the points drawn."
        )


def _differences(curve: Curve) -> list[int]:
    return [step - before for before, step in zip([0, *curve.steps], curve.steps, strict=False)]


def _add_predictions(
    runs: Sequence[dict[str, Any]], records: Sequence[RunRecord], *, num_predictions: int, notes: list[str]
) -> Interned:
    """`predictions` of a run: suite -> {total, rows}; a long text is {"t": position in the texts}."""
    tables = [
        (run, suite, rows)
        for run, record in zip(runs, records, strict=True)
        for suite, rows in record.predictions.items()
    ]
    limit = _fitting_rows([rows for _, _, rows in tables])
    texts, num_cut_texts, is_cut = Interned(), 0, False
    for run, suite, predictions in tables:
        rows = []
        for row in predictions.rows[:limit]:
            shown, num_cut = _shown_row(row, texts)
            rows.append(shown)
            num_cut_texts += num_cut
        is_cut |= len(rows) < predictions.total
        run.setdefault("predictions", {})[suite] = {"total": predictions.total, "rows": rows}
    if is_cut:
        shown_rows = max(len(suite["rows"]) for run in runs for suite in run.get("predictions", {}).values())
        reason = f"--predictions {num_predictions}" if shown_rows >= num_predictions else "the size of the page"
        notes.append(f"Of each prediction file the first {shown_rows} rows are shown at most ({reason}).")
    if num_cut_texts:
        notes.append(f"{num_cut_texts} texts of predictions are cut after {MAX_TEXT:,} characters.")
    return texts


def _fitting_rows(files: Sequence[Predictions]) -> int:
    """The greatest number of rows a file that keeps the page within its budget; at least one."""
    seen: set[int] = set()
    used = 0
    most = max((len(predictions.rows) for predictions in files), default=0)
    for index in range(most):
        for predictions in files:
            if index < len(predictions.rows):
                for value in predictions.rows[index].values():
                    text = _clip(value) if isinstance(value, str) else json.dumps(value)
                    if len(text) > LONG_TEXT:
                        if hash(text) in seen:
                            continue
                        seen.add(hash(text))
                    used += len(text)
                used += 80  # names of the fields
        if used > PREDICTION_CHARACTERS:
            return max(1, index)
    return max(1, most)


def _clip(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT]


def _shown_row(row: Mapping[str, Any], texts: Interned) -> tuple[dict[str, Any], int]:
    """A row with its long texts stored once and cut, and how many were cut."""
    shown: dict[str, Any] = {}
    num_cut = 0
    for key, value in row.items():
        if isinstance(value, float):
            shown[key] = _round(value)
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if len(text) > MAX_TEXT:
            num_cut += 1
            text = f"{_clip(text)}\n[cut here: {len(text):,} characters in all]"
            shown[key] = {"t": texts.add(text)}
        elif isinstance(value, str) and len(text) > LONG_TEXT:
            shown[key] = {"t": texts.add(text)}
        else:
            shown[key] = value
    return shown, num_cut


def _figures(records: Sequence[RunRecord], *, notes: list[str]) -> list[dict[str, Any]]:
    figures: list[dict[str, Any]] = []
    used, left_out = 0, []
    for run, record in enumerate(records):
        for path in record.figures:
            name = path.relative_to(record.path / "figures").with_suffix("").as_posix()
            content = _picture(path, budget=min(MAX_FIGURE_BYTES, MAX_FIGURES_BYTES - used))
            if content is None:
                left_out.append(f"{record.name}/{name}")
                continue
            used += len(content)
            figures.append({"run": run, "name": name, "data": base64.b64encode(content).decode("ascii")})
    if left_out:
        named = ", ".join(left_out[:5]) + (f" and {len(left_out) - 5} more" if len(left_out) > 5 else "")
        notes.append(
            f"{len(left_out)} figures are not embedded (no PNG, over {MAX_FIGURE_BYTES // 10**6} MB, or over "
            f"{MAX_FIGURES_BYTES // 10**6} MB in all): {named}."
        )
    return figures


def _picture(path: Path, *, budget: int) -> bytes | None:
    """The bytes of a PNG file, or None for another file, one that cannot be read, or one over the budget."""
    try:
        if path.stat().st_size > budget:
            return None
        content = path.read_bytes()
    except OSError:
        return None
    return content if content.startswith(PNG) else None
