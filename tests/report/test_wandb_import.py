"""Offline runs that wandb itself wrote, and hostile logs made of wandb's own messages, as Athlos run folders."""

import io
import json
import logging
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from athlos.errors import ConfigError
from athlos.report import wandb_import
from athlos.report.wandb_import import import_runs
from athlos.runs.folder import flat
from athlos.training.events import read_events

RED = Image.new("RGB", (5, 4), (255, 0, 0))
IDENTITY, BLOCK_BYTES = struct.pack("<4sHB", b":W&B", 0xBEE1, 0), 2**15
"""First bytes of a log of wandb, and the length of its blocks."""


def start_run(folder: Path, **options: Any) -> Any:
    """An offline run of wandb with nothing that takes time."""
    import wandb

    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        disable_job_creation=True,
        x_disable_stats=True,
        **options.pop("settings", {}),
    )
    return wandb.init(mode="offline", dir=folder, reinit="create_new", settings=settings, **options)


def end_run(run: Any, exit_code: int = 0) -> None:
    """Finish a run and wait for wandb's service: it writes the end of the log after `finish` has returned."""
    import wandb

    run.finish(exit_code=exit_code)
    wandb.teardown()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run that logged one of everything."""
    import wandb

    folder = tmp_path_factory.mktemp("program")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder / "home"))
        patch.setenv("WANDB_DATA_DIR", str(folder / "staging"))
        run = start_run(
            folder,
            id="abc123",
            project="my project",
            name="καλή run",
            group="g",
            job_type="train",
            tags=["t1", "t2"],
            notes="a note",
            config={
                "lr": 1e-3,
                "optimizer": {"betas": [0.9, 0.999], "name": None},
                "seed": 3,
                "hf_token": "x",
                "max_tokens": 7,
                "note": "δύο\x07",
                "login": {"key": "hf_" + "a" * 30},
                "wrapped": {"desc": None, "value": 5},
                "limit": math.inf,
            },
        )
        for step in range(3):
            run.log(
                {
                    "train/loss": 1 / (step + 1),
                    "deep": {"a": {"b": step}},
                    "bad": math.nan,
                    "good": -math.inf,
                    "is_done": step == 2,
                    "step": 10 * step,
                    "text": "words",
                    "sizes": [1, 2],
                    "nothing": None,
                    "histogram": wandb.Histogram([1, 2, 3]),
                    "word": "NaN",
                }
            )
        run.log({"val/loss": 0.25}, step=9)
        for number in (1, 2):
            rows = [[number, "ναί\n", None], [math.inf, "<b>", wandb.Image(RED)]]
            run.log({"answers/table": wandb.Table(["n", "text", "n"], rows, allow_mixed_types=True)})
        run.log({"picture": wandb.Image(RED), "pictures": [wandb.Image(RED), wandb.Image(RED.rotate(90, expand=True))]})
        run.log({"photo": wandb.Image(RED, file_type="jpg")})
        run.summary["best"] = {"acc": 0.5}
        run.summary["removed"] = 1.0
        del run.summary["removed"]
        run.config.update({"late": 1})
        end_run(run)
    return folder


@pytest.fixture(scope="module")
def imported(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    [run] = import_runs(original, tmp_path_factory.mktemp("imported"))
    return run


def log_file(folder: Path) -> Path:
    [path] = folder.glob("wandb/offline-run-*/run-*.wandb")
    return path


def read(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".yaml":
        return yaml.safe_load(text)
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def messages_of(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


# A run written by wandb


def test_a_run_becomes_a_run_folder(imported: Path) -> None:
    assert imported.parent.name == "my_project"
    assert imported.name.startswith("καλή_run-")
    assert sorted(path.name for path in imported.iterdir()) == [
        "config.yaml",
        "events",
        "figures",
        "metrics.json",
        "predictions",
        "provenance.json",
        "status.json",
    ]


def test_config_is_plain_and_without_secrets(imported: Path) -> None:
    assert read(imported / "config.yaml") == {
        "lr": 0.001,
        "optimizer": {"betas": [0.9, 0.999], "name": None},
        "seed": 3,
        "hf_token": "(removed)",
        "max_tokens": 7,
        "note": "δύο\x07",
        "login": {"key": "(removed)"},
        "wrapped": 5,
        "limit": "Infinity",
        "late": 1,
        "study": "my project",
        "_wandb": {"group": "g", "job_type": "train", "tags": ["t1", "t2"]},
    }
    assert read(imported / "provenance.json")["seed"] == 3


def test_metrics_are_the_last_values_and_the_summary(imported: Path) -> None:
    metrics = read(imported / "metrics.json")
    assert metrics.pop("cost/wall_s") >= 0
    assert metrics == {
        "train/loss": pytest.approx(1 / 3),
        "deep.a.b": 2.0,
        "bad": None,
        "good": None,
        "is_done": 1.0,
        "history/step": 20.0,
        "val/loss": 0.25,
        "best.acc": 0.5,
        "word": None,
    }


def test_curves_hold_every_number(imported: Path) -> None:
    events = read_events(imported)
    assert [event["step"] for event in events] == [0, 1, 2, 9]
    assert [event["train/loss"] for event in events[:3]] == pytest.approx([1, 1 / 2, 1 / 3])
    assert [event["deep.a.b"] for event in events[:3]] == [0, 1, 2]
    assert [event["history/step"] for event in events[:3]] == [0, 10, 20]
    assert math.isnan(events[0]["bad"])
    assert math.isnan(events[0]["good"])
    assert events[3].keys() == {"step", "time", "val/loss"}
    assert all(abs(event["time"] - time.time()) < 3600 for event in events)
    assert b"NaN" not in (imported / "events" / "metrics.jsonl").read_bytes()


def test_what_is_no_number_is_counted(imported: Path) -> None:
    found = read(imported / "provenance.json")["imported"]
    assert found["skipped_values"] == {"text": 3, "list": 3, "null": 3, "histogram": 3}
    assert found["left_out"] == ["answers/table: the first 1 of 2", "photo: no PNG"]
    assert (found["from"], found["id"], found["name"], found["notes"]) == ("wandb", "abc123", "καλή run", "a note")
    assert found["damage"] == []


def test_the_last_table_becomes_predictions(imported: Path) -> None:
    [path] = (imported / "predictions").iterdir()
    assert path.name == "answers_table.jsonl"
    rows = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["n"] for row in rows] == [2, None]
    assert [row["text"] for row in rows] == ["ναί\n", "<b>"]
    assert [row["n-2"] for row in rows] == [None, "Image"]


def test_pictures_become_png_of_the_same_size(imported: Path) -> None:
    sizes = {}
    for path in sorted((imported / "figures").iterdir()):
        with Image.open(path) as image:
            assert image.format == "PNG"
            sizes[path.name] = image.size
    assert sizes == {"picture.png": (5, 4), "pictures.png": (5, 4), "pictures-2.png": (4, 5)}


def test_state_and_times(imported: Path) -> None:
    status = read(imported / "status.json")
    assert status["state"] == "finished"
    # Both are text of one form, so that they compare as times do, also within one second.
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", status["end"])
    assert status["start"] <= status["end"]
    assert status["wall_s"] == read(imported / "metrics.json")["cost/wall_s"]


def test_provenance_tells_the_machine_but_no_host_and_no_person(original: Path, imported: Path) -> None:
    found = read(imported / "provenance.json")
    assert found["versions"]["python"] == sys.version.split()[0]
    assert found["versions"]["wandb"]
    text = "".join(path.read_text("utf-8", "replace") for path in imported.rglob("*") if path.is_file())
    assert os.uname().release not in text
    program = [sys.argv[0]] if len(sys.argv[0]) > len("-c") else []  # a worker of pytest-xdist has none
    for private in (str(original), sys.executable, *program, "hf_aaaa"):
        assert private not in text
    names = set(found["hardware"]) | set(found) | set(found["imported"])
    assert not names & {"host", "username", "email", "args", "program", "root", "executable"}


def test_importing_elsewhere_gives_the_same(original: Path, imported: Path, tmp_path: Path) -> None:
    [again] = import_runs(original, tmp_path)
    for path in imported.rglob("*"):
        if path.is_file():
            assert (again / path.relative_to(imported)).read_bytes() == path.read_bytes()
    assert again.relative_to(tmp_path) == imported.relative_to(imported.parent.parent)


def test_the_folder_of_the_run_itself_will_do(original: Path, tmp_path: Path) -> None:
    assert len(import_runs(log_file(original).parent, tmp_path)) == 1


def test_nothing_heavy_is_imported_before_there_is_a_run() -> None:
    code = (
        "import sys, athlos.report.wandb_import\n"
        "print(*[name for name in ('torch', 'wandb', 'numpy', 'PIL', 'google.protobuf') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


# Killed runs


def cut(original: Path, tmp_path: Path, size: int) -> Path:
    folder = tmp_path / "program"
    shutil.copytree(original / "wandb", folder / "wandb", symlinks=True)
    path = log_file(folder)
    path.write_bytes(path.read_bytes()[:size])
    return folder


def long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(wandb_import.time, "time", lambda: now + 86400)


def size_up_to(path: Path, kind: str, number: int) -> int:
    """Bytes of a log whose records lie in one block, up to and with the `number`-th record of a kind."""
    from wandb.proto import wandb_internal_pb2 as messages

    content = path.read_bytes()
    position, found = len(IDENTITY), 0
    while found < number:
        [length] = struct.unpack_from("<H", content, position + 4)
        record = messages.Record.FromString(content[position + 7 : position + 7 + length])
        position += 7 + length
        found += record.WhichOneof("record_type") == kind
    return position


@pytest.mark.parametrize("rest", [0, 20])
def test_a_cut_file_gives_what_is_there(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: int
) -> None:
    """Between two records, and in the middle of one."""
    size = size_up_to(log_file(original), "history", 2)
    long_ago(monkeypatch)
    [run] = import_runs(cut(original, tmp_path, size + rest), tmp_path / "out")
    status = read(run / "status.json")
    assert status["state"] == "failed"
    assert status["error"] == "NoEnd"
    assert "ends without the run's end" in status["message"]
    assert [event["step"] for event in read_events(run)] == [0, 1]
    assert read(run / "metrics.json")["train/loss"] == 0.5
    assert read(run / "config.yaml")["lr"] == 0.001
    assert ["incomplete" in line for line in read(run / "provenance.json")["imported"]["damage"]] == [True] * (rest > 0)


def test_a_run_that_wrote_just_now_is_running(original: Path, tmp_path: Path) -> None:
    [run] = import_runs(cut(original, tmp_path, size_up_to(log_file(original), "history", 2) + 20), tmp_path / "out")
    status = read(run / "status.json")
    assert (status["state"], status.get("end")) == ("running", None)
    assert "no end yet" in status["message"]


@pytest.mark.parametrize("size", [0, 3, 7, 300])
def test_a_file_with_nothing_in_it_is_left_out(
    original: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    assert import_runs(cut(original, tmp_path, size), tmp_path / "out") == []
    [message] = messages_of(caplog)
    assert "run-abc123.wandb: holds no run" in message
    assert list((tmp_path / "out").iterdir()) == []


def test_a_failed_program_gives_its_exit_code(tmp_path: Path) -> None:
    run = start_run(tmp_path, id="f1", settings={"x_disable_meta": True, "x_disable_machine_info": True})
    run.log({"x": 1})
    end_run(run, exit_code=9)
    [folder] = import_runs(tmp_path, tmp_path / "out")
    status = read(folder / "status.json")
    assert (status["state"], status["exit_code"]) == ("failed", 9)
    assert status["message"] == "the program ended with exit code 9"
    assert folder.name.startswith("f1-")


# Hostile and damaged logs, made of wandb's own messages


def frames(contents: Iterable[bytes]) -> bytes:
    """A log of wandb, written from the description of LevelDB's format."""
    written = io.BytesIO()
    written.write(IDENTITY)
    for content in contents:
        rest, is_first = content, True
        while is_first or rest:
            room = BLOCK_BYTES - written.tell() % BLOCK_BYTES
            if room < 7:
                written.write(bytes(room))
                room = BLOCK_BYTES
            part, rest = rest[: room - 7], rest[room - 7 :]
            kind = {(True, False): 1, (True, True): 2, (False, True): 3, (False, False): 4}[is_first, bool(rest)]
            written.write(struct.pack("<IHB", zlib.crc32(bytes([kind]) + part), len(part), kind) + part)
            is_first = False
    return written.getvalue()


