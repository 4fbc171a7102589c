"""The record of a run: one folder, one config for ever. No torch here: the report and the checks read it too.

`config.yaml`, `status.json`, `metrics.json`, `metric_details.json`, `provenance.json`, `predictions/*.jsonl`,
`figures/*.png`,
`checkpoints/`, `events/`. Every file is written beside its place and renamed, so a reader never sees half of one.
"""

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from athlos.config.compose import identifying, identity, plain
from athlos.config.registry import part_names
from athlos.config.schema import RunConfig
from athlos.errors import INTERRUPTED, ConfigError, TrainingError
from athlos.stages import content_hash

FINAL = "final"
"""Folder below `checkpoints/` that holds the trained model as transformers reads it."""


def run_dir(config: RunConfig) -> Path:
    """The folder of a run: `run_dir`, or a name made of method, model, seed and a hash of the config."""
    if config.run_dir:
        return Path(config.run_dir).expanduser()
    parts = [part_names(config).get("method", "own"), config.model.name, f"s{config.seed}"]
    name = "-".join([*parts, content_hash(identity(config))[:8]])
    return Path(config.results_dir).expanduser() / config.study / name


def write_atomically(path: Path, text: str) -> None:
    """Write a small text file beside its place and rename it; raises `TrainingError` naming the file (disk full)."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise TrainingError(f"cannot write {path}: {error.strerror or error}; free space or set results_dir") from error


def to_json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level with dotted keys."""
    values: dict[str, Any] = {}
    for key, value in node.items():
        inner = flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
        values.update(inner)
    return values


