"""Run folders in any state are read; what is wrong is named, never raised."""

import json
import math
from pathlib import Path

import pytest
from tests.report.run_folders import png, rows, write_run, write_sweep

from athlos.errors import DataError
from athlos.report.reading import MAX_LINE_BYTES, collect, read_run, run_places


def test_a_whole_folder_is_read(tmp_path: Path):
    write_sweep(tmp_path, lrs=[1e-3], seeds=[1, 2])
    first, second = collect(tmp_path)
    assert (first.name, second.name) == ("demo/finetune-tiny-s1-lr0.001", "demo/finetune-tiny-s2-lr0.001")
    assert (first.study, first.seed, first.state, first.problems) == ("demo", 1, "finished", [])
    assert first.config["train.lr"] == 1e-3
    assert first.config["eval.stop"] == []
    assert math.isnan(first.metrics["test/acc/th"])
    assert first.details["test/acc"].n == 48
    assert list(first.curves["val/loss"].steps) == [50, 100, 150, 200]
    assert (len(first.predictions["math"].rows), first.predictions["math"].total) == (12, 12)
    assert [path.name for path in first.figures] == ["attention.png"]


def test_folders_are_found_at_any_depth_and_not_inside_a_run(tmp_path: Path):
    run = write_run(tmp_path / "a" / "b" / "run", metrics={})
    write_run(run / "checkpoints" / "inner")
    write_run(tmp_path / ".sweeps" / "hidden")
    (tmp_path / "only-config").mkdir()
    (tmp_path / "only-config" / "config.yaml").write_text("a: 1")
    (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    assert list(run_places(tmp_path)) == [run]
    assert [record.name for record in collect(run)] == ["run"]


def test_nothing_to_read_says_what_was_looked_for(tmp_path: Path):
    with pytest.raises(DataError, match=r"no run folder found; looked in all folders below for config\.yaml"):
        collect(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        collect(tmp_path / "missing")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("config.yaml", "{{{", "config.yaml: cannot be read"),
        ("config.yaml", "- 1\n", "config.yaml: holds no mapping"),
        ("config.yaml", "[" * 5000, "config.yaml: cannot be read"),
        ("config.yaml", "\udcff", "config.yaml: cannot be read"),
        ("status.json", '{"state": "fini', "status.json: cannot be read"),
        ("status.json", "[]", "status.json: holds no object"),
        ("status.json", '{"state": 7}', "status.json: no state"),
        ("metrics.json", "", "metrics.json: cannot be read"),
        ("metrics.json", '{"test/acc": "high"}', "metrics.json: test/acc is no number"),
        ("metrics.json", '{"test/acc": true}', "metrics.json: test/acc is no number"),
        ("metric_details.json", "nope", "metric_details.json: cannot be read"),
        ("provenance.json", '{"a": ' * 3000, "provenance.json: cannot be read"),
        ("events/metrics.jsonl", "nonsense\n{}\n[1]\n", "events/metrics.jsonl: 3 damaged lines left out"),
        ("predictions/math.jsonl", '{"id": 1}\n7\nnope\n', "predictions/math.jsonl: 2 damaged"),
        ("figures/plot.svg", "<svg/>", "figures/plot.svg: not shown; expected .png"),
    ],
)
def test_damage_is_named(tmp_path: Path, name: str, content: str, problem: str):
    run = write_run(tmp_path / "run", metrics={"test/acc": 0.5}, curve=[{"step": 1, "time": 0, "train/loss": 2.0}])
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    record = read_run(run, name="run")
    assert any(line.startswith(problem) for line in record.problems), record.problems


def test_a_run_in_the_making_is_no_problem(tmp_path: Path):
    run = write_run(tmp_path / "run", state="running")
    (run / "events").mkdir()
    (run / "events" / "metrics.jsonl").write_text('{"step": 1, "time": 0, "train/loss": 2.5}\n{"step": 2, "ti')
    record = read_run(run, name="run")
    assert record.problems == []
    assert (record.state, list(record.curves["train/loss"].values)) == ("running", [2.5])


def test_a_finished_run_without_metrics_is_a_problem(tmp_path: Path):
    run = write_run(tmp_path / "run")
    assert read_run(run, name="run").problems == ["metrics.json: missing", "provenance.json: missing"]


def test_numbers_beyond_floats_are_undefined(tmp_path: Path):
    run = write_run(tmp_path / "run", metrics={})
    (run / "metrics.json").write_text('{"a": NaN, "b": Infinity, "c": 1e999, "d": %s, "e": null, "f": 2}' % ("9" * 400))
    metrics = read_run(run, name="run").metrics
    assert metrics.pop("f") == 2.0
    assert len(metrics) == 5
    assert all(math.isnan(value) for value in metrics.values())


def test_a_config_of_nested_aliases_is_refused(tmp_path: Path):
    run = write_run(tmp_path / "run", metrics={})
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (run / "config.yaml").write_text("\n".join(lines))
    record = read_run(run, name="run")
    assert (record.config, record.problems) == ({}, ["config.yaml: more than 20000 values"])


def test_curves_are_in_order_and_the_last_of_a_step_counts(tmp_path: Path):
    curve = [{"step": step, "time": 0, "m": value} for step, value in [(5, 1.0), (2, 2.0), (5, 3.0), (9, None)]]
    record = read_run(write_run(tmp_path / "run", metrics={}, curve=curve), name="run")
    assert list(record.curves["m"].steps) == [2, 5, 9]
    assert list(record.curves["m"].values)[:2] == [2.0, 3.0]
    assert math.isnan(record.curves["m"].values[2])


def test_predictions_are_cut_and_counted(tmp_path: Path):
    run = write_run(tmp_path / "run", metrics={}, predictions={"math": rows(30), "few": rows(3)})
    path = run / "predictions" / "math.jsonl"
    path.write_text(path.read_text().rstrip("\n"))  # the last line without its end counts too
    record = read_run(run, name="run", num_predictions=10)
    assert {name: (len(found.rows), found.total) for name, found in record.predictions.items()} == {
        "math": (10, 30),
        "few": (3, 3),
    }
    assert read_run(run, name="run", num_predictions=0).predictions == {}


def test_a_very_long_line_of_predictions_is_passed_over(tmp_path: Path):
    run = write_run(tmp_path / "run", metrics={}, predictions={"math": rows(1)})
    long = json.dumps({"id": 2, "prediction": "x" * (3 * MAX_LINE_BYTES)}) + "\n"
    (run / "predictions" / "math.jsonl").write_text('{"id": 1}\n' + long + '{"id": 3}\n')
    record = read_run(run, name="run")
    assert [row["id"] for row in record.predictions["math"].rows] == [1, 3]
    assert record.predictions["math"].total == 3
    assert "1 damaged or very long" in record.problems[0]


def test_figures_are_found_in_subfolders(tmp_path: Path):
    run = write_run(tmp_path / "run", metrics={}, figures={"b.png": png(), "heads/a.PNG": png()})
    assert [path.name for path in read_run(run, name="run").figures] == ["b.png", "a.PNG"]
