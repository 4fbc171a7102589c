"""Panels, bars and errors: what stands on a terminal, what in a log file, and text that tries to be markup."""

import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from athlos.cli import panels
from athlos.config.compose import run_config
from athlos.errors import ConfigErrors, DataError
from athlos.stages import Product

HOSTILE = "[red]x[/red] [/] \x1b]0;title\x07\x1b[2J \u202etxt"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["terminal", "log file"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """stderr as a terminal and as a file; rich takes the environment's word for it."""
    if request.param == "terminal":
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setenv("TERM", "xterm-256color")
    else:
        monkeypatch.delenv("FORCE_COLOR", raising=False)
    return request.param


def start(run_dir: Path, **changes: object) -> None:
    """The panels of a run that goes on with a training at step 20, after one that it found ready."""
    config = run_config(["tuning=lora", "train.max_steps=30", "train.batch_size=32"])
    config.study = "my_study"
    for name, value in changes.items():
        setattr(config, name, value)
    terminal = panels.Terminal()
    terminal.run_starts(config, run_dir=run_dir)
    terminal.trained("warmup", Product(name="training", key="abc", path=run_dir, reused=True, seconds=3.0))
    terminal.training_starts(
        config,
        phase="tune",
        parts=["lora: 12 sites"],
        total_params=134_515_008,
        trainable_params=1_345_150,
        license="Apache-2.0",
        resumed_from=20,
    )
    terminal.training_stops()
    terminal.trained("tune", Product(name="training", key="def", path=run_dir, reused=False, seconds=3.21))


def test_the_panels_before_and_around_a_training_say_what_runs(
    place: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    start(tmp_path)
    shown = capsys.readouterr()
    assert shown.out == ""  # stdout holds the run folder alone
    text = " ".join(ESCAPES.sub("", shown.err).split())
    for part in (
        "my_study",
        "finetune",
        "selection=all",
        "tuning=lora",
        "objective=next_token",
        "tiny_llama",
        "random",
        "Apache-2.0",
        "134.5 M",
        "1.3 M (1.00%) train",
        "shakespeare",
        "30 steps of 32 rows",
        "step 20",
        "my_study: training tune",
        "lora: 12 sites",
        "training warmup: reused",
        "training abc",
        "training tune: trained in 3.2 s",
        "training def",
        "run folder, wandb",
    ):
        assert part in text
    assert str(tmp_path) in text.replace(" ", "").replace("│", "") or str(tmp_path) in text


def test_a_log_file_keeps_a_long_path_in_one_piece(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    long = tmp_path / "-".join(["very_long"] * 20)
    start(long)
    error = capsys.readouterr().err
    assert f"{long}\n" in error
    assert "│" not in error


def test_markup_and_escape_codes_are_shown_as_text(
    place: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    start(tmp_path, study=HOSTILE)
    panels.end_panel({f"test/{HOSTILE}": 1.0}, tmp_path, [HOSTILE])
    shown = capsys.readouterr().err
    left = ESCAPES.sub("", shown.replace("\x1b[2J", "CLEARED"))
    assert "CLEARED" not in left
    assert left.count("[red]x[/red] [/]") == 4  # in the titles of two panels, a metric and a next step
    assert "\x1b" not in left
    assert "\x07" not in left
    assert "\u202e" not in left


def test_end_panel_puts_test_metrics_first_and_costs_last(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    metrics = {"cost/wall_s": 12.25, "test/ppl": 3.14159, "val/loss": math.nan, "cost/flops": 2e18, "test/n": 1234.0}
    panels.end_panel(metrics, tmp_path, ["look here", "then there"])
    lines = [line.split() for line in capsys.readouterr().err.splitlines()[1:]]
    assert lines == [
        ["test/n", "1,234"],
        ["test/ppl", "3.142"],
        ["val/loss", "undefined"],
        ["cost/flops", f"{2e18:,.0f}"],
        ["cost/wall_s", "12.25"],
        ["next", "look", "here"],
        ["then", "there"],
    ]


def test_end_panel_counts_what_it_leaves_out(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    panels.end_panel({f"test/acc/{index:03d}": 0.5 for index in range(panels.MAX_METRICS + 3)}, tmp_path, [])
    error = capsys.readouterr().err
    assert error.count("test/acc/") == panels.MAX_METRICS
    assert "and 3 more" in error
    assert str(tmp_path / "metrics.json") in error


def test_print_error_gives_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    panels.print_error(ConfigErrors(["train.lr: got 0, expected > 0", f"study: got '{HOSTILE}',\nexpected text"]))
    panels.print_error(DataError("missing", file="a.jsonl", line=17, field="answer"))
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert lines[0] == "error: train.lr: got 0, expected > 0"
    assert lines[1].startswith("error: study: got '[red]x[/red]")
    assert "\x1b" not in lines[1]
    assert lines[2:] == ["error: a.jsonl:17 field 'answer': missing"]


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (999, "999"), (1000, "1.0 k"), (134_515_008, "134.5 M"), (6_738_415_616, "6.74 B")]
)
def test_readable_count(number: int, text: str) -> None:
    assert panels.readable_count(number) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (750, "12:30"), (11_105, "3:05:05")])
def test_readable_time(seconds: float, text: str) -> None:
    assert panels.readable_time(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.123456, "0.1235"), (math.inf, "inf"), (-math.inf, "-inf"), (12345.6, "12,346")],
)
def test_readable_metric(value: float, text: str) -> None:
    assert panels.readable_metric(value) == text


