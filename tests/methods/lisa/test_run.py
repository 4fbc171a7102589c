"""A whole run with LISA's surgery: it trains what was added, exports, and transformers loads the folder again."""

from pathlib import Path
from typing import Any

import torch
from tests.assembled import ready_to_train
from tests.tolerances import FLOAT32
from transformers import AutoModelForCausalLM

from athlos.config.compose import run_config
from athlos.methods.lisa.surgery import shared_attentions
from athlos.models.forward import causal_model


def test_a_run_trains_what_was_added_and_exports_it(tiny: list[str], run: Any, tmp_path: Path, caplog: Any) -> None:
    lisa = ["surgery=lisa", "surgery.layers.count=1", "selection=lisa", "surgery.calibration.tokens=64"]
    code, out, err = run("run", *tiny, *lisa)
    assert code == 0, err
    code, out, err = run("export", out.splitlines()[-1], "--out", str(tmp_path / "model"))
    assert code == 0, err
    assert "write `import athlos.hf` before" in caplog.text
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    [attention] = shared_attentions(model)
    assert attention.low_rank.query.weight.abs().sum() > 0  # it began at zero
    torch.manual_seed(0)
    ids = torch.randint(0, 50, (1, 8))
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "model", attn_implementation="eager").eval()
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, model(ids).logits, atol=FLOAT32, rtol=0)
    assert model.generate(ids, max_new_tokens=4, do_sample=False).shape[1] > 8


def test_what_a_surgery_draws_hangs_on_the_seed_alone(cache: Path) -> None:
    """Whatever the process drew before: the other runs of a sweep, for one."""
    overrides = [
        "surgery=lisa",
        "surgery.align.hidden=4",
        "surgery.align.init=identity",
        "train.max_steps=1",
        "surgery.layers.count=1",
        "surgery.calibration.tokens=64",
    ]

    def drawn(seed: int) -> torch.Tensor:
        torch.rand(3)
        assembly = ready_to_train(run_config([*overrides, f"seed={seed}"]))
        [attention, *_] = shared_attentions(causal_model(assembly.module.model))
        return attention.aligner.inner.weight.detach()

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_the_second_stage_goes_on_with_the_rows_that_come_next(cache: Path) -> None:
    overrides = [
        "experiment=lisa/lab",
        "model=lab/lisa",
        "model.source=dir:none",
        "train.max_steps=6",
        "method.local_steps=4",
    ]
    run = run_config(overrides)
    local, end2end = run.method.phases(run)
    assert (local.run.train.rows_start, local.run.num_steps) == (0, 4)
    assert (end2end.run.train.rows_start, end2end.run.num_steps) == (4, 2)
