"""What a dry run says of LISA, against what autograd keeps and what torch counts."""

import copy

import pytest
import torch
from tests.assembled import tuned
from tests.methods.lisa.test_surgery import FAMILIES, PURE, applied
from tests.models.test_memory import saved_bytes
from torch.utils.flop_counter import FlopCounterMode

from athlos.methods.lisa.config import LisaSelectionConfig
from athlos.methods.lisa.selection import LisaSelection
from athlos.models.architecture import build, hf_config
from athlos.models.flops import forward_flops, step_flops
from athlos.models.memory import activation_bytes
from athlos.models.sites import backbone
from athlos.parts import PartContext

ROWS, LENGTH = 2, 48
WITHIN = 0.1
"""Share by which a formula may miss: torch counts the pairs that the mask hides as well."""


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["surgery.align.hidden=0"],
        ["surgery.lowrank.enabled=false"],
        ["surgery.align.enabled=false"],
        ["surgery.layers.explicit=[1,3]"],
        ["surgery.layers.explicit=[4]"],
    ],
)
def test_memory_and_operations_of_a_step(overrides: list[str]) -> None:
    torch.manual_seed(0)
    context = PartContext(config=None, stages=None)  # type: ignore[arg-type]
    changed, _ = applied(build(hf_config(FAMILIES["llama"])), *PURE, *overrides)
    model, _ = tuned(LisaSelection(LisaSelectionConfig(_target_="")), changed.train(), context=context)
    ids = torch.randint(0, 40, (ROWS, LENGTH))
    counted = activation_bytes(backbone(copy.deepcopy(model).to("meta")), num_rows=ROWS, length=LENGTH)
    assert counted == saved_bytes(model)
    with FlopCounterMode(display=False) as forward:
        output = model(ids, use_cache=False).logits
    assert forward_flops(model, num_rows=ROWS, length=LENGTH) == pytest.approx(forward.get_total_flops(), rel=WITHIN)
    with FlopCounterMode(display=False) as backward:
        output.sum().backward()
    whole = forward.get_total_flops() + backward.get_total_flops()
    assert step_flops(model, num_rows=ROWS, length=LENGTH) == pytest.approx(whole, rel=WITHIN)
