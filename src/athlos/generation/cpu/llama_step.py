"""One decoding step of a plain Llama decoder with less around the arithmetic: the same products, half the calls.

On a small model most of a step is Python between the matrix products. This is the decoder of Llama (also of SmolLM2 and
of the lab models) written out for one new column. It applies only where every part is transformers' own Llama class
without hooks and replaced methods, so an adapter or another attention kernel never comes here; and the first step of
every call is computed both ways (`step.py`). An attention that a surgery changed comes here when it says that it
`takes_one_column`: it is called as the decoder layer calls it, the rest of the step is written out. What such layers
pass to each other is made by a hook of the decoder that `gives_layer_arguments` and does nothing else.

B rows, H heads, K key-value heads, C columns, D head size, W width.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.llama import modeling_llama as llama

from athlos.generation.cpu.fused_attention import attend, is_on
from athlos.generation.kv_cache import KVCache, KVLayer
from athlos.models.sites import Backbone, Layer

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""Attributes of a module that hold functions its call runs."""
Product = Callable[[Tensor], Tensor]


def fits(found: Backbone) -> bool:
    """Whether a decoder is plain Llama in float32: each module of the class it came with, nothing hung onto it."""
    config = found.config
    return (
        type(found.decoder) is llama.LlamaModel
        and config._attn_implementation == "sdpa"
        and config.hidden_act == "silu"
        and len(list(_rotary(found.decoder))) == 1
        and type(found.final_norm) is llama.LlamaRMSNorm
        and all(_is_plain(layer) for layer in found.layers)
        and all(parameter.dtype == torch.float32 for parameter in found.decoder.parameters())
        and not any(
            _changes(hook)
            for module in found.decoder.modules()
            for name in HOOKS
            for hook in getattr(module, name).values()
        )
        and not any("forward" in vars(module) for module in found.decoder.modules() if type(module) is not nn.Linear)
    )


def _changes(hook: Any) -> bool:
    return not getattr(hook, "gives_layer_arguments", False)


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
    is_fused = any(site.is_fused for site in layer.sites.values())
    return not is_fused and all(type(module) is kind for module, kind in classes.items())


def _rotary(decoder: nn.Module) -> Iterator[nn.Module]:
    return (module for module in decoder.children() if type(module) is llama.LlamaRotaryEmbedding)


class LlamaStep:
    """Takes the weights as they are when it is made: for one call of the engine."""

    def __init__(self, found: Backbone, *, keeps: Sequence[int] = ()) -> None:
        """`keeps` are indices of layers whose hidden states [B, W] a call leaves in `kept`."""
        self.keeps = set(keeps)
        self.kept: dict[int, Tensor] = {}
        [self.rotary] = _rotary(found.decoder)
        self.decoder = found.decoder
        self.embedding = found.embedding
        self.norm = _norm(found.final_norm)
        self.layers = [
            _ChangedLayer(layer) if _is_changed(layer) else _LlamaLayer(layer, found) for layer in found.layers
        ]

    def __call__(self, ids_B1: Tensor, cache: KVCache, *, mask: Tensor | None, position_B1: Tensor) -> Tensor:
        """Hidden states [B, W] after the final norm. The cache's length is left to the caller."""
        hidden_BW = self.embedding(ids_B1[:, 0])
        cos_B1D, sin_B1D = self.rotary(hidden_BW, position_ids=position_B1)
        half = sin_B1D.shape[-1] // 2
        turn_B1D = torch.cat((-sin_B1D[..., :half], sin_B1D[..., half:]), dim=-1)
        arguments: dict[str, Any] = {"position_embeddings": (cos_B1D, sin_B1D), "past_key_values": cache}
        for hook in self.decoder._forward_pre_hooks.values():
            given: Any = hook
            arguments |= given(self.decoder, (), {})[1]
        for index, layer in enumerate(self.layers):
            if isinstance(layer, _ChangedLayer):
                hidden_BW = layer(hidden_BW, mask=mask, arguments=arguments)
            else:
                of_layer: Any = cache.layers[layer.index]
                hidden_BW = layer(hidden_BW, of_layer, cos_B1D=cos_B1D, turn_B1D=turn_B1D, mask=mask)
            if index in self.keeps:
                self.kept[index] = hidden_BW
        return self.norm(hidden_BW)


