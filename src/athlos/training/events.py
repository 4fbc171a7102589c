"""The curves of a run: `events/metrics.jsonl`, one record a line. No torch here: the report reads it too.

A record is {"step": int, "time": seconds since 1970, <metric>: number or null}. JSON knows no nan and no infinity: both
are written as null and read back as nan. A killed job can leave half a line at the end; readers pass over it and the
next writer removes it.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from athlos.errors import DataError, TrainingError

RESERVED = ("step", "time")


def events_file(run_dir: Path) -> Path:
    return run_dir / "events" / "metrics.jsonl"


def read_events(run_dir: Path) -> list[dict[str, Any]]:
    """All records in the order written, null as nan; empty when there are none.

    Raises `DataError` with file and line for a damaged line that is not the half-written last one.
    """
    path = events_file(run_dir)
    return [record for _, record in _records(path)]


def truncate_events(run_dir: Path, *, after_step: int) -> None:
    """Drop the records with a step greater than `after_step`, and a half-written last line.

    For a run that goes on from an older checkpoint. The file is rewritten beside its place and renamed; it is left
    alone when nothing is to be dropped. Raises `TrainingError` when it cannot be written.
    """
    path = events_file(run_dir)
    kept = [line for line, record in _records(path) if record["step"] <= after_step]
    content = b"".join(kept)
    if not path.is_file() or path.stat().st_size == len(content):
        return
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_bytes(content)
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error


def _records(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """Every whole line with its record."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(error.strerror or str(error), file=path) from error
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            break
        try:
            record = json.loads(line)
            int(record["step"])
        except (ValueError, TypeError, KeyError) as error:
            raise DataError("not a record of a curve", file=path, line=number) from error
        records.append((line, {key: math.nan if value is None else value for key, value in record.items()}))
    return records


def _cannot_write(path: Path, error: OSError) -> TrainingError:
    return TrainingError(f"cannot write {path}: {error.strerror or error}; free space or set results_dir")


class EventWriter:
    """Appends records; each is with the operating system when `append` returns, so a SIGKILL loses none."""

    def __init__(self, run_dir: Path) -> None:
        self.path = events_file(run_dir)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: after a failed write nothing is left behind to be written (and to fail) again at close.
            self._file: BinaryIO = self.path.open("ab+", buffering=0)
            self._drop_half_line()
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def _drop_half_line(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        self._file.truncate(content.rfind(b"\n") + 1)

    def append(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Write one record. Raises `TrainingError` when the disk does not take it: the record is the run."""
        if clash := [name for name in RESERVED if name in metrics]:
            raise ValueError(f"metric names {clash} are taken by the record itself")
        numbers = {name: float(value) for name, value in metrics.items()}
        record = {"step": step, "time": round(time.time(), 3)} | {
            name: value if math.isfinite(value) else None for name, value in numbers.items()
        }
        rest = memoryview((json.dumps(record, ensure_ascii=False) + "\n").encode())
        try:
            while rest:  # a nearly full disk takes a part of the line first and refuses the rest
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def close(self) -> None:
        self._file.close()
