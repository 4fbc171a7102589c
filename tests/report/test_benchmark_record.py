"""The record of a benchmark: what the report and the claims read of it."""

import random
import statistics
from itertools import product
from pathlib import Path

import pytest

from athlos.errors import ConfigError
from athlos.report.benchmark_record import median_interval, write_benchmark_record
from athlos.report.reading import collect

RESULTS = {
    "threads": 1,
    "name": "no number",
    "sides": [1, 2],
    "equal_512": {"lisa_over_sdpa": 1.5, "rounds": {"lisa_over_sdpa": [1.4, 1.6, 1.5, 1.45, 1.55, 1.7]}},
    "budget_512": {"lisa_over_sdpa": 1.2, "rounds": {"lisa_over_sdpa": [1.2, 1.3, 1.1]}},
    "undefined": float("nan"),
}


def test_a_record_reads_as_a_run(tmp_path: Path):
    options = {"contexts": [512], "out": str(tmp_path / "record"), "repeats": 6, "device": None}
    folder = write_benchmark_record(tmp_path / "record", name="decode", options=options, results=RESULTS)
    [record] = collect(folder)
    assert (record.study, record.state, record.problems) == ("decode", "finished", [])
    assert record.config == {
        "study": "decode",
        "benchmark": "decode",
        "options.contexts": [512],
        "options.repeats": 6,
        "options.device": None,
    }
    assert {name: value for name, value in record.metrics.items() if name != "undefined"} == {
        "threads": 1.0,
        "equal_512/lisa_over_sdpa": 1.5,
        "budget_512/lisa_over_sdpa": 1.2,
    }
    assert record.metrics["undefined"] != record.metrics["undefined"]
    detail = record.details["equal_512/lisa_over_sdpa"]
    assert (detail.n, detail.low, detail.high) == (6, 1.4, 1.7)
    assert "budget_512/lisa_over_sdpa" not in record.details, "three rounds give no interval"
    assert record.provenance["hardware"]["cores"] >= 1


def test_a_record_is_written_once(tmp_path: Path):
    write_benchmark_record(tmp_path / "a", name="x", options={}, results={})
    with pytest.raises(ConfigError, match=r"--out: .* is not empty"):
        write_benchmark_record(tmp_path / "a", name="x", options={}, results={})


@pytest.mark.parametrize("n", [*range(1, 13)])
def test_the_interval_of_the_median_covers_by_enumeration(n: int):
    """All 2^n ways in which n values fall below or above the median are equally likely."""
    values = [float(value) for value in range(n)]
    found = median_interval(values)
    covers = {}
    for k in range(1, n // 2 + 1):  # x_(k) is above the median when fewer than k values lie below it
        below = [sum(way) for way in product((0, 1), repeat=n)]
        covers[k] = statistics.fmean(k <= count <= n - k for count in below)
    wide_enough = [k for k, cover in covers.items() if cover >= 0.95]
    if not wide_enough:
        assert found is None
        assert n < 6
    else:
        assert found == (values[max(wide_enough) - 1], values[n - max(wide_enough)])
    shuffled = random.Random(n).sample(values, n)
    assert median_interval(shuffled) == found
