"""Whole runs of the baselines of n-gram targets, on the terms of NDP's recipe."""

from pathlib import Path
from typing import Any

from tests.cli.conftest import curve
from tests.cli.test_ndp_run import metrics_of
from tests.methods.lisa.test_surgery import model_of

from athlos.models.tokenizers import byte_tokenizer

RECIPE = ["method=ndp", "train.batching=bucket", "train.max_length=64", "data.unit=line"]


def folder_of(run: Any, *overrides: str) -> Path:
    code, out, err = run("run", *overrides)
    assert code == 0, err
    return Path(out.splitlines()[-1])


def test_the_teachers_most_probable_tokens(tiny: list[str], run: Any, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    model_of(vocab_size=259).save_pretrained(teacher)
    byte_tokenizer().save_pretrained(teacher)
    folder = folder_of(
        run, *tiny, *RECIPE, "objective=distill_topk", f"objective.teacher=dir:{teacher}", "train.max_steps=6"
    )  # fmt: skip
    points = [point for point in curve(folder) if "train/kd" in point]
    assert all(point["train/kd"] > 0 and point["train/ce"] > 0 for point in points)
    assert metrics_of(str(folder))["ndp/kept_rows_share"] == 3 / 120


def test_unigram_smoothing(tiny: list[str], run: Any) -> None:
    folder = folder_of(run, *tiny, *RECIPE, "objective=unigram_smoothing")
    points = [point for point in curve(folder) if "train/loss" in point]
    assert points[-1]["train/loss"] < points[0]["train/loss"]
    assert 0 < metrics_of(str(folder))["diag/unigram_tokens"] < 259
