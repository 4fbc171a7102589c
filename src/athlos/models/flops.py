"""Floating-point operations of a model, counted from its matrices. A multiply-add is two operations.

Counted: linear layers and the two products of attention with the keys each query may see. Left out: norms,
activation functions, softmax, the embedding lookup (together a few percent), and what activation checkpointing
computes again: these are the operations of the model, not of the hardware.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn
from transformers.pytorch_utils import Conv1D

from athlos.models.sites import Backbone, Layer, backbone, knows_sites

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FLOPS_PER_ENTRY = 2
"""Forward operations for one token and one entry of a matrix."""
ATTENTION_PRODUCTS = 2
"""Queries with keys, and probabilities with values."""


def is_counted(model: "PreTrainedModel") -> bool:
    """Whether the count fits a model: its sites are known, and each token passes the same matrices.

    The experts of a mixture that transformers brings are no linear layers, so theirs are not counted.
    """
    return knows_sites(model) and not any(layer.has_experts for layer in backbone(model).layers)


def forward_flops(model: "PreTrainedModel", *, num_rows: int, length: int, num_pictures: int = 0) -> float:
    """One forward pass over `num_rows` rows of `length` tokens, logits at every position, no cache."""
    sites = backbone(model)
    tokens = num_rows * length
    matrices = sum(_entries(part) for part in _text_parts(sites)) - sum(map(idle_entries, sites.layers))
    attention = sum(attention_flops(sites, length=length)) * num_rows
    return FLOPS_PER_ENTRY * tokens * matrices + attention + num_pictures * _picture_flops(sites)


def step_flops(model: "PreTrainedModel", *, num_rows: int, length: int, num_pictures: int = 0) -> float:
    """Forward and backward pass of one optimizer step, for the parameters that train now.

    Backward costs once the forward pass for gradients of inputs, down to the lowest trainable parameter, and once for
    gradients of each trainable matrix. So full training costs 3 forward passes; with everything frozen it costs 1.
    """
    sites = backbone(model)
    tokens = num_rows * length
    backward = 0.0
    for layer, reach, attention in zip(
        sites.layers, gradient_reach(sites), attention_flops(sites, length=length), strict=True
    ):
        backward += 2.0 * num_rows * attention * reach.scores  # each product of attention has two inputs
        backward += FLOPS_PER_ENTRY * tokens * _layer_backward_entries(layer, reach)
    backward += FLOPS_PER_ENTRY * tokens * _site_backward_entries(sites.head, has_gradient=reaches_head(sites))
    for part in (sites.vision_tower, sites.projector):
        if part is not None and num_pictures:
            backward += 2 * num_pictures * _part_picture_flops(sites, part) * trains(part)
    return forward_flops(model, num_rows=num_rows, length=length, num_pictures=num_pictures) + backward


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Which tensors of a layer have a gradient, given what trains in it and below it."""

    attention_input: bool
    """The normalised input of q, k and v."""
    scores: bool
    """Any of queries, keys, values: the backward pass crosses the attention."""
    middle: bool
    """The stream between attention and FFN."""
    ffn_input: bool
    """The normalised input of gate and up."""
    gate: bool
    up: bool
    end: bool
    """The stream the layer hands on."""


def gradient_reach(sites: Backbone) -> list[Reach]:
    """Layer by layer from the bottom; the stream has a gradient above the lowest trainable parameter."""
    below = (sites.embedding, sites.vision_tower, sites.projector)
    stream, result = any(trains(part) for part in below if part is not None), []
    for layer in sites.layers:
        own = {name: trains(site.module) for name, site in layer.sites.items()}
        own |= {role: trains(norm) for role, norm in layer.norms.items()}
        attention_input = stream or own.get("attention_input", False)
        added = any(trains(module) for module in added_parts(layer))
        scores = (
            attention_input or added or any(own.get(name, False) for name in ("q", "k", "v", "query", "key", "value"))
        )
        middle = stream or scores or own["o"]
        middle = middle or any(own.get(role, False) for role in ("attention_output", "attention_sum"))
        ffn_input = (stream if layer.is_parallel else middle) or own.get("ffn_input", False)
        gate, up = ffn_input or own.get("gate", False), ffn_input or own.get("up", False)
        stream = middle or gate or up or trains(layer.module)
        result.append(
            Reach(
                attention_input=attention_input,
                scores=scores,
                middle=middle,
                ffn_input=ffn_input,
                gate=gate,
                up=up,
                end=stream,
            )
        )
    return result


def reaches_head(sites: Backbone) -> bool:
    """Whether the input of the output matrix has a gradient."""
    return any(reach.end for reach in gradient_reach(sites)) or trains(sites.final_norm)


def added_parts(layer: Layer) -> list[nn.Module]:
    """Linear layers of the attention that are no site: what a surgery put there, which takes the attention's input."""
    known = {id(linear) for site in layer.sites.values() for linear in linears(site.module)}
    return [linear for linear in linears(layer.attention) if id(linear) not in known]