# Progress


def test_short_work_shows_nothing(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    bar = panels._Bar("training", clock=clock)
    for done in range(1, 11):
        clock.now += 0.15
        bar.show(done, 10, "loss 1")
    bar.close()
    shown = capsys.readouterr()
    assert shown.out + shown.err == ""


def test_a_terminal_gets_a_bar_that_is_taken_down(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm-256color")
    clock = Clock()
    bar = panels._Bar("training", clock=clock)
    for done in (1, 50, 60):
        clock.now += 5
        bar.show(done, 100, "loss 2.5  12,346 tokens/s")
    bar.close()
    shown = capsys.readouterr()
    assert shown.out == ""
    text = ESCAPES.sub("", shown.err)
    for part in ("training", "60/100", "loss 2.5", "12,346 tokens/s", "left"):
        assert part in text
    assert shown.err.count("\x1b[?25l") == shown.err.count("\x1b[?25h") == 1  # the cursor is back


def test_a_log_file_gets_few_lines_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    clock = Clock()
    bar = panels._Bar("training", clock=clock)
    for done in range(1, 201):
        clock.now += 0.5
        bar.show(done, 200, "loss 3  1,000 tokens/s")
    bar.close()
    lines = capsys.readouterr().err.splitlines()
    steps = [int(re.search(r"(\d+)/200", line)[1]) for line in lines]
    assert steps == [20, 40, 60, 80, 100, 120, 140, 160, 180, 200]
    assert lines[4] == "training  100/200  loss 3  1,000 tokens/s  0:50 left"
    assert "left" not in lines[-1]


def test_slow_work_is_heard_of_every_ten_minutes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    clock = Clock()
    bar = panels._Bar("training", clock=clock)
    for done in range(1, 121):
        clock.now += 60
        bar.show(done, 100_000, "loss 3")
    assert len(capsys.readouterr().err.splitlines()) == 12


def test_time_left_of_a_resumed_run_counts_only_its_own_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    clock = Clock()
    bar = panels._Bar("training", clock=clock)
    for done in range(101, 152):
        clock.now += 1
        bar.show(done, 200, "loss 3")
    assert capsys.readouterr().err.splitlines()[-1].endswith("1:00 left")  # at step 140, one second each


def test_a_training_has_a_bar_of_its_own_that_says_how_it_goes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(panels, "QUIET_SECONDS", 0.0)
    config = run_config(["train.max_steps=30"])
    terminal = panels.Terminal()
    for phase in ("train", "tune"):
        terminal.training_starts(
            config, phase=phase, parts=[], total_params=0, trainable_params=0, license="", resumed_from=None
        )
        terminal.training_step(12, 2.5, 12_345.6)
        terminal.training_stops()
        terminal.training_stops()  # as after an error in the middle
        shown = capsys.readouterr().err
        text = ESCAPES.sub("", shown)
        for part in ("training" if phase == "train" else "training tune", "12/30", "loss 2.5", "12,346 tokens/s"):
            assert part in text
        assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1
    terminal.training_step(13, 2.5, 12_345.6)
    assert capsys.readouterr().err == ""


def test_without_a_watcher_that_shows_there_is_no_progress(
    tiny: list[str], run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, out, err = run("run", *tiny, "train.max_steps=2", "progress=false")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 1


def test_evaluation_progress_names_the_suite_and_closes_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(panels, "QUIET_SECONDS", 0.0)
    update = panels.evaluation_progress("math")
    update(1, 2, 10)
    update(2, 2, 20)
    shown = capsys.readouterr().err
    assert "evaluation: math" in ESCAPES.sub("", shown)
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1


def test_an_error_in_the_middle_gives_the_cursor_back(tmp_path: Path) -> None:
    """A bar that nobody closes is taken down when the process ends."""
    import subprocess

    code = (
        "from athlos.cli import panels; panels.QUIET_SECONDS = 0.0; bar = panels._Bar('training'); "
        "bar.show(1, 5, 'loss 1'); bar.show(2, 5, 'loss 1'); raise SystemExit(3)"
    )
    environment = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 3
    assert done.stderr.count("\x1b[?25l") == done.stderr.count("\x1b[?25h") == 1


def test_next_steps_are_in_one_piece_wherever_they_stand(
    place: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = f"athlos export {'/'.join(['long_folder'] * 20)} --out <folder>"
    panels.end_panel({"test/ppl": 1.0}, tmp_path, [command])
    assert capsys.readouterr().err.splitlines()[-1] == f"next  {command}"
