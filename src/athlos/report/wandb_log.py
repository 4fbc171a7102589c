"""What a wandb run logged: the records of its file, as `wandb leet inspect --json` (wandb 0.31) prints them.

wandb has no reader of its file in Python. Its command joins names that wandb nests with dots, and writes nan and the
infinities as text, so a logged text `NaN` is taken for a number here.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from athlos.errors import DataError
from athlos.runs.folder import flat
from athlos.runs.values import as_number, one_line, parse_json
from athlos.training.events import RESERVED

WANDB_KEYS = ("_step", "_runtime", "_timestamp", "_wandb")
"""What wandb adds to every row and to the summary."""
MEDIA = ("table-file", "image-file", "images/separated")
NOT_FINITE = ("NaN", "Infinity", "-Infinity")
KINDS = {str: "text", list: "list", dict: "object", type(None): "null"}
"""What a value that is in no curve is counted as."""


@dataclass
class WandbLog:
    """The records of one run, gathered in one pass; the curves go to `events` row by row, as lines of JSON."""

    events: IO[str]
    run: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, float | None] = field(default_factory=dict)
    last: dict[str, float | None] = field(default_factory=dict)
    """Last value of each curve."""
    media: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name -> wandb's description of the table or picture that was logged last under it."""
    num_media: Counter[str] = field(default_factory=Counter)
    """How often something was logged under each of these names."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Kind of value -> how many values of the history are in no curve."""
    damage: list[str] = field(default_factory=list)
    """What could not be read, a line each."""
    exit_code: int | None = None
    """Nothing for a run without an end."""
    runtime_s: float | None = None
    last_time: float | None = None
    """Seconds that the run took, and seconds since 1970 of its last row."""

    @property
    def metrics(self) -> dict[str, float | None]:
        """Last value of each curve, and on top of it the numbers that wandb's summary holds."""
        return self.last | self.summary

    def read(self, file: Path) -> None:
        """Take all records of a file. Raises `DataError` for a file that wandb cannot read, or that holds no run."""
        with tempfile.TemporaryFile() as printed:
            self.damage += _inspect(file, printed)
            printed.seek(0)
            for line in printed:
                try:
                    record = parse_json(line)
                except ValueError as error:
                    self.damage.append(f"a record that is no JSON: {error}")
                    continue
                self._take(record["type"], record.get(record["type"], {}))
        if not self.run and not self.last:
            raise DataError("holds no run: it was killed before wandb wrote of it, or the file is not whole", file=file)

    def _take(self, kind: str, content: dict[str, Any]) -> None:
        if kind == "run":  # again, with all its values, when the program changes a name or a tag
            self.run = content
            _change(self.config, content.get("config", {}))
        elif kind == "config":
            _change(self.config, content)
        elif kind == "summary":
            plain, _ = _split(content.get("update", {}))
            for name in _change(self.summary, {**content, "update": _numbers(plain)}):
                self.last.pop(name, None)
        elif kind == "environment":
            self.environment |= content
        elif kind == "exit":
            self.exit_code = content.get("exit_code", 0)
        elif kind == "history":
            self._take_row(content.get("item", {}), step=content.get("step", {}).get("num"))

    def _take_row(self, item: dict[str, Any], *, step: int | None) -> None:
        row, objects = _split(item)
        for name, description in objects.items():
            if (kind := description.get("_type")) in MEDIA:
                self.media[name] = description
                self.num_media[name] += 1
            else:
                self.skipped[str(kind)[:40]] += 1
        numbers = _numbers(row)
        others = [value for name, value in row.items() if metric_name(name) not in numbers and not _is_wandb(name)]
        self.skipped.update(KINDS[type(value)] for value in others)
        self.runtime_s = _seconds(row.get("_runtime")) or self.runtime_s
        self.last_time = _seconds(row.get("_timestamp")) or self.last_time
        if numbers and step is not None:
            self.last |= numbers
            self.events.write(json.dumps({"step": step, "time": self.last_time, **numbers}) + "\n")


def metric_name(name: str) -> str:
    """The name of a curve; those that a row of ours takes for itself stand under `history/`."""
    return f"history/{name}" if name in RESERVED else name


def _inspect(file: Path, printed: IO[bytes]) -> list[str]:
    """Have wandb print the records of a file; returns what it says of damage, a line each."""
    command = [sys.executable, "-P", "-m", "wandb", "leet", "inspect", "--json", str(file.resolve())]
    offline = {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.PIPE, check=False, env=os.environ | offline
    )
    said = [one_line(line) for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    if done.returncode:
        reason = said[-1].removeprefix("Error: ") if said else f"code {done.returncode}"
        raise DataError(f"wandb cannot read it: {reason}", file=file)
    return [line.removeprefix("wandb leet inspect: ") for line in said]


def _change(values: dict[str, Any], changes: Mapping[str, Any]) -> list[str]:
    """Apply a record of updates and removals; returns the removed names."""
    values |= changes.get("update", {})
    names = [".".join(item.get("nested_key", ())) or item.get("key", "") for item in changes.get("remove", ())]
    removed = [key for key in values if any(key == name or key.startswith(f"{name}.") for name in names)]
    for key in removed:
        del values[key]
    return removed


def _split(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Plain values by dotted name, and the descriptions of tables, pictures and the like, which have a `_type`."""
    plain = flat(values)
    objects = {}
    for name in [key.removesuffix("._type") for key in plain if key.endswith("._type")]:
        parts = [key for key in plain if key.startswith(f"{name}.")]
        objects[name] = {key.removeprefix(f"{name}."): plain.pop(key) for key in parts}
    return plain, objects


def _seconds(value: Any) -> float | None:
    number = as_number(value)
    return None if number is None or math.isnan(number) else number


def _is_wandb(name: str) -> bool:
    return name.partition(".")[0] in WANDB_KEYS


def _numbers(values: Mapping[str, Any]) -> dict[str, float | None]:
    """The logged numbers by the names of their curves: a boolean is 0 or 1, one that is not finite is null."""
    numbers: dict[str, float | None] = {}
    for name, value in values.items():
        number = math.nan if isinstance(value, str) and value in NOT_FINITE else None
        if isinstance(value, int | float):
            number = as_number(float(value) if isinstance(value, bool) else value)
        if number is not None and not _is_wandb(name):
            numbers[metric_name(name)] = number if math.isfinite(number) else None
    return numbers