def history(step: int, **values: str) -> Any:
    """A row; values are JSON, a name with `__` is nested."""
    from wandb.proto import wandb_internal_pb2 as messages

    record = messages.Record()
    record.history.step.num = step
    for name, text in values.items():
        record.history.item.add(nested_key=name.split("__"), value_json=text)
    return record


def run_record(**values: Any) -> Any:
    from wandb.proto import wandb_internal_pb2 as messages

    record = messages.Record()
    for name, value in ({"run_id": "h1", "project": "p"} | values).items():
        setattr(record.run, name, value)
    record.run.start_time.seconds = 1_700_000_000
    return record


def written(folder: Path, records: Iterable[Any], *, name: str = "offline-run-20240101_000000-h1") -> Path:
    """A folder of a run whose log holds `records`; returns the folder of the run."""
    run_folder = folder / "wandb" / name
    (run_folder / "files").mkdir(parents=True)
    (run_folder / "run-h1.wandb").write_bytes(frames(record.SerializeToString() for record in records))
    return run_folder


def test_a_damaged_block_loses_only_what_is_in_it(tmp_path: Path) -> None:
    records = [run_record(), *(history(step, loss="0.5", filler=json.dumps("x" * 1000)) for step in range(200))]
    run_folder = written(tmp_path, records)
    path = run_folder / "run-h1.wandb"
    content = bytearray(path.read_bytes())
    content[2 * BLOCK_BYTES + 500] ^= 1
    path.write_bytes(content)
    [run] = import_runs(tmp_path, tmp_path / "out")
    steps = [event["step"] for event in read_events(run)]
    assert 140 < len(steps) < 200
    assert steps[0] == 0
    assert steps[-1] == 199
    [damage] = read(run / "provenance.json")["imported"]["damage"]
    assert damage.startswith("skipped corrupt data")


