"""Stage products: built once, whole or not at all, shared between processes."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from athlos.errors import ConfigError, TrainingError
from athlos.stages import Stage, StageStore


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
