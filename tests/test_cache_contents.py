"""What a cache holds, who uses it, and pruning that never breaks a job, a link or what is no product."""

import json
import multiprocessing
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from filelock import FileLock

from athlos import cache_contents as module
from athlos.cache_contents import Criteria, State, StoredProduct, age_seconds, cache_contents, prune
from athlos.errors import ConfigError
from athlos.stages import Product, Stage, StageStore

HOUR, DAY = 3_600.0, 86_400.0


def write_table(folder: Path) -> None:
    (folder / "table.bin").write_bytes(b"x" * 1000)


def table(store: StageStore, order: int = 3, *, name: str = "table") -> Product:
    return store.get(Stage(name=name, version=1, config={"order": order}, build=write_table))


def left_unfinished(root: Path, *, name: str = "training") -> Path:
    """A folder that a stopped build left."""
    stage = Stage(name=name, version=1, build=write_table, is_resumable=True)
    folder = StageStore(root).building(stage)
    folder.mkdir(parents=True)
    write_table(folder)
    return folder


def make_older(product: Product, seconds: float) -> None:
    manifest = product.path / "stage.json"
    record = json.loads(manifest.read_text())
    record["made"] = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds")
    manifest.write_text(json.dumps(record))


def stored(root: Path) -> dict[str, StoredProduct]:
    """Folder name -> product."""
    return {product.path.name: product for product in cache_contents(root).products}


def pruned(root: Path, criteria: Criteria, *, is_dry: bool = False) -> dict[str, bool]:
    """Folder name -> whether it went, of every product that met the criteria."""
    outcomes = prune(cache_contents(root), criteria, is_dry=is_dry)
    return {product.path.name: is_removed for product, is_removed in outcomes}


# The listing


def test_products_are_listed_by_stage_the_largest_first(tmp_path: Path):
    store = StageStore(tmp_path)
    small, other = table(store), table(store, name="encode")
    large = store.get(Stage(name="table", version=2, build=lambda folder: (folder / "t").write_bytes(b"x" * 9000)))
    listed = cache_contents(tmp_path).products
    assert [(entry.stage, entry.key) for entry in listed] == [
        ("encode", other.key),
        ("table", large.key),
        ("table", small.key),
    ]
    assert {entry.state for entry in listed} == {State.READY}
    manifest_size = (small.path / "stage.json").stat().st_size
    assert (listed[2].size, listed[2].freed) == (1000 + manifest_size,) * 2


def test_the_age_is_that_of_the_manifest_or_of_its_file(tmp_path: Path):
    store = StageStore(tmp_path)
    noted, older = table(store, 1), table(store, 2)
    make_older(noted, 3 * DAY)
    record = json.loads((older.path / "stage.json").read_text())
    del record["made"]
    (older.path / "stage.json").write_text(json.dumps(record))
    os.utime(older.path / "stage.json", (time.time() - 5 * HOUR,) * 2)
    ages = {name: product.age_s for name, product in stored(tmp_path).items()}
    assert ages[noted.key] == pytest.approx(3 * DAY, abs=60)
    assert ages[older.key] == pytest.approx(5 * HOUR, abs=60)


def test_an_unfinished_folder_is_as_old_as_what_was_last_written_in_it(tmp_path: Path):
    folder = left_unfinished(tmp_path)
    for path, age in ((folder / "table.bin", 2 * DAY), (folder, 7 * DAY)):
        os.utime(path, (time.time() - age,) * 2)
    [product] = stored(tmp_path).values()
    assert product.state is State.UNFINISHED
    assert product.age_s == pytest.approx(2 * DAY, abs=60)


@pytest.mark.parametrize("damage", ["no manifest", "half a manifest", "another manifest", "a lost file"])
def test_a_damaged_product_is_called_so(tmp_path: Path, damage: str):
    path = table(StageStore(tmp_path)).path
    if damage == "no manifest":
        (path / "stage.json").unlink()
    elif damage == "half a manifest":
        (path / "stage.json").write_text('{"files": {')
    elif damage == "another manifest":
        (path / "stage.json").write_text("[1, 2]")
    else:
        (path / "table.bin").unlink()
    [product] = stored(tmp_path).values()
    assert product.state is State.DAMAGED


def test_run_folders_are_told_and_those_that_are_gone_do_not_count(tmp_path: Path):
    store = StageStore(tmp_path / "cache")
    used, unused = table(store, 1), table(store, 2)
    run, gone = tmp_path / "run", tmp_path / "gone"
    run.mkdir()
    store.note_user(run, [("table", used.key)])
    store.note_user(gone, [("table", used.key), ("table", unused.key)])
    products = stored(store.root)
    assert sorted(products[used.key].users) == [gone, run]
    assert products[used.key].present_users == [run]
    assert products[unused.key].present_users == []


