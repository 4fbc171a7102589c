"""Whole runs with norm placements: what they measure by depth, that they resume, export, diverge and stack."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import run_record
from tests.methods.spannorm.test_surgery import ids_of, logits, placed
from tests.run_record import curve
from tests.tolerances import FLOAT32
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from athlos.methods.lisa.surgery import directly_shared

SPAN = ["method=spannorm", "surgery=spannorm", "method.probe_every=4"]


def metrics_of(folder: Path) -> dict[str, float]:
    return {name: value for name, value in run_record.metrics_of(folder).items() if value is not None}


@pytest.mark.parametrize("experts", [0, 4])
def test_a_run_measures_by_depth_resumes_and_exports(
    experts: int, tiny: list[str], run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [*tiny, *SPAN, f"surgery.moe.num_experts={experts}"]
    code, out, err = run("run", *overrides)
    assert code == 0, err
    folder = Path(out.splitlines()[-1])
    metrics, points = metrics_of(folder), curve(folder)
    for name in (
        "act_rms",
        "grad_norm",
        "attention_grad_norm",
        "adjacent_cosine",
        "effective_rank",
        "skip_coefficient",
        "layer_removal_delta",
    ):
        assert {f"diag/{name}/0", f"diag/{name}/1", f"diag/{name}"} <= set(metrics), name
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert metrics["diag/act_rms_init/1"] == pytest.approx(1, abs=1e-3)
    assert metrics["diag/skip_coefficient_init"] == pytest.approx(metrics["spannorm/skip_product"], rel=0.2)
    assert metrics["train/diverged"] == 0.0
    looked = [point["step"] for point in points if "diag/act_rms_last" in point]
    assert looked == [4, 8, 12]
    if experts:
        loads = [[point[f"moe/load/1/{expert}"] for expert in range(4)] for point in points if "moe/load/1/0" in point]
        assert len(loads) == 3
        assert [sum(shares) for shares in loads] == pytest.approx([1, 1, 1])
        assert all(0 < point["train/added"] < 0.03 for point in points if "train/added" in point)
        assert any("train/added" in point for point in points)

    # Killed behind its checkpoint of step 4 and started again, it ends where it would have ended.
    from athlos.methods.spannorm.module import SpanNormModule

    whole = SpanNormModule.training_step

    def dying(self: Any, batch: Any, batch_index: int) -> Any:
        if self.global_step == 6:
            raise RuntimeError("killed")
        return whole(self, batch, batch_index)

    again = [*overrides, f"run_dir={tmp_path / 'again'}", f"cache_dir={tmp_path / 'fresh_cache'}"]
    with monkeypatch.context() as patch:
        patch.setattr(SpanNormModule, "training_step", dying)
        assert run("run", *again)[0] == 5
    code, _, err = run("run", *again)
    assert code == 0, err
    resumed = metrics_of(tmp_path / "again")
    for name in ("test/ppl", "train/clip_fraction", "diag/act_rms", "diag/act_rms_init", "spannorm/s2_ffn"):
        assert resumed[name] == pytest.approx(metrics[name], rel=FLOAT32), name

    code, _, err = run("export", str(folder), "--out", str(tmp_path / "model"))
    assert code == 0, err
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    ids = torch.randint(0, 50, (1, 8), generator=torch.Generator().manual_seed(0))
    assert model.generate(ids, max_new_tokens=4, do_sample=False).shape[1] > 8
    kind = json.loads((tmp_path / "model" / "config.json").read_text())["model_type"]
    assert kind not in CONFIG_MAPPING_NAMES  # plain transformers refuses it


def test_a_run_without_numbers_counts_as_diverged(tiny: list[str], run: Any, tmp_path: Path) -> None:
    wild = [
        "surgery=spannorm",
        "surgery.placement=prenorm",
        "train.lr=1e30",
        "train.clip_norm=0",
        "train.warmup_ratio=0",
    ]
    code, _, _ = run("run", *tiny, *wild, f"run_dir={tmp_path / 'wild'}")
    assert code == 5
    assert metrics_of(tmp_path / "wild") == {"train/diverged": 1.0}


def test_it_stacks_with_a_method_that_knows_nothing_of_it(tiny: list[str], run: Any) -> None:
    """The baseline's method and LoRA on another placement, the experts' balance loss in its loss."""
    stack = [
        "surgery=spannorm",
        "surgery.placement=siamesenorm",
        "surgery.moe.num_experts=2",
        "selection=layers",
        "selection.layers=[]",
        "selection.sites=[q,v]",
        "tuning=lora",
        "objective.label_smoothing=0.1",
        "train.max_steps=2",
    ]
    code, out, err = run("run", *tiny, *stack)
    assert code == 0, err
    points = curve(Path(out.splitlines()[-1]))
    assert all(math.isfinite(point["train/added"]) for point in points if "train/loss" in point)


def test_trained_weights_are_refused_in_one_line(run: Any) -> None:
    code, _, err = run("run", "surgery=spannorm", "model=small/smollm2_135m", "dry_run=true")
    assert code == 2
    assert "surgery.placement: spannorm changes what trained weights mean" in err


def test_layers_of_another_placement_may_share_attention_afterwards(tmp_path: Path) -> None:
    """First the norms, then LISA's direct sharing: cached decoding is the full pass, and both reload."""
    model = directly_shared(placed(dtype=torch.float32), [2])
    ids = ids_of()
    whole = logits(model, ids)
    output = model(ids[:, :3], use_cache=True)
    rest = model(ids[:, 3:], past_key_values=output.past_key_values, use_cache=True).logits
    torch.testing.assert_close(torch.cat([output.logits, rest], dim=1), whole, atol=FLOAT32, rtol=0)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits(again, ids), whole, atol=0, rtol=0)
