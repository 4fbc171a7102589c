"""A mixture of experts in the place of an FFN, with a balance loss that joins the training loss.

N tokens, D width, E experts, K experts a token, B rows, T positions. No token is dropped: each expert computes exactly
the tokens sent to it. Padding is computed like any token, but counts neither as load nor in the balance loss.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from athlos.models.flops import linears


class Experts(nn.Module):
    """Copies of an FFN behind a router: softmax over experts, the K greatest, their weights scaled to sum to 1."""

    absent_sites = ("gate", "up", "down")

    def __init__(self, ffn: nn.Module, *, width: int, num_experts: int, top_k: int, balance: float) -> None:
        super().__init__()
        self.top_k, self.balance = top_k, balance
        weight = next(linears(ffn)).weight
        self.router = nn.Linear(width, num_experts, bias=False, device=weight.device, dtype=weight.dtype)
        self.experts = nn.ModuleList(copy.deepcopy(ffn) for _ in range(num_experts))
        self.added_loss: Tensor | None = None
        """Weighted balance loss of the last forward pass with gradients, taken by `models.added_loss`."""
        self.load_E: Tensor | None = None
        """Share of the assignments of the last forward pass that went to each expert; padding has none."""

    def forward(self, hidden_states: Tensor, is_token_BT: Tensor | None = None) -> Tensor:
        """What the experts give [B, T, D]. `is_token_BT` is False at padding; None where there is none."""
        tokens_ND = hidden_states.reshape(-1, hidden_states.shape[-1])
        probs_NE = self.router(tokens_ND).float().softmax(-1)
        chosen_NK, weights_NK = routed(probs_NE, top_k=self.top_k)
        is_token_N = None if is_token_BT is None else is_token_BT.flatten()
        counted_NE, counted_NK = (rows if is_token_N is None else rows[is_token_N] for rows in (probs_NE, chosen_NK))
        self.load_E = loads(counted_NK, num_experts=len(self.experts))
        is_recorded = self.training and torch.is_grad_enabled()
        self.added_loss = self.balance * balance_loss(counted_NE, self.load_E) if is_recorded else None
        mixed_ND = torch.zeros_like(tokens_ND)
        for index, expert in enumerate(self.experts):
            rows, places = sent_to(index, chosen_NK, num_experts=len(self.experts))
            weights = weights_NK[rows, places, None].to(tokens_ND.dtype)
            mixed_ND = mixed_ND.index_add(0, rows, (weights * expert(tokens_ND[rows])).to(tokens_ND.dtype))
        return mixed_ND.view_as(hidden_states)

    @property
    def idle_entries(self) -> int:
        """Matrix entries that a token passes by."""
        of_one = sum(linear.weight.numel() for linear in linears(self.experts[0]))
        return of_one * (len(self.experts) - self.top_k)


def routed(probs_NE: Tensor, *, top_k: int) -> tuple[Tensor, Tensor]:
    """Chosen experts [N, K] and their weights [N, K]; rows of the weights sum to 1."""
    weights_NK, chosen_NK = probs_NE.topk(top_k, dim=-1)
    return chosen_NK, weights_NK / weights_NK.sum(-1, keepdim=True)


def sent_to(index: int, chosen_NK: Tensor, *, num_experts: int) -> tuple[Tensor, ...]:
    """Tokens of an expert and their places among the K, each [n]; of tensors without values those of an even load."""
    if isinstance(chosen_NK, FakeTensor):
        return chosen_NK.new_zeros(2, chosen_NK.numel() // num_experts).unbind()
    return (chosen_NK == index).nonzero(as_tuple=True)


def loads(chosen_NK: Tensor, *, num_experts: int) -> Tensor:
    """Each expert's share of the assignments, [E]; zeros for no token."""
    counts_E = (chosen_NK.reshape(-1, 1) == torch.arange(num_experts, device=chosen_NK.device)).sum(0)
    return counts_E / max(1, chosen_NK.numel())


def balance_loss(probs_NE: Tensor, load_E: Tensor) -> Tensor:
    """E * sum over experts of load times mean probability over tokens; 1 where both are even, 0 for no token.

    `load_E` sums to 1 and has no gradient; it flows through the probabilities.
    """
    mean_E = probs_NE.sum(0) / max(1, len(probs_NE))
    return probs_NE.shape[1] * (load_E.to(probs_NE.dtype) * mean_E).sum()


def tell_padding(decoder: nn.Module) -> None:
    """Give each layer of a decoder the attention mask of its forward pass as the argument `is_token_BT`.

    A mask that is no [B, T] is not passed on: it says what a query sees, not which positions are padding.
    """

    def before(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        mask = keywords.get("attention_mask")
        if isinstance(mask, Tensor) and mask.ndim == 2:
            keywords = {**keywords, "is_token_BT": mask.bool()}
        return arguments, keywords

    decoder.register_forward_pre_hook(before, with_kwargs=True)


def expert_layers(layers: Iterable[Any]) -> list[tuple[int, Experts]]:
    """(layer index, experts) of the layers whose FFN is a mixture."""
    return [(layer.index, layer.ffn) for layer in layers if isinstance(layer.ffn, Experts)]
