"""Whole runs with n-gram targets: alone, under another architecture, and under a surgery on the tuned model."""

from pathlib import Path
from typing import Any

from tests.run_record import curve, metrics_of

NDP = [
    "method=ndp",
    "construct=ndp",
    "objective=ndp",
    "train.batching=bucket",
    "train.max_length=64",
    "data.unit=line",
]


def folder_in(out: str) -> Path:
    return Path(out.splitlines()[-1])


def test_a_run_learns_and_resumes_and_lisa_follows(tiny: list[str], run: Any, tmp_path: Path) -> None:
    code, out, err = run("run", *tiny, *NDP, "train.max_steps=16")
    assert code == 0, err
    points = [row for row in curve(folder_in(out)) if "train/loss" in row]
    assert points[-1]["train/loss"] < points[0]["train/loss"]
    assert metrics_of(folder_in(out))["diag/target_positions"] > 0
    assert metrics_of(folder_in(out))["ndp/kept_rows_share"] == 3 / 120  # three lines, forty times
    code, out, err = run("export", out.splitlines()[-1], "--out", str(tmp_path / "tuned"))
    assert code == 0, err
    architecture = [item for item in tiny if not item.startswith("model.architecture")]
    lisa = [
        f"model.source=dir:{tmp_path / 'tuned'}",
        "model.tokenizer.kind=source",
        "surgery=lisa",
        "surgery.layers.count=1",
        "selection=lisa",
        "surgery.calibration.tokens=64",
        *NDP,
    ]
    code, out, err = run("run", *architecture, *lisa)
    assert code == 0, err
    assert metrics_of(folder_in(out))["lisa/shared_layer_share"] > 0
    assert metrics_of(folder_in(out))["diag/target_positions"] > 0


def test_under_another_architecture(tiny: list[str], run: Any) -> None:
    code, out, err = run("run", *tiny, *NDP, "surgery=spannorm", "objective=ndp/temp_batch")
    assert code == 0, err
    assert metrics_of(folder_in(out))["diag/smooth_fallbacks"] == 0


def test_arms_matched_by_epochs_stop_early(tiny: list[str], run: Any) -> None:
    more = ["method.match=epochs", "train.max_steps=40", "train.val_every=0"]
    code, out, err = run("run", *tiny, *NDP, *more)
    assert code == 0, err
    assert metrics_of(folder_in(out))["ndp/steps"] == 1
    assert curve(folder_in(out))[-1]["step"] == 1
