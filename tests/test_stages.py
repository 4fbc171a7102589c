"""Stage products: built once, whole or not at all, shared between processes."""

import json
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from athlos import stages
from athlos.errors import ConfigError, TrainingError
from athlos.stages import Stage, StageStore, tenths_logged


def stage(build, **config) -> Stage:
    return Stage(name="table", version=1, config=config, inputs={"text": "abc"}, build=build)


def write_hello(folder: Path) -> None:
    (folder / "table.txt").write_text("hello")


def test_a_product_is_built_once_and_reused(tmp_path: Path):
    calls = []

    def build(folder: Path) -> None:
        calls.append(folder)
        write_hello(folder)

    first = StageStore(tmp_path).get(stage(build, order=3))
    second = StageStore(tmp_path).get(stage(build, order=3))
    assert (first.reused, second.reused, len(calls)) == (False, True, 1)
    assert second.path.joinpath("table.txt").read_text() == "hello"


def test_the_key_covers_name_version_config_and_inputs():
    base = stage(write_hello, order=3)
    others = [
        stage(write_hello, order=4),
        Stage(name="tables", version=1, config={"order": 3}, inputs={"text": "abc"}, build=write_hello),
        Stage(name="table", version=2, config={"order": 3}, inputs={"text": "abc"}, build=write_hello),
        Stage(name="table", version=1, config={"order": 3}, inputs={"text": "abd"}, build=write_hello),
    ]
    assert len({base.key, *(other.key for other in others)}) == 5
    assert base.key == stage(lambda folder: None, order=3).key


def test_golden_key():
    """The key of a known stage, so that a change of the hash (which would throw away every cache) is noticed.

    Derivation: sha256 of {"config":{"order":3},"inputs":{"text":"abc"},"name":"table","version":1}, first 20 digits.
    """
    assert stage(write_hello, order=3).key == "364c1c7cca0f0503100b"


def test_a_failing_build_leaves_nothing(tmp_path: Path):
    def build(folder: Path) -> None:
        write_hello(folder)
        raise RuntimeError("killed in mid-build")

    store = StageStore(tmp_path)
    with pytest.raises(RuntimeError):
        store.get(stage(build))
    assert not store.ready(stage(build))
    assert not [path for path in (tmp_path / "table").iterdir() if path.suffix != ".lock"]


def test_what_a_dead_job_left_is_thrown_away(tmp_path: Path):
    wanted = stage(write_hello)
    scratch = tmp_path / "table" / f"{wanted.key}.building"
    scratch.mkdir(parents=True)
    (scratch / "rubbish.txt").write_text("half")
    product = StageStore(tmp_path).get(wanted)
    assert sorted(path.name for path in product.path.iterdir()) == ["stage.json", "table.txt"]


@pytest.mark.parametrize("damage", ["truncate", "remove", "manifest"])
def test_a_damaged_product_is_built_again(tmp_path: Path, damage: str):
    store = StageStore(tmp_path)
    path = store.get(stage(write_hello)).path
    if damage == "truncate":
        (path / "table.txt").write_text("he")
    elif damage == "remove":
        (path / "table.txt").unlink()
    else:
        (path / "stage.json").write_text("{")
    again = store.get(stage(write_hello))
    assert not again.reused
    assert (again.path / "table.txt").read_text() == "hello"


def slow_build(folder: Path) -> None:
    time.sleep(0.3)
    (folder / "builder.txt").write_text(str(os.getpid()))


def build_in_process(root: str, queue) -> None:
    product = StageStore(Path(root)).get(stage(slow_build))
    queue.put((product.reused, (product.path / "builder.txt").read_text()))


