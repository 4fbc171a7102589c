"""Weights at the start: width scale, depth scale, and the FFN's variance brought to what the depth scale wants.

L layers, D width, s^2 = a branch's output variance over that of its skip. SpanNorm's rule: s^2 = c / L, so that the
product of the L skip coefficients (1 + s^2)^(-1/2) tends to exp(-c / 2), whatever L.
"""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from athlos.methods.spannorm.block import Block
from athlos.methods.spannorm.experts import Experts
from athlos.methods.spannorm.placements import REZERO_START, deepnorm_beta
from athlos.models.flops import linears
from athlos.models.forward import evaluating
from athlos.models.sites import Backbone, Layer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SILU_SQUARE = 0.3557
"""E[silu(a)^2] for a standard normal a; the variance of silu(a) b for an independent b of variance 1."""
OUTPUTS = ("o", "down")
"""Matrices that end a branch."""
DEEPNORM_GAINS = ("v", "o", "gate", "up", "down")
"""Matrices that deepnorm begins smaller."""


def depth_factor(rule: str, *, num_layers: int, layer: int, c: float) -> float:
    """What the standard deviation of output projections of layer `layer` (from 0) is multiplied by."""
    if rule == "inv_sqrt_L":
        return math.sqrt(c / num_layers)
    if rule == "inv_sqrt_2L":
        return 1 / math.sqrt(2 * num_layers)
    if rule == "layerwise":
        return 1 / math.sqrt(2 * (layer + 1))
    assert rule in ("none", "branch_multiplier")
    return 1.0


def own_rule(placement: str) -> str:
    """The depth rule of `init_scale=auto`; deepnorm and rezero scale in ways of their own.

    Source for hybridnorm: BryceZhuo/HybridNorm, whose configs have `init_fn: full_megatron`.
    """
    rules = {
        "spannorm": "inv_sqrt_L",
        "scaled_prenorm": "inv_sqrt_2L",
        "hybridnorm": "inv_sqrt_2L",
        "hybridnorm_star": "inv_sqrt_2L",
    }
    return rules.get(placement, "none")


def width_std(placement: str, linear: nn.Linear) -> float:
    """Standard deviation that keeps the size of what goes through a matrix: 1 / sqrt(inputs); for deepnorm Xavier's
    sqrt(2 / (inputs + outputs)), to which its gains belong (arXiv 2203.00555, figure 2)."""
    if placement == "deepnorm":
        return math.sqrt(2 / (linear.in_features + linear.out_features))
    return 1 / math.sqrt(linear.in_features)


def gain(placement: str, site: str, *, num_layers: int) -> float:
    """deepnorm's gain at the start: (8 L)^(-1/4) on values, output and FFN, 1 on queries, keys and routers."""
    return deepnorm_beta(num_layers) if placement == "deepnorm" and site in DEEPNORM_GAINS else 1.0


def initialise(sites: Backbone, settings: dict[str, Any], *, seed: int) -> None:
    """Draw all weights anew. Equal seeds give equal draws in every placement, up to their scales."""
    generator = torch.Generator().manual_seed(seed)
    base, num_layers = sites.config.initializer_range, len(sites.layers)

    def draw(weight: Tensor, std: float) -> None:
        weight.copy_(std * torch.randn(weight.shape, generator=generator))

    with torch.no_grad():
        draw(sites.embedding.weight, base)
        padding = sites.embedding.padding_idx
        if isinstance(padding, int):
            sites.embedding.weight[padding] = 0
        for layer in sites.layers:
            for name, linear in branch_matrices(layer):
                std = base if settings["width_scale"] == "none" else width_std(settings["placement"], linear)
                std *= gain(settings["placement"], name, num_layers=num_layers)
                if name in OUTPUTS:
                    std *= depth_factor(
                        settings["init_scale"], num_layers=num_layers, layer=layer.index, c=settings["c"]
                    )
                if name == "down" and settings["branch_calibration"] == "analytic":
                    std /= math.sqrt(SILU_SQUARE)
                draw(linear.weight, std)
                if linear.bias is not None:
                    linear.bias.zero_()
        if not sites.is_tied:
            draw(sites.head.weight, base)
        for name, parameter in sites.decoder.named_parameters():
            if name.rpartition(".")[0].endswith(("norm", "norm.side", "norm.outer")):
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            elif name.endswith("gate") and parameter.ndim == 1:
                parameter.fill_(REZERO_START)


def branch_matrices(layer: Layer) -> list[tuple[str, nn.Linear]]:
    """(site name, matrix) of a layer, those of all experts and the router (`router`) among them."""
    named = [(name, site.module) for name, site in layer.sites.items()]
    if isinstance(layer.ffn, Experts):
        named.append(("router", layer.ffn.router))
        for expert in layer.ffn.experts:
            named += zip(("gate", "up", "down"), linears(expert), strict=True)
    return [(name, module) for name, module in named if isinstance(module, nn.Linear)]


@torch.no_grad()
def branch_variances(
    model: "PreTrainedModel", sites: Backbone, ids_BT: Tensor, *, wanted: list[float] | None = None
) -> dict[str, list[float]]:
    """Variance of each branch over that of its skip by layer, `attention` and `ffn`, on one batch.

    With `wanted` [L], each FFN's output projection is scaled on the way, so that its output has that variance and the
    layers above see the scaled stream.
    """
    variances: dict[str, list[float]] = {"attention": [], "ffn": []}
    handles = []
    for layer in sites.layers:
        assert isinstance(layer.module, Block)
        if wanted is not None:
            handles.append(layer.ffn.register_forward_hook(_calibrator(layer, wanted[layer.index])))
        for name in variances:
            handles.append(layer.module.sum_of(name).register_forward_hook(_ratio_noter(variances[name])))
    try:
        with evaluating(model):
            sites.decoder(input_ids=ids_BT, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return variances


def skip_product(variances: Iterable[float]) -> float:
    """What is left of a unit skip path behind blocks whose branches have these variances: prod (1 + s^2)^(-1/2)."""
    return float(math.prod((1 + variance) ** -0.5 for variance in variances))


def _calibrator(layer: Layer, wanted: float) -> Any:
    def after(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        factor = math.sqrt(wanted / output.float().square().mean().item())
        for name, linear in branch_matrices(layer):
            if name == "down":
                linear.weight.mul_(factor)
        return factor * output

    return after


def _ratio_noter(noted: list[float]) -> Any:
    def after(module: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        skip, branch = inputs
        gate = 1.0 if module.gate is None else module.gate.item()
        scaled = module.branch_factor * gate / module.skip_factor
        noted.append(scaled**2 * (branch.float().square().mean() / skip.float().square().mean()).item())

    return after