@pytest.mark.parametrize("content", [b"SQLite format 3\0" * 9, b":W&B\xe1\xbe\x01" + bytes(50), bytes(100)])
def test_another_file_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes) -> None:
    run_folder = written(tmp_path, [])
    (run_folder / "run-h1.wandb").write_bytes(content)
    assert import_runs(tmp_path, tmp_path / "out") == []
    [message] = messages_of(caplog)
    assert "run-h1.wandb: wandb cannot read it: " in message
    assert message.isprintable()


HOSTILE = ["../../evil", "/etc/passwd", "..", "x\0y", "\x1b[31m", "ά" * 300, " "]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "inside"
    table = {"_type": "table-file", "path": "media/table.json"}
    picture = {"_type": "image-file", "path": "media/picture.png"}
    record = history(1)
    for key, value in ((f"{name}t", table), (f"{name}p", picture), (f"{name}n", 1.0)):
        record.history.item.add(key=key, value_json=json.dumps(value))
    run_folder = written(
        inside, [run_record(project=name, display_name=name, run_id=name), record, history(2, **{name: "1"})]
    )
    (run_folder / "files" / "media").mkdir()
    (run_folder / "files" / "media" / "table.json").write_text('{"columns": ["a"], "data": [[1]]}', encoding="utf-8")
    RED.save(run_folder / "files" / "media" / "picture.png")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    out = inside / "out"
    [run] = import_runs(inside, out)
    new = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert len(new) == 7
    assert all(path.resolve().is_relative_to(run) and run.parent.parent == out for path in new)
    assert not any(part.startswith((".", "-")) for path in new for part in path.relative_to(out).parts)
    assert all(part.isprintable() for path in new for part in path.relative_to(out).parts)
    assert f"{name}n" in read_events(run)[0]