class RunFolder:
    """A run's folder, locked while open. Use as a context manager.

    In a run of several processes one is the writer; the others read and leave the record alone.
    """

    def __init__(self, config: RunConfig, *, is_writer: bool = True) -> None:
        self.config, self.is_writer = config, is_writer
        self.path = run_dir(config).resolve()
        self.resumed_wall_s = 0.0
        """Seconds that earlier, unfinished tries of this run took."""

    def __enter__(self) -> "RunFolder":
        """Create or reopen the folder.

        Raises `ConfigError` when it cannot be written, holds another config (differing keys listed), or is in use.
        """
        if not self.is_writer:
            return self
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(str(self.path / ".lock"))
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(f"run_dir: {self.path} is in use by another process") from None
        except OSError as error:
            raise ConfigError(
                f"results_dir: cannot write {self.path}: {error.strerror or error}; set results_dir=<a writable folder>"
            ) from error
        try:
            self._compare()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_writer:
            self._lock.release()

    def _compare(self) -> None:
        path = self.path / "config.yaml"
        if path.is_file():
            try:
                stored = yaml.safe_load(path.read_text(encoding="utf-8"))
            except (yaml.YAMLError, OSError) as error:
                raise ConfigError(f"run_dir: {path} cannot be read: {error}") from error
            old = flat(identifying(stored, run=self.config))
            new = flat(identity(self.config))
            differing = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
            if differing:
                shown = "; ".join(f"{key}: {old.get(key)!r} there, {new.get(key)!r} now" for key in differing)
                raise ConfigError(f"run_dir: {self.path} holds another config: {shown}")
        else:
            write_atomically(path, yaml.safe_dump(plain(self.config), sort_keys=False, allow_unicode=True))

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def events(self) -> Path:
        return self.path / "events"

    @property
    def final_model(self) -> Path:
        """The trained model as a folder of transformers; there once the training is done."""
        return self.checkpoints / FINAL

    @property
    def status(self) -> dict[str, Any]:
        return self._read("status.json")

    @property
    def metrics(self) -> dict[str, float]:
        return {key: math.nan if value is None else value for key, value in self._read("metrics.json").items()}

    @property
    def is_finished(self) -> bool:
        """Whether everything the run promises is there: state, metrics and, if it trained, the final weights."""
        whole = self.status.get("state") == "finished" and (self.path / "metrics.json").is_file()
        return whole and (self.config.num_steps == 0 or self.is_trained)

    @property
    def is_trained(self) -> bool:
        """Whether the weights of the last phase are there, whatever became of the evaluation."""
        return any(self.final_model.glob("*.safetensors"))

    def clear_results(self) -> None:
        """Forget what an earlier, unfinished try of this run recorded; what it trained is found again in the cache."""
        if not self.is_writer:
            return
        for name in ("events", "predictions", "figures"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in ("metrics.json", "metric_details.json"):
            (self.path / name).unlink(missing_ok=True)

    def started(self) -> None:
        """Write the state `running`; the seconds of earlier tries are kept."""
        status = self.status
        self.resumed_wall_s = status.get("wall_s", 0.0) if status.get("state") != "finished" else 0.0
        self._write_status("running", start=status.get("start") or now(), wall_s=self.resumed_wall_s)

    def progressed(self, wall_s: float) -> None:
        """Note the seconds used so far, so that a killed run's cost is not lost."""
        self._write_status("running", wall_s=self.resumed_wall_s + wall_s)

    def finished(self, *, wall_s: float) -> None:
        self._write_status("finished", end=now(), wall_s=self.resumed_wall_s + wall_s)

    def interrupted(self, *, wall_s: float) -> None:
        self._write_status(
            "interrupted",
            end=now(),
            wall_s=self.resumed_wall_s + wall_s,
            exit_code=INTERRUPTED,
            error="KeyboardInterrupt",
            message="the same command goes on",
        )

    def failed(self, error: BaseException, *, wall_s: float) -> None:
        self._write_status(
            "failed",
            end=now(),
            wall_s=self.resumed_wall_s + wall_s,
            error=type(error).__name__,
            message=str(error),
            exit_code=getattr(error, "exit_code", 1),
        )

    def _write_status(self, state: str, **values: Any) -> None:
        if not self.is_writer:
            return
        kept = {key: value for key, value in self.status.items() if key in ("start", "wall_s")}
        write_atomically(self.path / "status.json", to_json({**kept, **values, "state": state}))

    def adopt(self, model: Path) -> None:
        """Keep a trained model: hard links where the file system has them, else copies. So the cache may be emptied.

        The old one is gone only when the new one is whole. Raises `TrainingError` naming the folder (disk full).
        """
        target, scratch = self.final_model, self.checkpoints / f".{FINAL}.writing"
        try:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            for path in sorted(model.rglob("*")):
                place = scratch / path.relative_to(model)
                if path.is_dir():
                    place.mkdir()
                    continue
                try:
                    place.hardlink_to(path)
                except OSError:
                    shutil.copyfile(path, place)
            shutil.rmtree(target, ignore_errors=True)
            scratch.rename(target)
        except OSError as error:
            shutil.rmtree(scratch, ignore_errors=True)
            raise TrainingError(
                f"cannot write {target}: {error.strerror or error}; free space or set results_dir"
            ) from error

    def write_metrics(self, metrics: Mapping[str, float], details: Mapping[str, Mapping[str, Any]]) -> None:
        """metrics.json: flat name -> number; an undefined value (nan) is stored as null, JSON knows no nan."""
        numbers = {key: None if math.isnan(value) else value for key, value in metrics.items()}
        write_atomically(self.path / "metrics.json", to_json(numbers))
        write_atomically(self.path / "metric_details.json", to_json(details))

    def write_provenance(self, provenance: Mapping[str, Any]) -> None:
        write_atomically(self.path / "provenance.json", to_json(provenance))

    def write_predictions(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """predictions/<name>.jsonl, one row an item; nothing for no rows."""
        if rows:
            folder = self.path / "predictions"
            folder.mkdir(exist_ok=True)
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write_atomically(folder / f"{name}.jsonl", lines)

    def write_figure(self, name: str, png: bytes) -> Path:
        """figures/<name>.png; returns its path. Raises `TrainingError` naming the file (disk full)."""
        path = self.path / "figures" / f"{name}.png"
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(png)
            scratch.replace(path)
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise TrainingError(
                f"cannot write {path}: {error.strerror or error}; free space or set results_dir"
            ) from error
        return path

    def _read(self, name: str) -> dict[str, Any]:
        """A JSON file of the record; empty when it is missing."""
        try:
            content = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ConfigError(f"run_dir: {self.path / name} cannot be read: {error}") from error
        assert isinstance(content, dict)
        return content


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
