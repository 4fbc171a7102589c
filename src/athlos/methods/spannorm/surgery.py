"""The surgery `spannorm`: replaces the decoder layers of a model that is trained from scratch, and draws its weights.

The scaling rule: a branch of output variance s^2 leaves 1 / sqrt(1 + s^2) of a unit skip path at each norm. SpanNorm
has one norm a block on its skip path, so over L blocks (1 + s^2)^(-L / 2) is left; with s^2 = c / L that tends to
exp(-c / 2), whatever the depth.
"""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from athlos.config.parts import PartContext, PartReport
from athlos.errors import SurgeryError
from athlos.methods.spannorm.block import FINAL_NORM, Block, HeadNormed, norm_of
from athlos.methods.spannorm.config import Placement, SpanNormConfig
from athlos.models.sites import ATTENTION_MATRICES, Backbone, Layer, backbone
from athlos.models.surgical import record_surgery

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NARROW_STD = 0.02
"""Standard deviation of width_scale=none."""
SWIGLU_SQUARE = 0.3557
"""E[silu(a)^2] for a normal a: variance of silu(a) b for independent unit normals."""
NUM_PROBES = 512
"""Unit normal rows that a branch's variance is measured on."""


class SpanNormSurgery:
    def __init__(self, config: SpanNormConfig) -> None:
        self.config = config

    def apply(self, model: "PreTrainedModel", *, context: PartContext) -> tuple["PreTrainedModel", PartReport]:
        config, found = self.config, backbone(model)
        source = context.config.model.source
        if source != "random" and not config.from_scratch:
            raise SurgeryError(f"surgery=spannorm: {source} has trained weights; see surgery.from_scratch")
        plan = plan_of(config, num_layers=len(found.layers))
        place(model, plan)
        found = backbone(model)
        is_meta = found.head.weight.is_meta
        metrics = {"spannorm/num_layers": float(len(found.layers))}
        if not is_meta:
            initialise(model, found, config=config, plan=plan, redraw=source != "random")
            variance = branch_variance(found)
            metrics["spannorm/ffn_variance"] = variance
            if config.placement is Placement.spannorm:
                metrics["spannorm/skip_product"] = skip_product(variance, num_layers=len(found.layers))
        record_surgery(model, name="spannorm", plan=plan)
        return model, PartReport(summary=f"norms placed as {config.placement.value}", metrics=metrics)

    @staticmethod
    def rebuild(model: "PreTrainedModel", plan: dict[str, Any]) -> None:
        """Change a fresh model alike; its weights are loaded afterwards."""
        place(model, plan)


def plan_of(config: SpanNormConfig, *, num_layers: int) -> dict[str, Any]:
    """The structure of the changed model as plain values; raises `SurgeryError` where the depth does not fit."""
    if num_layers % config.span_blocks:
        raise SurgeryError(f"surgery.span_blocks: {config.span_blocks} does not divide the {num_layers} layers")
    is_multiplied = config.init_scale.value == "branch_multiplier"
    return {
        "placement": config.placement.value,
        "norm": {"kind": config.norm.kind.value, "eps": config.norm.eps},
        "multiplier": math.sqrt(config.c / num_layers) if is_multiplied else 1.0,
        **{
            name: getattr(config, name)
            for name in ("span_skip", "span_blocks", "norm1", "pre_norm", "initial_norm", "final_norm", "embed_norm")
        },
    }


def place(model: "PreTrainedModel", plan: dict[str, Any]) -> None:
    """Replace the decoder layers and the final norm."""
    found = backbone(model)
    placement = plan["placement"]
    dtype, device = found.embedding.weight.dtype, found.embedding.weight.device
    with torch.device(device):
        for layer in found.layers:
            if {"query", "key"} & set(layer.norms):
                raise SurgeryError(f"layer {layer.index}: the model has norms of its own inside the attention")
            if placement == "hybridnorm":
                _norm_heads(layer, found, plan)
            block = Block(
                index=layer.index, num_layers=len(found.layers), width=found.hidden_size, placement=placement,
                plan=plan, attention=layer.attention, ffn=layer.ffn,
            )  # fmt: skip
            found.decoder.layers[layer.index] = block.to(dtype)
        keeps = placement in FINAL_NORM or (placement == "spannorm" and plan["final_norm"])
        final = norm_of(found.hidden_size, **plan["norm"]).to(dtype) if keeps else nn.Identity()
        found.decoder.norm = final
    # A checkpointing flag that was set before the surgery holds for the new layers as well.
    if getattr(model, "is_gradient_checkpointing", False):
        model.gradient_checkpointing_enable({"use_reentrant": False})


