"""One block for all norm placements: attention, gated FFN, norms, and the sum that the placement says.

x [B, T, D] is the stream, a the attention, f the FFN, N norms with gains of their own, L the number of blocks, l the
block's index from 0, m the branch multiplier (1 unless init_scale=branch_multiplier).

    spannorm            y = N(x + a(x)), x' = N(x + f(y)); the first attention reads N(x), the skip does not
    prenorm             y = x + a(N x), x' = y + f(N y); final N (scaled_prenorm: other initialisation)
    postnorm            y = N(x + a(x)), x' = N(y + f(y))
    deepnorm            as postnorm with N(alpha x + ...), alpha = (2L)^(1/4)
    sandwich, peri_ln   y = x + N(a(N x)), x' = y + N(f(N y)); final N; peri_ln normalises the embeddings too
    mixln               postnorm in the first quarter of the blocks, prenorm above; final N
    hybridnorm          y = x + a(x) with norms over each head of Q, K, V; z = N(y), x' = z + f(z); final N
    layernorm_scaling   y = x + a(N(x) / sqrt(l + 1)), and so the FFN; final N
    residual            x' = N(x + f(x)) twice, d' = d + f(x); out x + N(d)
    siamesenorm         d = f(N(p + N u)), u' = u + d, p' = N(p + d / sqrt(l + 1)), twice; out p + N(u)
    keel                N(alpha x + f(N x)), alpha = 2 L, twice
    rezero              y = x + g a(N x), x' = y + g f(N y), g learned from 1e-3; final N

Sources: section 3 of the SpanNorm specification. Placements with two streams hand [B, T, 2 D] from block to block.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from athlos.models.sites import ATTENTION_MODULE, FFN_MODULE, FOUR_NORMS, TWO_NORMS

TWO_STREAMS = ("residual", "siamesenorm")
FOUR = ("sandwich", "peri_ln")
FINAL_NORM = (
    "prenorm", "scaled_prenorm", "sandwich", "peri_ln", "mixln", "hybridnorm", "layernorm_scaling", "rezero",
)  # fmt: skip
"""Placements whose stream is normalised once more before the head."""
REZERO_START = 1e-3
MIXED_SHARE = 4
"""MixLN normalises after the sum in one of so many blocks, from the bottom."""


def norm_of(width: int, *, kind: str, eps: float) -> nn.Module:
    return nn.RMSNorm(width, eps=eps) if kind == "rms" else nn.LayerNorm(width, eps=eps)


class Block(GradientCheckpointingLayer):
    """A decoder layer. `attention` and `ffn` are the modules of the layer it takes the place of."""

    def __init__(
        self, *, index: int, num_layers: int, width: int, placement: str, plan: dict[str, Any], attention: nn.Module,
        ffn: nn.Module,
    ) -> None:  # fmt: skip
        super().__init__()
        self.index, self.num_layers, self.width = index, num_layers, width
        self.placement, self.plan = placement, plan
        setattr(self, ATTENTION_MODULE, attention)
        setattr(self, FFN_MODULE, ffn)
        kind, eps = plan["norm"]["kind"], plan["norm"]["eps"]
        names = FOUR_NORMS if placement in FOUR else TWO_NORMS
        for name in names.values():
            setattr(self, name, norm_of(width, kind=kind, eps=eps))
        self.first_norm, self.second_norm = (names[role] for role in ("attention_input", "ffn_input"))
        extra = self._extra_norms()
        if extra:
            self.extra = nn.ModuleDict({name: norm_of(width, kind=kind, eps=eps) for name in extra})
        if placement == "rezero":
            self.gates = nn.Parameter(torch.full((2,), REZERO_START))
        unused = self._unused_norms()
        for name in unused:
            setattr(self, name, nn.Identity())

    def _extra_norms(self) -> list[str]:
        plan, is_first, is_last = self.plan, self.index == 0, self.index == self.num_layers - 1
        if self.placement == "spannorm":
            return ["initial"] * (plan["initial_norm"] and is_first) + ["pre"] * plan["pre_norm"]
        if self.placement == "siamesenorm":
            return ["u_attention", "u_ffn", "p_attention", "p_ffn"] + ["out"] * is_last
        return {
            "peri_ln": ["embedding"] * is_first, "residual": ["out"] * is_last,
            "keel": ["post_attention", "post_ffn"],
        }.get(self.placement, [])  # fmt: skip

    def _unused_norms(self) -> list[str]:
        if self.placement == "spannorm" and not self.plan["norm1"]:
            return [self.first_norm]
        return [self.second_norm] if self.placement == "hybridnorm" else []

    # -- pieces ---------------------------------------------------------------------------------------------------

    def norm1(self, x: Tensor) -> Tensor:
        out: Tensor = getattr(self, self.first_norm)(x)
        return out

    def norm2(self, x: Tensor) -> Tensor:
        out: Tensor = getattr(self, self.second_norm)(x)
        return out

    def attend(self, x: Tensor, arguments: dict[str, Any]) -> Tensor:
        out, _ = getattr(self, ATTENTION_MODULE)(hidden_states=x, **arguments)
        return self.plan["multiplier"] * out if self.plan["multiplier"] != 1 else out

    def feed(self, x: Tensor) -> Tensor:
        out: Tensor = getattr(self, FFN_MODULE)(x)
        return self.plan["multiplier"] * out if self.plan["multiplier"] != 1 else out

    @property
    def is_post(self) -> bool:
        """Whether this block of a mixed model normalises after its sums."""
        return self.index < self.num_layers // MIXED_SHARE

    # -- the placements -------------------------------------------------------------------------------------------

    def forward(self, hidden_states: Tensor, **arguments: Any) -> Tensor:
        return getattr(self, f"_{RULES[self.placement]}")(hidden_states, arguments)  # type: ignore[no-any-return]

    def _span(self, x: Tensor, arguments: dict[str, Any]) -> Tensor:
        plan = self.plan
        if self.index == 0 and plan["embed_norm"]:
            x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + plan["norm"]["eps"])
        is_pair = plan["span_blocks"] == 2
        skip = x
        if is_pair and self.index % 2:
            x, skip = x.split(self.width, dim=-1)
        read = self.extra["initial"](x) if self.index == 0 and plan["initial_norm"] else x
        read = self.extra["pre"](read) if plan["pre_norm"] else read
        y = self.norm1(x + self.attend(read, arguments))
        out = self.norm2((skip if plan["span_skip"] else y) + self.feed(y))
        return torch.cat([out, skip], dim=-1) if is_pair and self.index % 2 == 0 else out

    def _pre(self, x: Tensor, arguments: dict[str, Any]) -> Tensor:
        scale = (self.index + 1) ** -0.5 if self.placement == "layernorm_scaling" else 1.0
        y = x + self.attend(self.norm1(x) * scale, arguments)
        return y + self.feed(self.norm2(y) * scale)

    def _post(self, x: Tensor, arguments: dict[str, Any]) -> Tensor:
        alpha = (2 * self.num_layers) ** 0.25 if self.placement == "deepnorm" else 1.0
        y = self.norm1(alpha * x + self.attend(x, arguments))
        return self.norm2(alpha * y + self.feed(y))

    def _mixed(self, x: Tensor, arguments: dict[str, Any]) -> Tensor:
        return self._post(x, arguments) if self.is_post else self._pre(x, arguments)

    def _sandwich(self, x: Tensor, arguments: dict[str, Any]) -> Tensor:
        if self.placement == "peri_ln" and self.index == 0:
            x = self.extra["embedding"](x)
        after_attention, after_ffn = (getattr(self, FOUR_NORMS[role]) for role in ("attention_output", "ffn_output"))
        y = x + after_attention(self.attend(self.norm1(x), arguments))
        return y + after_ffn(self.feed(self.norm2(y)))  # type: ignore[no-any-return]

    def _hybrid(self, x: Tensor, arguments: dict[str, Any]) -> Tensor:
        z = self.norm1(x + self.attend(x, arguments))
        return z + self.feed(z)

    def _residual(self, x: Tensor, arguments: dict[str, Any]) -> Tensor:
        x, d = (x, torch.zeros_like(x)) if self.index == 0 else x.split(self.width, dim=-1)
        branch = self.attend(x, arguments)
        x, d = self.norm1(x + branch), d + branch
        branch = self.feed(x)
        x, d = self.norm2(x + branch), d + branch
        return self._joined(x, d)

    def _siamese(self, x: Tensor, arguments: dict[str, Any]) -> Tensor:
        p, u = (x, x) if self.index == 0 else x.split(self.width, dim=-1)
        scale = (self.index + 1) ** -0.5
        d = self.attend(self.norm1(p + self.extra["u_attention"](u)), arguments)
        p, u = self.extra["p_attention"](p + scale * d), u + d
        d = self.feed(self.norm2(p + self.extra["u_ffn"](u)))
        p, u = self.extra["p_ffn"](p + scale * d), u + d
        return self._joined(p, u)

    def _joined(self, kept: Tensor, other: Tensor) -> Tensor:
        if self.index == self.num_layers - 1:
            return kept + self.extra["out"](other)  # type: ignore[no-any-return]
        return torch.cat([kept, other], dim=-1)

    def _keel(self, x: Tensor, arguments: dict[str, Any]) -> Tensor:
        alpha = 2.0 * self.num_layers
        y = self.extra["post_attention"](alpha * x + self.attend(self.norm1(x), arguments))
        return self.extra["post_ffn"](alpha * y + self.feed(self.norm2(y)))  # type: ignore[no-any-return]

    def _rezero(self, x: Tensor, arguments: dict[str, Any]) -> Tensor:
        y = x + self.gates[0] * self.attend(self.norm1(x), arguments)
        return y + self.gates[1] * self.feed(self.norm2(y))


RULES = {
    "spannorm": "span", "prenorm": "pre", "scaled_prenorm": "pre", "layernorm_scaling": "pre", "postnorm": "post",
    "deepnorm": "post", "mixln": "mixed", "sandwich": "sandwich", "peri_ln": "sandwich", "hybridnorm": "hybrid",
    "residual": "residual", "siamesenorm": "siamese", "keel": "keel", "rezero": "rezero",
}  # fmt: skip
"""Placement -> method of `Block`."""


class HeadNormed(nn.Linear):
    """A projection whose output is normalised head by head, for HybridNorm: queries, keys and values."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool, head_size: int, kind: str, eps: float) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.head_size = head_size
        self.head_norm = norm_of(head_size, kind=kind, eps=eps)

    def forward(self, input: Tensor) -> Tensor:
        heads = super().forward(input).unflatten(-1, (-1, self.head_size))
        out: Tensor = self.head_norm(heads)
        return out.flatten(-2)
