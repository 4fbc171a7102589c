"""One decoder layer for every norm placement, and what stands before the output matrix.

B batch, T positions, D width, H heads, d head size. The stream is float32 (float64 in float64 models) from the first
sum to the last norm, whatever the format of the weights: sums and norms in 16 bits would make deep placements look
worse than they are. A layer with a side stream hands on both side by side, [B, T, 2 D], so that no state lives outside
the tensors that activation checkpointing and caches know.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, eager_attention_forward

from athlos.methods.spannorm.placements import REZERO_START, SPAN, STREAM, BlockPlan, SubLayer
from athlos.models.forward import wide
from athlos.models.sites import ATTENTION_MATRICES, ATTENTION_MODULE, FFN_MODULE, HEAD_NORMS

SUB_LAYERS = ("attention", "ffn")
EMBEDDING_EPS = 1e-10
"""Keeps the zeros of a padding token zeros; small beside the mean square of an embedding, 4e-4."""


class Norm(nn.Module):
    """RMS or layer norm with gain, in the format of the stream; `is_last` gives the format of the weights instead."""

    def __init__(self, width: int, *, kind: str, eps: float, is_last: bool = False) -> None:
        super().__init__()
        self.width, self.eps, self.is_last = width, eps, is_last
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if kind == "layer" else None

    def forward(self, stream: Tensor) -> Tensor:
        weight, shape = self.weight.to(stream.dtype), (self.width,)
        if self.bias is None:
            normed = functional.rms_norm(stream, shape, weight, self.eps)
        else:
            normed = functional.layer_norm(stream, shape, weight, self.bias.to(stream.dtype), self.eps)
        return normed.to(self.weight.dtype) if self.is_last else normed

    def extra_repr(self) -> str:
        return f"{self.width}, eps={self.eps}{', layer' if self.bias is not None else ''}"


class Sum(nn.Module):
    """skip_factor * skip + branch_factor * branch, in the stream's format. A module, so that diagnoses can watch it."""

    def __init__(self, rule: SubLayer) -> None:
        super().__init__()
        self.skip_factor, self.branch_factor = rule.skip_factor, rule.branch_factor
        self.gate = nn.Parameter(torch.full((1,), REZERO_START)) if rule.is_gated else None

    def forward(self, skip: Tensor, branch: Tensor) -> Tensor:
        if self.gate is not None:
            branch = self.gate * branch
        if self.skip_factor != 1.0:
            skip = self.skip_factor * skip
        return torch.add(skip, branch, alpha=self.branch_factor)