def _norm_heads(layer: Layer, found: Backbone, plan: dict[str, Any]) -> None:
    for name in "qkv":
        old: Any = layer.sites[name].module
        if layer.sites[name].is_fused:
            raise SurgeryError(f"layer {layer.index}: hybridnorm wants Q, K and V in matrices of their own")
        new = HeadNormed(
            old.in_features, old.out_features, bias=old.bias is not None, head_size=found.head_size, **plan["norm"]
        )
        setattr(layer.attention, ATTENTION_MATRICES[name], new.to(old.weight.dtype))


@torch.no_grad()
def initialise(
    model: "PreTrainedModel", found: Backbone, *, config: SpanNormConfig, plan: dict[str, Any], redraw: bool
) -> None:  # fmt: skip
    """Draw the matrices of all blocks; gains stay at 1. With `redraw` the embeddings and the head too."""
    if redraw:
        for weight in {id(one.weight): one.weight for one in (found.embedding, found.head)}.values():
            weight.normal_(std=NARROW_STD)
    depth = len(found.layers)
    for layer in found.layers:
        for site in layer.sites.values():
            std = NARROW_STD if config.width_scale.value == "none" else site.weight.shape[1] ** -0.5
            site.weight.normal_(std=std * gain(site.name, layer.index, depth=depth, config=config))
            if site.module.bias is not None:
                site.module.bias.zero_()
        if config.branch_calibration.value == "analytic":
            layer.sites["down"].weight.mul_(SWIGLU_SQUARE**-0.5)
        elif config.branch_calibration.value == "measured":
            wanted = gain("down", layer.index, depth=depth, config=config)
            layer.sites["down"].weight.mul_(wanted / math.sqrt(ffn_variance(layer)))


def gain(site: str, index: int, *, depth: int, config: SpanNormConfig) -> float:
    """Factor on the standard deviation of a matrix at the start."""
    if config.placement is Placement.deepnorm and config.init_scale.value == "auto":
        return 1.0 if site in "qk" else deepnorm_gain(depth)
    if site not in ("o", "down"):
        return 1.0
    rule = config.init_scale.value
    if rule == "auto":
        rule = {Placement.spannorm: "inv_sqrt_L", Placement.scaled_prenorm: "inv_sqrt_2L"}.get(config.placement, "none")
    return {
        "none": 1.0, "branch_multiplier": 1.0, "inv_sqrt_L": math.sqrt(config.c / depth),
        "inv_sqrt_2L": (2 * depth) ** -0.5, "layerwise": (2 * (index + 1)) ** -0.5,
    }[rule]  # fmt: skip


def deepnorm_gain(num_layers: int) -> float:
    """b = (8 L)^(-1/4) of DeepNet, for V, the output projection and the FFN of a decoder."""
    return float((8 * num_layers) ** -0.25)


def skip_product(variance: float, *, num_layers: int) -> float:
    """What is left of a unit skip path behind `num_layers` SpanNorm blocks whose FFN has this output variance."""
    return float((1 + variance) ** (-num_layers / 2))


@torch.no_grad()
def ffn_variance(layer: Layer) -> float:
    """Mean square of an FFN's output for unit normal input, its branch multiplier left out."""
    weight = layer.sites["up"].weight
    generator = torch.Generator().manual_seed(layer.index)
    probes = torch.randn(NUM_PROBES, weight.shape[1], generator=generator).to(weight)
    out: Tensor = layer.ffn(probes)
    return float(out.double().square().mean())


def branch_variance(found: Backbone) -> float:
    """Mean of the FFNs' output variances, the branch multiplier counted."""
    values = [ffn_variance(layer) * layer.module.plan["multiplier"] ** 2 for layer in found.layers]
    return sum(values) / len(values)
