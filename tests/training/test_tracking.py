"""The record of the curves, the three real sinks read back, and sinks that fail in every way."""

import json
import logging
import math
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from athlos.config.schema import TrackingConfig
from athlos.errors import DataError, TrainingError
from athlos.training import sinks, tracking
from athlos.training.events import EventWriter, events_file, read_events, truncate_events

ROWS = [{"id": "1", "text": "καλημέρα|\nkosmos", "n": 1}, {"id": 2, "scores": [1.5, None]}]


def opened(run_dir: Path, *names: str, **changes: Any) -> tracking.Tracking:
    return tracking.open_tracking(
        TrackingConfig(sinks=list(names), project="athlos_test"),
        run_dir=run_dir,
        run_name=run_dir.name,
        group="seeds",
        study="tiny",
        tags=["a", "b"],
        plain_config={"seed": 7, "train": {"lr": 0.001}},
        **changes,
    )


def write_run(run_dir: Path, *names: str) -> list[str]:
    """A short run with everything a run shows; returns the sinks still on at its end."""
    run_dir.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA", (5, 4), (255, 0, 0, 255)).save(run_dir / "picture.png")
    with opened(run_dir, *names) as record:
        record.log({"train/loss": 2.0, "val/ppl": math.nan}, step=1)
        record.log({"train/loss": 1.0}, step=5)
        record.summary({"test/ppl": 3.5})
        record.table("predictions", ROWS)
        record.figure("picture", run_dir / "picture.png")
        return record.active_sinks


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# The record itself


def test_events_are_written_line_by_line_as_json(tmp_path: Path) -> None:
    with opened(tmp_path) as record:
        record.log({"train/loss": 2.0, "val/ppl": math.inf}, step=3)
        line = events_file(tmp_path).read_text(encoding="utf-8")  # before close: a killed run keeps it
        stored = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert (stored["step"], stored["train/loss"], stored["val/ppl"]) == (3, 2.0, None)
    assert stored["time"] > 1_000_000_000
    [event] = read_events(tmp_path)
    assert math.isnan(event["val/ppl"])


def test_a_metric_cannot_take_the_name_of_the_step(tmp_path: Path) -> None:
    with opened(tmp_path) as record, pytest.raises(ValueError, match="step"):
        record.log({"step": 1.0}, step=1)
    assert read_events(tmp_path) == []


def test_truncate_drops_greater_steps_and_half_a_line(tmp_path: Path) -> None:
    with opened(tmp_path) as record:
        for step in (1, 2, 3, 4):
            record.log({"x": step / 2}, step=step)
    path = events_file(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"step": 5, "ti')
    assert [event["step"] for event in read_events(tmp_path)] == [1, 2, 3, 4]
    truncate_events(tmp_path, after_step=2)
    assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:2])
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_truncate_leaves_a_file_with_nothing_to_drop_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as record:
        record.log({"x": 1.0}, step=2)
    before = events_file(tmp_path).stat()
    truncate_events(tmp_path, after_step=2)
    assert events_file(tmp_path).stat().st_ino == before.st_ino
    truncate_events(tmp_path / "never_ran", after_step=0)
    assert not (tmp_path / "never_ran").exists()


def test_a_run_that_goes_on_writes_after_the_last_whole_line(tmp_path: Path) -> None:
    with opened(tmp_path) as record:
        record.log({"x": 1.0}, step=1)
    with events_file(tmp_path).open("ab") as handle:
        handle.write(b'{"step": 2, "x')
    with opened(tmp_path) as record:
        record.log({"x": 9.0}, step=2)
    assert [(event["step"], event["x"]) for event in read_events(tmp_path)] == [(1, 1.0), (2, 9.0)]


@pytest.mark.parametrize("line", [b"not json\n", b"[1]\n", b'{"time": 1}\n', b"\xff\xfe\n", b'{"step": null}\n'])
def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path, line: bytes) -> None:
    with opened(tmp_path) as record:
        record.log({"x": 1.0}, step=1)
    with events_file(tmp_path).open("ab") as handle:
        handle.write(line + b'{"step": 3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2"):
        read_events(tmp_path)


def test_a_disk_that_refuses_the_record_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, _: Any) -> int:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    writer = EventWriter(tmp_path)
    writer.close()
    monkeypatch.setattr(writer, "_file", Full())
    with pytest.raises(TrainingError, match=r"metrics\.jsonl: No space left"):
        writer.append({"x": 1.0}, step=1)


def test_a_line_that_the_disk_takes_in_parts_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[bytes] = []

    class Slow:
        def write(self, content: memoryview) -> int:
            parts.append(bytes(content[:3]))
            return len(parts[-1])

    writer = EventWriter(tmp_path)
    writer.close()
    monkeypatch.setattr(writer, "_file", Slow())
    writer.append({"x": 1.0}, step=1)
    assert json.loads(b"".join(parts))["x"] == 1.0


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "events").write_text("a file in the way", encoding="utf-8")
    with pytest.raises(TrainingError, match="events"):
        opened(tmp_path)


