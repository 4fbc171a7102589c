"""The sparse loss against the dense one and the naive twin, with and without leak, and what its parts must not do."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.methods.ndp import reference_targets as reference
from torch.nn import functional
from transformers import AutoModelForCausalLM, LlamaConfig

from athlos.methods.ndp.loss import SparseTargets, ndp_nll, sparse_cross_entropy
from athlos.models.forward import project

V = 17
DENSE = 1e-10
"""Sparse against dense in float64: the specification's bar."""


def sparse_of(dense_NV: torch.Tensor, leak_N: torch.Tensor, weights_N: torch.Tensor) -> SparseTargets:
    """Lists every token whose probability is not the leak."""
    is_listed_NV = dense_NV != leak_N[:, None]
    sizes = is_listed_NV.sum(1)
    return SparseTargets(
        offsets_N=functional.pad(sizes.cumsum(0), (1, 0)),
        token_ids_K=is_listed_NV.nonzero()[:, 1],
        probs_K=dense_NV[is_listed_NV],
        leak_N=leak_N,
        weights_N=weights_N,
        has_leak=bool(leak_N.any()),
    )


def example(*, num: int = 7, leak: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, SparseTargets]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(num, V, generator=generator, dtype=torch.float64)
    dense = torch.zeros(num, V, dtype=torch.float64)
    leak_N = torch.rand(num, generator=generator, dtype=torch.float64) * leak / V
    for row in range(num):
        listed = torch.randperm(V, generator=generator)[: 1 + row % 4]
        share = torch.rand(len(listed), generator=generator, dtype=torch.float64) + 0.1
        dense[row] = leak_N[row]
        dense[row, listed] = share / share.sum() * (1 - (V - len(listed)) * leak_N[row])
    weights = torch.rand(num, generator=generator, dtype=torch.float64) * 2
    return logits, dense, sparse_of(dense, leak_N, weights)


@pytest.mark.parametrize("leak", [0.0, 0.3])
def test_equals_the_dense_loss_the_twin_and_the_dense_gradient(leak: float) -> None:
    logits, dense, targets = example(leak=leak)
    mine, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = sparse_cross_entropy(mine, targets)
    plain = (targets.weights_N * functional.cross_entropy(theirs, dense, reduction="none")).sum()
    assert abs(loss.item() - plain.item()) < DENSE
    expected = reference.soft_cross_entropy(logits.tolist(), dense.tolist(), targets.weights_N.tolist())
    assert abs(loss.item() - expected) < DENSE
    (3 * loss).backward()
    (3 * plain).backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=DENSE)


def test_the_gradient_is_the_numerical_one() -> None:
    logits, _, targets = example(num=3, leak=0.2)
    assert torch.autograd.gradcheck(lambda given: sparse_cross_entropy(given, targets), logits.requires_grad_())


def test_one_hot_targets_give_plain_cross_entropy_and_leak_gives_label_smoothing() -> None:
    logits, _, _ = example(leak=0.0)
    labels = torch.arange(7)
    smoothing = 0.1
    ones, leak = torch.ones(7, dtype=torch.float64), torch.full((7,), smoothing / V, dtype=torch.float64)
    hard = SparseTargets(
        offsets_N=torch.arange(8), token_ids_K=labels, probs_K=ones, leak_N=0 * leak, weights_N=ones, has_leak=False
    )
    soft = SparseTargets(
        offsets_N=torch.arange(8),
        token_ids_K=labels,
        probs_K=ones - smoothing + leak,
        leak_N=leak,
        weights_N=ones,
        has_leak=True,
    )
    plain = functional.cross_entropy(logits, labels, reduction="sum")
    smooth = functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
    assert abs(sparse_cross_entropy(logits, hard).item() - plain.item()) < DENSE
    assert abs(sparse_cross_entropy(logits, soft).item() - smooth.item()) < DENSE


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=V,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("leak", [0.0, 0.3])
def test_chunks_do_not_change_loss_or_gradient(model: Any, leak: float) -> None:
    _, dense, targets = example(leak=leak)
    hidden = torch.randn(7, 8)
    results = []
    for chunk in (1, 3, 7, 100):
        given = hidden.clone().requires_grad_()
        model.zero_grad()
        total = ndp_nll(model, given, targets, chunk_tokens=chunk)
        total.backward()
        head = model.get_output_embeddings().weight
        results.append((total.detach(), given.grad, head.grad.clone()))
    plain = (
        targets.weights_N * functional.cross_entropy(project(model, hidden).double(), dense, reduction="none")
    ).sum()
    for total, grad, head_grad in results:
        torch.testing.assert_close(total.double(), plain, rtol=1e-5, atol=0)
        torch.testing.assert_close(grad, results[0][1], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(head_grad, results[0][2], rtol=1e-4, atol=1e-6)


def test_no_positions(model: Any) -> None:
    _, _, targets = example(leak=0.2)
    hidden = torch.zeros(0, 8, requires_grad=True)
    total = ndp_nll(model, hidden, targets.span(0, 0), chunk_tokens=4)
    total.backward()
    assert total.item() == 0.0


def test_the_loss_is_linear_in_the_target() -> None:
    logits, first, _ = example(leak=0.2)
    _, second, _ = example(leak=0.2, seed=1)
    share = 0.8
    ones, none = torch.ones(7, dtype=torch.float64), torch.full((7,), -1.0, dtype=torch.float64)
    whole = [
        sparse_cross_entropy(logits, _all_listed(sparse_of(dense, none, ones)))
        for dense in (first, second, share * first + (1 - share) * second)
    ]
    assert abs((share * whole[0] + (1 - share) * whole[1] - whole[2]).item()) < DENSE


def _all_listed(targets: SparseTargets) -> SparseTargets:
    """Every token is listed, so the leak of the others does not matter: 0."""
    targets.leak_N, targets.has_leak = torch.zeros_like(targets.leak_N), False
    return targets


def test_a_dropped_leak_and_a_wrong_denominator_are_seen() -> None:
    """Sabotage: without the leak term, or as a mean over the vocabulary, the loss is another."""
    logits, dense, targets = example(leak=0.3)
    plain = (targets.weights_N * functional.cross_entropy(logits, dense, reduction="none")).sum()
    targets.has_leak = False
    assert abs(sparse_cross_entropy(logits, targets) - plain) > 1e-2
    assert abs(plain / V - plain) > 1e-2
    assert np.isfinite(plain.item())
