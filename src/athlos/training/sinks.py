"""The three sinks. Each imports its library when it is opened, writes below the run's `events/`, and may raise.

Guarding is the caller's work (`tracking.py`): what is raised here turns the sink off and nothing else.
"""

import hashlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from athlos.config.schema import TrackingConfig

EXTRAS = {"tensorboard": "tensorboard", "trackio": "trackio"}
"""Extra of Athlos that brings the library of a sink; wandb comes with Athlos itself."""
WANDB_DATA_VARIABLE = "WANDB_DATA_DIR"
WANDB_INIT_SECONDS = 60.0
WANDB_FINISH_SECONDS = 120.0
"""How long an online run waits for the upload; what is left can be sent later with `wandb sync`."""
TRACKIO_STALL_SECONDS = 10.0
TRACKIO_CLOSE_SECONDS = 60.0
PRIVATE_VARIABLES = ("TRACKIO_", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_", "SPACE_", "WANDB_")
"""Environment that the trackio process must not see: tokens, and settings that would send the run elsewhere."""


@dataclass(kw_only=True)
class RunInfo:
    """What sinks show of a run. `last_step` is the last recorded step of a run that goes on, nothing for a new one."""

    run_dir: Path
    name: str
    group: str
    study: str
    tags: list[str]
    config: dict[str, Any]
    last_step: int | None

    @property
    def identifier(self) -> str:
        """16 hex digits made of study and folder name: a resumed run keeps it."""
        return hashlib.sha256(f"{self.run_dir.parent.name}/{self.run_dir.name}".encode()).hexdigest()[:16]


class Sink(Protocol):
    def log(self, metrics: dict[str, float], *, step: int) -> None: ...

    def summary(self, metrics: dict[str, float]) -> None: ...

    def table(self, name: str, rows: list[dict[str, Any]]) -> None: ...

    def figure(self, name: str, path: Path) -> None: ...

    def close(self, *, failed: bool) -> None: ...


def reason(sink: str, error: Exception) -> str:
    """One line for a sink's failure; a missing package names the extra that brings it."""
    line = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ModuleNotFoundError) and sink in EXTRAS:
        return f"{line}; install it with: pip install 'athlos[{EXTRAS[sink]}]'"
    return f"{type(error).__name__}: {line[:300]}"


def columns_and_cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Columns in order of first appearance, and cells: plain values as they are, all else as JSON."""
    columns = list(dict.fromkeys(str(key) for row in rows for key in row))
    return columns, [[_cell(row.get(column)) for column in columns] for row in rows]


def _cell(value: Any) -> str | float | int | bool | None:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


class WandbSink:
    """wandb, offline unless the config says otherwise."""

    def __init__(self, config: TrackingConfig, info: RunInfo) -> None:
        import wandb

        self._wandb = wandb
        self._events = info.run_dir / "events"
        self._events.mkdir(parents=True, exist_ok=True)
        online = config.wandb_mode == "online"
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            save_code=False,
            disable_job_creation=True,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            init_timeout=WANDB_INIT_SECONDS,
            login_timeout=WANDB_INIT_SECONDS,
            finish_timeout=WANDB_FINISH_SECONDS if online else 0.0,
            finish_timeout_raises=True,
        )
        self._run = wandb.init(
            mode="disabled" if config.wandb_mode == "disabled" else "online" if online else "offline",
            project=config.project,
            entity=config.entity,
            dir=self._events,
            id=info.identifier,
            name=info.name,
            group=info.group,
            job_type=info.study,
            tags=info.tags,
            config=info.config,
            resume="allow" if online else None,  # offline: a second folder with the same id, which `wandb sync` joins
            reinit="create_new",  # a run that another part of this process holds open stays untouched
            settings=settings,
        )
        self._step = info.last_step or 0

    def log(self, metrics: dict[str, float], *, step: int) -> None:
        self._step = step
        self._run.log(metrics, step=step)

    def summary(self, metrics: dict[str, float]) -> None:
        self._run.summary.update(metrics)

    def table(self, name: str, rows: list[dict[str, Any]]) -> None:
        columns, cells = columns_and_cells(rows)
        with self._staged():
            self._run.log(
                {name: self._wandb.Table(columns=columns, data=cells, allow_mixed_types=True)}, step=self._step
            )

    def figure(self, name: str, path: Path) -> None:
        with self._staged():
            self._run.log({name: self._wandb.Image(str(path))}, step=self._step)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=1 if failed else 0)

    @contextmanager
    def _staged(self) -> Iterator[None]:
        """Keep wandb's copies of tables in the run folder: its default is the home folder, which may be read-only,
        and a run folder carried to another machine could not be synchronised from there."""
        before = os.environ.get(WANDB_DATA_VARIABLE)
        os.environ[WANDB_DATA_VARIABLE] = str(self._events / "wandb" / "staging")
        try:
            yield
        finally:
            if before is None:
                del os.environ[WANDB_DATA_VARIABLE]
            else:
                os.environ[WANDB_DATA_VARIABLE] = before


class TensorboardSink:
    """TensorBoard event files in `events/tensorboard`."""

    def __init__(self, config: TrackingConfig, info: RunInfo) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # A run that goes on from an older checkpoint writes some steps again: the viewer then drops the first ones.
        purge_step = None if info.last_step is None else info.last_step + 1
        folder = info.run_dir / "events" / "tensorboard"
        self._writer = SummaryWriter(log_dir=str(folder), purge_step=purge_step, flush_secs=30)
        self._step = info.last_step or 0
        self._writer.add_text("config", _indented(json.dumps(info.config, indent=1, default=str)), self._step)

    def log(self, metrics: dict[str, float], *, step: int) -> None:
        self._step = step
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def summary(self, metrics: dict[str, float]) -> None:
        self.log(metrics, step=self._step)

    def table(self, name: str, rows: list[dict[str, Any]]) -> None:
        columns, cells = columns_and_cells(rows)
        lines = ["|".join(columns), "|".join("---" for _ in columns)]
        lines += ["|".join(_markdown(cell) for cell in row) for row in cells]
        self._writer.add_text(name, "\n".join(f"|{line}|" for line in lines), self._step)

    def figure(self, name: str, path: Path) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            self._writer.add_image(name, np.asarray(image.convert("RGB")), self._step, dataformats="HWC")

    def close(self, *, failed: bool) -> None:
        self._writer.close()


def _indented(text: str) -> str:
    """As a code block of Markdown."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def _markdown(cell: Any) -> str:
    return str(cell).replace("|", "\\|").replace("\n", "<br>")


