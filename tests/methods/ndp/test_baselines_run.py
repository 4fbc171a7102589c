"""Whole runs of the baselines of n-gram targets, on the terms of NDP's recipe."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tests.methods.lisa.test_surgery import model_of
from tests.run_record import curve, metrics_of
from tests.tolerances import FLOAT32

from athlos.methods.ndp.module import NdpModule
from athlos.models.tokenizers import byte_tokenizer

RECIPE = ["method=ndp", "construct=ndp", "train.batching=bucket", "train.max_length=64", "data.unit=line"]


def folder_of(run: Any, *overrides: str) -> Path:
    code, out, err = run("run", *overrides)
    assert code == 0, err
    return Path(out.splitlines()[-1])


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    folder = tmp_path / "teacher"
    model_of(vocab_size=259).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def test_the_teachers_most_probable_tokens(tiny: list[str], run: Any, teacher: Path) -> None:
    folder = folder_of(
        run, *tiny, *RECIPE, "objective=distill_topk", f"objective.teacher=dir:{teacher}", "train.max_steps=6"
    )
    points = [point for point in curve(folder) if "train/kd" in point]
    assert all(point["train/kd"] > 0 and point["train/ce"] > 0 for point in points)
    assert metrics_of(folder)["ndp/kept_rows_share"] == 3 / 120


def test_unigram_smoothing(tiny: list[str], run: Any) -> None:
    folder = folder_of(run, *tiny, *RECIPE, "objective=unigram_smoothing")
    points = [point for point in curve(folder) if "train/loss" in point]
    assert points[-1]["train/loss"] < points[0]["train/loss"]
    assert 0 < metrics_of(folder)["diag/unigram_tokens"] < 259


def test_heads_for_later_tokens_resume_and_stay_behind(
    tiny: list[str], run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*tiny, *RECIPE, "objective=multi_token"]
    folder = folder_of(run, *overrides)
    points = [point for point in curve(folder) if "train/ahead_3" in point]
    assert points[-1]["train/ahead_3"] < points[0]["train/ahead_3"]

    # Killed behind its checkpoint of step 4 and started again, it ends where it would have ended.
    whole = NdpModule.training_step

    def dying(self: Any, batch: Any, batch_index: int) -> Any:
        if self.global_step == 6:
            raise RuntimeError("killed")
        return whole(self, batch, batch_index)

    fresh = tmp_path / "fresh_cache"
    again = [*overrides, f"run_dir={tmp_path / 'again'}", f"cache_dir={fresh}"]
    with monkeypatch.context() as patch:
        patch.setattr(NdpModule, "training_step", dying)
        assert run("run", *again)[0] == 5
    [checkpoint] = fresh.glob("training/*.building/checkpoints/step-00000004")
    heads = load_file(checkpoint / "model.safetensors")["objective.heads_JDD"]
    assert all(head.any() for head in heads)
    resumed = metrics_of(folder_of(run, *again))
    assert resumed["test/ppl"] == pytest.approx(metrics_of(folder)["test/ppl"], rel=FLOAT32)

    code, _, err = run("export", str(folder), "--out", str(tmp_path / "model"))
    assert code == 0, err
    names = load_file(tmp_path / "model" / "model.safetensors")
    assert "model.norm.weight" in names
    assert not any("heads" in name or "objective" in name for name in names)


@pytest.mark.parametrize("is_base", [False, True])
def test_neighbours_in_a_teachers_or_the_models_own_states(
    is_base: bool, tiny: list[str], run: Any, teacher: Path
) -> None:
    architecture = [item for item in tiny if not is_base or not item.startswith("model.architecture")]
    chosen = (
        [f"model.source=dir:{teacher}", "model.tokenizer.kind=source"]
        if is_base
        else [f"objective.teacher=dir:{teacher}"]
    )
    folder = folder_of(run, *architecture, *RECIPE, "objective=knn_targets", *chosen)
    points = [point for point in curve(folder) if "train/loss" in point]
    assert points[-1]["train/loss"] < points[0]["train/loss"]
    assert 0 < metrics_of(folder)["ndp/neighbours_label_share"] <= 1
