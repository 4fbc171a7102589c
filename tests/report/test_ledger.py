"""The ledger against scipy and plain loops, on run folders with known numbers."""

import gzip
import json
import math
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from tests.report.run_folders import write_run
from tests.tolerances import FLOAT64

from athlos.config.claims import Claim, Compare, Comparison, Direction, Measure, Reduce, Tag
from athlos.errors import ConfigError, DataError
from athlos.report.estimate import estimate
from athlos.report.ledger import Entry, Row, Verdict, ledger, read_records
from athlos.report.ledger_text import claim_verdict_of

OURS = {"train.lr": 0.001}
OTHER = {"train.lr": 0.01}
LOSSES = {1: (2.0, 2.5), 2: (2.4, 2.8), 3: (1.9, 2.6)}
"""Seed -> loss of ours and of the other arm: far apart within a seed, close between seeds."""


def write_arms(results: Path, losses: dict[int, tuple[float | None, float | None]], **config: Any) -> None:
    for seed, pair in losses.items():
        for name, where, loss in (("ours", OURS, pair[0]), ("other", OTHER, pair[1])):
            if loss is not None:
                write_run(
                    results / f"{name}-s{seed}-{len(config)}",
                    config={**where, "seed": seed, **config},
                    metrics={"test/nll": loss, "test/base": 1.0},
                )


def lower(**changes: Any) -> Comparison:
    values: dict[str, Any] = {
        "label": "ours - other",
        "ours": Measure(metric="test/nll", where=OURS),
        "against": Measure(metric="test/nll", where=OTHER),
        "compare": Compare.DIFFERENCE,
        "direction": Direction.DOWN,
        **changes,
    }
    return Comparison(**values)


def joined(results: Path, *comparisons: Comparison) -> Entry:
    claim = Claim(id="x.a", text="lower", tag=Tag.PAPER, source="abstract", comparisons=comparisons)
    [entry] = ledger({"x": [claim]}, read_records([results]).usable)
    return entry


def row_of(results: Path, comparison: Comparison) -> Row:
    [row] = joined(results, comparison).rows
    return row


# The numbers


def test_a_difference_is_that_of_the_pairs(tmp_path: Path):
    write_arms(tmp_path, LOSSES)
    row = row_of(tmp_path, lower())
    pairs = list(LOSSES.values())
    test = stats.ttest_rel([ours for ours, _ in pairs], [other for _, other in pairs]).confidence_interval(0.95)
    assert row.value == pytest.approx(sum(ours - other for ours, other in pairs) / 3, abs=FLOAT64)
    assert (row.low, row.high) == pytest.approx((test.low, test.high), rel=1e-4)  # the table of t has six digits
    assert (row.num_seeds, row.method, row.verdict) == (3, "paired t over 3 seeds", Verdict.REPRODUCED)
    assert row.arms == pytest.approx({"ours": 2.1, "against": 7.9 / 3}, abs=FLOAT64)


def test_pairs_go_by_seed_not_by_place(tmp_path: Path):
    """Pairs that are put together wrongly have another interval: this is what the seeds are for."""
    write_arms(tmp_path, {1: (1.0, 1.1), 2: (2.0, 2.1), 3: (3.0, 3.1001)})
    row = row_of(tmp_path, lower())
    assert (row.low, row.high) == pytest.approx((-0.1, -0.1), abs=3e-4)
    wrong = estimate(Compare.DIFFERENCE, {1: 1.0, 2: 2.0, 3: 3.0}, {1: 2.1, 2: 3.1001, 3: 1.1})
    assert wrong is not None
    assert wrong.value == pytest.approx(row.value, abs=FLOAT64)
    assert wrong.high > 0 > wrong.low


@pytest.mark.parametrize("compare", [Compare.RATIO, Compare.CHANGE])
def test_ratios_are_averaged_as_logarithms(tmp_path: Path, compare: Compare):
    write_arms(tmp_path, LOSSES)
    row = row_of(tmp_path, lower(compare=compare))
    logs = [math.log(ours / other) for ours, other in LOSSES.values()]
    test = stats.ttest_1samp(logs, 0).confidence_interval(0.95)
    ends = [math.exp(value) for value in (sum(logs) / 3, test.low, test.high)]
    wanted = ends if compare is Compare.RATIO else [100 * (end - 1) for end in ends]
    assert [row.value, row.low, row.high] == pytest.approx(wanted, rel=1e-4)


