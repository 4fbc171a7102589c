"""Where metrics go: always the run folder's own record, and any of the sinks wandb, TensorBoard and trackio.

The run folder is the record; sinks are views of it. A sink that fails says so once, by name and reason, and is off for
the rest of the run; the run goes on.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from athlos.config.schema import TrackingConfig
from athlos.training.events import EventWriter
from athlos.training.sinks import SINKS, RunInfo, Sink, reason

log = logging.getLogger(__name__)

MAX_TABLE_ROWS = 200
"""Rows of a table that sinks get: a look at the predictions; all of them stand in the run folder."""


class Tracking:
    """The open record of one run and its sinks. Use as a context manager; an exception marks the run as failed."""

    def __init__(self, events: EventWriter | None, sinks: dict[str, Sink]) -> None:
        self._events = events
        self._sinks = sinks

    @property
    def active_sinks(self) -> list[str]:
        """Names of the sinks that have not failed."""
        return list(self._sinks)

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Record points of curves. Raises `TrainingError` only when the run folder itself cannot be written."""
        if self._events is not None:
            self._events.append(metrics, step=step)
        self._each(lambda sink: sink.log(dict(metrics), step=step))

    def summary(self, metrics: Mapping[str, float]) -> None:
        """The run's final numbers, shown by the sinks; the run folder has them in `metrics.json`."""
        self._each(lambda sink: sink.summary(dict(metrics)))

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Show the first `MAX_TABLE_ROWS` rows; columns are the union of their keys. Nothing for no rows."""
        shown = [dict(row) for row in rows[:MAX_TABLE_ROWS]]
        if shown:
            self._each(lambda sink: sink.table(name, shown))

    def figure(self, name: str, path_to_png: Path) -> None:
        """Show a picture that lies in the run folder."""
        self._each(lambda sink: sink.figure(name, path_to_png))

    def close(self, *, failed: bool) -> None:
        """Finish every sink, even when one of them fails or is interrupted. A second call does nothing."""
        with ExitStack() as stack:
            if self._events is not None:
                stack.callback(self._events.close)
            for name in list(self._sinks):
                sink = self._sinks.pop(name)
                stack.callback(self._guarded, name, partial(sink.close, failed=failed))
        self._events = None

    def __enter__(self) -> "Tracking":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close(failed=kind is not None)

    def _each(self, act: Callable[[Sink], None]) -> None:
        for name, sink in list(self._sinks.items()):
            if not self._guarded(name, partial(act, sink)):
                del self._sinks[name]
                try:
                    sink.close(failed=True)
                except Exception as error:
                    log.debug("tracking: %s could not be closed either: %s", name, error)

    def _guarded(self, name: str, act: Callable[[], None]) -> bool:
        try:
            act()
        except Exception as error:
            warn_off(name, error)
            return False
        return True


def warn_off(name: str, error: Exception) -> None:
    log.warning("tracking: %s is off for this run (%s); the run folder keeps the record", name, reason(name, error))


def open_tracking(
    config: TrackingConfig,
    *,
    run_dir: Path,
    run_name: str,
    group: str,
    study: str,
    tags: Sequence[str],
    plain_config: Mapping[str, Any],
    is_writer: bool = True,
) -> Tracking:
    """Open the record of a run and its sinks.

    `plain_config` is shown by the sinks: plain values of the config, nothing from the environment. In a run of several
    processes only the writer records; the others get a `Tracking` that does nothing. Raises `TrainingError` when the
    run folder cannot be written; never because of a sink.
    """
    if not is_writer:
        return Tracking(None, {})
    events = EventWriter(run_dir)
    sinks: dict[str, Sink] = {}
    try:
        info = RunInfo(
            run_dir=run_dir,
            name=run_name,
            group=group,
            study=study,
            tags=list(tags),
            config=dict(plain_config),
        )
        for name in config.sinks:
            try:
                sinks[name] = SINKS[name](config, info)
            except Exception as error:
                warn_off(name, error)
    except BaseException:  # an interrupt while a sink connects must not leave the earlier ones open
        Tracking(events, sinks).close(failed=True)
        raise
    return Tracking(events, sinks)
