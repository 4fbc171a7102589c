"""One decoding step of a plain Llama decoder by a compiled kernel: all layers in one call.

The decoder of Llama (also of SmolLM2 and of the lab models) for one new column, in float32 or, inside
`HalfWeights.applied`, with weights and cache in bfloat16. It applies only where every part is transformers' own Llama
class on a CPU without hooks and replaced methods, so an adapter or another attention kernel never comes here; and the
first step of every call is computed both ways (`step.py`). An attention that a surgery changed comes here when it says
that it `takes_one_column`: it is called as the decoder layer calls it, and the kernel computes the FFN behind it. What
such layers pass to each other is made by a hook of the decoder that `gives_layer_arguments` and does nothing else.
Heads that a `HeadMask` silences are silent here too.

B rows, D head size, W width.
"""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.llama import modeling_llama as llama

from athlos.generation.cpu.decoder_kernel import LANES, WIDEST_HEAD, LayerArguments, StepArguments, library
from athlos.generation.half_weights import HalfProduct
from athlos.generation.kv_cache import KVCache, KVLayer
from athlos.models.head_mask import HeadMask, SilencedProjection
from athlos.models.sites import Backbone, Layer

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""Attributes of a module that hold functions its call runs."""


def fits(sites: Backbone) -> bool:
    """Whether a decoder is plain Llama in float32: each module of the class it came with, nothing hung onto it."""
    config = sites.config
    widths = (sites.hidden_size, sites.ffn_size, sites.head_size)
    return (
        type(sites.decoder) is llama.LlamaModel
        and config._attn_implementation == "sdpa"
        and config.hidden_act == "silu"
        and len(list(_rotary(sites.decoder))) == 1
        and type(sites.final_norm) is llama.LlamaRMSNorm
        and all(_is_plain(layer) for layer in sites.layers)
        and all(width % LANES == 0 for width in widths)
        and sites.head_size <= WIDEST_HEAD
        and all(_is_readable(parameter) for parameter in sites.decoder.parameters())
        and not any(
            _changes(hook)
            for module in sites.decoder.modules()
            for name in HOOKS
            for hook in getattr(module, name).values()
        )
        and not any("forward" in vars(module) for module in sites.decoder.modules() if type(module) is not nn.Linear)
    )


def _changes(hook: Any) -> bool:
    return not getattr(hook, "gives_layer_arguments", False)


def _is_readable(parameter: Tensor) -> bool:
    return parameter.dtype == torch.float32 and parameter.device.type == "cpu" and parameter.is_contiguous()


def _is_changed(layer: Layer) -> bool:
    return bool(getattr(layer.attention, "takes_one_column", False))


def _is_plain(layer: Layer) -> bool:
    attention = {} if _is_changed(layer) else {layer.attention: llama.LlamaAttention}
    classes = {
        layer.module: llama.LlamaDecoderLayer,
        **attention,
        layer.ffn: llama.LlamaMLP,
        **{norm: llama.LlamaRMSNorm for norm in layer.norms.values()},
        **{site.module: nn.Linear for site in layer.sites.values()},
    }
    is_fused = any(site.is_fused or site.bias is not None for site in layer.sites.values())
    return not is_fused and all(type(module) is kind for module, kind in classes.items())


def _rotary(decoder: nn.Module) -> Iterator[nn.Module]:
    return (module for module in decoder.children() if type(module) is llama.LlamaRotaryEmbedding)


class LlamaStep:
    """Takes the weights as they are when it is made: for one call of the engine."""

    def __init__(self, sites: Backbone, *, keeps: Sequence[int] = ()) -> None:
        """`keeps` are indices of layers whose hidden states [B, W] a call leaves in `kept`."""
        kernel = library()
        assert kernel is not None
        self.kernel = kernel
        self.keeps = set(keeps)
        self.kept: dict[int, Tensor] = {}
        [self.rotary] = _rotary(sites.decoder)
        self.decoder, self.embedding, self.layers = sites.decoder, sites.embedding, sites.layers
        self.norm = _norm(sites.final_norm)
        self.is_plain = not any(map(_is_changed, sites.layers))
        first_norm = sites.layers[0].norms["ffn_input"]
        self.step = StepArguments(
            width=sites.hidden_size,
            inner=sites.ffn_size,
            heads=sites.num_heads,
            groups=sites.num_kv_heads,
            size=sites.head_size,
            eps=first_norm.variance_epsilon,
        )
        self.weights: list[Tensor] = []
        """What the kernel reads, held on to."""
        self.mask: HeadMask | None = None
        self.arguments = (LayerArguments * len(sites.layers))(*map(self._arguments, sites.layers))
        self.is_half = any(weight.dtype is torch.bfloat16 for weight in self.weights)
        runs = groupby(range(len(sites.layers)), key=lambda index: (_is_changed(sites.layers[index]), self._run(index)))
        self.runs = [(changed, list(indices)) for (changed, _), indices in runs]
        self._cache: KVCache | None = None

    def __call__(
        self, ids_B1: Tensor, cache: KVCache, *, pad_B: Tensor, mask: Tensor | None, position_B1: Tensor
    ) -> Tensor:
        """Hidden states [B, W] after the final norm. The cache's length is left to the caller.

        Row b has padding in its first `pad_B[b]` columns; `mask` says the same to changed layers.
        """
        hidden_BW = self.embedding(ids_B1[:, 0])
        cos_B1D, sin_B1D = (angles.contiguous() for angles in self.rotary(hidden_BW, position_ids=position_B1))
        arguments: dict[str, Any] = {"position_embeddings": (cos_B1D, sin_B1D), "past_key_values": cache}
        for hook in self.decoder._forward_pre_hooks.values():
            prepared: Any = hook
            arguments |= prepared(self.decoder, (), {})[1]
        self._place(cache, hidden_BW)
        step = self.step
        step.rows, step.threads, step.column = len(hidden_BW), torch.get_num_threads(), cache.length
        step.first, step.hidden = pad_B.data_ptr(), hidden_BW.data_ptr()
        step.cosines, step.sines = cos_B1D.data_ptr(), sin_B1D.data_ptr()
        step.angle_row = cos_B1D.shape[-1] if len(cos_B1D) > 1 else 0
        if self.mask is not None:
            step.is_uniform = self.mask.is_uniform
            step.silent_step = (1 + self.mask.every_second) if self.mask.is_active else 0
        for is_changed, indices in self.runs:
            if is_changed:
                [index] = indices
                layer = self.layers[index]
                normed_B1W = _norm(layer.norms["attention_input"])(hidden_BW)[:, None]
                output_B1W, _ = layer.attention(hidden_states=normed_B1W, attention_mask=mask, **arguments)
                hidden_BW += output_B1W[:, 0]
            first = ctypes.byref(self.arguments, indices[0] * ctypes.sizeof(LayerArguments))
            self.kernel.decoder_layers(ctypes.byref(step), first, len(indices), self.is_half)
            if indices[-1] in self.keeps:
                self.kept[indices[-1]] = hidden_BW.clone()
        return self.norm(hidden_BW)

    def _run(self, index: int) -> int:
        """Equal for neighbours that one call of the kernel computes: changed and kept layers end such a run."""
        return sum(_is_changed(self.layers[before]) or before - 1 in self.keeps for before in range(index + 1))

    def _arguments(self, layer: Layer) -> LayerArguments:
        """The pointers to the weights of a layer; a changed one has its FFN computed alone."""
        weights: dict[str, Any] = {
            f"{branch}_norm": layer.norms[f"{branch}_input"].weight for branch in ("attention", "ffn")
        }
        names = ("gate", "up", "down") if _is_changed(layer) else ("q", "k", "v", "o", "gate", "up", "down")
        for name in names:
            # A call runs `forward`, for there are no hooks.
            module, forward = layer.sites[name].module, layer.sites[name].module.forward
            if isinstance(forward, SilencedProjection):
                self.mask, weights["keeps"], forward = forward.mask, forward.keeps_H, forward.below
            weights[name] = forward.weight_OI if isinstance(forward, HalfProduct) else module.weight
        self.weights += weights.values()
        return LayerArguments(**{name: weight.data_ptr() for name, weight in weights.items()})

    def _place(self, cache: KVCache, hidden_BW: Tensor) -> None:
        """Tell the kernel where the cache lies."""
        if cache is self._cache:
            return
        for layer, arguments in zip(self.layers, self.arguments, strict=True):
            if _is_changed(layer):
                continue
            kept = cast(KVLayer, cache.layers[cast(Any, layer.attention).layer_idx])
            if not kept.is_initialized:
                like = hidden_BW.new_zeros(len(hidden_BW), self.step.groups, 1, self.step.size)
                kept.lazy_initialization(like, like)
            arguments.keys, arguments.values = kept.keys.data_ptr(), kept.values.data_ptr()
            self.step.cache_row, self.step.cache_group = kept.keys.stride()[:2]
        self._cache = cache


def _norm(module: nn.Module) -> Callable[[Tensor], Tensor]:
    weight, eps = module.weight, module.variance_epsilon
    assert isinstance(weight, Tensor)
    assert isinstance(eps, float)
    shape = tuple(weight.shape)
    return lambda hidden: functional.rms_norm(hidden, shape, weight, eps)