def test_an_excess_is_what_is_left_above_the_origin(tmp_path: Path):
    write_arms(tmp_path, LOSSES)
    origin = Measure(metric="test/base", where=OURS)
    row = row_of(tmp_path, lower(compare=Compare.EXCESS, origin=origin, bar=0.9))
    shares = [(ours - 1) / (other - 1) for ours, other in LOSSES.values()]
    assert row.value == pytest.approx(sum(shares) / 3, abs=FLOAT64)


@pytest.mark.parametrize("seed", range(5))
def test_arms_without_a_common_seed_are_compared_by_welch(seed: int):
    chance = random.Random(seed)
    ours = {n: chance.gauss(1.0, 0.1) for n in range(4)}
    other = {n + 10: chance.gauss(1.2, 0.3) for n in range(6)}
    found = estimate(Compare.DIFFERENCE, ours, other)
    test = stats.ttest_ind(list(ours.values()), list(other.values()), equal_var=False)
    interval = test.confidence_interval(0.95)
    assert found is not None
    assert found.method == "Welch's t, 4 and 6 unpaired seeds"
    assert found.value == pytest.approx(sum(ours.values()) / 4 - sum(other.values()) / 6, abs=FLOAT64)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= interval.low < interval.high <= found.high  # degrees of freedom are rounded down
    half = stats.t.ppf(0.975, math.floor(test.df)) * test.statistic**-1 * found.value
    assert found.high - found.value == pytest.approx(abs(half), rel=1e-4)


@pytest.mark.parametrize(
    ("reduce", "wanted"), [(Reduce.MEAN, 2.0), (Reduce.MAX, 3.0), (Reduce.MIN, 1.0), (Reduce.SPREAD, 3.0)]
)
def test_one_number_of_the_layers(tmp_path: Path, reduce: Reduce, wanted: float):
    layers = {"rms/0": 1.0, "rms/1": 3.0, "rms/2": 2.0, "rms": 9.0, "rms_init/0": 9.0, "rms/0/x": 9.0}
    write_run(tmp_path / "a", metrics=layers)
    comparison = Comparison(ours=Measure(metric="rms/*", reduce=reduce), direction=Direction.DOWN, bar=3.0)
    row = row_of(tmp_path, comparison)
    assert (row.value, row.verdict) == (wanted, Verdict.INCONCLUSIVE), "one run has no interval"


def test_one_run_has_the_interval_over_its_items(tmp_path: Path):
    details = {"test/acc": {"n": 48, "undefined": 0, "low": 0.4, "high": 0.6}}
    write_run(tmp_path / "a", metrics={"test/acc": 0.5}, details=details)
    row = row_of(tmp_path, Comparison(ours=Measure(metric="test/acc"), direction=Direction.UP, bar=0.4))
    assert (row.low, row.high, row.verdict) == (0.4, 0.6, Verdict.REPRODUCED)
    assert row.method == "interval of one run over its 48 items or rounds"
    row = row_of(tmp_path, Comparison(ours=Measure(metric="test/acc"), direction=Direction.UP, bar=0.45))
    assert row.verdict is Verdict.INCONCLUSIVE


def test_seeds_that_are_alike_have_the_interval_over_items(tmp_path: Path):
    details = {"test/nll": {"n": 48, "undefined": 0, "low": 0.97, "high": 1.03}}
    for seed in (1, 2):
        for name, where, loss in (("ours", OURS, 1.0), ("other", OTHER, 1.04)):
            config = {**where, "seed": seed}
            write_run(tmp_path / f"{name}{seed}", config=config, metrics={"test/nll": loss}, details=details)
    row = row_of(tmp_path, lower())
    half = math.hypot(0.03, 0.03)
    assert (row.low, row.high) == pytest.approx((-0.04 - half, -0.04 + half))
    assert row.method == "interval of 2 seeds, all alike, over its 48 items or rounds"
    assert row.verdict is Verdict.INCONCLUSIVE