def idle_entries(layer: Layer) -> int:
    """Entries of a layer's matrices that one token passes by: those of the experts it is not sent to."""
    entries: int = getattr(layer.ffn, "idle_entries", 0)
    return entries


def trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def attention_flops(sites: Backbone, *, length: int) -> list[float]:
    """Forward attention products of one row, layer by layer; a query sees itself, the past, and at most its window.

    A changed attention says itself how many multiply-adds a (query, key) pair costs: `pair_entries`.
    """
    plain = ATTENTION_PRODUCTS * sites.num_heads * sites.head_size
    return [
        FLOPS_PER_ENTRY * getattr(layer.attention, "pair_entries", plain) * float(seen_keys(length, window=window))
        for layer, window in zip(sites.layers, layer_windows(sites), strict=True)
    ]


def seen_keys(length: int, *, window: int | None) -> int:
    """Query-key pairs of one causal row: sum over positions of min(position, window)."""
    reach = length if window is None else min(window, length)
    return reach * (reach + 1) // 2 + (length - reach) * reach


def layer_windows(sites: Backbone) -> list[int | None]:
    """The sliding window of each layer in tokens; None = all of the past."""
    values = sites.config.to_dict()
    window, kinds = values.get("sliding_window"), values.get("layer_types")
    if window is None or values.get("use_sliding_window") is False:
        return [None] * len(sites.layers)
    if kinds is None:
        return [window] * len(sites.layers)
    return [window if kind == "sliding_attention" else None for kind in kinds]


def picture_tokens(sites: Backbone) -> int:
    """Patches of one picture, the class token included; 0 without a vision tower."""
    if sites.vision_tower is None:
        return 0
    values = sites.vision_tower.config.to_dict()
    if "patch_size" not in values:  # a convolutional tower says itself
        return int(values["num_tokens_a_side"] ** 2)
    return int((values["image_size"] // values["patch_size"]) ** 2 + 1)


def _picture_flops(sites: Backbone) -> float:
    return sum(_part_picture_flops(sites, part) for part in (sites.vision_tower, sites.projector) if part is not None)


def _part_picture_flops(sites: Backbone, part: nn.Module) -> float:
    """Matrices on every patch; in the tower also the attention, where every patch sees every patch."""
    patches = picture_tokens(sites)
    convolutions = getattr(part, "picture_flops", None)  # a convolutional tower says itself
    if convolutions is not None:
        return float(convolutions())
    flops = float(FLOPS_PER_ENTRY * patches * _entries(part))
    if part is sites.vision_tower:
        values = part.config.to_dict()
        pairs = patches**2 * values["num_hidden_layers"]
        flops += FLOPS_PER_ENTRY * ATTENTION_PRODUCTS * values["hidden_size"] * pairs
    return flops


def _text_parts(sites: Backbone) -> Iterator[nn.Module]:
    yield from (layer.module for layer in sites.layers)
    yield sites.head


def linears(module: nn.Module) -> Iterator[nn.Linear | Conv1D]:
    """Every linear layer in a module, GPT-2's transposed ones and LoRA's own among them."""
    return (inner for inner in module.modules() if isinstance(inner, nn.Linear | Conv1D))


def _entries(module: nn.Module) -> int:
    return sum(linear.weight.numel() for linear in linears(module))


def _layer_backward_entries(layer: Layer, reach: Reach) -> int:
    has_gradient = {
        "q": reach.attention_input,
        "k": reach.attention_input,
        "v": reach.attention_input,
        "o": reach.scores,
        "gate": reach.ffn_input,
        "up": reach.ffn_input,
        "down": reach.gate or reach.up,
    }
    modules = {site.path: (site.module, has_gradient[name]) for name, site in layer.sites.items()}
    added = sum(_site_backward_entries(module, has_gradient=reach.attention_input) for module in added_parts(layer))
    own = sum(_site_backward_entries(module, has_gradient=input_has) for module, input_has in modules.values())
    experts = 0
    if idle := idle_entries(layer):
        experts = (_entries(layer.ffn) - idle) * (reach.ffn_input + trains(layer.ffn))
    return added + own + experts


def _site_backward_entries(module: nn.Module, *, has_gradient: bool) -> int:
    """Entries of the matrices in the backward pass: once for the input's gradient, once for their own.

    LoRA's second matrix always needs the gradient of its input, which leads to the first.
    """
    total, inputs = 0, _inputs(module)
    for linear in linears(module):
        entries = linear.weight.numel()
        needs_input = has_gradient if _inputs(linear) == inputs else linear.weight.requires_grad
        total += entries * needs_input + entries * linear.weight.requires_grad
    return total


def _inputs(module: nn.Module) -> int:
    first = next(linears(module))
    return first.nx if isinstance(first, Conv1D) else first.in_features