class TrackioSink:
    """trackio in `events/trackio`, written by a process of its own.

    trackio reads its folder from the environment once, when it is imported, so two runs of one process would share the
    first one's folder; and it prints a write token. A process of its own has its own folder and prints nowhere.
    """

    def __init__(self, config: TrackingConfig, info: RunInfo) -> None:
        folder = info.run_dir / "events" / "trackio"
        folder.mkdir(parents=True, exist_ok=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(PRIVATE_VARIABLES)}
        environment |= {"TRACKIO_DIR": str(folder), "HF_HUB_OFFLINE": "1"}
        writer = Path(__file__).with_name("trackio_writer.py")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(writer)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # ctrl-C is for the run; the writer ends when its input does
        )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self._step = info.last_step or 0
        self._send(
            "init",
            project=config.project,
            name=info.name,
            group=info.group,
            config=info.config | {"tags": info.tags, "study": info.study},
        )

    def log(self, metrics: dict[str, float], *, step: int) -> None:
        self._step = step
        self._send("log", metrics=metrics, step=step)

    def summary(self, metrics: dict[str, float]) -> None:
        self._send("log", metrics=metrics, step=self._step)

    def table(self, name: str, rows: list[dict[str, Any]]) -> None:
        columns, cells = columns_and_cells(rows)
        self._send("table", name=name, columns=columns, data=cells, step=self._step)

    def figure(self, name: str, path: Path) -> None:
        self._send("figure", name=name, path=str(path.resolve()), step=self._step)

    def close(self, *, failed: bool) -> None:
        process = self._process
        try:
            if process.poll() is None:
                self._send("close")
            process.wait(timeout=TRACKIO_CLOSE_SECONDS)
        finally:
            process.kill()  # nothing for a process that has ended
            process.wait()
            message = self._message()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
        if process.returncode:
            raise RuntimeError(message or f"the writer ended with code {process.returncode}")

    def _send(self, operation: str, **values: Any) -> None:
        """Hand one line to the writer; raises when it has ended, or takes nothing for `TRACKIO_STALL_SECONDS`."""
        assert self._process.stdin is not None
        pipe = self._process.stdin.fileno()
        rest = memoryview((json.dumps({"operation": operation, **values}, default=str) + "\n").encode())
        deadline = time.monotonic() + TRACKIO_STALL_SECONDS
        while rest:
            if self._process.poll() is not None:
                raise RuntimeError(self._message() or f"the writer ended with code {self._process.returncode}")
            _, writable, _ = select.select([], [pipe], [], 0.5)
            if writable:
                try:
                    rest = rest[os.write(pipe, rest) :]
                except BrokenPipeError:
                    self._process.wait(timeout=TRACKIO_STALL_SECONDS)
                    continue
                deadline = time.monotonic() + TRACKIO_STALL_SECONDS
            elif time.monotonic() > deadline:
                raise TimeoutError(f"the writer took nothing for {TRACKIO_STALL_SECONDS:.0f} s")

    def _message(self) -> str:
        """The error the writer told before it ended; read once."""
        stream = self._process.stdout
        return "" if stream is None or stream.closed else stream.read().decode(errors="replace").strip()


SINKS: dict[str, Any] = {"wandb": WandbSink, "tensorboard": TensorboardSink, "trackio": TrackioSink}