def test_nothing_outside_the_run_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"columns": ["secret"], "data": [["s3cr3t"]]}', encoding="utf-8")
    paths = [
        "../../../secret.json",
        str(secret),
        "link.json",
        "linked/secret.json",
        "circle",
        "a\0b",
        "x" * 5000,
        3,
        None,
    ]
    values = {f"t{index}": json.dumps({"_type": "table-file", "path": path}) for index, path in enumerate(paths)}
    run_folder = written(tmp_path, [run_record(), history(1, **values)])
    (run_folder / "files" / "link.json").symlink_to(secret)
    (run_folder / "files" / "linked").symlink_to(tmp_path)
    (run_folder / "files" / "circle").symlink_to(run_folder / "files" / "circle")
    (run_folder / "files" / "requirements.txt").symlink_to(secret)
    [run] = import_runs(tmp_path, tmp_path / "out")
    text = "".join(path.read_text(encoding="utf-8") for path in run.rglob("*") if path.is_file())
    assert "s3cr3t" not in text
    assert str(tmp_path) not in text.replace(json.dumps(str(secret)), "")
    assert len(read(run / "provenance.json")["imported"]["left_out"]) == len(paths)


def test_a_linked_log_or_folder_is_not_followed(
    original: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_folder = tmp_path / "in" / "offline-run-20240101_000000-x1"
    run_folder.mkdir(parents=True)
    (run_folder / "run-x1.wandb").symlink_to(log_file(original))
    (tmp_path / "in" / "linked").symlink_to(original)
    (tmp_path / "in" / "offline-run-20240101_000000-x2").symlink_to(log_file(original).parent)
    assert import_runs(tmp_path / "in", tmp_path / "out") == []
    assert ["no run-*.wandb file" in message for message in messages_of(caplog)] == [True]


def test_a_run_folder_without_a_log_is_told_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(tmp_path, [run_record(), history(1, x="1")])
    (tmp_path / "wandb" / "offline-run-20240101_000001-\x1b[31mx\ny" / "files").mkdir(parents=True)
    assert len(import_runs(tmp_path, tmp_path / "out")) == 1
    [message] = messages_of(caplog)
    assert message.isprintable()
    assert message.endswith("y: no run-*.wandb file")


def test_two_runs_of_one_id_stay_two(tmp_path: Path) -> None:
    for start in (1, 2):
        written(tmp_path, [run_record(), history(start, x="1")], name=f"offline-run-20240101_00000{start}-h1")
    runs = import_runs(tmp_path, tmp_path / "out")
    assert sorted(read_events(run)[0]["step"] for run in runs) == [1, 2]


@pytest.mark.parametrize("longer", ["a", "b"])
def test_of_two_copies_the_longer_counts(tmp_path: Path, longer: str) -> None:
    for folder in ("a", "b"):
        rows = [history(step, x="1") for step in range(3 if folder == longer else 2)]
        written(tmp_path / folder, [run_record(), *rows])
    [run] = import_runs(tmp_path, tmp_path / "out")
    assert len(read_events(run)) == 3


def test_runs_inside_athlos_run_folders_are_read_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = tmp_path / "outputs" / "study" / "run"
    written(run / "events", [run_record(), history(1, x="1")])
    for name in ("config.yaml", "status.json"):
        (run / name).write_text("{}", encoding="utf-8")
    with caplog.at_level(logging.INFO):
        assert import_runs(tmp_path / "outputs", tmp_path / "out") == []
        assert import_runs(run, tmp_path / "out") == []
    assert "stands in an Athlos run folder" in messages_of(caplog, logging.INFO)[0]
    assert len(import_runs(run / "events", tmp_path / "out")) == 1


def test_odd_values(tmp_path: Path) -> None:
    """Older logs keep nested values in one piece; some values are no JSON."""
    deep = "[" * 100_000 + "]" * 100_000
    record = run_record()
    for key, text in (("a", "{"), ("lone", '{"\\ud800": "\\ud800"}')):
        record.run.config.update.add(key=key, value_json=text)
    record.run.config.update.add(nested_key=["level"] * 5000, value_json="1")
    row = history(
        1,
        loss="1e400",
        big=str(10**400),
        old='{"a": {"b": 2}, "c": "text"}',
        table='{"_type": "table-file"}',
        lone='{"\\udc00": 1}',
        odd="{",
        empty="{}",
        kind='{"_type": 3}',
        a__b="4",
        a__b__c="5",
    )
    row.history.item.add(key="plain", value_json="7")
    row.history.item.add(nested_key=["level"] * 5000, value_json="8")
    records = [record, changes("config", ("deep", deep))]
    [run] = import_runs(written(tmp_path, [*records, history(0, deep=deep), row]), tmp_path / "out")
    config = read(run / "config.yaml")
    levels = ".".join(["level"] * 5000)
    assert config == {"a": "{", "lone": {"\ufffd": "\ufffd"}, levels: 1, "study": "p", "deep": deep}
    expected = {"loss": None, "big": None, "old.a.b": 2, "lone.\ufffd": 1, "a.b": 4, "a.b.c": 5, "plain": 7, levels: 8}
    assert read(run / "metrics.json") == expected
    [event] = read_events(run)
    assert event.keys() == expected.keys() | {"step", "time"}
    found = read(run / "provenance.json")["imported"]
    assert found["skipped_values"] == {"text": 3, "object": 1, "3": 1}
    assert found["damage"] == []


def test_a_bad_table_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_import, "MAX_BYTES", 10**6)
    contents = [
        b"{",
        b"[" * 200_000,
        b'{"columns": 3, "data": []}',
        b'{"columns": ["a"], "data": [1]}',
        b'{"data": []}',
        b"\xff\xfe\xfd",
        b" " * (10**6 + 1),
    ]
    tables = {f"t{at}": f'{{"_type": "table-file", "path": "{at}.json"}}' for at in range(len(contents))}
    run_folder = written(tmp_path, [run_record(), history(1, x="1", **tables)])
    for at, content in enumerate(contents):
        (run_folder / "files" / f"{at}.json").write_bytes(content)
    [run] = import_runs(tmp_path, tmp_path / "out")
    lines = read(run / "provenance.json")["imported"]["left_out"]
    assert [line.partition(": ")[0] for line in lines] == list(tables)
    assert all("no table that can be read" in line for line in lines[:-1])
    assert "1000001 bytes are too many" in lines[-1]
    assert read(run / "metrics.json")["x"] == 1


