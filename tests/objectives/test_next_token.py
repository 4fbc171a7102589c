"""The next-token objective against its naive twin and against transformers' own loss."""

import weakref

import pytest
import torch
from tests.objectives import reference

from athlos.objectives.config import NextTokenConfig
from athlos.objectives.next_token import NextTokenObjective, next_token_nll
from athlos.parts import Loss


def run(model, batch, **values) -> Loss:
    return NextTokenObjective(NextTokenConfig(_target_="", **values)).loss(model, batch)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk_tokens", [1, 3, 1000])
def test_equals_the_naive_twin(model, batch, label_smoothing: float, chunk_tokens: int):
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()
    expected, count = reference.next_token_nll(
        logits.tolist(), batch["labels"].tolist(), label_smoothing=label_smoothing
    )
    loss = run(model, batch, label_smoothing=label_smoothing, chunk_tokens=chunk_tokens)
    assert loss.count == count
    assert loss.total.item() == pytest.approx(expected, rel=1e-6)


def test_equals_the_loss_of_transformers_and_its_gradient(model, batch):
    run(model, batch, chunk_tokens=2).total.backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    theirs = model(batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]).loss
    count = int((batch["labels"][:, 1:] != -100).sum())
    (theirs * count).backward()
    assert run(model, batch).total.item() == pytest.approx(theirs.item() * count, rel=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-5, atol=1e-7)


def test_a_batch_without_targets_gives_zero_and_zero_gradients(model, batch):
    loss = run(model, batch | {"labels": torch.full_like(batch["labels"], -100)})
    assert (loss.total.item(), loss.count) == (0.0, 0)
    loss.total.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_padding_does_not_change_the_loss(model, batch):
    padded = {
        "input_ids": torch.nn.functional.pad(batch["input_ids"], (0, 5)),
        "labels": torch.nn.functional.pad(batch["labels"], (0, 5), value=-100),
        "attention_mask": torch.nn.functional.pad(batch["attention_mask"], (0, 5)),
        "position_ids": torch.arange(14).expand(4, 14),
    }
    assert run(model, padded).total.item() == pytest.approx(run(model, batch).total.item(), rel=1e-9)


def test_a_frozen_head_knows_the_prior(model, batch, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("athlos.objectives.next_token.SMALLEST_CHUNK", 1)
    monkeypatch.setattr("athlos.objectives.next_token.FROZEN_CHUNK_ENTRIES", 3 * 41)
    prior = torch.rand(41, generator=torch.Generator().manual_seed(2)).softmax(-1)
    hidden, targets = torch.randn(8, 16, dtype=torch.float64), torch.arange(8)
    found = []
    for frozen in (False, True):
        model.get_output_embeddings().requires_grad_(not frozen)
        given = hidden.clone().requires_grad_()
        total = next_token_nll(model, given, targets, label_smoothing=0.3, prior_V=prior, chunk_tokens=5)
        (2 * total).backward()
        found.append((total.item(), given.grad))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-6)
    torch.testing.assert_close(found[1][1], found[0][1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("cap", [None, 5.0])
def test_a_frozen_head_gives_the_same_loss_and_gradients_in_chunks(
    model, batch, label_smoothing: float, cap: float | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("athlos.objectives.next_token.SMALLEST_CHUNK", 1)
    monkeypatch.setattr("athlos.objectives.next_token.FROZEN_CHUNK_ENTRIES", 3 * 41)
    model.config.final_logit_softcapping = cap
    found = []
    for frozen in (False, True):
        model.zero_grad()
        model.get_output_embeddings().requires_grad_(not frozen)
        loss = run(model, batch, label_smoothing=label_smoothing, chunk_tokens=1000)
        (2.5 * loss.total).backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if "lm_head" not in name}
        found.append((loss.total.item(), gradients))
    (plain, plain_gradients), (fused, fused_gradients) = found
    assert fused == pytest.approx(plain, rel=1e-6)
    for name, gradient in plain_gradients.items():
        torch.testing.assert_close(fused_gradients[name], gradient, atol=1e-6, rtol=1e-5)
    assert model.get_output_embeddings().weight.grad is None


def test_a_frozen_head_keeps_no_logits_for_the_backward_pass(model, batch):
    num_targets = int((batch["labels"][:, 1:] != -100).sum())
    for frozen in (False, True):
        model.get_output_embeddings().requires_grad_(not frozen)
        kept = []

        def note(tensor: torch.Tensor, kept=kept) -> torch.Tensor:
            kept.append(weakref.ref(tensor))
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = run(model, batch, chunk_tokens=1000)
        alive = [tensor for one in kept if (tensor := one()) is not None]
        assert any(tensor.shape == (num_targets, 41) for tensor in alive) is not frozen
        loss.total.backward()


def test_a_frozen_head_and_no_targets_give_zero_with_a_graph(model, batch):
    model.get_output_embeddings().requires_grad_(False)
    loss = run(model, {**batch, "labels": torch.full_like(batch["labels"], -100)}, chunk_tokens=8)
    loss.total.backward()
    assert loss.total.item() == 0