def test_a_damaged_note_is_told_and_left_out(tmp_path: Path, caplog):
    store = StageStore(tmp_path)
    product = table(store)
    store.note_user(tmp_path, [("table", product.key)])
    (tmp_path / "users" / "half.json").write_text("{")
    (tmp_path / "users" / "list.json").write_text("[]")
    assert stored(tmp_path)[product.key].users == [tmp_path]
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.args[0].name for record in warnings] == ["half.json", "list.json"]


def test_what_is_no_product_is_listed_as_what_it_is(tmp_path: Path):
    store = StageStore(tmp_path / "cache")
    store.note_user(table(store).path, [])
    for name in ("replies/ab/ab12.json", "kernels/attention.so", "mine/notes.txt", "stray.txt", "table/old.run/x"):
        path = store.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("12345")
    others = {entry.name: (entry.description, entry.size) for entry in cache_contents(store.root).others}
    note_size = next((store.root / "users").iterdir()).stat().st_size
    assert others == {
        "replies": ("replies of servers", 5),
        "kernels": ("compiled kernels of generation", 5),
        "mine": ("unknown to athlos", 5),
        "stray.txt": ("unknown to athlos", 5),
        "table/old.run": ("no product of this stage", 5),
        "users": ("which run folders use which products", note_size),
    }
    assert list(pruned(store.root, Criteria(older_than_s=0.0)).values()) == [True]
    assert {entry.name for entry in cache_contents(store.root).others} == set(others)
    assert (store.root / "table" / "old.run" / "x").read_text() == "12345"


def test_a_cache_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"cache_dir: .*nowhere is no folder"):
        cache_contents(tmp_path / "nowhere")


# Pruning


def test_an_age_counts_whatever_its_users(tmp_path: Path):
    store = StageStore(tmp_path)
    old, new = table(store, 1), table(store, 2)
    make_older(old, 31 * DAY)
    make_older(new, 29 * DAY)
    store.note_user(tmp_path, [("table", old.key)])
    assert pruned(tmp_path, Criteria(older_than_s=30 * DAY)) == {old.key: True}
    assert (old.path.exists(), new.path.exists()) == (False, True)


def test_unused_spares_what_a_run_folder_uses_and_what_is_unfinished(tmp_path: Path):
    """A training that was stopped has no run folder that noted it yet."""
    store = StageStore(tmp_path / "cache")
    used, unused = table(store, 1), table(store, 2)
    folder = left_unfinished(store.root)
    store.note_user(tmp_path, [("table", used.key)])
    store.note_user(tmp_path / "gone", [("table", unused.key)])
    assert pruned(store.root, Criteria(is_unused=True)) == {unused.key: True}
    assert used.path.is_dir()
    assert folder.is_dir()


def test_unfinished_and_damaged_products_go_without_the_ready_ones(tmp_path: Path):
    store = StageStore(tmp_path)
    ready, damaged = table(store, 1), table(store, 2)
    (damaged.path / "table.bin").unlink()
    folder = left_unfinished(tmp_path)
    assert pruned(tmp_path, Criteria(is_unfinished=True)) == {damaged.key: True, folder.name: True}
    assert list(stored(tmp_path)) == [ready.key]


def test_criteria_are_met_together(tmp_path: Path):
    store = StageStore(tmp_path)
    old, new, other = table(store, 1), table(store, 2), table(store, 1, name="encode")
    make_older(old, 2 * DAY)
    make_older(other, 2 * DAY)
    assert pruned(tmp_path, Criteria(stage="table", older_than_s=DAY)) == {old.key: True}
    assert set(stored(tmp_path)) == {new.key, other.key}


def test_a_dry_run_removes_nothing(tmp_path: Path):
    product = table(StageStore(tmp_path))
    assert pruned(tmp_path, Criteria(stage="table"), is_dry=True) == {product.key: True}
    assert product.path.is_dir()


def test_a_pruned_product_is_built_again(tmp_path: Path):
    store = StageStore(tmp_path)
    first = table(store)
    pruned(tmp_path, Criteria(stage="table"))
    again = table(store)
    assert (again.path, again.reused) == (first.path, False)


def build_until_told(root: str, started, finish) -> None:
    def build(folder: Path) -> None:
        write_table(folder)
        started.set()
        assert finish.wait(timeout=60)

    StageStore(Path(root)).get(Stage(name="training", version=1, build=build, is_resumable=True))