def test_a_picture_that_is_none_is_named(tmp_path: Path) -> None:
    values = {"script": '{"_type": "image-file", "path": "script.png"}'}
    values["list"] = '{"_type": "images/separated", "filenames": 3}'
    run_folder = written(tmp_path, [run_record(), history(1, **values)])
    (run_folder / "files" / "script.png").write_text("<script>", encoding="utf-8")
    [run] = import_runs(tmp_path, tmp_path / "out")
    lines = read(run / "provenance.json")["imported"]["left_out"]
    assert lines == ["list: no list of files", "script: no PNG"]
    assert not list((run / "figures").glob("*"))


def changes(kind: str, *updates: tuple[str, str], remove: Iterable[str] = ()) -> Any:
    """A record of the config or the summary; a name with `.` is nested, values are JSON."""
    from wandb.proto import wandb_internal_pb2 as messages

    record = messages.Record()
    for name, text in updates:
        getattr(record, kind).update.add(nested_key=name.split("."), value_json=text)
    for name in remove:
        getattr(record, kind).remove.add(nested_key=name.split("."))
    return record


def test_the_last_change_counts(tmp_path: Path) -> None:
    records = [
        run_record(),
        changes("config", ("a.b", "1"), ("gone.b", "1"), ("gone.c", "1"), ("kept", "1")),
        changes("config", ("a", '{"c": 2}'), remove=["gone"]),
        changes("config", ("a.b", "3")),
        history(1, loss="5", deleted="5", min="9"),
        changes("summary", ("loss", "5"), ("deleted", "5"), ("min", "7"), ("runs", "12"), ("text", '"x"')),
        changes("summary", ("min", "3"), remove=["deleted"]),
    ]
    [run] = import_runs(written(tmp_path, records), tmp_path / "out")
    assert flat(read(run / "config.yaml")) == {"a.c": 2, "a.b": 3, "kept": 1, "study": "p"}
    assert read(run / "metrics.json") == {"loss": 5, "min": 3, "runs": 12}


