"""Attention that hands its scores to the next layer, and attention that takes most of them from the layer below.

B batch, T query rows, N key rows, D width, H query heads, G key-value heads, R = H / G, d head size, r low rank per
head. Scores are scaled and unmasked: S [B, H, T, N], float32 (float64 in float64 models). They travel from layer to
layer in a `LayerScores` that lives for one forward pass of the decoder and is an argument of every layer, so that
activation checkpointing recomputes a layer with the scores it had, and no cache is needed.
"""

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, StaticCache
from transformers.masking_utils import sdpa_mask

from athlos.errors import SurgeryError
from athlos.generation.cpu.fused_attention import Alignment, attend
from athlos.methods.lisa.score_parts import Aligner, LowRank, without_autocast
from athlos.models.forward import wide
from athlos.models.sites import ATTENTION_MATRICES, Backbone, Layer, Site

KERNEL = "athlos_scores"
"""Name of the attention function that hands its scores on."""
ARGUMENT = "layer_scores"
"""Keyword under which decoder layers get the scores of this forward pass."""
SMALLEST_PROBABILITY = 1e-9
"""Added before the logarithm where probabilities are shared."""


@dataclass
class LayerScores:
    """Scores by layer index, of one forward pass."""

    is_kept: bool
    """Keep all: the backward pass may compute a layer again. Else a layer's scores go when the next one took them."""
    by_layer: dict[int, Tensor] = field(default_factory=dict)
    probabilities: dict[int, Tensor] | None = None
    """Attention weights by layer, filled where a dict is given."""

    @property
    def may_be_fused(self) -> bool:
        """Whether nobody looks at what a layer does between its queries and its output."""
        return not self.is_kept and self.probabilities is None and type(self) is LayerScores

    def put(self, layer_index: int, scores_BHTN: Tensor) -> Tensor:
        """Keep the scores of a layer; gives those that the layer goes on with."""
        self.by_layer[layer_index] = scores_BHTN
        return scores_BHTN

    def peek(self, layer_index: int) -> Tensor:
        """Scores of the layer below; raises `SurgeryError` when it handed on none."""
        if layer_index - 1 not in self.by_layer:
            raise SurgeryError(f"layer {layer_index} shares attention, but layer {layer_index - 1} handed on no scores")
        return self.by_layer[layer_index - 1]

    def below(self, layer_index: int) -> Tensor:
        """The same, taken away where they are not kept."""
        scores_BHTN = self.peek(layer_index)
        if not self.is_kept:
            del self.by_layer[layer_index - 1]
        return scores_BHTN


@dataclass
class NoisyScores(LayerScores):
    """The same with Gaussian noise on the scores of one layer: how much does an error there cost?"""

    noisy_layer: int = 0
    sigma: float = 0.0
    generator: torch.Generator | None = None

    def put(self, layer_index: int, scores_BHTN: Tensor) -> Tensor:
        if layer_index == self.noisy_layer:
            noise = torch.randn(scores_BHTN.shape, generator=self.generator, dtype=scores_BHTN.dtype)
            scores_BHTN = scores_BHTN + self.sigma * noise.to(scores_BHTN.device)
        return super().put(layer_index, scores_BHTN)


