"""Whole runs on preference pairs of one's own: they learn, accumulate, resume exactly, and run on two processes."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.run_record import curve, metrics_of, only_run, without_clock
from tests.runs.test_execute import start, wait_for_step
from tests.tolerances import FLOAT32
from tests.training.test_distributed import distributed

pytestmark = pytest.mark.slow


@pytest.fixture
def pairs(tiny: list[str], tmp_path: Path) -> list[str]:
    """Overrides of a run of 12 steps on pairs of a right and a wrong sum, some of whose prompts are cut."""
    path = tmp_path / "pairs.jsonl"
    sums = [
        {
            "prompt": f"{'Well, ' * (number % 5)}{number} + 1 =",
            "chosen": f" {number + 1}",
            "rejected": f" {number}, or so",
        }
        for number in range(120)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in sums), encoding="utf-8")
    kept = [item for item in tiny if not item.startswith(("data", "eval.suites"))]
    return [
        *kept,
        "data=own",
        f"data.path={path}",
        "objective=preference",
        "eval=preferences",
        "eval.base=true",
        "train.batching=bucket",
    ]


def last(run: Callable[..., tuple[int, str, str]], *arguments: str) -> Path:
    code, out, error = run("run", *arguments)
    assert code == 0, error
    return Path(out.splitlines()[-1])


@pytest.mark.parametrize(
    "overrides",
    [
        ["tuning=lora", "train.lr=1e-2"],
        ["objective=preference_simpo"],
        ["objective.kind=sft_chosen"],
        ["surgery=spannorm", "model.activation_checkpointing=true"],
        ["surgery=lisa", "surgery.layers.count=1"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_a_run_learns_whatever_trains_and_whatever_the_model_went_through(
    pairs: list[str], run: Any, overrides: list[str]
) -> None:
    folder = last(run, *pairs, *overrides)
    metrics, points = metrics_of(folder), [point for point in curve(folder) if "train/loss" in point]
    assert metrics["data/pairs"] > 80
    assert 0 < metrics["data/cut_prompts"] < metrics["data/pairs"]
    assert metrics["test/pair_margin"] > metrics["test/pair_margin_base"]
    if "sft_chosen" not in overrides[0]:
        assert points[-1]["reward/margin"] > 0
    if "sft" not in overrides[0] and "simpo" not in overrides[0]:
        assert points[0]["train/loss"] == pytest.approx(0.693147, rel=FLOAT32)


def test_micro_batches_give_the_curve_of_a_whole_step_and_one_reference_serves_both(pairs: list[str], run: Any) -> None:
    folders = [last(run, *pairs, f"train.micro_batch_size={size}", "train.val_batches=0") for size in (2, 4)]
    for left, right in zip(*map(curve, folders), strict=True):
        assert left == pytest.approx(right, rel=1e-3, abs=1e-3)
    stages = json.loads((folders[1] / "provenance.json").read_text())["stages"]
    assert [stage["reused"] for stage in stages if stage["name"] == "reference_log_probs"] == [True]


def test_two_processes_give_the_curve_of_one(pairs: list[str], run: Any, tmp_path: Path) -> None:
    one = last(run, *pairs)
    two = distributed([*pairs, f"cache_dir={tmp_path / 'other'}"], "ddp", tmp_path / "ddp")
    for left, right in zip(curve(one), curve(two), strict=True):
        assert left == pytest.approx(right, rel=1e-3, abs=1e-3)
    metrics = [metrics_of(folder) for folder in (one, two)]
    assert metrics[0]["test/pair_margin"] == pytest.approx(metrics[1]["test/pair_margin"], rel=1e-3)
    assert metrics[0]["data/reference_acc"] == metrics[1]["data/reference_acc"]


def test_a_killed_run_goes_on_as_if_uninterrupted(pairs: list[str], run: Any, tmp_path: Path) -> None:
    longer = [*pairs, "tuning=lora", "tuning.dropout=0.2", "train.max_steps=150", "train.checkpoint_every=20"]
    run("run", *longer, f"results_dir={tmp_path / 'whole'}", f"cache_dir={tmp_path / 'cache of whole'}")
    process = start(longer)
    folder = wait_for_step(tmp_path / "results", 50, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert last(run, *longer) == folder
    whole = only_run(tmp_path / "whole")
    assert curve(folder) == curve(whole)
    assert without_clock(metrics_of(folder)) == without_clock(metrics_of(whole))