# The verdict


def test_the_other_direction_is_not_reproduced(tmp_path: Path):
    write_arms(tmp_path, LOSSES)
    assert row_of(tmp_path, lower()).verdict is Verdict.REPRODUCED
    assert row_of(tmp_path, lower(direction=Direction.UP)).verdict is Verdict.NOT_REPRODUCED
    swapped = lower(ours=lower().against, against=lower().ours)
    assert row_of(tmp_path, swapped).verdict is Verdict.NOT_REPRODUCED


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        ({1: (1.0, 1.5), 2: (1.0, 1.0), 3: (1.0, 1.1)}, Verdict.INCONCLUSIVE),  # the interval holds 0
        ({1: (1.5, 1.0), 2: (1.0, 1.0), 3: (1.1, 1.0)}, Verdict.INCONCLUSIVE),  # so it does on the other side
        ({1: (1.0, 1.5)}, Verdict.INCONCLUSIVE),  # one seed
        ({1: (1.5, 1.0)}, Verdict.INCONCLUSIVE),
        ({1: (1.0, 1.1), 2: (1.0, 1.1)}, Verdict.INCONCLUSIVE),  # seeds that are alike have no spread
        ({1: (1.0, 0.9), 2: (1.0, 0.9)}, Verdict.INCONCLUSIVE),
    ],
)
def test_the_value_alone_tells_nothing(tmp_path: Path, losses: dict[int, tuple[float, float]], verdict: Verdict):
    write_arms(tmp_path, losses)
    assert row_of(tmp_path, lower()).verdict is verdict


@pytest.mark.parametrize(
    ("bar", "direction", "verdict"),
    [
        (-0.5, Direction.DOWN, Verdict.INCONCLUSIVE),
        (-0.6, Direction.DOWN, Verdict.INCONCLUSIVE),
        (-1.5, Direction.DOWN, Verdict.NOT_REPRODUCED),
        ((-1.0, 0.0), Direction.WITHIN, Verdict.REPRODUCED),
        ((-0.6, -0.4), Direction.WITHIN, Verdict.INCONCLUSIVE),  # the interval holds both ends
        ((0.0, 1.0), Direction.WITHIN, Verdict.NOT_REPRODUCED),
    ],
)
def test_a_bar_moves_the_line(tmp_path: Path, bar: Any, direction: Direction, verdict: Verdict):
    write_arms(tmp_path, LOSSES)
    assert row_of(tmp_path, lower(bar=bar, direction=direction)).verdict is verdict


def test_a_named_bar_may_be_met(tmp_path: Path):
    details = {"test/wrong": {"n": 48, "undefined": 0, "low": 0.0, "high": 0.0}}
    write_run(tmp_path / "a", metrics={"test/wrong": 0.0}, details=details, config={"seed": 1})
    write_run(tmp_path / "b", metrics={"test/wrong": 0.0}, details=details, config={"seed": 2})
    none = Comparison(ours=Measure(metric="test/wrong"), direction=Direction.DOWN, bar=0.0)
    assert row_of(tmp_path, none).verdict is Verdict.REPRODUCED


def test_what_no_seed_moves_needs_one_run(tmp_path: Path):
    write_run(tmp_path / "a", metrics={"ratio": 6.4})
    structure = Comparison(ours=Measure(metric="ratio", is_fixed=True), direction=Direction.UP, bar=6.0)
    assert row_of(tmp_path, structure).verdict is Verdict.REPRODUCED
    write_run(tmp_path / "b", metrics={"ratio": 6.5}, config={"seed": 2})
    assert row_of(tmp_path, structure).verdict is Verdict.NOT_MEASURED, "it was said not to depend on the seed"


def test_a_fixed_arm_is_the_partner_of_every_seed(tmp_path: Path):
    write_arms(tmp_path, {1: (1.0, 2.0), 2: (1.1, None), 3: (1.2, None)})
    fixed = Measure(metric="test/nll", where=OTHER, is_fixed=True)
    row = row_of(tmp_path, lower(against=fixed))
    assert (row.num_seeds, row.value, row.verdict) == (3, pytest.approx(-0.9, abs=FLOAT64), Verdict.REPRODUCED)


