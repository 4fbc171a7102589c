"""LISA on SmolLM2 itself."""

import pytest
import torch
from tests.methods.lisa.test_surgery import EXPLICIT, applied
from tests.tolerances import LOGITS_FLOAT32
from tests.weights import smollm2


@pytest.mark.slow
@pytest.mark.weights
@torch.no_grad()
def test_full_rank_without_alignment_is_smollm2() -> None:
    loaded = smollm2()
    ids = loaded.tokenizer("The tower was built in 1889, and it is", return_tensors="pt").input_ids
    expected = loaded.model(ids).logits
    options = ["surgery.align.enabled=false", "surgery.lowrank.rank=64", "surgery.lowrank.init=energy_pairs"]
    layers = f"surgery.layers.explicit={list(range(14, 30))}".replace(" ", "")
    changed, report = applied(loaded.model, EXPLICIT[0], layers, *options)
    assert report.metrics["lisa/shared_layers"] == 16
    torch.testing.assert_close(changed(ids).logits, expected, atol=LOGITS_FLOAT32, rtol=0)
