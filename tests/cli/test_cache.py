"""`athlos cache` and `athlos cache prune`: what they print, and their errors."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from athlos.cli.cache import readable_age, readable_size
from athlos.stages import Product, Stage, StageStore

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def products(cache: Path, tmp_path: Path) -> list[Product]:
    """Two products, of which the first is used by a run folder that is there and by one that is gone."""
    store = StageStore(cache)

    def build(folder: Path) -> None:
        (folder / "table.bin").write_bytes(b"x" * 100_000)

    made = [store.get(Stage(name="table", version=version, build=build)) for version in (1, 2)]
    for name in ("run", "gone"):
        store.note_user(tmp_path / name, [("table", made[0].key)])
    (tmp_path / "run").mkdir()
    (cache / "kernels").mkdir()
    return made


def test_the_listing_names_products_sizes_users_and_the_rest(run: Run, cache: Path, products: list[Product]):
    code, out, _ = run("cache")
    assert code == 0
    assert re.search(rf"^table +{products[0].key} +100\.\d kB +now +ready +1 and 1 gone$", out, re.M)
    assert re.search(rf"^table +{products[1].key} +100\.\d kB +now +ready +0$", out, re.M)
    assert re.search(r"^kernels +0 B +compiled kernels", out, re.M)
    assert re.search(rf"^2 products, 20\d\.\d kB in all in {cache}$", out, re.M)


def test_verbose_names_the_run_folders(run: Run, tmp_path: Path, products: list[Product]):
    lines = run("cache", "--verbose")[1].splitlines()
    [position] = [index for index, line in enumerate(lines) if products[0].key in line]
    assert sorted(lines[position + 1 : position + 3]) == [f"    {tmp_path / 'gone'} (gone)", f"    {tmp_path / 'run'}"]


def test_the_listing_can_be_narrowed(run: Run, products: list[Product]):
    out = run("cache", "--unused")[1]
    assert products[0].key not in out
    assert products[1].key in out
    assert "kernels" not in out


def test_json_holds_everything(run: Run, cache: Path, tmp_path: Path, products: list[Product]):
    listing = json.loads(run("cache", "--json")[1])
    by_key = {product["key"]: product for product in listing["products"]}
    assert set(by_key) == {product.key for product in products}
    folders = by_key[products[0].key]["run_folders"]
    assert {folder["path"]: folder["exists"] for folder in folders} == {
        str(tmp_path / "run"): True,
        str(tmp_path / "gone"): False,
    }
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert listing["total_bytes"] == sum(path.stat().st_size for path in files)
    assert {other["name"] for other in listing["others"]} == {"kernels", "users"}


def test_pruning_prints_what_it_removed_and_what_it_frees(run: Run, products: list[Product]):
    size = sum(path.stat().st_size for path in products[1].path.iterdir())
    code, out, _ = run("cache", "prune", "--unused", "--dry-run")
    assert (code, out.splitlines()) == (
        0,
        [
            f"would remove table/{products[1].key}, ready, frees {readable_size(size)}",
            f"would free {readable_size(size)} ({size} bytes), 1 product",
        ],
    )
    assert products[1].path.is_dir()
    code, out, _ = run("cache", "prune", "--unused")
    assert (code, out.splitlines()) == (
        0,
        [
            f"removed table/{products[1].key}, ready, frees {readable_size(size)}",
            f"frees {readable_size(size)} ({size} bytes), 1 product",
        ],
    )
    assert [product.path.is_dir() for product in products] == [True, False]


def test_pruning_as_json(run: Run, products: list[Product]):
    outcome = json.loads(run("cache", "prune", "--stage", "table", "--json")[1])
    assert {product["key"] for product in outcome["removed"]} == {product.key for product in products}
    assert outcome["freed_bytes"] == sum(product["freed_bytes"] for product in outcome["removed"]) > 200_000
    assert (outcome["kept"], outcome["is_dry"]) == ([], False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune"], "cache prune: got no criterion"),
        (["prune", "--older-than", "soon"], "--older-than: got 'soon', expected days or hours such as 30d or 12h"),
        (["prune", "--stage", "tabel"], "--stage: got 'tabel'; did you mean 'table'? Available: table"),
        (["--stage", "tabel"], "--stage: got 'tabel'; did you mean 'table'? Available: table"),
        (["--dry-run"], "--dry-run: goes with `athlos cache prune`"),
        (["--cache-dir", "nowhere"], "nowhere is no folder"),
    ],
)
def test_errors_are_one_line(run: Run, products: list[Product], arguments: list[str], message: str):
    code, out, err = run("cache", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert all(product.path.is_dir() for product in products)


def test_an_empty_cache_says_so(run: Run, cache: Path):
    cache.mkdir()
    assert run("cache") == (0, f"no products in {cache}\n0 products, 0 B in all in {cache}\n", "")


def test_sizes_and_ages_are_rounded():
    assert [readable_size(size) for size in (0, 999, 1000, 12_345, 1_500_000, 2_340_000_000)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "12.3 kB",
        "1.5 MB",
        "2.3 GB",
    ]
    assert [readable_age(age) for age in (0, 59, 60, 3_599, 3_600, 86_399, 2.9 * 86_400)] == [
        "now",
        "now",
        "1 min",
        "59 min",
        "1 h",
        "23 h",
        "2 d",
    ]