def test_a_claim_is_what_its_rows_come_to(tmp_path: Path):
    write_arms(tmp_path, LOSSES)
    good, bad = lower(), lower(direction=Direction.UP)
    missing = lower(against=Measure(metric="test/nll", where={"train.lr": 7.0}))
    assert joined(tmp_path, good, good).verdict is Verdict.REPRODUCED
    open_ = lower(bar=-0.5)
    assert joined(tmp_path, good, bad).verdict is Verdict.NOT_REPRODUCED, "partly has nothing clear on the other side"
    assert joined(tmp_path, good, missing).verdict is Verdict.PARTLY
    assert joined(tmp_path, good, open_).verdict is Verdict.PARTLY
    assert joined(tmp_path, bad, open_).verdict is Verdict.NOT_REPRODUCED
    assert joined(tmp_path, open_, missing).verdict is Verdict.INCONCLUSIVE
    assert claim_verdict_of(joined(tmp_path, good, bad, missing)) == "not reproduced: 1 of 2 comparisons hold"
    assert claim_verdict_of(joined(tmp_path, good, missing)) == "partly"
    assert joined(tmp_path, bad, missing).verdict is Verdict.NOT_REPRODUCED
    assert joined(tmp_path, missing).verdict is Verdict.NOT_MEASURED


def test_what_a_configuration_makes_true_is_no_result(tmp_path: Path):
    write_arms(tmp_path, LOSSES)
    for comparison, verdict in (
        (lower(), Verdict.BY_CONSTRUCTION),
        (lower(direction=Direction.UP), Verdict.NOT_REPRODUCED),
        (lower(bar=-0.5), Verdict.INCONCLUSIVE),
    ):
        claim = Claim(id="x.a", text="a", tag=Tag.PAPER, source="a", comparisons=(comparison,), is_by_construction=True)
        [entry] = ledger({"x": [claim]}, read_records([tmp_path]).usable)
        assert entry.verdict is verdict


# What is missing is said


def test_a_missing_arm_is_named(tmp_path: Path):
    write_arms(tmp_path, {1: (1.0, None)})
    row = row_of(tmp_path, lower())
    assert (row.verdict, row.value) == (Verdict.NOT_MEASURED, None)
    assert row.reason == "no run with train.lr=0.01"


def test_a_seed_without_partner_is_named_and_costs_the_verdict(tmp_path: Path):
    write_arms(tmp_path, {**LOSSES, 4: (2.0, None)})
    row = row_of(tmp_path, lower())
    assert (row.verdict, row.num_seeds) == (Verdict.INCONCLUSIVE, 3)
    assert row.notes == ["seed 4 has no partner"]
    assert row.arms["ours"] == pytest.approx(2.1, abs=FLOAT64), "the fourth seed is not in the mean"


def test_a_run_that_broke_down_is_not_dropped_in_silence(tmp_path: Path):
    write_arms(tmp_path, LOSSES)
    write_arms(tmp_path, {4: (2.0, None)})
    failed = {"error": "NumericalError", "exit_code": 5}
    write_run(
        tmp_path / "broken", config={**OTHER, "seed": 4}, state="failed", metrics={"train/diverged": 1.0}, **failed
    )
    row = row_of(tmp_path, lower())
    assert row.verdict is Verdict.INCONCLUSIVE
    assert f"{tmp_path}/broken left out: failed (NumericalError)" in row.notes
    share = Comparison(ours=Measure(metric="train/diverged", where=OTHER), direction=Direction.DOWN, bar=0.0)
    row = row_of(tmp_path, share)
    assert (row.value, row.verdict) == (1.0, Verdict.INCONCLUSIVE), "it counts where it left a number"


def test_only_broken_runs_give_their_reason(tmp_path: Path):
    write_arms(tmp_path, {1: (1.0, None)})
    write_run(tmp_path / "broken", config=OTHER, state="running", metrics={"test/nll": 0.1})
    row = row_of(tmp_path, lower())
    assert (row.verdict, row.reason) == (Verdict.NOT_MEASURED, f"{tmp_path}/broken left out: running")


