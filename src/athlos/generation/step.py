"""One forward pass of a decoder over new columns: masks and positions in, logits of the last column out.

B rows, T new columns, V vocabulary.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from athlos.errors import ConfigError
from athlos.generation.cpu.decoder_kernel import library
from athlos.generation.cpu.llama_step import LlamaStep, fits
from athlos.generation.kv_cache import KVCache, layer_windows
from athlos.generation.masks import Masks
from athlos.models.forward import head_rule
from athlos.models.sites import backbone

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

KEPT_SCORES = 2**22
"""Attention scores of all rows, heads and columns that a layer may hand to the next at one time: 16 MB in float32."""
LEAST_COLUMNS = 16
"""New columns that are taken at one time, however long the cache is."""
SAME, SAME_HALF = 1e-3, 0.1
"""Largest difference of two ways of computing hidden states, relative to the greatest of them: in float32, bfloat16."""


class DecoderStep:
    """Runs the decoder that `backbone` finds, which may be the text part of a larger model."""

    def __init__(
        self,
        model: "PreTrainedModel",
        *,
        written_out: bool,
        early: Sequence[int] = (),
        cache_dtype: torch.dtype | None = None,
    ) -> None:
        """`early` names early exits by the number of layers below them; raises `ConfigError` for one outside.

        `cache_dtype` is that of keys and values; None = as the layers give them.
        """
        sites = backbone(model)
        self.decoder, self.head, self.final_norm = sites.decoder, sites.head, sites.final_norm
        if outside := [count for count in early if not 0 < count < len(sites.layers)]:
            raise ConfigError(f"early exits: got {outside}, expected numbers of layers in 1 .. {len(sites.layers) - 1}")
        self.exits = [sites.layers[count - 1] for count in early]
        self.early_LBV: Tensor | None = None
        """What the model would say of the last new column at its early exits, in float32; None without any."""
        self._early: list[Tensor] = []
        self.windows = layer_windows(sites.config)
        self.masks = Masks(sites.config, self.windows)
        self.head_rule = head_rule(sites.config)
        weight = next(sites.embedding.parameters())
        self.device, self.dtype, self.cache_dtype = weight.device, weight.dtype, cache_dtype
        self.num_heads = sites.num_heads
        hooks: Any = sites.decoder._forward_pre_hooks.values()
        self.hands_on = any(getattr(hook, "hands_scores_on", False) for hook in hooks)
        kept = [layer.index for layer in self.exits]
        self.short = LlamaStep(sites, keeps=kept) if written_out and fits(sites) and library() else None
        self._is_tried = False

    def new_cache(self, *, capacity: int) -> KVCache:
        return KVCache(self.windows, capacity=capacity, dtype=self.cache_dtype)

    def __call__(self, ids_BT: Tensor, cache: KVCache, *, pad_B: Tensor, most_padding: int) -> Tensor:
        """Logits [B, V] in float32 of the last new column; the cache is longer by T afterwards.

        Row b has padding in its first `pad_B[b]` columns, at most `most_padding`; ids there are any valid ones.
        Where layers hand scores on, many new columns are taken a few query rows at a time, which is exact.
        """
        for piece_BT in ids_BT.split(self._columns_at_once(*ids_BT.shape, cache=cache), dim=1):
            hidden_BD = self._columns(piece_BT, cache, pad_B=pad_B, most_padding=most_padding)
        if not self.exits:
            return self.head_rule(self.head(hidden_BD).float())
        # One product, for what it takes is the reading of the output matrix.
        depths_RD = torch.cat([hidden_BD, self.final_norm(torch.cat(self._early))])
        logits_RV = self.head_rule(self.head(depths_RD).float())
        self.early_LBV = logits_RV[len(hidden_BD) :].view(len(self.exits), len(hidden_BD), -1)
        return logits_RV[: len(hidden_BD)]

    def _columns_at_once(self, rows: int, count: int, *, cache: KVCache) -> int:
        if not self.hands_on:
            return count
        return max(LEAST_COLUMNS, KEPT_SCORES // (rows * self.num_heads * (cache.length + count)))

    def _columns(self, ids_BT: Tensor, cache: KVCache, *, pad_B: Tensor, most_padding: int) -> Tensor:
        """Hidden states [B, D] of the last new column."""
        start, count = cache.length, ids_BT.shape[1]
        column_1T = torch.arange(start, start + count, device=self.device)[None]
        position_BT = (column_1T - pad_B[:, None]).clamp_(min=0) if most_padding else column_1T
        is_short = self.short is not None and count == 1 and not torch.is_autocast_enabled(self.device.type)
        mask = None
        if not (is_short and self._is_tried and self.short and self.short.is_plain):
            mask = self.masks.build(pad_B, start=start, count=count, most_padding=most_padding, dtype=self.dtype)
        if is_short and self._is_tried:
            assert self.short is not None
            hidden_BD = self.short(ids_BT, cache, pad_B=pad_B, mask=mask, position_B1=position_BT)
            self._early = [self.short.kept[layer.index] for layer in self.exits]
        else:
            hidden_BD = self._decoder(ids_BT, cache, mask=mask, position_BT=position_BT)
            if is_short and not self._is_same(
                hidden_BD, ids_BT, cache, pad_B=pad_B, mask=mask, position_B1=position_BT
            ):
                log.warning("the written-out Llama step differs from this decoder; its own forward pass is taken")
                self.short = None
                hidden_BD = self._decoder(ids_BT, cache, mask=mask, position_BT=position_BT)  # mends the column's keys
        cache.length += count
        return hidden_BD

    def _decoder(self, ids_BT: Tensor, cache: KVCache, *, mask: Any, position_BT: Tensor) -> Tensor:
        early: list[Tensor] = []
        hooks = [
            layer.module.register_forward_hook(lambda _module, _inputs, output: early.append(output[:, -1]))
            for layer in self.exits
        ]
        try:
            output = self.decoder(
                input_ids=ids_BT, attention_mask=mask, position_ids=position_BT, past_key_values=cache, use_cache=True
            )
        finally:
            for hook in hooks:
                hook.remove()
        self._early = early
        hidden_BTD: Tensor = output.last_hidden_state
        return hidden_BTD[:, -1]

    def _is_same(self, expected_BD: Tensor, ids_B1: Tensor, cache: KVCache, **placed: Any) -> bool:
        """Whether the short way gives the same hidden states for the same column."""
        assert self.short is not None
        found_BD = self.short(ids_B1, cache, **placed)
        self._is_tried = True
        tolerance = SAME if self.cache_dtype is None else SAME_HALF
        scale = expected_BD.abs().amax().clamp(min=1.0)
        return bool(((found_BD - expected_BD).abs() <= tolerance * scale).all())
