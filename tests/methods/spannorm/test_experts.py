"""Mixtures of experts against loops over tokens, and the way of their balance loss into the training loss."""

from typing import Any

import pytest
import torch
from tests.methods.spannorm.reference import balance, mixture
from tests.methods.spannorm.test_surgery import ids_of, logits, placed
from tests.tolerances import EXACT, FLOAT32

from athlos.config.compose import run_config
from athlos.errors import SurgeryError
from athlos.methods.spannorm.experts import Experts, balance_loss, expert_layers, loads, routed
from athlos.models.added_loss import added_loss
from athlos.models.sites import backbone, chosen_sites
from athlos.parts import Loss
from athlos.training.module import MethodModule

MOE = ["surgery.moe.num_experts=4", "surgery.moe.balance_loss=0.5"]


def experts_of(model: Any) -> list[Experts]:
    return [experts for _, experts in expert_layers(backbone(model).layers)]


@torch.no_grad()
@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_a_mixture_equals_the_loop_over_its_tokens(top_k: int) -> None:
    model = placed(*MOE, f"surgery.moe.top_k={top_k}")
    states = torch.randn(2, 5, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    for experts in experts_of(model):
        expected = mixture(
            states.view(10, 24), router=experts.router.weight, experts=list(experts.experts), top_k=top_k
        )
        # The router's softmax is float32.
        torch.testing.assert_close(experts(states).view(10, 24), expected, atol=FLOAT32, rtol=0)
        assert experts.load_E.sum().item() == pytest.approx(1)


def test_experts_differ_and_scale_with_depth() -> None:
    experts = experts_of(placed(*MOE, hidden_size=64, intermediate_size=128))[0].experts
    downs = [list(expert.children())[2].weight for expert in experts]
    assert not torch.equal(downs[0], downs[1])
    assert float(downs[3].detach().std()) * 128**0.5 == pytest.approx(0.5, rel=0.05)  # sqrt(1 / 4 layers)


def test_the_balance_loss_by_hand() -> None:
    """Even routing gives its least value, 1; all tokens on one expert with all the probability gives E."""
    even = torch.full((8, 4), 0.25, dtype=torch.float64)
    assert balance_loss(even, torch.full((4,), 0.25)).item() == pytest.approx(1)
    probs = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
    chosen, weights = routed(probs, top_k=2)
    load = loads(chosen, num_experts=4)
    assert chosen.tolist()[1:] == [[0, 1], [3, 2]]
    assert weights[2].tolist() == pytest.approx([4 / 7, 3 / 7])
    assert balance_loss(probs, load).item() == pytest.approx(balance(probs.tolist(), chosen.tolist()), abs=1e-6)
    certain = torch.tensor([[1.0, 0, 0, 0]] * 3, dtype=torch.float64)
    assert balance_loss(certain, loads(routed(certain, top_k=1)[0], num_experts=4)).item() == pytest.approx(4)
    nothing = loads(chosen[:0], num_experts=4)
    assert (nothing.tolist(), balance_loss(probs[:0], nothing).item()) == ([0] * 4, 0)


@pytest.mark.parametrize("is_checkpointed", [False, True])
@pytest.mark.parametrize("is_left", [False, True])
def test_padding_is_no_load(is_left: bool, is_checkpointed: bool) -> None:
    """Loads, balance loss and its gradient of a padded row are those of the row alone, whatever the padding holds."""
    ids = ids_of(1, 5)
    around = (6, 0) if is_left else (0, 6)
    seen = []
    for padding in (None, 1, 40):
        model = placed(*MOE).train()
        if is_checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        batch, mask = ids, torch.ones_like(ids)
        if padding is not None:
            batch, mask = (
                torch.nn.functional.pad(rows, around, value=value) for rows, value in ((ids, padding), (mask, 0))
            )
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        model.base_model(input_ids=batch, attention_mask=mask, position_ids=positions, use_cache=False)
        loads_of = torch.stack([experts.load_E for experts in experts_of(model)])
        added = added_loss(model)
        gradient = torch.autograd.grad(added, experts_of(model)[0].router.weight)[0]
        seen.append((loads_of, added.detach(), gradient))
    for padded in seen[1:]:
        for alone, value in zip(seen[0], padded, strict=True):
            torch.testing.assert_close(value, alone, atol=FLOAT32, rtol=0)
    assert seen[0][2].abs().sum() > 0


def test_the_mask_of_a_cache_is_longer_than_the_pass() -> None:
    model, ids = placed(*MOE), ids_of(2, 7)
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    output = model(ids[:, :4], attention_mask=mask[:, :4], use_cache=True)
    model(ids[:, 4:], attention_mask=mask, past_key_values=output.past_key_values, use_cache=True)
    assert [experts.load_E.sum().item() for experts in experts_of(model)] == pytest.approx([1] * 4)


def module_around(model: Any, *overrides: str) -> MethodModule:
    nothing: Any = None
    config = run_config(["surgery=spannorm", *overrides])
    module = MethodModule(config, model=model, tokenizer=nothing, objective=nothing, decoding=nothing, engine=nothing)
    module._trainer = type("OneProcess", (), {"world_size": 1, "global_step": 0})()
    return module


def test_the_balance_loss_joins_the_loss_of_any_objective() -> None:
    """The router's gradient is that of cross-entropy plus 0.5 * the mean balance, for a plain next-token objective."""
    model = placed(*MOE).train()
    module = module_around(model)
    ids = ids_of()
    batch = {
        "input_ids": ids,
        "labels": ids,
        "attention_mask": torch.ones_like(ids),
        "position_ids": torch.arange(7).expand_as(ids),
        "step_targets": torch.tensor(12),
    }
    loss = module._next_token.loss(model, batch)
    assert loss.count == 12
    found = experts_of(model)
    expected = loss.total / 12 + torch.stack([one.added_loss for one in found]).mean()
    wanted = torch.autograd.grad(expected, found[0].router.weight, retain_graph=True)[0]
    plain = torch.autograd.grad(loss.total / 12, found[0].router.weight, retain_graph=True)[0]
    stepped = module.step_loss(loss, batch)
    assert stepped.item() == pytest.approx(expected.item())
    assert module.step_log["added"] == pytest.approx((expected - loss.total / 12).item(), abs=1e-6)
    stepped.backward()
    torch.testing.assert_close(found[0].router.weight.grad, wanted, atol=EXACT, rtol=0)
    assert (wanted - plain).abs().max() > 1e-6
    assert added_loss(model) is None  # taken once


def test_no_balance_loss_is_left_by_looks_without_gradients() -> None:
    model = placed(*MOE)
    model(ids_of(), labels=ids_of())
    assert added_loss(model) is None  # evaluation mode
    with torch.no_grad():
        model.train()(ids_of())
    assert added_loss(model) is None
    dense = placed()
    nothing = Loss(total=torch.zeros((), requires_grad=True), count=1)
    batch = {"step_targets": torch.tensor(1)}
    assert "added" not in module_around(dense).step_log
    module_around(dense).step_loss(nothing, batch)


def test_checkpointing_keeps_the_balance_loss() -> None:
    gradients = []
    for is_checkpointed in (False, True):
        model = placed(*MOE).train()
        if is_checkpointed:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        loss = model(ids_of(), labels=ids_of()).loss
        added = added_loss(model)
        assert added is not None
        (loss + added).backward()
        gradients.append([one.router.weight.grad for one in experts_of(model)])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain, atol=EXACT, rtol=0)


def test_sites_are_found_without_the_matrices_of_the_ffn(tmp_path: Any) -> None:
    model = placed(*MOE, dtype=torch.float32)
    layer = backbone(model).layers[0]
    assert set(layer.sites) == {"q", "k", "v", "o"}
    with pytest.raises(SurgeryError, match="a surgery took it away"):
        chosen_sites([layer], ["gate"])
    from transformers import AutoModelForCausalLM

    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits(again, ids_of()), logits(model, ids_of()), atol=0, rtol=0)
