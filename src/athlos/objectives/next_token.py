"""Cross-entropy of the next token, as a sum, with logits in chunks.

B batch, T positions, D width, N counted targets, V vocabulary.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from athlos.data.batches import Unit
from athlos.models.forward import causal_model, hidden_states, project
from athlos.objectives.config import NextTokenConfig
from athlos.parts import Loss, PartContext

FROZEN_CHUNK_ENTRIES, SMALLEST_CHUNK = 2**24, 32
"""Logits that exist at one time behind a frozen output matrix: 64 MiB in float32; and positions that they have at
least, below which matrix products are slow."""


def gather_targets(hidden_BTD: Tensor, labels_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden states that predict a counted target, [N, D], and those targets, [N]. Labels of -100 do not count."""
    predicted_BT = labels_BT[:, 1:]
    is_counted_BT = predicted_BT != -100
    return hidden_BTD[:, :-1][is_counted_BT], predicted_BT[is_counted_BT]


def next_token_nll(
    model: PreTrainedModel,
    hidden_ND: Tensor,
    targets_N: Tensor,
    *,
    label_smoothing: float = 0.0,
    prior_V: Tensor | None = None,
    chunk_tokens: int,
) -> Tensor:
    """Sum of the negative log-likelihoods of `targets_N`, in nats; 0 for N = 0.

    With label smoothing e the target is (1 - e) on the token and e / V on every token, or e * `prior_V`, whose entries
    sum to 1. Logits of at most
    `chunk_tokens` positions exist at one time: a chunk is computed again in the backward pass. Where the output matrix
    is frozen, the gradient is taken with the loss, chunk by chunk: nothing is computed twice, no logits are kept.
    """
    if torch.is_grad_enabled() and hidden_ND.requires_grad and has_frozen_head(model):
        small = max(SMALLEST_CHUNK, FROZEN_CHUNK_ENTRIES // model.config.get_text_config().vocab_size)
        small = min(chunk_tokens, small)
        summed: Tensor = _FrozenHeadNll.apply(hidden_ND, targets_N, model, label_smoothing, prior_V, small)
        return summed
    total = hidden_ND.sum() * 0.0  # keeps the graph for an all-masked batch
    for start in range(0, len(targets_N), chunk_tokens):
        span = slice(start, start + chunk_tokens)
        arguments = (model, hidden_ND[span], targets_N[span], label_smoothing, prior_V)
        single = len(targets_N) <= chunk_tokens
        total = total + (_chunk_nll(*arguments) if single else checkpoint(_chunk_nll, *arguments, use_reentrant=False))
    return total


def has_frozen_head(model: PreTrainedModel) -> bool:
    """Whether the output matrix is a plain, unsharded one of which nothing trains."""
    head = causal_model(model).get_output_embeddings()
    parameters = list(head.parameters())
    return all(type(parameter) is nn.Parameter and not parameter.requires_grad for parameter in parameters)


class _FrozenHeadNll(torch.autograd.Function):
    """The sum of `_chunk_nll` over chunks, whose gradient with respect to the hidden states is made at once."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        targets_N: Tensor,
        model: PreTrainedModel,
        smoothing: float,
        prior_V: Tensor | None,
        chunk_tokens: int,
    ) -> Tensor:
        total = hidden_ND.new_zeros((), dtype=torch.float32)
        gradient_ND = torch.zeros_like(hidden_ND)
        for start in range(0, len(targets_N), chunk_tokens):
            span = slice(start, start + chunk_tokens)
            with torch.enable_grad():
                chunk_ND = hidden_ND[span].detach().requires_grad_()
                part = _chunk_nll(model, chunk_ND, targets_N[span], smoothing, prior_V)
                [gradient_ND[span]] = torch.autograd.grad(part, chunk_ND)
            total = total + part.detach()
        ctx.save_for_backward(gradient_ND)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        [gradient_ND] = ctx.saved_tensors
        return gradient_ND * outer[0].to(gradient_ND.dtype), None, None, None, None, None


def _chunk_nll(
    model: PreTrainedModel, hidden_ND: Tensor, targets_N: Tensor, label_smoothing: float, prior_V: Tensor | None
) -> Tensor:
    logits_NV = project(model, hidden_ND)
    if prior_V is not None:
        return prior_smoothed_nll(logits_NV, targets_N, smoothing=label_smoothing, prior_V=prior_V)
    return functional.cross_entropy(logits_NV, targets_N, reduction="sum", label_smoothing=label_smoothing)


def prior_smoothed_nll(logits_NV: Tensor, targets_N: Tensor, *, smoothing: float, prior_V: Tensor) -> Tensor:
    """Sum of cross-entropies with (1 - e) one-hot + e * `prior_V`, in nats; 0 for N = 0.

    With a prior that sums to 1 this is logsumexp - (1 - e) logit_target - e prior . logits: no targets [N, V] exist.
    """
    hit_N = logits_NV.gather(-1, targets_N[:, None])[:, 0]
    prior_N = (logits_NV * prior_V).sum(-1)  # a matrix product would be rounded to 16 bits under autocast
    return (logits_NV.logsumexp(-1) - (1 - smoothing) * hit_N - smoothing * prior_N).sum()


class NextTokenObjective:
    """The loss of ordinary language modelling; the denominator is the number of targets of the optimizer step."""

    unit = Unit.tokens

    def __init__(self, config: NextTokenConfig) -> None:
        self.config = config

    def prepare(self, model: PreTrainedModel, *, context: PartContext) -> None:
        """The targets are the labels: nothing to prepare."""

    def loss(self, model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Loss:
        hidden_ND, targets_N = gather_targets(hidden_states(model, batch), batch["labels"])
        total = next_token_nll(
            model,
            hidden_ND,
            targets_N,
            label_smoothing=self.config.label_smoothing,
            chunk_tokens=self.config.chunk_tokens,
        )
        return Loss(total=total, count=len(targets_N))
