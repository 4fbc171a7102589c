"""Cross-entropy with sparse targets, exact where unseen tokens have mass too.

With listed tokens K of probability p_k and the leak e of every other token of the vocabulary V,

    L = - sum_K (p_k - e) log q_k - e sum_V log q_v
      = logsumexp - sum_K (p_k - e) logit_k - e sum_V logit_v            since sum_K (p_k - e) + V e = 1

so no tensor of targets over V exists, and the gradient q - e - [K](p_k - e) is made in one buffer.

N positions, K listed entries of all positions together, V vocabulary, D width.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from athlos.models.forward import project


@dataclass(kw_only=True)
class SparseTargets:
    """Targets of N positions. Entry j belongs to position `rows_K[j]`; entries of a position stand together."""

    offsets_N: Tensor
    """int64 [N + 1]: entries of position i are `offsets_N[i]:offsets_N[i + 1]`."""
    token_ids_K: Tensor
    """int64 [K], without repeats within a position."""
    probs_K: Tensor
    """float [K]; with the leak of the unlisted tokens they sum to 1 at each position."""
    leak_N: Tensor
    """float [N]: probability of each unlisted token."""
    weights_N: Tensor
    """float [N]: factor on the loss of a position."""
    has_leak: bool
    """Whether any leak is above 0; read once, since asking a tensor waits for the device."""

    def __len__(self) -> int:
        return len(self.leak_N)

    def span(self, start: int, stop: int) -> "SparseTargets":
        """Targets of the positions start .. stop - 1."""
        stop = min(stop, len(self))
        first, last = int(self.offsets_N[start]), int(self.offsets_N[stop])
        return SparseTargets(
            offsets_N=self.offsets_N[start : stop + 1] - first,
            token_ids_K=self.token_ids_K[first:last],
            probs_K=self.probs_K[first:last],
            leak_N=self.leak_N[start:stop],
            weights_N=self.weights_N[start:stop],
            has_leak=self.has_leak,
        )


class _SparseCrossEntropy(torch.autograd.Function):
    """sum_N w (logsumexp - sum_K (p - e) logit - e sum_V logit), and its gradient for the logits."""

    @staticmethod
    def forward(
        ctx: Any,
        logits_NV: Tensor,
        rows_K: Tensor,
        token_ids_K: Tensor,
        excess_K: Tensor,
        leak_N: Tensor | None,
        weights_N: Tensor,
    ) -> Tensor:
        lse_N = torch.logsumexp(logits_NV, dim=-1)
        total = weights_N @ lse_N - excess_K @ logits_NV[rows_K, token_ids_K]
        if leak_N is not None:
            total = total - leak_N @ logits_NV.sum(-1)
        ctx.save_for_backward(logits_NV, lse_N, rows_K, token_ids_K, excess_K, leak_N, weights_N)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits_NV, lse_N, rows_K, token_ids_K, excess_K, leak_N, weights_N = ctx.saved_tensors
        grad_NV = torch.sub(logits_NV, lse_N[:, None]).exp_().mul_(weights_N[:, None] * grad)
        if leak_N is not None:
            grad_NV.sub_(leak_N[:, None] * grad)
        grad_NV.index_put_((rows_K, token_ids_K), -excess_K * grad, accumulate=True)
        return grad_NV, None, None, None, None, None


def sparse_cross_entropy(logits_NV: Tensor, targets: SparseTargets) -> Tensor:
    """Sum over positions of weight * cross-entropy with the target, in nats; 0 for N = 0."""
    rows_K = torch.repeat_interleave(
        torch.arange(len(targets), device=logits_NV.device), targets.offsets_N.diff(), output_size=len(targets.probs_K)
    )
    weights_N, leak_N = targets.weights_N.to(logits_NV.dtype), targets.leak_N.to(logits_NV.dtype)
    excess_K = (targets.probs_K.to(logits_NV.dtype) - leak_N[rows_K]) * weights_N[rows_K]
    leak = leak_N * weights_N if targets.has_leak else None
    total: Tensor = _SparseCrossEntropy.apply(logits_NV, rows_K, targets.token_ids_K, excess_K, leak, weights_N)
    return total


def ndp_nll(model: PreTrainedModel, hidden_ND: Tensor, targets: SparseTargets, *, chunk_tokens: int) -> Tensor:
    """`sparse_cross_entropy` of hidden states. Logits of at most `chunk_tokens` positions exist at one time."""
    total = hidden_ND.sum() * 0.0  # keeps the graph for an all-masked batch
    single = len(targets) <= chunk_tokens
    for start in range(0, len(targets), chunk_tokens):
        span = targets if single else targets.span(start, start + chunk_tokens)
        arguments = (model, hidden_ND[start : start + chunk_tokens], span)
        total = total + (_chunk(*arguments) if single else checkpoint(_chunk, *arguments, use_reentrant=False))
    return total


def _chunk(model: PreTrainedModel, hidden_ND: Tensor, targets: SparseTargets) -> Tensor:
    return sparse_cross_entropy(project(model, hidden_ND), targets)