class Block(GradientCheckpointingLayer):
    """A decoder layer whose norms stand where its plan says. Attention and FFN are those of the layer it replaces."""

    def __init__(
        self, plan: BlockPlan, *, attention: nn.Module, ffn: nn.Module, width: int, kind: str, eps: float, is_last: bool
    ) -> None:
        super().__init__()
        self.plan, self.is_last = plan, is_last
        setattr(self, ATTENTION_MODULE, attention)
        setattr(self, FFN_MODULE, ffn)
        self.norm_attributes: dict[str, str] = {}
        """Role -> attribute, for `models.sites`."""
        roles = ["embedding"] if plan.embedding_norm else []
        for name in SUB_LAYERS:
            rule: SubLayer = getattr(plan, name)
            wanted = {"merge": rule.merge, "input": rule.pre, "output": rule.branch, "sum": rule.outer}
            roles += [f"{name}_{place}" for place, is_there in wanted.items() if is_there]
            setattr(self, f"{name}_add", Sum(rule))
        for role in roles:
            self.norm_attributes[role] = f"{role}_norm"
            setattr(self, f"{role}_norm", Norm(width, kind=kind, eps=eps))

    def norm(self, role: str) -> Norm:
        norm = getattr(self, self.norm_attributes[role])
        assert isinstance(norm, Norm)
        return norm

    def sum_of(self, name: str) -> Sum:
        """The sum of a sub-layer: `attention` or `ffn`."""
        addition = getattr(self, f"{name}_add")
        assert isinstance(addition, Sum)
        return addition

    def forward(self, hidden_states: Tensor, is_token_BT: Tensor | None = None, **arguments: Any) -> Tensor:
        """The next stream [B, T, D], or stream and side stream [B, T, 2 D]; `arguments` go to the attention.

        `is_token_BT` is False at padding, and may have the columns of a cache before those of this pass. Only experts
        get it.
        """
        plan, stream, side = self.plan, wide(hidden_states), None
        dtype = self.norm(next(iter(self.norm_attributes))).weight.dtype if self.norm_attributes else stream.dtype
        if plan.takes_side:
            stream, side = stream.chunk(2, dim=-1)
        if plan.opens_side:
            side = self.scaled(stream)
        stream = self.embedded(stream)
        start = side if plan.takes_side and plan.ffn.skip == SPAN else stream
        assert start is not None
        attention, ffn = getattr(self, ATTENTION_MODULE), getattr(self, FFN_MODULE)
        stream, side = self._joined(
            "attention", lambda inner: attention(hidden_states=inner, **arguments)[0], stream, start, side, dtype
        )
        if is_token_BT is not None:
            ffn = partial(ffn, is_token_BT=is_token_BT[:, -hidden_states.shape[1] :])
        stream, side = self._joined("ffn", ffn, stream, start, side, dtype)
        if plan.gives_side:
            return torch.cat([stream, start if side is None or plan.ffn.skip == SPAN else side], dim=-1)
        return stream.to(dtype) if self.is_last else stream

    def scaled(self, stream: Tensor) -> Tensor:
        """The embedding at a root mean square of 1, where the plan wants that of the first layer."""
        is_wanted = self.plan.has_unit_embedding
        return functional.rms_norm(stream, stream.shape[-1:], eps=EMBEDDING_EPS) if is_wanted else stream

    def embedded(self, stream: Tensor) -> Tensor:
        """What the first layer makes of the embedding before skip and attention take it; other layers: nothing."""
        stream = self.scaled(stream)
        return self.norm("embedding")(stream) if self.plan.embedding_norm else stream

    def _joined(
        self,
        name: str,
        function: Callable[[Tensor], Tensor],
        stream: Tensor,
        start: Tensor,
        side: Tensor | None,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor | None]:
        """Stream and side stream behind a sub-layer."""
        rule: SubLayer = getattr(self.plan, name)
        inner = stream
        if rule.merge:
            assert side is not None
            inner = inner + self.norm(f"{name}_merge")(side)
        if rule.pre:
            inner = self.norm(f"{name}_input")(inner)
        skip = stream if rule.skip == STREAM else start if rule.skip == SPAN else inner
        if rule.input_factor != 1.0:
            inner = rule.input_factor * inner
        branch = function(inner.to(dtype))
        if rule.branch:
            branch = self.norm(f"{name}_output")(wide(branch))
        if rule.side_factor:
            assert side is not None
            side = torch.add(side, branch, alpha=rule.side_factor)
        stream = self.sum_of(name)(skip, branch)
        return (self.norm(f"{name}_sum")(stream) if rule.outer else stream), side


class Merge(nn.Module):
    """stream + N(side stream), in the format of the weights: [B, T, 2 D] -> [B, T, D]; `is_normed` norms the sum."""

    def __init__(self, width: int, *, kind: str, eps: float, is_normed: bool) -> None:
        super().__init__()
        self.side = Norm(width, kind=kind, eps=eps)
        self.outer = Norm(width, kind=kind, eps=eps) if is_normed else nn.Identity()

    def forward(self, joined: Tensor) -> Tensor:
        stream, side = joined.chunk(2, dim=-1)
        merged: Tensor = self.outer(stream + self.side(side))
        return merged.to(self.side.weight.dtype)


class HeadNormAttention(nn.Module):
    """Llama's attention with a norm over each head of queries, keys and values; the matrices are those it replaces."""

    def __init__(self, attention: Any, *, kind: str, eps: float) -> None:
        super().__init__()
        self.config, self.layer_idx, self.head_dim = attention.config, attention.layer_idx, attention.head_dim
        self.num_key_value_groups, self.scaling = attention.num_key_value_groups, attention.scaling
        self.attention_dropout, self.is_causal = attention.attention_dropout, True
        for name in ATTENTION_MATRICES.values():
            setattr(self, name, getattr(attention, name))
        for name in HEAD_NORMS.values():
            setattr(self, name, Norm(self.head_dim, kind=kind, eps=eps))

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **arguments: Any,
    ) -> tuple[Tensor, Tensor | None]:
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key, value = (
            self._normed(getattr(self, ATTENTION_MATRICES[site])(hidden_states).view(shape), role).transpose(1, 2)
            for site, role in zip("qkv", HEAD_NORMS, strict=True)
        )
        assert position_embeddings is not None
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        kernel: Any = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        mixed, weights = kernel(
            self,
            query,
            key,
            value,
            attention_mask,
            scaling=self.scaling,
            dropout=self.attention_dropout if self.training else 0.0,
            **arguments,
        )
        mixed = mixed.reshape(*hidden_states.shape[:-1], -1).contiguous()
        return getattr(self, ATTENTION_MATRICES["o"])(mixed), weights

    def _normed(self, states_BTHd: Tensor, role: str) -> Tensor:
        normed: Tensor = getattr(self, HEAD_NORMS[role])(wide(states_BTHd))
        return normed.to(states_BTHd.dtype)