def test_only_the_writer_of_several_processes_records(tmp_path: Path) -> None:
    with opened(tmp_path, "wandb", is_writer=False) as record:
        record.log({"x": 1.0}, step=1)
        record.table("t", ROWS)
    assert list(tmp_path.iterdir()) == []


# The real sinks


def wandb_records(run_dir: Path) -> list[dict[str, Any]]:
    """All records of all offline folders of a run, by wandb's own reader, once each log has its end.

    wandb's service writes the end after a run has finished. It is waited for and not ended: the runs of one process
    are to share it.
    """
    wandb = Path(sys.executable).with_name("wandb")
    records = []
    for folder in sorted((run_dir / "events" / "wandb").glob("offline-run-*")):
        deadline, found = time.monotonic() + 60, []
        while not any(record["type"] == "exit" for record in found):
            assert time.monotonic() < deadline, f"{folder.name} has no end: {len(found)} records"
            shown = subprocess.run(
                [wandb, "leet", "inspect", "--json", folder], capture_output=True, text=True, timeout=60
            )
            found = [json.loads(line) for line in shown.stdout.splitlines()]
        records += found
    return records


def test_wandb_offline_two_runs_of_one_process_in_one_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("wandb")
    pytest.importorskip("openai")  # in its presence wandb would advertise its tracer
    secret = "s3cr3t" * 7
    monkeypatch.setenv("WANDB_API_KEY", secret)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    identifiers = []
    for name in ("run_1", "run_2"):
        assert write_run(tmp_path / "tiny" / name, "wandb") == ["wandb"]
        records = wandb_records(tmp_path / "tiny" / name)
        [run] = [record["run"] for record in records if record["type"] == "run"]
        assert (run["display_name"], run["run_group"], run["job_type"]) == (name, "seeds", "tiny")
        assert run["project"] == "athlos_test"
        assert run["tags"] == ["a", "b"]
        config = run["config"]["update"]
        assert (config["seed"], config["train"]) == (7, {"lr": 0.001})
        history = [record["history"]["item"] for record in records if record["type"] == "history"]
        assert [(item["_step"], item["train/loss"]) for item in history] == [(1, 2), (5, 1)]
        assert any(record["summary"]["update"].get("test/ppl") == 3.5 for record in records if "summary" in record)
        assert [record["exit"]["exit_code"] for record in records if record["type"] == "exit"] == [0]
        [folder] = (tmp_path / "tiny" / name / "events" / "wandb").glob("offline-run-*")
        [table] = folder.glob("files/media/table/*.json")
        assert json.loads(table.read_text(encoding="utf-8"))["data"] == [
            ["1", ROWS[0]["text"], 1, None],
            [2, None, None, "[1.5, null]"],
        ]
        assert len(list(folder.glob("files/media/images/*.png"))) == 1
        identifiers.append(run["run_id"])
    assert identifiers[0] != identifiers[1]
    leaks = [path for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert leaks == []
    assert list((tmp_path / "home").rglob("staging")) == []  # tables stay with their run
    assert os.environ.get(sinks.WANDB_DATA_VARIABLE) is None
    shown = capfd.readouterr()
    assert shown.out + shown.err == ""


def test_wandb_keeps_the_id_of_a_run_that_goes_on_and_marks_a_failure(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    run_dir = tmp_path / "tiny" / "run"

    def fail() -> None:
        with opened(run_dir, "wandb") as record:
            record.log({"x": 1.0}, step=1)
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    with opened(run_dir, "wandb") as record:
        record.log({"x": 2.0}, step=2)
    records = wandb_records(run_dir)
    assert len({record["run"]["run_id"] for record in records if record["type"] == "run"}) == 1
    assert sorted(record["exit"].get("exit_code", 0) for record in records if record["type"] == "exit") == [0, 1]
    assert [record["history"]["item"]["x"] for record in records if record["type"] == "history"] == [1, 2]


def test_tensorboard_read_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert write_run(tmp_path, "tensorboard") == ["tensorboard"]
    found = EventAccumulator(str(tmp_path / "events" / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in found.Scalars("train/loss")] == [(1, 2.0), (5, 1.0)]
    assert found.Tags()["images"] == ["picture"]
    assert "config/text_summary" in found.Tags()["tensors"]
    assert "predictions/text_summary" in found.Tags()["tensors"]


TRACKIO_RUNS = """
from pathlib import Path
from tests.training.test_tracking import write_run
for name in ("run_1", "run_2", "run_2"):
    assert write_run(Path(name), "trackio") == ["trackio"]
"""


def test_trackio_read_back(tmp_path: Path) -> None:
    """In a process of its own: trackio settles on a folder when it is imported."""
    pytest.importorskip("trackio")
    environment = os.environ | {"TRACKIO_DIR": str(tmp_path / "theirs"), "HF_HUB_OFFLINE": "1"}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", TRACKIO_RUNS],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment | {"PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}"},
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    [database] = (tmp_path / "theirs").glob("*.db")
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        rows = connection.execute("select run_id, run_name, step, metrics from metrics order by id").fetchall()
        configs = [json.loads(config) for (config,) in connection.execute("select config from configs").fetchall()]
    by_run: dict[str, list[tuple[str, int, dict[str, Any]]]] = {}
    for run_id, name, step, metrics in rows:
        by_run.setdefault(run_id, []).append((name, step, json.loads(metrics)))
    assert [points[0][0] for points in by_run.values()] == ["run_1", "run_2", "run_2"]
    for points in by_run.values():
        metrics = {key: value for _, _, values in points for key, value in values.items()}
        assert [step for _, step, values in points if "train/loss" in values] == [1, 5]
        assert (metrics["train/loss"], metrics["test/ppl"]) == (1.0, 3.5)
        assert {"predictions", "picture"} <= set(metrics)
    assert {(config["_Group"], config["seed"], config["study"]) for config in configs} == {("seeds", 7, "tiny")}


# Sinks that fail


class Failing:
    """A sink that works but for one operation."""

    def __init__(self, broken: str, error: BaseException) -> None:
        self.broken, self.error = broken, error
        self.calls: list[str] = []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.broken:
            raise self.error

    def log(self, metrics: dict[str, float], *, step: int) -> None:
        self._call("log")

    def summary(self, metrics: dict[str, float]) -> None:
        self._call("summary")

    def table(self, name: str, rows: list[dict[str, Any]]) -> None:
        self._call("table")

    def figure(self, name: str, path: Path) -> None:
        self._call("figure")

    def close(self, *, failed: bool) -> None:
        self._call("close")


def use(monkeypatch: pytest.MonkeyPatch, **fakes: Failing) -> None:
    for name, fake in fakes.items():

        def build(config: TrackingConfig, info: sinks.RunInfo, fake: Failing = fake) -> Failing:
            fake._call("init")
            return fake

        monkeypatch.setitem(sinks.SINKS, name, build)


@pytest.mark.parametrize("broken", ["init", "log", "summary", "table", "figure", "close"])
def test_a_failing_sink_is_off_after_one_warning_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    bad, good = Failing(broken, OSError(28, "No space left\non device")), Failing("nothing", Exception())
    use(monkeypatch, wandb=bad, trackio=good)
    caplog.set_level(logging.WARNING)
    write_run(tmp_path, "wandb", "trackio")
    [warning] = warnings_of(caplog)
    assert "wandb" in warning
    assert "No space left on device" in warning
    assert bad.calls.count(broken) == 1
    assert good.calls == ["init", "log", "log", "summary", "table", "figure", "close"]
    assert len(read_events(tmp_path)) == 2
    if broken not in ("init", "close"):
        assert bad.calls[-1] == "close"  # turned off, and let go of


@pytest.mark.parametrize("moment", ["init", "log", "close"])
def test_an_interrupt_passes_and_every_sink_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    other, interrupted = Failing("nothing", Exception()), Failing(moment, KeyboardInterrupt())
    use(monkeypatch, wandb=other, trackio=interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_run(tmp_path, "wandb", "trackio")
    assert other.calls[-1] == "close"
    assert other.calls.count("close") == 1


@pytest.mark.parametrize("name", ["tensorboard", "trackio"])
def test_a_missing_package_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    def missing(*_: Any) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setitem(sinks.SINKS, name, missing)
    with opened(tmp_path, name) as record:
        assert record.active_sinks == []
    assert f"pip install 'athlos[{name}]'" in warnings_of(caplog)[0]


def test_wandb_that_cannot_write_its_folder_is_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("wandb")
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "wandb").write_text("a file in the way", encoding="utf-8")
    write_run(tmp_path, "wandb")
    assert any("wandb is off" in warning for warning in warnings_of(caplog))
    assert len(read_events(tmp_path)) == 2


def test_tables_are_capped_and_empty_ones_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    fake = Failing("nothing", Exception())
    monkeypatch.setattr(fake, "table", lambda name, rows: lengths.append(len(rows)))
    use(monkeypatch, wandb=fake)
    with opened(tmp_path, "wandb") as record:
        record.table("empty", [])
        record.table("long", [{"n": index} for index in range(tracking.MAX_TABLE_ROWS + 50)])
    assert lengths == [tracking.MAX_TABLE_ROWS]
