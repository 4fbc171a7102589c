"""What a wandb run logged, gathered in one pass over its records. Names are joined with dots where wandb nests them."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from athlos.report.wandb_log import KeyPath, Updates, WandbLog, decoded, key_path, number, put
from athlos.training.events import RESERVED

WANDB_KEYS = {"_step", "_runtime", "_timestamp", "_wandb"}
"""What wandb adds to every row and to the summary."""


class WandbContents:
    """The records of one run. The curves go to `events` row by row, so that a long run needs no memory.

    Raises `DataError` for a file that cannot be read or is no log of wandb.
    """

    def __init__(self, path: Path, *, events: TextIO) -> None:
        self._events = events
        self.config, self._summary = Updates(), Updates()
        self._last: dict[str, float] = {}
        self.media: dict[str, dict[str, Any]] = {}
        """Name -> wandb's description of the table or picture that was logged last under it."""
        self.num_media: Counter[str] = Counter()
        """How often something was logged under each of these names."""
        self.skipped: Counter[str] = Counter()
        """Kind of value -> how many values of the history are in no curve."""
        self.num_rows = 0
        self.run: Any = None
        self.exit: Any = None
        self.environment: Any = None
        self.runtime_s = self.last_time = math.nan
        """Seconds the run took, and seconds since 1970 of its last sign of life, as far as the records tell."""
        takers = {
            "run": self._take_run, "config": self.config.apply, "summary": self._take_summary,
            "history": self._take_row, "stats": self._take_stats, "environment": self._take_environment,
            "exit": self._take_exit,
        }  # fmt: skip
        self.log = WandbLog(path)
        for record in self.log:
            kind = record.WhichOneof("record_type")
            if kind in takers:
                takers[kind](getattr(record, kind))

    @property
    def metrics(self) -> dict[str, float]:
        """Last value of each curve, and on top of it the numbers that wandb's summary holds."""
        numbers = dict(self._last)
        for path, value in leaves(self._summary.nested()):
            if path[0] not in WANDB_KEYS and isinstance(value, int | float):
                numbers[metric_name(path)] = as_float(value)
        return numbers

    @property
    def start(self) -> datetime | None:
        """When the run began; nothing where that record was lost."""
        seconds = 0 if self.run is None else self.run.start_time.seconds
        return datetime.fromtimestamp(seconds, tz=UTC) if 0 < seconds < 2**35 else None

    def _take_run(self, run: Any) -> None:
        self.run = run  # again with all its values when the program changes a name or a tag
        self._seen(run.start_time.seconds)
        self.config.apply(run.config)
        self._summary.apply(run.summary)

    def _take_exit(self, exit_record: Any) -> None:
        self.exit = exit_record

    def _take_stats(self, stats: Any) -> None:
        self._seen(stats.timestamp.seconds)

    def _take_environment(self, environment: Any) -> None:
        if self.environment is None:
            self.environment = type(environment)()
        self.environment.MergeFrom(environment)

    def _take_summary(self, summary: Any) -> None:
        for path in self._summary.apply(summary):
            self._last.pop(metric_name(path), None)

    def _take_row(self, history: Any) -> None:
        values = [(key_path(item), item.value_json) for item in history.item]
        objects = {path[:-1] for path, _ in values if path[-1] == "_type" and len(path) > 1}
        numbers: dict[str, float] = {}
        own: dict[str, float] = {}
        described: dict[KeyPath, dict[str, Any]] = {}
        for path, text in values:
            if objects and (owner := _owner(path, objects)) is not None:
                put(described.setdefault(owner, {}), path[len(owner) :], decoded(text))
                continue
            value = number(text)
            if value is not None:
                (own if path[0] in WANDB_KEYS else numbers)[metric_name(path)] = value
            elif path[0] not in WANDB_KEYS:
                self._take_value(path, decoded(text), numbers)
        for path, description in described.items():
            self._take_object(path, description)
        self.runtime_s = own.get("_runtime", self.runtime_s)
        self._seen(own.get("_timestamp", math.nan))
        step = history.step.num if history.HasField("step") else own.get("_step", math.nan)
        if numbers and math.isfinite(step):
            self._write(int(step), own.get("_timestamp", math.nan), numbers)

    def _take_value(self, path: KeyPath, value: Any, numbers: dict[str, float]) -> None:
        """A value that is no number by itself: older logs keep nested ones in one piece."""
        if isinstance(value, dict) and value:
            if "_type" in value:
                self._take_object(path, value)
                return
            for inner, leaf in leaves(value, path):
                if isinstance(leaf, dict):
                    self._take_object(inner, leaf)
                elif isinstance(leaf, int | float):
                    numbers[metric_name(inner)] = as_float(leaf)
                else:
                    self.skipped[_kind(leaf)] += 1
        else:
            self.skipped[_kind(value)] += 1

    def _take_object(self, path: KeyPath, description: dict[str, Any]) -> None:
        kind = description.get("_type")
        if kind in ("table-file", "image-file", "images/separated"):
            name = ".".join(path)
            self.media[name] = description
            self.num_media[name] += 1
        else:
            self.skipped[kind[:40] if isinstance(kind, str) else "object"] += 1

    def _write(self, step: int, timestamp: float, numbers: dict[str, float]) -> None:
        self._last |= numbers
        self.num_rows += 1
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        row = {"step": step, "time": round(timestamp, 3) if math.isfinite(timestamp) else None, **finite}
        self._events.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _seen(self, timestamp: float) -> None:
        if timestamp > 0:
            self.last_time = timestamp if math.isnan(self.last_time) else max(self.last_time, timestamp)


def metric_name(path: KeyPath) -> str:
    """The name of a curve; those that a row of ours takes for itself stand under `history/`."""
    name = ".".join(path)
    return f"history/{name}" if name in RESERVED else name


def as_float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def leaves(values: dict[str, Any], prefix: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """The inner ends of nested values; a dict with a `_type`, which stands for a table or a picture, is one of them."""
    pending: list[tuple[KeyPath, Any]] = [(prefix, values)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict) and (path == prefix or "_type" not in value):
            pending += [((*path, key), inner) for key, inner in value.items()]
        else:
            yield path, value


def _owner(path: KeyPath, objects: Iterable[KeyPath]) -> KeyPath | None:
    """The object that a value describes a part of."""
    return next((path[:length] for length in range(1, len(path)) if path[:length] in objects), None)


def _kind(value: Any) -> str:
    names = {str: "text", list: "list", dict: "object", type(None): "null"}
    return names.get(type(value), type(value).__name__)