def test_arms_that_differ_in_more_are_not_the_claim(tmp_path: Path):
    write_arms(tmp_path, {seed: (ours, None) for seed, (ours, _) in LOSSES.items()})
    write_arms(tmp_path, {seed: (None, other) for seed, (_, other) in LOSSES.items()}, **{"train.batch_size": 64})
    row = row_of(tmp_path, lower())
    assert (row.verdict, row.notes) == (Verdict.INCONCLUSIVE, ["the arms also differ in train.batch_size"])
    assert row_of(tmp_path, lower(varies=("train.",))).verdict is Verdict.REPRODUCED
    assert row_of(tmp_path, lower(varies=("train.",), equal=("data.name",))).verdict is Verdict.REPRODUCED
    row = row_of(tmp_path, lower(varies=("train.",), equal=("data.name", "train.batch_size")))
    assert (row.verdict, row.value) == (Verdict.NOT_MEASURED, None)
    assert re.fullmatch(r"nothing is compared: the arms must have one train.batch_size, and have \w+, 64", row.reason)


def test_a_target_stands_for_its_group(tmp_path: Path):
    for name, extra in (("a", {}), ("b", {"method._target_": "other.Module", "method.alpha": 2.0})):
        for seed in (1, 2):
            value = seed + len(extra) * (10 + seed)
            write_run(tmp_path / f"{name}{seed}", config={"seed": seed, **extra}, metrics={"m": value})
    target = "athlos.methods.finetune.module.FinetuneModule"
    comparison = lower(
        ours=Measure(metric="m", where={"method._target_": target}),
        against=Measure(metric="m", where={"method._target_": "other.Module"}),
    )
    assert row_of(tmp_path, comparison).verdict is Verdict.REPRODUCED


def test_seeds_of_two_configs_are_not_one_arm(tmp_path: Path):
    write_arms(tmp_path, {1: (1.0, 2.0)})
    write_arms(tmp_path, {2: (1.0, 2.0)}, **{"train.batch_size": 64})
    row = row_of(tmp_path, lower())
    assert row.verdict is Verdict.NOT_MEASURED
    assert row.reason.startswith("an arm is not one arm: ")
    assert row.reason.endswith("differ in train.batch_size")
    by_size = joined(tmp_path, lower(by=("train.batch_size",)))
    assert [(row.label, row.value) for row in by_size.rows] == [
        ("ours - other batch_size=8", -1.0),
        ("ours - other batch_size=64", -1.0),
    ]


def test_a_part_whose_seed_follows_the_runs_is_one_arm(tmp_path: Path):
    for seed, (ours, other) in LOSSES.items():
        write_arms(tmp_path, {seed: (ours, other)}, **{"data.memory.seed": seed})
    assert row_of(tmp_path, lower()).num_seeds == 3
    write_arms(tmp_path, {4: (2.0, 2.5)}, **{"data.memory.seed": 9})
    row = row_of(tmp_path, lower())
    assert row.verdict is Verdict.NOT_MEASURED
    assert row.reason.endswith("differ in data.memory.seed")


def test_of_a_repeated_run_the_last_counts(tmp_path: Path):
    write_arms(tmp_path, {1: (1.0, 2.0)})
    write_run(
        tmp_path / "again", config={**OURS, "seed": 1}, metrics={"test/nll": 1.5}, end="2026-11-21T00:00:00+00:00"
    )
    row = row_of(tmp_path, lower())
    assert row.value == pytest.approx(-0.5, abs=FLOAT64)
    assert row.notes == [f"{tmp_path}/again stands for the older {tmp_path}/ours-s1-0"]


def test_keys_that_came_later_do_not_part_the_seeds(tmp_path: Path):
    write_arms(tmp_path, {1: (1.0, 2.0)})
    write_arms(tmp_path, {2: (1.0, 2.0)}, **{"train.new_key": 3})
    assert row_of(tmp_path, lower()).num_seeds == 2