def test_what_another_process_builds_is_never_removed(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    started, finish = context.Event(), context.Event()
    job = context.Process(target=build_until_told, args=(str(tmp_path), started, finish))
    job.start()
    assert started.wait(timeout=60)
    [product] = stored(tmp_path).values()
    assert product.state is State.BUILDING
    assert pruned(tmp_path, Criteria(is_unfinished=True), is_dry=True) == {product.path.name: False}
    for criteria in (Criteria(is_unfinished=True), Criteria(older_than_s=0.0), Criteria(stage="training")):
        assert pruned(tmp_path, criteria) == {product.path.name: False}
    assert pruned(tmp_path, Criteria(is_unused=True)) == {}
    finish.set()
    job.join(timeout=60)
    assert job.exitcode == 0
    [product] = stored(tmp_path).values()
    assert product.state is State.READY


def hold(lock: str, held, let_go) -> None:
    with FileLock(lock):
        held.set()
        assert let_go.wait(timeout=60)


def test_a_ready_product_whose_lock_is_held_stays(tmp_path: Path):
    product = table(StageStore(tmp_path))
    context = multiprocessing.get_context("spawn")
    held, let_go = context.Event(), context.Event()
    job = context.Process(target=hold, args=(f"{product.path}.lock", held, let_go))
    job.start()
    assert held.wait(timeout=60)
    assert pruned(tmp_path, Criteria(stage="table")) == {product.key: False}
    assert product.path.is_dir()
    let_go.set()
    job.join(timeout=60)
    assert pruned(tmp_path, Criteria(stage="table")) == {product.key: True}


def test_the_lock_is_held_while_a_product_is_removed_and_its_file_stays(tmp_path: Path, monkeypatch):
    product = table(StageStore(tmp_path))
    locked = []
    monkeypatch.setattr(module.shutil, "rmtree", lambda path: locked.append(module._is_locked(path)))
    pruned(tmp_path, Criteria(stage="table"))
    assert locked == [True]
    assert Path(f"{product.path}.lock").is_file()


def test_what_was_finished_after_the_listing_is_looked_at_again(tmp_path: Path):
    folder = left_unfinished(tmp_path)
    contents = cache_contents(tmp_path)
    product = StageStore(tmp_path).get(Stage(name="training", version=1, build=write_table, is_resumable=True))
    assert list(prune(contents, Criteria(is_unfinished=True))) == []
    assert not folder.exists()
    assert product.path.is_dir()


def test_what_became_younger_after_the_listing_stays(tmp_path: Path):
    folder = left_unfinished(tmp_path)
    for path in (folder / "table.bin", folder):
        os.utime(path, (time.time() - 2 * DAY,) * 2)
    contents = cache_contents(tmp_path)
    os.utime(folder / "table.bin")
    assert list(prune(contents, Criteria(older_than_s=DAY))) == []
    assert folder.is_dir()


def test_a_file_with_another_hard_link_is_not_freed(tmp_path: Path):
    product = table(StageStore(tmp_path / "cache"))
    run = tmp_path / "weights.bin"
    run.hardlink_to(product.path / "table.bin")
    manifest_size = (product.path / "stage.json").stat().st_size
    [(removed, is_removed)] = prune(cache_contents(tmp_path / "cache"), Criteria(stage="table"))
    assert is_removed
    assert (removed.size, removed.freed) == (1000 + manifest_size, manifest_size)
    assert run.read_bytes() == b"x" * 1000


def test_links_are_listed_and_never_followed(tmp_path: Path):
    """A link in place of a stage, one in place of a product, two inside a product."""
    root, outside = tmp_path / "cache", tmp_path / "outside"
    elsewhere = table(StageStore(outside))
    product = table(StageStore(root))
    (product.path / "folder_link").symlink_to(outside)
    (product.path / "file_link").symlink_to(elsewhere.path / "table.bin")
    (root / "linked_stage").symlink_to(outside / "table")
    (root / "table" / ("a" * 20)).symlink_to(elsewhere.path)
    contents = cache_contents(root)
    [listed] = contents.products
    assert listed.size == 1000 + (product.path / "stage.json").stat().st_size
    assert {entry.name: (entry.description, entry.size) for entry in contents.others} == {
        "linked_stage": (f"a link to {outside / 'table'}, not followed", 0),
        f"table/{'a' * 20}": (f"a link to {elsewhere.path}, not followed", 0),
    }
    assert pruned(root, Criteria(older_than_s=0.0)) == {product.key: True}
    assert (elsewhere.path / "table.bin").is_file()
    assert (root / "linked_stage").is_symlink()
    assert (root / "table" / ("a" * 20)).is_symlink()


def test_pruning_needs_a_criterion(tmp_path: Path):
    product = table(StageStore(tmp_path))
    with pytest.raises(ConfigError, match="got no criterion, expected at least one of --older-than"):
        pruned(tmp_path, Criteria())
    assert product.path.is_dir()


def test_an_unknown_stage_is_told_with_the_nearest(tmp_path: Path):
    table(StageStore(tmp_path))
    with pytest.raises(ConfigError, match="--stage: got 'tabel'; did you mean 'table'"):
        pruned(tmp_path, Criteria(stage="tabel"))


@pytest.mark.parametrize(("text", "seconds"), [("30d", 30 * DAY), ("12h", 12 * HOUR), ("0d", 0.0)])
def test_ages(text: str, seconds: float):
    assert age_seconds(text) == seconds


@pytest.mark.parametrize("text", ["30", "d", "-1d", "1.5h", "30 d", "3w", "", "30d "])
def test_a_bad_age_is_told(text: str):
    with pytest.raises(ConfigError, match=f"--older-than: got '{text}', expected days or hours"):
        age_seconds(text)
