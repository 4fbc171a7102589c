"""Run folders in any state are read; what is wrong is named, never raised."""

import json
import math
import os
from pathlib import Path

import pytest
from tests.report.run_folders import png, rows, write_run, write_sweep

from athlos.errors import DataError
from athlos.report.payload import payload
from athlos.report.reading import collect, read_run, run_places
from athlos.report.writing import embedded_json


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
        ("config.yaml", "study: !!python/object/apply:os.system ['true']\n", "config.yaml: cannot be read"),
        ("config.yaml", "a: 2024-13-45\n", "config.yaml: cannot be read"),
        ("config.yaml", "\udcff", "config.yaml: cannot be read"),
        ("status.json", '{"state": "fini', "status.json: cannot be read"),
        ("status.json", "[]", "status.json: holds no object"),
        ("status.json", '{"state": 7}', "status.json: no state"),
        ("metrics.json", "", "metrics.json: cannot be read"),
        ("metrics.json", '{"test/acc": "high"}', "metrics.json: test/acc is no number"),
        ("metrics.json", '{"test/acc": true}', "metrics.json: test/acc is no number"),
        ("metric_details.json", "nope", "metric_details.json: cannot be read"),
        ("provenance.json", '{"a": "\udcff"}', "provenance.json: cannot be read"),
        ("events/metrics.jsonl", "nonsense\n{}\n[1]\n", "events/metrics.jsonl: 3 damaged lines left out"),
        ("events/metrics.jsonl", '{"step": 1e99}\n', "events/metrics.jsonl: 1 damaged line left out"),
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


@pytest.mark.parametrize(
    "file",
    [
        "status.json",
        "metrics.json",
        "metric_details.json",
        "provenance.json",
        "events/metrics.jsonl",
        "predictions/math.jsonl",
    ],
)
def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path, file: str):
    run = write_run(tmp_path / "run", metrics={"m": 1.0}, curve=[{"step": 1, "m": 1.0}], predictions={"math": rows(1)})
    (run / file).unlink(missing_ok=True)
    (run / file).mkdir()
    assert any(problem.startswith(f"{file}: cannot be read") for problem in read_run(run, name="run").problems)


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999", "[NaN]", '{"a": [1e999]}', '"\\ud800"'])
def test_values_that_json_or_utf8_do_not_know_reach_no_page(tmp_path: Path, value: str):
    run = write_run(tmp_path / "run", metrics={}, predictions={"math": rows(1)})
    for file in ("status.json", "metrics.json", "metric_details.json", "provenance.json"):
        (run / file).write_text(f'{{"state": "finished", "start": {value}, "x": {value}}}')
    (run / "predictions" / "math.jsonl").write_text(f'{{"a": {value}}}\n')
    (run / "config.yaml").write_text('a: .nan\nb: [.inf]\nc: "\\uD800"\n? .nan\n: 1\n')
    records = collect(tmp_path)
    data = embedded_json(payload(records, title="t", root="r", num_predictions=50))
    json.loads(data.encode(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert len(records[0].predictions["math"].rows) == 1


ODD = ["\x1b[31mred", "two\nlines", "<img src=x onerror=alert(1)>", "\u202egnp.exe", "'\";--", "x" * 200]


@pytest.mark.parametrize("name", [*(name.encode() for name in ODD), b"\xff\xfe"], ids=range(len(ODD) + 1))
def test_odd_names_are_listed(tmp_path: Path, name: bytes):
    decoded = os.fsdecode(name)
    run = write_run(tmp_path / decoded, metrics={os.fsencode(decoded).decode("utf-8", "replace"): 1.0})
    (run / "provenance.json").write_text("{}")
    for folder in ("predictions", "figures"):
        (run / folder).mkdir()
    (run / "predictions" / f"{decoded}.jsonl").write_text('{"id": 1}\n[broken\n')
    (run / "figures" / f"{decoded}.svg").write_text("<svg>")
    (run / "figures" / f"{decoded}.png").write_bytes(png())
    [record] = collect(tmp_path)
    assert (len(record.figures), len(record.predictions), len(record.problems)) == (1, 1, 2)
    assert all(problem.encode() and problem.isprintable() for problem in record.problems)


def test_figures_are_found_in_subfolders(tmp_path: Path):
    run = write_run(tmp_path / "run", metrics={}, figures={"b.png": png(), "heads/a.PNG": png()})
    assert [path.name for path in read_run(run, name="run").figures] == ["b.png", "a.PNG"]
