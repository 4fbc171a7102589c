"""What a run shows on the terminal: start and end panel, progress bars, errors.

Everything goes to stderr; stdout keeps one thing, the run folder on its last line. On a terminal there are panels and
bars; anywhere else (a cluster's log file) plain lines, few of them. All text that comes from a config or a file is
shown as it is: no markup, no escape codes.
"""

import atexit
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from athlos.config.compose import engine_signature
from athlos.config.registry import part_names
from athlos.config.schema import RunConfig
from athlos.errors import AthlosError, ConfigErrors
from athlos.runs.watcher import Watcher
from athlos.stages import Product

QUIET_SECONDS = 2.0
"""Work shorter than this shows no progress."""
LINE_SECONDS, LINE_SHARE, SILENCE_SECONDS = 10.0, 0.1, 600.0
"""Without a terminal: lines stand 10 s and a tenth of the work apart; after 10 minutes one comes in any case."""
MAX_METRICS = 40
"""Metrics in the end panel; the rest are counted."""


def visible(text: str) -> str:
    """The text with every control and formatting character (escape codes, direction marks) spelt out."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in text
    )


def readable_count(number: int) -> str:
    """`912`, `12.3 k`, `134.5 M`, `6.74 B`."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.{2 if unit == 'B' else 1}f} {unit}"
    return str(number)


