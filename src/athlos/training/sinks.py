"""The three sinks. Each imports its library when it is opened, and may raise.

wandb and TensorBoard write below the run's `events/`, trackio into its own folder.
Guarding is the caller's work (`tracking.py`): what is raised here turns the sink off and nothing else.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from athlos.config.schema import TrackingConfig

EXTRAS = {"tensorboard": "tensorboard", "trackio": "trackio"}
"""Extra of Athlos that brings the library of a sink; wandb comes with Athlos itself."""
WANDB_DATA_VARIABLE = "WANDB_DATA_DIR"
WANDB_WEAVE_VARIABLE = "WANDB_DISABLE_WEAVE"
WANDB_INIT_SECONDS = 60.0
WANDB_FINISH_SECONDS = 120.0
"""How long an online run waits for the upload; what is left can be sent later with `wandb sync`."""


@dataclass(kw_only=True)
class RunInfo:
    """What sinks show of a run."""

    run_dir: Path
    name: str
    group: str
    study: str
    tags: list[str]
    config: dict[str, Any]

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
        # Where openai is imported, wandb would advertise its tracer Weave, and start it where it is installed.
        os.environ.setdefault(WANDB_WEAVE_VARIABLE, "true")
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
            resume="allow" if online else None,
            reinit="create_new",  # a run that another part of this process holds open stays untouched
            settings=settings,
        )
        self._step = 0

    def log(self, metrics: dict[str, float], *, step: int) -> None:
        self._step = step
        self._run.log(metrics, step=step)

    def summary(self, metrics: dict[str, float]) -> None:
        self._run.summary.update(metrics)

    def table(self, name: str, rows: list[dict[str, Any]]) -> None:
        columns, cells = columns_and_cells(rows)
        with self._staged():
            self._run.log(
                {name: self._wandb.Table(columns=[*columns], data=cells, allow_mixed_types=True)}, step=self._step
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

        folder = info.run_dir / "events" / "tensorboard"
        self._writer = SummaryWriter(log_dir=str(folder), flush_secs=30)
        self._step = 0
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
    """trackio, in its own folder on this machine (`TRACKIO_DIR`), where `trackio show` finds the runs of all folders.

    trackio settles on that folder when it is imported, so a run folder cannot have one of its own. A run that is taken
    up again tells its curve from the first step, so it is a new run of the same name there.
    """

    def __init__(self, config: TrackingConfig, info: RunInfo) -> None:
        import trackio

        self._trackio = trackio
        self._step = 0
        with _quiet():
            self._run = trackio.init(
                project=config.project,
                name=info.name,
                group=info.group,
                config=info.config | {"tags": info.tags, "study": info.study},
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def log(self, metrics: dict[str, Any], *, step: int) -> None:
        self._step = step
        with _quiet():
            self._run.log(metrics, step=step)

    def summary(self, metrics: dict[str, float]) -> None:
        self.log(metrics, step=self._step)

    def table(self, name: str, rows: list[dict[str, Any]]) -> None:
        columns, cells = columns_and_cells(rows)
        self.log({name: self._trackio.Table(columns=columns, data=cells)}, step=self._step)

    def figure(self, name: str, path: Path) -> None:
        self.log({name: self._trackio.Image(str(path))}, step=self._step)

    def close(self, *, failed: bool) -> None:
        with _quiet():
            self._trackio.finish()  # of the run opened last; `Run.finish` alone would be called again at exit


def _quiet() -> AbstractContextManager[Any]:
    """trackio prints greetings and links; what it has to warn of it tells as warnings, which stay."""
    return redirect_stdout(io.StringIO())


SINKS: dict[str, Any] = {"wandb": WandbSink, "tensorboard": TensorboardSink, "trackio": TrackioSink}