def grouped_scores(query_BHTd: Tensor, key_BGNd: Tensor, *, scaling: float) -> Tensor:
    """S [B, H, T, N]: each group of query heads with its key head, which is not repeated in memory.

    The product is float32 also of 16-bit queries and keys: layers above build on these scores.
    """
    batch, heads, rows, width = query_BHTd.shape
    groups, columns = key_BGNd.shape[1], key_BGNd.shape[2]
    query = (wide(query_BHTd) * scaling).reshape(batch, groups, heads // groups * rows, width)
    with without_autocast(query):
        return (query @ wide(key_BGNd).transpose(2, 3)).view(batch, heads, rows, columns)


def probabilities(scores_BHTN: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the keys a query may see. `mask` is boolean, additive, or None for plain causal attention."""
    rows, columns = scores_BHTN.shape[2:]
    lowest = torch.finfo(scores_BHTN.dtype).min
    if mask is None:
        if rows > 1:
            row_T1 = torch.arange(columns - rows, columns, device=scores_BHTN.device)[:, None]
            hidden_TN = torch.arange(columns, device=scores_BHTN.device) > row_T1
            scores_BHTN = scores_BHTN.masked_fill(hidden_TN, lowest)
    elif mask.dtype is torch.bool:
        scores_BHTN = scores_BHTN.masked_fill(~mask[..., :columns], lowest)
    else:
        scores_BHTN = scores_BHTN + mask[..., :columns]
    return scores_BHTN.softmax(-1)


def mixed_values(weights_BHTN: Tensor, value_BGNd: Tensor) -> Tensor:
    """[B, T, H, d]: values averaged by the weights of each head."""
    batch, heads, rows, columns = weights_BHTN.shape
    groups = value_BGNd.shape[1]
    weights = weights_BHTN.to(value_BGNd.dtype).view(batch, groups, heads // groups * rows, columns)
    return (weights @ value_BGNd).view(batch, heads, rows, value_BGNd.shape[3]).transpose(1, 2)


def scores_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **arguments: Any,
) -> tuple[Tensor, None]:
    """The attention function of transformers' interface that also hands its scores on."""
    layer_scores: LayerScores = arguments[ARGUMENT]
    index: Any = module.layer_idx
    scale = 1 / math.sqrt(query.shape[-1]) if scaling is None else scaling
    if layer_scores.may_be_fused and not dropout:
        fused = attend(query * scale, key, value, num_heads=query.shape[1], mask=attention_mask, has_scores=True)
        if fused is not None:
            output, scores_BHTN = fused
            assert scores_BHTN is not None  # for it has_scores
            layer_scores.put(index, scores_BHTN)
            return output, None
    scores_BHTN = grouped_scores(query, key, scaling=scale)
    scores_BHTN = layer_scores.put(index, scores_BHTN)
    weights = probabilities(scores_BHTN, attention_mask)
    if layer_scores.probabilities is not None:
        layer_scores.probabilities[index] = weights
    weights = functional.dropout(weights, dropout, training=module.training)
    return mixed_values(weights, value), None


AttentionInterface.register(KERNEL, scores_attention)
AttentionMaskInterface.register(KERNEL, sdpa_mask)


def refuse_unusual_scores(sites: Backbone) -> None:
    """Raise `SurgeryError` for scores that are more than a scaled product of wholly rotated queries and keys."""
    values = sites.config.to_dict()
    if values.get("attn_logit_softcapping"):
        raise SurgeryError(f"{sites.config.model_type}: attention scores with a soft cap cannot be shared")
    rope = values.get("rope_parameters") or {}
    if any(
        (settings.get("partial_rotary_factor") or 1.0) != 1.0
        for settings in (rope, *rope.values())
        if isinstance(settings, dict)
    ):
        raise SurgeryError(f"{sites.config.model_type}: rotary positions on part of a head are not supported")


def hand_on(attention: Any) -> None:
    """Let one attention module hand its scores on: a config of its own names the kernel; the decoder's mask stays."""
    config = copy.copy(attention.config)
    config._attn_implementation_internal = KERNEL
    attention.config, attention.takes_one_column = config, True


def carry_scores(decoder: nn.Module) -> None:
    """Give each forward pass of a decoder its `LayerScores`."""

    def before(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return arguments, {ARGUMENT: LayerScores(is_kept=torch.is_grad_enabled()), **keywords}

    vars(before)["gives_layer_arguments"] = True  # all it does: see generation/cpu/llama_step.py
    vars(before)["hands_scores_on"] = True  # they grow with queries times columns: see generation/step.py
    decoder.register_forward_pre_hook(before, with_kwargs=True)


def alone(site: Site) -> nn.Module:
    """The module of a site; of a fused matrix a new one with the site's rows."""
    if not site.is_fused:
        return site.module
    rows = site.weight[site.rows]
    linear = nn.Linear(rows.shape[1], rows.shape[0], bias=site.bias is not None, device="meta")
    linear.weight = nn.Parameter(rows.detach().clone())
    if site.bias is not None:
        linear.bias = nn.Parameter(site.bias[site.rows].detach().clone())
    return linear


class SharedAttention(nn.Module):
    """Attention of a shared layer: the scores of the layer below, aligned, plus a low-rank part; own values and output.

    Caches low-rank keys and full values. Values and output stand under the names of the model.
    """

    absent_sites = ("q", "k")
    takes_one_column = True

    def __init__(
        self,
        layer: Layer,
        sites: Backbone,
        *,
        share_point: str,
        aligner: Aligner | None,
        low_rank: LowRank | None,
        is_read: bool,
    ) -> None:
        super().__init__()
        self.is_read = is_read
        """Whether the layer above takes the scores of this one."""
        old: Any = layer.attention
        self.layer_idx, self.num_heads, self.head_size = layer.index, sites.num_heads, sites.head_size
        self.num_groups, self.scaling, self.share_point = sites.num_kv_heads, old.scaling, share_point
        self.aligner, self.low_rank = aligner, low_rank
        setattr(self, ATTENTION_MATRICES["v"], alone(layer.sites["v"]))
        setattr(self, ATTENTION_MATRICES["o"], layer.sites["o"].module)
        self.train(old.training)

    @property
    def cache_numbers(self) -> int:
        """Numbers cached a token: low-rank keys and full values."""
        return self.num_groups * (self.head_size + (self.low_rank.rank if self.low_rank else 0))

    @property
    def pair_entries(self) -> int:
        """Multiply-adds a (query, key) pair: aligner, low-rank scores, values."""
        aligner, low_rank, heads = self.aligner, self.low_rank, self.num_heads
        mixing = 0 if aligner is None else heads * (2 * aligner.hidden + heads * (aligner.residual and aligner.has_mix))
        return mixing + heads * (self.head_size + (low_rank.rank if low_rank else 0))

    def added(self) -> list[nn.Parameter]:
        """The parameters that the surgery added."""
        return [parameter for part in (self.aligner, self.low_rank) if part for parameter in part.parameters()]

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **arguments: Any,
    ) -> tuple[Tensor, None]:
        layer_scores: LayerScores = arguments[ARGUMENT]
        batch, rows, _ = hidden_states.shape
        value = getattr(self, ATTENTION_MATRICES["v"])(hidden_states)
        value = value.view(batch, rows, self.num_groups, self.head_size).transpose(1, 2)
        query = key = None
        if self.low_rank is not None:
            assert position_embeddings is not None
            query, key = self.low_rank.queries_and_keys(hidden_states, *position_embeddings)
        if past_key_values is not None:
            key, value = self._cached(key, value, past_key_values)
        fused = self._fused(layer_scores, query, key, value, mask=attention_mask)
        if fused is not None:
            return getattr(self, ATTENTION_MATRICES["o"])(fused.flatten(2)), None
        scores = self.scores(
            layer_scores.below(self.layer_idx), query, key, mask=attention_mask, num_columns=value.shape[2]
        )
        scores = layer_scores.put(self.layer_idx, scores)
        weights = probabilities(scores, attention_mask)
        if layer_scores.probabilities is not None:
            layer_scores.probabilities[self.layer_idx] = weights
        mixed = mixed_values(weights, value).reshape(batch, rows, -1)
        return getattr(self, ATTENTION_MATRICES["o"])(mixed), None

    def scores(
        self,
        below_BHTN: Tensor,
        query_BHTr: Tensor | None,
        key_BGNr: Tensor | None,
        *,
        mask: Tensor | None,
        num_columns: int,
    ) -> Tensor:
        """S of this layer: without an aligner the low-rank part alone, without either the scores of the layer below.

        A layer with a sliding window takes the last columns of one that sees more.
        """
        shared = None
        if self.aligner is not None or self.low_rank is None:
            shared = below_BHTN[..., below_BHTN.shape[-1] - num_columns :]
            if self.share_point == "probs":
                shared = (probabilities(shared, mask) + SMALLEST_PROBABILITY).log()
            if self.aligner is not None:
                shared = self.aligner(shared)
        if self.low_rank is None:
            assert shared is not None
            return shared
        assert query_BHTr is not None
        assert key_BGNr is not None
        own = self.low_rank.gated(grouped_scores(query_BHTr, key_BGNr, scaling=self.scaling))
        return own if shared is None else shared + own

    def _fused(
        self, layer_scores: LayerScores, query: Tensor | None, key: Tensor | None, value: Tensor, *, mask: Tensor | None
    ) -> Tensor | None:
        """Attention output [B, T, H, d] in one pass, where that can be; the scores are left for the layer above."""
        if not layer_scores.may_be_fused or self.share_point != "logits":
            return None
        alignment = None
        if self.aligner is not None or self.low_rank is None:
            below = layer_scores.peek(self.layer_idx)
            below = below[..., below.shape[-1] - value.shape[2] :]
            alignment = (
                Alignment(below_BHTN=below, may_be_overwritten=True, is_added=True)
                if self.aligner is None
                else self.aligner.fused(below)
            )
        if query is not None and self.low_rank is not None:
            query = self.low_rank.gated(query * self.scaling)
        attended = attend(
            query, key, value, num_heads=self.num_heads, mask=mask, alignment=alignment, has_scores=self.is_read
        )
        if attended is None:
            return None
        output, scores = attended
        layer_scores.below(self.layer_idx)  # taken, so no longer kept
        if scores is not None:
            layer_scores.put(self.layer_idx, scores)
        return output

    def _cached(self, key: Tensor | None, value: Tensor, cache: Any) -> tuple[Tensor | None, Tensor]:
        """Without a low-rank part the values stand where the cache looks for keys: it takes a layer whose keys hold
        nothing for an empty one, and would not reorder its values in a beam search."""
        if isinstance(cache, StaticCache):  # its columns to come would take part in the scores handed on
            raise SurgeryError("shared attention does not decode with transformers' static cache; use a dynamic one")
        if key is None:
            value, _ = cache.update(value, value[..., :0], self.layer_idx)
            return None, value
        key, value = cache.update(key, value, self.layer_idx)
        return key, value
