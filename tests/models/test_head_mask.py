"""Silent attention heads against zeroed columns and zeroed queries, on every kernel."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.generation.tiny_models import CONFIGS, tiny

from athlos.errors import ConfigError, ModelError
from athlos.models.head_mask import HeadMask, sharing_heads
from athlos.models.sites import backbone

HEADS = [(0, 1), (0, 2), (1, 3)]
IDS = torch.arange(5, 25).reshape(2, 10)
CLOSE = 1e-5


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def zeroed(model, matrix):
    """A copy with the columns of the output matrix, or the rows of the query matrix, set to zero."""
    model, size = copy.deepcopy(model), backbone(model).head_size
    for layer, head in HEADS:
        linear = backbone(model).layers[layer].sites[matrix].module
        span = slice(head * size, (head + 1) * size)
        with torch.no_grad():
            if matrix == "o":
                linear.weight[:, span] = 0
            else:
                linear.weight[span] = 0
                if linear.bias is not None:
                    linear.bias[span] = 0
    return model


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma3"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("is_uniform", "matrix"), [(False, "o"), (True, "q")])
def test_a_silent_head_equals_a_zeroed_one(name, attention, is_uniform, matrix):
    model = tiny(name, attention=attention)
    before, wanted = logits(model), logits(zeroed(model, matrix))
    with HeadMask(backbone(model), HEADS, is_uniform=is_uniform).applied():
        found = logits(model)
    assert torch.allclose(found, wanted, atol=CLOSE)
    assert not torch.allclose(found, before, atol=1e-2)
    assert torch.equal(logits(model), before), "nothing stays changed"


def test_uniform_heads_average_what_is_visible():
    """Written out: the output of a head whose scores are all equal is the mean of the values so far."""
    model = tiny(attention="eager")
    found = backbone(model)
    layer = found.layers[0]
    values, outputs = [], []
    hooks = [
        layer.sites["v"].module.register_forward_hook(lambda _m, _i, output: values.append(output)),
        layer.sites["o"].module.register_forward_pre_hook(lambda _m, inputs: outputs.append(inputs[0])),
    ]
    with HeadMask(found, [(0, 3)], is_uniform=True).applied():
        logits(model)
    for hook in hooks:
        hook.remove()
    size = found.head_size
    value_BTD = values[0][:, :, size : 2 * size]  # of the second key-value head, which query heads 2 and 3 share
    mean_BTD = value_BTD.cumsum(1) / torch.arange(1, IDS.shape[1] + 1)[:, None]
    assert torch.allclose(outputs[0][:, :, 3 * size : 4 * size], mean_BTD, atol=CLOSE)


@pytest.mark.parametrize("is_uniform", [False, True])
def test_later_tokens_change_nothing_before_them(is_uniform):
    model = tiny()
    changed = IDS.clone()
    changed[:, 6:] += 7
    with HeadMask(backbone(model), HEADS, is_uniform=is_uniform).applied(), torch.no_grad():
        assert torch.allclose(model(IDS).logits[:, :6], model(changed).logits[:, :6], atol=CLOSE)


def test_all_heads_of_a_layer_leave_the_bias_alone():
    model = tiny("qwen2")
    found = backbone(model)
    outputs = []
    hook = found.layers[1].attention.register_forward_hook(lambda _m, _i, output: outputs.append(output[0]))
    with HeadMask(found, [(1, head) for head in range(found.num_heads)]).applied():
        logits(model)
    hook.remove()
    assert torch.equal(outputs[0], torch.zeros_like(outputs[0]))  # Qwen2 has no bias there


def test_every_second_row_is_masked_and_the_others_are_not():
    model = tiny()
    before, wanted = logits(model), logits(zeroed(model, "o"))
    mask = HeadMask(backbone(model), HEADS, every_second=True)
    with mask.applied():
        found = logits(model)
        mask.is_active = False
        assert torch.equal(logits(model), before)
    assert torch.allclose(found[0], before[0], atol=CLOSE)
    assert torch.allclose(found[1], wanted[1], atol=CLOSE)


def test_a_head_that_does_not_exist_is_refused():
    model = tiny()
    for head in ((2, 0), (0, 4), (-1, 0)):
        with pytest.raises(ConfigError, match=f"heads: got {head[0]}-{head[1]}, expected layers below 2 and "):
            HeadMask(backbone(model), [head])


def test_a_fused_query_matrix_is_refused_and_its_output_matrix_is_not():
    model = tiny("phi3")
    with pytest.raises(ModelError, match="layer 0: its heads cannot be silenced"):
        HeadMask(backbone(model), HEADS, is_uniform=True)
    with HeadMask(backbone(model), HEADS).applied():
        found = logits(model)
    assert torch.allclose(found, logits(zeroed(model, "o")), atol=CLOSE)
    assert set(CONFIGS) >= {"phi3"}


def test_layers_share_with_the_nearest_one_below_that_has_queries():
    layers = [SimpleNamespace(index=index, sites={"q": None} if index in (0, 2) else {}) for index in range(5)]
    found: Any = SimpleNamespace(layers=layers)
    assert sharing_heads(found, [(3, 1)], follow=True) == [(2, 1), (3, 1), (4, 1)]
    assert sharing_heads(found, [(0, 7), (1, 7)], follow=True) == [(0, 7), (1, 7)]
    with pytest.raises(ConfigError, match=r"head 4-0 is shared by the attention of layers 2, 3, 4"):
        sharing_heads(found, [(4, 0)], follow=False)