def test_two_jobs_build_one_product_once(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    jobs = [context.Process(target=build_in_process, args=(str(tmp_path), queue)) for _ in range(2)]
    for job in jobs:
        job.start()
    found = [queue.get(timeout=60) for _ in jobs]
    for job in jobs:
        job.join()
    assert sorted(reused for reused, _ in found) == [False, True]
    assert len({builder for _, builder in found}) == 1


def test_an_unusable_cache_folder_is_a_config_error(tmp_path: Path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigError, match="cache_dir: cannot write"):
        StageStore(tmp_path / "file").get(stage(write_hello))


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(tmp_path: Path):
    def build(folder: Path) -> None:
        write_hello(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(TrainingError, match="No space left on device"):
        StageStore(tmp_path).get(stage(build))
    assert not StageStore(tmp_path).ready(stage(build))


def test_a_product_carries_the_times_of_its_manifest(tmp_path: Path):
    before = datetime.now(UTC).replace(microsecond=0)
    built, reused = (StageStore(tmp_path).get(stage(write_hello)) for _ in range(2))
    record = json.loads((built.path / "stage.json").read_text())
    assert (built.started, built.made) == (reused.started, reused.made) == (record["started"], record["made"])
    assert before <= datetime.fromisoformat(built.started) <= datetime.fromisoformat(built.made) <= datetime.now(UTC)
    assert reused.seconds == built.seconds == record["seconds"]


def test_a_product_of_an_older_athlos_has_no_times(tmp_path: Path):
    manifest = StageStore(tmp_path).get(stage(write_hello)).path / "stage.json"
    record = json.loads(manifest.read_text())
    del record["started"], record["made"]
    manifest.write_text(json.dumps(record))
    product = StageStore(tmp_path).get(stage(write_hello))
    assert (product.reused, product.started, product.made) == (True, None, None)


def test_finding_builds_nothing_and_changes_nothing(tmp_path: Path):
    store = StageStore(tmp_path / "cache")
    assert store.find(stage(write_hello)) is None
    assert not (tmp_path / "cache").exists()
    path = store.get(stage(write_hello)).path
    ready = store.find(stage(write_hello))
    assert ready is not None
    assert (ready.path, ready.reused) == (path, True)
    (path / "table.txt").write_text("he")
    assert store.find(stage(write_hello)) is None
    assert (path / "table.txt").read_text() == "he"
    assert len(store.history) == 1


# Resumable stages


def resumable(build, **config) -> Stage:
    return Stage(name="training", version=1, config=config, build=build, is_resumable=True)


def test_being_resumable_is_no_part_of_the_key():
    assert resumable(write_hello).key == Stage(name="training", version=1, build=write_hello).key
    assert resumable(write_hello) == Stage(name="training", version=1, build=write_hello)


@pytest.mark.parametrize(
    "stop", [RuntimeError("bad luck"), OSError(28, "No space left on device"), KeyboardInterrupt()]
)
def test_a_resumable_build_goes_on_in_its_folder(tmp_path: Path, stop: BaseException):
    store = StageStore(tmp_path)

    def build(folder: Path) -> None:
        assert folder == store.building(resumable(build))
        if not (folder / "half.txt").exists():
            (folder / "half.txt").write_text("first half")
            raise stop
        (folder / "half.txt").rename(folder / "whole.txt")

    with pytest.raises(TrainingError if isinstance(stop, OSError) else type(stop)):
        store.get(resumable(build))
    assert not store.ready(resumable(build))
    assert [path.name for path in store.building(resumable(build)).iterdir()] == ["half.txt"]
    product = store.get(resumable(build))
    assert not product.reused
    assert sorted(path.name for path in product.path.iterdir()) == ["stage.json", "whole.txt"]
    assert not store.building(resumable(build)).exists()


def test_a_manifest_left_by_a_build_killed_before_its_renaming_is_written_anew(tmp_path: Path):
    store = StageStore(tmp_path)
    folder = store.building(resumable(write_hello))
    folder.mkdir(parents=True)
    (folder / "stage.json").write_text("{}")
    store.get(resumable(write_hello))
    assert store.get(resumable(write_hello)).reused


STEPS = 6


def training_steps(folder: Path) -> None:
    """Adds a line a step to its log, slowly, and goes on where the log ends."""
    log = folder / "log.txt"
    done = len(log.read_text().splitlines()) if log.exists() else 0
    for step in range(done, STEPS):
        time.sleep(0.1)
        with log.open("a") as handle:
            handle.write(f"{step} {os.getpid()}\n")


def train_in_process(root: str, queue) -> None:
    product = StageStore(Path(root)).get(resumable(training_steps))
    queue.put((product.reused, (product.path / "log.txt").read_text()))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_jobs_train_one_resumable_stage_once(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    jobs = [context.Process(target=train_in_process, args=(str(tmp_path), queue)) for _ in range(2)]
    for job in jobs:
        job.start()
    results = [queue.get(timeout=60) for _ in jobs]
    for job in jobs:
        job.join()
    assert sorted(reused for reused, _ in results) == [False, True]
    [log] = {log for _, log in results}
    steps, builders = zip(*(line.split() for line in log.splitlines()), strict=True)
    assert steps == tuple(map(str, range(STEPS)))
    assert len(set(builders)) == 1


def stuck_training(folder: Path) -> None:
    (folder / "log.txt").write_text("".join(f"{step} {os.getpid()}\n" for step in range(2)))
    time.sleep(600)


def get_stuck(root: str) -> None:
    StageStore(Path(root)).get(resumable(stuck_training))


def test_a_killed_training_is_finished_by_the_job_that_waits_for_it(tmp_path: Path, caplog, monkeypatch):
    """SIGKILL in the middle: the lock falls to this process, which goes on after the last step of the dead one."""
    monkeypatch.setattr(stages, "LOCK_NOTICE_SECONDS", 0.01)
    caplog.set_level(logging.INFO, "athlos.stages")
    job = multiprocessing.get_context("spawn").Process(target=get_stuck, args=(str(tmp_path),))
    job.start()
    store = StageStore(tmp_path)
    wait_until((store.building(resumable(training_steps)) / "log.txt").exists)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(store.get, resumable(training_steps))
        wait_until(lambda: "another job is building" in caplog.text)
        assert not waiting.done()
        job.kill()
        product = waiting.result(timeout=60)
    job.join()
    assert job.exitcode == -signal.SIGKILL
    lines = (product.path / "log.txt").read_text().splitlines()
    assert [line.split() for line in lines] == [
        [str(step), str(job.pid if step < 2 else os.getpid())] for step in range(STEPS)
    ]


# Several processes of one run


def test_a_process_that_is_no_writer_takes_part_and_waits_for_the_writer(tmp_path: Path):
    """The writer is in its build, with the lock held, until the other has done its part and waits."""
    has_taken_part = threading.Event()
    builders = []

    def build_as(process: str):
        def build(folder: Path) -> None:
            builders.append((process, folder))
            if process == "guest":
                has_taken_part.set()
                return
            assert has_taken_part.wait(timeout=60)
            write_hello(folder)

        return resumable(build)

    writer, guest = StageStore(tmp_path), StageStore(tmp_path, is_writer=False)
    with ThreadPoolExecutor() as pool:
        parts = [pool.submit(writer.get, build_as("writer")), pool.submit(guest.get, build_as("guest"))]
        products = [part.result(timeout=60) for part in parts]
    folder = writer.building(resumable(write_hello))
    assert sorted(builders) == [("guest", folder), ("writer", folder)]
    assert [(product.path, product.reused) for product in products] == [(folder.with_suffix(""), False)] * 2
    assert guest.get(build_as("guest")).reused
    assert len(builders) == 2


def test_a_process_waits_for_the_writer_only_so_long(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(stages, "PRODUCT_WAIT_SECONDS", 0.05)
    with pytest.raises(TrainingError, match="stage training: process 0 has not finished"):
        StageStore(tmp_path, is_writer=False).get(resumable(lambda folder: None))


def test_an_ordinary_stage_is_built_by_any_process(tmp_path: Path):
    assert StageStore(tmp_path, is_writer=False).get(stage(write_hello)).path.is_dir()


# Who uses what


def test_a_run_folder_notes_what_it_uses_and_replaces_its_note(tmp_path: Path):
    store = StageStore(tmp_path / "cache")
    store.note_user(tmp_path / "run", [("table", "a" * 20), ("encode", "b" * 20)])
    store.note_user(tmp_path / "run", [("table", "c" * 20)])
    store.note_user(tmp_path / "other", [])
    notes = [json.loads(path.read_text()) for path in (tmp_path / "cache" / "users").iterdir()]
    assert sorted(notes, key=str) == [
        {"run_folder": str(tmp_path / "other"), "products": []},
        {"run_folder": str(tmp_path / "run"), "products": [{"stage": "table", "key": "c" * 20}]},
    ]


def test_a_note_that_cannot_be_written_is_told(tmp_path: Path):
    (tmp_path / "users").write_text("no folder")
    with pytest.raises(TrainingError, match="cache_dir: cannot write"):
        StageStore(tmp_path).note_user(tmp_path / "run", [])


def test_a_long_stage_tells_each_tenth_once(caplog):
    progress = tenths_logged("heads")
    with caplog.at_level("INFO", logger="athlos.stages"):
        for done in range(1, 26):
            progress(done, 25, 7)
    assert [record.message for record in caplog.records] == [
        f"heads: {done} of 25" for done in (3, 5, 8, 10, 13, 15, 18, 20, 23, 25)
    ]