class _LayerParts:
    """What a layer has around its attention."""

    def __init__(self, layer: Layer) -> None:
        # `forward` is what a call runs (there are no hooks), and oneDNN's where `fast_linear` is in force.
        self.products: dict[str, Product] = {name: site.module.forward for name, site in layer.sites.items()}
        self.gate, self.up, self.down = (self.products[name] for name in ("gate", "up", "down"))
        self.attention_norm, self.ffn_norm = (_norm(layer.norms[role]) for role in ("attention_input", "ffn_input"))

    def with_ffn(self, hidden_BW: Tensor) -> Tensor:
        normed_BW = self.ffn_norm(hidden_BW)
        return hidden_BW + self.down(functional.silu(self.gate(normed_BW)).mul_(self.up(normed_BW)))


class _ChangedLayer(_LayerParts):
    """A layer whose attention is a surgery's."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self.attention = layer.attention

    def __call__(self, hidden_BW: Tensor, *, mask: Tensor | None, arguments: dict[str, Any]) -> Tensor:
        normed_B1W = self.attention_norm(hidden_BW)[:, None]
        output_B1W, _ = self.attention(hidden_states=normed_B1W, attention_mask=mask, **arguments)
        return self.with_ffn(hidden_BW + output_B1W[:, 0])


class _LlamaLayer(_LayerParts):
    def __init__(self, layer: Layer, found: Backbone) -> None:
        super().__init__(layer)
        self.q, self.k, self.v, self.o = (self.products[name] for name in ("q", "k", "v", "o"))
        assert isinstance(layer.attention, llama.LlamaAttention)
        self.index = layer.attention.layer_idx
        self.num_kv_heads, self.head_size = found.num_kv_heads, found.head_size
        self.scale = self.head_size**-0.5  # of every plain Llama, as in its attention function
        self.num_shared = found.num_heads // found.num_kv_heads

    def __call__(
        self, hidden_BW: Tensor, kept: KVLayer, *, cos_B1D: Tensor, turn_B1D: Tensor, mask: Tensor | None
    ) -> Tensor:
        rows = hidden_BW.shape[0]
        normed_BW = self.attention_norm(hidden_BW)
        joined_BHD = torch.cat((self.q(normed_BW), self.k(normed_BW)), dim=-1).view(rows, -1, self.head_size)
        first, second = joined_BHD.chunk(2, dim=-1)
        turned_BHD = (joined_BHD * cos_B1D).addcmul_(torch.cat((second, first), dim=-1), turn_B1D)
        key_BK1D = turned_BHD[:, -self.num_kv_heads :, None]
        value_BK1D = self.v(normed_BW).view(rows, self.num_kv_heads, 1, self.head_size)
        key_BKCD, value_BKCD = kept.update(key_BK1D, value_BK1D)
        # The heads that share keys and values stand as queries of one head: nothing is repeated.
        query = turned_BHD[:, : -self.num_kv_heads].reshape(rows, self.num_kv_heads, self.num_shared, self.head_size)
        fused = (
            attend(
                (turned_BHD[:, : -self.num_kv_heads] * self.scale)[:, :, None],
                key_BKCD,
                value_BKCD,
                num_heads=self.num_shared * self.num_kv_heads,
                mask=mask,
            )
            if is_on()
            else None
        )
        if fused is not None:
            return self.with_ffn(hidden_BW + self.o(fused[0].view(rows, -1)))
        mixed = functional.scaled_dot_product_attention(query, key_BKCD, value_BKCD, attn_mask=mask)
        return self.with_ffn(hidden_BW + self.o(mixed.reshape(rows, -1)))


def _norm(module: nn.Module) -> Product:
    weight, eps = module.weight, module.variance_epsilon
    assert isinstance(weight, Tensor)
    assert isinstance(eps, float)
    shape = tuple(weight.shape)
    return lambda hidden: functional.rms_norm(hidden, shape, weight, eps)
