"""What a shared layer computes its scores with: the aligner of the scores below, and its own low-rank part.

B batch, T query rows, N key rows, P pairs of both, D width, H query heads, G key-value heads, d head size, r low rank.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from athlos.generation.cpu.fused_attention import Alignment
from athlos.models.forward import wide

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "silu": functional.silu,
    "relu": functional.relu,
    "none": lambda values: values,
}


def without_autocast(values: Tensor) -> torch.autocast:
    """Inside, products of float32 numbers are float32 also where the training step casts products to 16 bits."""
    return torch.autocast(values.device.type, enabled=False)


class Aligner(nn.Module):
    """align(s) = M s + W2 act(W1 s + b1) + b2 over the head axis, the same at every (query, key) pair.

    M [H, H] is fixed. W2 and b2 begin at zero, so an aligner begins as M.
    """

    mix: Tensor

    def __init__(self, num_heads: int, *, hidden: int, activation: str, residual: bool, has_mix: bool) -> None:
        super().__init__()
        self.activation, self.residual, self.has_mix, self.hidden = ACTIVATIONS[activation], residual, has_mix, hidden
        self.activation_name = activation
        self.num_heads = num_heads
        if residual and has_mix:
            self.register_buffer("mix", torch.eye(num_heads))
        if hidden:
            self.inner = nn.Linear(num_heads, hidden)
            self.outer = nn.Linear(hidden, num_heads)
            nn.init.zeros_(self.outer.weight)
            nn.init.zeros_(self.outer.bias)

    def forward(self, scores_BHTN: Tensor) -> Tensor:
        flat = scores_BHTN.flatten(2)
        out = None
        with without_autocast(flat):
            if self.residual:
                out = _over_heads(self.mix.to(flat.dtype), flat) if self.has_mix else flat
            if self.hidden:
                inner = _over_heads(wide(self.inner.weight), flat).add_(wide(self.inner.bias)[:, None])
                out = _over_heads(wide(self.outer.weight), self.activation(inner), plus=out)
                out = out + wide(self.outer.bias)[:, None]
        return torch.zeros_like(scores_BHTN) if out is None else out.view_as(scores_BHTN)

    def fused(self, below_BHTN: Tensor) -> Alignment:
        """The same as what the fused attention takes, for scores that nobody else will read."""
        mix = self.mix if self.residual and self.has_mix else None
        if not self.hidden:
            return Alignment(below_BHTN=below_BHTN, may_be_overwritten=True, is_added=self.residual, mix_HH=mix)
        return Alignment(
            below_BHTN=below_BHTN,
            may_be_overwritten=True,
            is_added=self.residual,
            mix_HH=mix,
            inner_mH=self.inner.weight,
            inner_bias_m=self.inner.bias,
            outer_mH=self.outer.weight.T,
            outer_bias_H=self.outer.bias,
            activation=self.activation_name,
        )


def _over_heads(matrix_OH: Tensor, values_BHP: Tensor, *, plus: Tensor | None = None) -> Tensor:
    """[B, O, P]: a matrix times the head axis. `matmul` would copy the values of a parameter's product transposed."""
    matrix = matrix_OH.expand(len(values_BHP), *matrix_OH.shape)
    return torch.bmm(matrix, values_BHP) if plus is None else torch.baddbmm(plus, matrix, values_BHP)


class LowRank(nn.Module):
    """The layer's own part of the scores: queries and keys of r dimensions per head, under r / 2 kept rotary pairs."""

    pairs: Tensor

    def __init__(self, width: int, *, num_heads: int, num_groups: int, rank: int, gate: str, has_bias: bool) -> None:
        super().__init__()
        self.num_heads, self.num_groups, self.rank, self.gate_kind = num_heads, num_groups, rank, gate
        self.query = nn.Linear(width, num_heads * rank, bias=has_bias)
        self.key = nn.Linear(width, num_groups * rank, bias=has_bias)
        self.register_buffer("pairs", torch.zeros(num_groups, rank // 2, dtype=torch.int64))
        if gate != "none":
            self.gate = nn.Parameter(torch.full((num_heads,), 1.0 if gate == "free" else 0.0))

    def queries_and_keys(self, hidden_BTD: Tensor, cos_BTd: Tensor, sin_BTd: Tensor) -> tuple[Tensor, Tensor]:
        """Rotated queries [B, H, T, r] and keys [B, G, T, r]."""
        batch, rows, _ = hidden_BTD.shape
        cos, sin = (table[..., self.pairs][:, :, :, None] for table in (cos_BTd, sin_BTd))  # [B, T, G, 1, r / 2]
        query = self.query(hidden_BTD).view(batch, rows, self.num_groups, -1, self.rank)
        key = self.key(hidden_BTD).view(batch, rows, self.num_groups, 1, self.rank)
        query, key = (rotated(states, cos, sin).flatten(2, 3).transpose(1, 2) for states in (query, key))
        return query, key

    def gated(self, scores_BHTN: Tensor) -> Tensor:
        if self.gate_kind == "none":
            return scores_BHTN
        gate_H = self.gate.sigmoid() if self.gate_kind == "sigmoid" else self.gate
        return wide(gate_H)[:, None, None] * scores_BHTN


def rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on pairs (j, j + r / 2), the layout of transformers' Llama."""
    first, second = states.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