def readable_time(seconds: float) -> str:
    """`0:07`, `12:30`, `3:05:00`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def readable_metric(value: float) -> str:
    if math.isnan(value):
        return "undefined"
    if math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}" if math.isfinite(value) else str(value)


def _show(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """A panel of names and values on a terminal, aligned lines anywhere else; values never break in the middle."""
    console = Console(stderr=True)
    shown = [(visible(name), visible(value)) for name, value in rows]
    if not console.is_terminal:
        width = max((len(name) for name, _ in shown), default=0)
        for line in [f"-- {visible(title)}", *(f"   {name.ljust(width)}  {value}" for name, value in shown)]:
            print(line.rstrip(), file=sys.stderr)
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="bold")
    grid.add_column(overflow="fold")
    for name, value in shown:
        grid.add_row(Text(name), Text(value))
    console.print(Panel(grid, title=Text(visible(title)), title_align="left", expand=False))


class Terminal(Watcher):
    """Shows a run to a person: panels at its start, before and after each training, and at its end; bars between."""

    def __init__(self) -> None:
        self._bar: _Bar | None = None
        self._total = 0

    def run_starts(self, run: RunConfig, *, run_dir: Path) -> None:
        parts = part_names(run)
        groups = ("surgery", "construct", "objective", "selection", "tuning", "decoding", "engine")
        source = f"a server's ({engine_signature(run)})" if run.engine.is_remote else run.model.source
        train = run.train
        training = f"{run.num_steps} steps of {train.batch_size} rows, up to {train.max_length} tokens a row"
        _show(
            f"athlos: {run.study}",
            [
                ("method", parts.get("method", type(run.method).__name__)),
                ("parts", " ".join(f"{group}={parts[group]}" for group in groups if group in parts)),
                ("model", f"{run.model.name} ({source})"),
                ("data", run.data.name),
                ("training", training if run.num_steps else "none, evaluation only"),
                ("evaluation", ", ".join(run.eval.suites)),
                ("device", f"{run.hardware.accelerator}, {run.hardware.precision}"),
                ("seed", str(run.seed)),
                ("tracking", ", ".join(["run folder", *run.tracking.sinks])),
                ("run folder", str(run_dir)),
            ],
        )

    def training_starts(
        self,
        run: RunConfig,
        *,
        phase: str,
        parts: Sequence[str],
        total_params: int,
        trainable_params: int,
        license: str,
        resumed_from: int | None,
    ) -> None:
        share = trainable_params / total_params if total_params else 0.0
        parameters = f"{readable_count(total_params)}, of which {readable_count(trainable_params)} ({share:.2%}) train"
        rows = [("parts", part) for part in parts if part != "none"]
        rows += [("parameters", parameters), ("licence", license), ("steps", str(run.num_steps))]
        if resumed_from is not None:
            rows.append(("goes on from", f"step {resumed_from}"))
        _show(f"{run.study}: {_training(phase)}", rows)
        self._total, self._bar = run.num_steps, _Bar(_training(phase))

    def training_step(self, done: int, loss: float, tokens_per_s: float) -> None:
        if self._bar is not None:
            self._bar.show(done, self._total, f"loss {loss:.4g}  {tokens_per_s:,.0f} tokens/s")

    def training_stops(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def trained(self, phase: str, product: Product) -> None:
        state = "reused" if product.reused else f"trained in {product.seconds:.1f} s"
        _show(f"{_training(phase)}: {state}", [("weights", f"{product.name} {product.key}")])

    def suite_starts(self, suite: str) -> Callable[[int, int, int], None]:
        return evaluation_progress(suite)

    def run_ends(self, metrics: Mapping[str, float], *, run_dir: Path, next_steps: Sequence[str]) -> None:
        end_panel(metrics, run_dir, next_steps)


def _training(phase: str) -> str:
    """How a phase is called; the only one of a run has no name of its own."""
    return "training" if phase == "train" else f"training {phase}"


def end_panel(metrics: Mapping[str, float], run_dir: Path, next_steps: Sequence[str]) -> None:
    """The metrics, costs last, and where to look next."""
    names = sorted(metrics, key=lambda name: (name.startswith("cost/"), not name.startswith("test/"), name))
    rows = [(name, readable_metric(metrics[name])) for name in names[:MAX_METRICS]]
    if len(names) > MAX_METRICS:
        rows.append((f"and {len(names) - MAX_METRICS} more", str(run_dir / "metrics.json")))
    _show("finished", rows)
    for index, step in enumerate(next_steps):  # below the panel: a command broken over two lines cannot be copied
        print(f"{'next' if index == 0 else '    '}  {visible(step)}", file=sys.stderr)


def print_error(error: AthlosError) -> None:
    """One line on stderr for each error: `error: key: got ..., expected ...`."""
    for line in error.errors if isinstance(error, ConfigErrors) else [str(error)]:
        print(f"error: {visible(' '.join(line.split()))}", file=sys.stderr)


class _Bar:
    """A bar on a terminal, a plain line now and then anywhere else; nothing before `QUIET_SECONDS`.

    The bar is taken down at exit even when nobody closes it, so that an error never leaves a terminal without cursor.
    """

    def __init__(self, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name, self.clock = visible(name), clock
        self._console = Console(stderr=True)
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self.start()

    def start(self) -> None:
        """Begin anew, with the clock at zero."""
        self._started = self._printed_at = self.clock()
        self._first: int | None = None
        self._printed_done = 0
        self._last_line = ""
        self._has_printed = False

    def show(self, done: int, total: int, status: str) -> None:
        """`status` stands behind the count; the time left is added here."""
        now = self.clock()
        if self._first is None:  # a resumed run starts in the middle: what was done before says nothing about the speed
            self._first, self._started, self._printed_done = done, now, done - 1
        elapsed, worked = now - self._started, done - self._first
        if worked and done < total:
            status += f"  {readable_time(elapsed / worked * (total - done))} left"
        self._last_line = f"{self.name}  {done}/{total}  {status}"
        if elapsed < QUIET_SECONDS:
            return
        if self._console.is_terminal:
            self._draw(done, total, status)
            return
        wait = now - self._printed_at
        has_moved = done - self._printed_done >= LINE_SHARE * total
        if (wait >= LINE_SECONDS and has_moved) or wait >= SILENCE_SECONDS:
            self._printed_at, self._printed_done = now, done
            self._print()

    def _print(self) -> None:
        print(self._last_line, file=sys.stderr, flush=True)
        self._last_line, self._has_printed = "", True

    def _draw(self, done: int, total: int, status: str) -> None:
        if self._progress is None:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TextColumn("{task.fields[status]}", markup=False),
                console=self._console,
                redirect_stdout=False,
            )
            self._task = self._progress.add_task(self.name, total=total, status=status)
            self._progress.start()
            atexit.register(self.close)
        self._progress.update(self._task, completed=done, total=total, status=status)

    def close(self) -> None:
        """Take the bar down; without a terminal, print the last state when earlier ones were printed."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
            atexit.unregister(self.close)
        elif self._has_printed and self._last_line:
            self._print()


def evaluation_progress(suite: str) -> Callable[[int, int, int], None]:
    """A callback (items done, all items, tokens so far) for one suite; it closes itself after the last item."""
    bar = _Bar(f"evaluation: {suite}")
    start = bar.clock()

    def update(done: int, total: int, tokens: int) -> None:
        speed = tokens / max(bar.clock() - start, 1e-9)
        bar.show(done, total, f"{speed:,.0f} tokens/s")
        if done >= total:
            bar.close()

    return update


def pairs_progress(name: str) -> Callable[[int, int], None]:
    """A callback (pairs done, all pairs); it closes itself after the last one."""
    bar = _Bar(name)

    def update(done: int, total: int) -> None:
        bar.show(done, total, "")
        if done >= total:
            bar.close()

    return update
