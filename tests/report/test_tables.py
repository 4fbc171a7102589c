"""Tidy tables for notebooks."""

import math
from pathlib import Path

import pytest
from tests.report.run_folders import write_run, write_sweep

from athlos.report.reading import collect

tables = pytest.importorskip("athlos.report.tables")


def test_one_row_a_run(tmp_path: Path):
    write_sweep(tmp_path, lrs=[1e-3, 1e-2], seeds=[1, 2])
    write_run(tmp_path / "failed", config={"train.lr": "odd"}, state="failed")
    frame = tables.runs(tmp_path)
    assert frame.height == 5
    assert {"run", "study", "state", "seed", "train.lr", "test/acc", "cost/wall_s"} <= set(frame.columns)
    assert "model.name" not in frame.columns, "the same in all runs"
    assert frame["train.lr"].to_list().count('"odd"') == 1, "mixed types are JSON text"
    assert frame["test/acc"].null_count() == 1
    assert math.isnan(frame["test/acc/th"].drop_nulls()[0])
    assert tables.runs(str(tmp_path)).equals(tables.runs(collect(tmp_path)))


def test_one_row_a_point(tmp_path: Path):
    write_sweep(tmp_path, lrs=[1e-3], seeds=[1])
    frame = tables.curves(tmp_path)
    assert frame.columns == ["run", "metric", "step", "value"]
    assert frame.filter(frame["metric"] == "train/loss").height == 40
    write_run(tmp_path / "empty", metrics={})
    assert tables.curves(tmp_path / "empty").height == 0


def test_means_over_seeds(tmp_path: Path):
    for seed, value in ((1, 1.0), (2, 2.0), (3, 3.0)):
        write_run(tmp_path / f"a{seed}", config={"seed": seed}, metrics={"test/acc": value})
    write_run(tmp_path / "b", config={"train.lr": 0.5}, metrics={"test/acc": 7.0})
    write_run(tmp_path / "c", config={"seed": 4}, state="failed", metrics={"test/acc": 99.0})
    frame = tables.seeds(tmp_path).sort("n")
    assert frame["n"].to_list() == [1, 3]
    assert frame["mean"].to_list() == [7.0, 2.0]
    assert frame["low"][0] is None
    assert frame["high"][1] == pytest.approx(2 + 4.3027 / math.sqrt(3))
    assert frame["seeds"].to_list() == [[1], [1, 2, 3]]
    assert frame["train.lr"].to_list() == [0.5, 1e-3]
