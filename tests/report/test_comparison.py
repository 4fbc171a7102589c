"""Differences of configs, groups of seeds, names of metrics, fewer points."""

import math
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report.run_folders import write_run

from athlos.report.comparison import ABSENT, differing_keys, value_columns
from athlos.report.downsampling import downsample
from athlos.report.names import by_language, direction
from athlos.report.reading import Curve, RunRecord, collect
from athlos.report.seeds import seed_groups, seed_mean, t_quantile


def test_only_what_differs_and_counts():
    configs = [
        {"study": "a", "seed": 1, "lr": 1e-3, "same": [1], "results_dir": "x", "tracking.sinks": []},
        {"study": "b", "seed": 2, "lr": 1e-3, "same": [1], "results_dir": "y", "tracking.sinks": ["wandb"]},
    ]
    assert differing_keys(configs) == ["seed"]
    assert value_columns(configs)["study"] == (["a", "b"], [0, 1]), "a study is shown, though it computes nothing"
    assert list(value_columns(configs)) == ["study", "seed", "lr", "same"]
    assert differing_keys([*configs, {}]) == ["seed"], "a run without a readable config differs in nothing"
    assert differing_keys(configs[:1]) == []


def test_how_fast_an_engine_answers_is_no_difference():
    configs = [
        {"engine.num_threads": threads, "engine.context_length": length, "generator.max_in_flight": threads}
        for threads, length in ((1, 512), (2, 4096))
    ]
    assert differing_keys(configs) == ["engine.context_length"]


def test_values_of_other_types_differ_and_an_absent_key_is_no_null():
    values, of_run = value_columns([{"k": 1}, {"k": 1.0}, {"k": "1"}, {"k": True}, {"k": None}, {}, {"k": 1}])["k"]
    assert values == [1, 1.0, "1", True, None]
    assert of_run == [0, 1, 2, 3, 4, ABSENT, 0]


def test_runs_that_differ_only_in_the_seed_are_one_group(tmp_path: Path):
    write_run(tmp_path / "a", config={"seed": 1}, metrics={})
    write_run(tmp_path / "b", config={"seed": 2, "results_dir": "elsewhere", "tags": ["x"]}, metrics={})
    write_run(tmp_path / "c", config={"seed": 2, "train.lr": 1.0}, metrics={})
    write_run(tmp_path / "d", config={"seed": 3, "study": "another"}, metrics={})
    assert seed_groups(collect(tmp_path)) == [[0, 1], [2], [3]]
    unread = [RunRecord(path=tmp_path / name, name=name) for name in "xy"]
    assert seed_groups(unread) == [[0], [1]], "runs of which nothing is known are not alike"


@pytest.mark.parametrize("degrees", [1, 2, 5, 17, 30, 31, 47, 200, 5000])
def test_quantiles_of_student(degrees: int):
    stats = pytest.importorskip("scipy.stats")
    assert t_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), abs=1e-4)


def test_the_mean_over_seeds():
    # mean 2, standard deviation 1, half = 4.3027 / sqrt(3)
    found = seed_mean([1.0, 2.0, 3.0, math.nan])
    assert (found.n, found.mean) == (3, 2.0)
    assert found.high == pytest.approx(2 + 4.3027 / math.sqrt(3))
    assert found.low == pytest.approx(2 - 4.3027 / math.sqrt(3))
    assert (seed_mean([4.0]).n, seed_mean([4.0]).low) == (1, None)
    assert math.isnan(seed_mean([math.nan]).mean)
    with pytest.raises(ValueError, match="degrees of freedom: got 0"):
        t_quantile(0)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("test/ppl", -1),
        ("test/ppl_base", -1),
        ("test/acc", 1),
        ("test/acc/de", 1),
        ("test/acc_listed_non_english", 1),
        ("test/ece_debiased", -1),
        ("test/gap_to_floor", -1),
        ("test/lc_acc/zh", 1),
        ("train/loss", -1),
        ("cost/flops", 0),
        ("test/answer_tokens", 0),
        ("em", 1),
        ("test/length_ratio", 0),
    ],
)
def test_the_better_direction(metric: str, expected: int):
    assert direction(metric) == expected


def test_metrics_by_language():
    found = by_language(
        ["test/acc", "test/acc/de", "test/acc/zh", "test/acc/zh_Hans", "test/em", "val/x/de", "cost/wall_s", "test/f/q"]
    )
    assert found == {"test/acc": {"de": "test/acc/de", "zh": "test/acc/zh", "zh_Hans": "test/acc/zh_Hans"}}
    assert set(by_language(["val/x/de", "val/x/fr"])["val/x"]) == {"de", "fr"}
    assert set(by_language(["val/x", "val/x/de", "val/x/low", "val/x/mid"])["val/x"]) == {"de"}


numbers = st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(math.nan)), min_size=1, max_size=400)


@given(values=numbers, max_points=st.integers(8, 120))
def test_peaks_survive(values: list[float], max_points: int):
    curve = Curve(steps=array("q", range(0, 3 * len(values), 3)), values=array("d", values))
    fewer = downsample(curve, max_points=max_points)
    assert len(fewer.steps) <= max_points or len(fewer.steps) == len(values) <= max_points
    pairs = dict(zip(curve.steps, curve.values, strict=True))
    assert list(fewer.steps) == sorted(set(fewer.steps))
    assert all(pairs[step] == value or math.isnan(value) for step, value in zip(fewer.steps, fewer.values, strict=True))
    assert (fewer.steps[0], fewer.steps[-1]) == (curve.steps[0], curve.steps[-1])
    known = [value for value in values if not math.isnan(value)]
    kept = [value for value in fewer.values if not math.isnan(value)]
    if known:
        assert (min(kept), max(kept)) == (min(known), max(known))
    assert any(map(math.isnan, fewer.values)) == any(map(math.isnan, values))