def test_what_a_run_keeps_is_no_run_of_its_own(tmp_path: Path) -> None:
    run_folder = written(tmp_path, [run_record(), history(1, x="1")])
    written(run_folder / "files", [run_record(), history(2, x="1")], name="offline-run-20240101_000009-h1")
    assert len(import_runs(tmp_path, tmp_path / "out")) == 1


def test_names_that_become_one_stay_two(tmp_path: Path) -> None:
    values = {name: json.dumps({"_type": "image-file", "path": "p.png"}) for name in ("a/b", "a b", "a?b")}
    run_folder = written(tmp_path, [run_record(), history(1, **values)])
    RED.save(run_folder / "files" / "p.png")
    [run] = import_runs(tmp_path, tmp_path / "out")
    assert sorted(path.name for path in (run / "figures").iterdir()) == ["a_b-2.png", "a_b-3.png", "a_b.png"]


def test_facts_of_the_log_come_without_host_and_person(tmp_path: Path) -> None:
    from google.protobuf.json_format import ParseDict
    from wandb.proto import wandb_internal_pb2 as messages

    first = {
        "os": "Linux-6.1-secret-host",
        "python": "CPython 3.11.7",
        "host": "secret-host",
        "username": "secret",
        "email": "secret@x",
        "args": ["--key=/home/secret"],
        "program": "/home/secret/a.py",
        "root": "/home/secret",
        "executable": "/home/secret/python",
        "docker": "secret/image",
        "slurm": {"node": "secret"},
        "git": {"remote_url": "https://secret@x", "commit": "0123456789abcdef"},
        "code_path": "secret/a.py",
    }
    second = {
        "cpu": {"model": "EPYC"},
        "cpu_count": 4,
        "cpu_count_logical": 8,
        "memory": {"total": 2**34},
        "gpu_nvidia": [{"name": "A100", "uuid": "secret"}, {"name": "A30"}],
        "cuda_version": "12.2",
    }
    records = [messages.Record(environment=ParseDict(part, messages.EnvironmentRecord())) for part in (first, second)]
    written(tmp_path, [run_record(host="secret-host"), *records, history(1, x="1")])
    [run] = import_runs(tmp_path, tmp_path / "out")
    found = read(run / "provenance.json")
    assert found["hardware"] == {
        "system": "Linux",
        "cpu": "EPYC",
        "cores": 8,
        "memory_gib": 16.0,
        "gpus": ["A100", "A30"],
    }
    assert found["versions"] == {"python": "3.11.7", "cuda": "12.2"}
    assert found["commit"] == "0123456789abcdef"
    assert "secret" not in "".join(path.read_text(encoding="utf-8") for path in run.rglob("*") if path.is_file())


def test_twenty_thousand_steps(tmp_path: Path) -> None:
    def records() -> Iterator[Any]:
        yield run_record()
        for step in range(20_000):
            yield history(step, loss=str(1 / (step + 1)), val__acc="0.5")

    written(tmp_path, records())
    start = time.monotonic()
    [run] = import_runs(tmp_path, tmp_path / "out")
    assert time.monotonic() - start < 30  # 1 s where it was written
    with (run / "events" / "metrics.jsonl").open("rb") as handle:
        assert sum(1 for _ in handle) == 20_000
    assert read(run / "metrics.json") == {"loss": 5e-5, "val.acc": 0.5}


def test_no_folder_and_no_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder"):
        import_runs(tmp_path / "missing", tmp_path / "out")
    written(tmp_path / "in", [run_record(), history(1, x="1")])
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot write below"):
        import_runs(tmp_path / "in", tmp_path / "file")
