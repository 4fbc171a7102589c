"""What a dry run says of norm placements and experts, against what autograd keeps and what torch counts."""

import copy

import pytest
import torch
from tests.methods.spannorm.test_surgery import placed
from tests.models.test_memory import saved_bytes
from torch.utils.flop_counter import FlopCounterMode

from athlos.models.flops import forward_flops, step_flops
from athlos.models.memory import activation_bytes
from athlos.models.sites import backbone

ROWS, LENGTH = 2, 48
WITHIN = 0.1
"""Share by which a formula may miss: torch counts the pairs that the mask hides as well."""
SHAPE = {"hidden_size": 64, "intermediate_size": 176, "tie_word_embeddings": True}


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["surgery.placement=prenorm"],
        ["surgery.placement=postnorm"],
        ["surgery.placement=sandwich"],
        ["surgery.placement=hybridnorm"],
        ["surgery.moe.num_experts=4"],
    ],
    ids=" ".join,
)
def test_memory_and_operations_of_a_step(overrides: list[str]) -> None:
    model = placed(*overrides, dtype=torch.float32, **SHAPE).train()
    ids = torch.randint(0, 40, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    counted = activation_bytes(backbone(copy.deepcopy(model).to("meta")), num_rows=ROWS, length=LENGTH)
    assert counted == saved_bytes(model)
    with FlopCounterMode(display=False) as forward:
        output = model(ids, use_cache=False).logits
    assert forward_flops(model, num_rows=ROWS, length=LENGTH) == pytest.approx(forward.get_total_flops(), rel=WITHIN)
    with FlopCounterMode(display=False) as backward:
        output.sum().backward()
    whole = forward.get_total_flops() + backward.get_total_flops()
    assert step_flops(model, num_rows=ROWS, length=LENGTH) == pytest.approx(whole, rel=WITHIN)