def test_where_the_runs_come_from(tmp_path: Path):
    write_arms(tmp_path, LOSSES)
    for file in tmp_path.rglob("provenance.json"):
        stored = json.loads(file.read_text())
        file.write_text(json.dumps({**stored, "overrides": [f"note={file.parent.name}"]}))
    row = row_of(tmp_path, lower())
    assert (row.setting, row.commits) == ("tiny on sums", ["012345678"])
    assert len(row.hardware) == 1
    assert "2 cores, no GPU" in row.hardware[0]
    assert len(row.runs) == 6
    assert row.command == "athlos run note=ours-s1-0"


def test_damaged_folders_are_named_and_skipped(tmp_path: Path):
    write_arms(tmp_path, LOSSES)
    (tmp_path / "ours-s1-0" / "metrics.json").write_text("{")
    found = read_records([tmp_path, tmp_path])
    assert len(found.usable) == 5, "a folder that is given twice is read once"
    [line] = found.skipped
    assert line.startswith(f"{tmp_path}/ours-s1-0: metrics.json: cannot be read")
    with pytest.raises(DataError, match="no such folder"):
        read_records([tmp_path / "missing"])


def test_benchmarks_of_other_cases_are_other_runs(tmp_path: Path):
    for name, context in (("a", 512), ("b", 4096)):
        write_run(
            tmp_path / name,
            config={"seed": None, "benchmark": "decode", "options.contexts": [context]},
            metrics={f"budget_{context}/ratio": context / 1000},
        )
    for context in (512, 4096):
        row = row_of(
            tmp_path,
            Comparison(
                ours=Measure(metric=f"budget_{context}/ratio"),
                direction=Direction.UP,
                bar=0.0,
                where={"benchmark": "decode"},
            ),
        )
        assert row.value == context / 1000


# The form


@pytest.mark.parametrize(
    "build",
    [
        lambda: Measure(metric="a/*"),
        lambda: Measure(metric="a", reduce=Reduce.MAX),
        lambda: lower(direction=Direction.WITHIN),
        lambda: lower(bar=(0.0, 1.0)),
        lambda: lower(against=None),
        lambda: lower(compare=Compare.EXCESS),
        lambda: Comparison(ours=Measure(metric="a"), direction=Direction.UP),
        lambda: Claim(id="a", text="", tag=Tag.NOTE, source=""),
        lambda: Claim(id="a", text="", tag=Tag.NOTE, source="", needs="x", comparisons=(lower(),)),
    ],
)
def test_a_claim_that_says_nothing_is_refused(build: Any):
    with pytest.raises(ConfigError, match=r"^claims: ('|metric ')"):
        build()


@pytest.mark.parametrize(("found", "wanted", "is_same"), [(1, 1.0, True), (True, 1, False), ("a", ("a", "b"), True)])
def test_values_of_a_config_are_compared_by_value(tmp_path: Path, found: Any, wanted: Any, is_same: bool):
    write_run(tmp_path / "a", config={"train.key": found}, metrics={"m": 1.0})
    comparison = Comparison(ours=Measure(metric="m", where={"train.key": wanted}), direction=Direction.UP, bar=0.0)
    assert (row_of(tmp_path, comparison).value == 1.0) is is_same


# The committed records, recomputed by hand


def naive(file: Path, runs: Sequence[str], metric: str) -> list[float]:
    lines = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    values = {line["run"]: line["metrics"].get(metric) for line in lines}
    return [values[run] for run in runs]


def test_committed_numbers_are_those_of_the_files():
    from athlos.config.claims import all_claims

    file = Path(__file__).resolve().parents[2] / "experiments" / "spannorm" / "records.jsonl.gz"
    claims = {claim.id: claim for claim in all_claims()["spannorm"]}
    entries = ledger({"spannorm": [claims["span.scale"]]}, read_records([file]).usable)
    [row] = [row for row in entries[0].rows if row.label.startswith("lab_spannorm:")]
    sides = [
        naive(file, [f"lab-{name}-s{seed}" for seed in (1, 2, 3)], "test/nll")
        for name in ("spannorm", "scaled_prenorm")
    ]
    assert row.value == pytest.approx(sum(sides[0]) / 3 - sum(sides[1]) / 3, abs=FLOAT64)
    interval = stats.ttest_rel(*sides).confidence_interval(0.95)
    assert (row.low, row.high) == pytest.approx((interval.low, interval.high), rel=1e-4)
