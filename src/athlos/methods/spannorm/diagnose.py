"""What a stream does over depth: size, direction, rank, skip path, gradients, and what each layer is good for.

Functions off the training path: they hang hooks on a model, run one batch and take the hooks away. Any decoder that
`backbone` finds works; skip coefficients need the layers of surgery=spannorm. Of layers with a side stream the stream
proper is measured. B batch, T positions, D width, L layers, M counted positions.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from athlos.methods.spannorm.block import Block
from athlos.methods.spannorm.placements import skip_path
from athlos.models.forward import evaluating, hidden_states, wide
from athlos.models.sites import Backbone, Layer, backbone

if TYPE_CHECKING:
    from transformers import PreTrainedModel

RANK_TOKENS = 512
"""Positions that the effective rank is taken over."""


@dataclass(kw_only=True)
class Profile:
    """One number a layer, from the bottom."""

    act_rms: list[float] = field(default_factory=list)
    """Root mean square of the stream a layer hands on."""
    adjacent_cosine: list[float] = field(default_factory=list)
    """Mean over positions of the cosine between the stream before and behind a layer; the first layer's is with the
    embedding."""
    effective_rank: list[float] = field(default_factory=list)
    """exp of the entropy of the singular values' shares, 1 .. D."""
    skip_coefficient: list[float] = field(default_factory=list)
    """Mean over positions of what is left of the skip, both taken at RMS 1; empty for layers of other classes."""

    @property
    def skip_product(self) -> float:
        """Of all layers: how much of the embedding is left on the skip path at the top; nan where nothing is known."""
        return math.prod(self.skip_coefficient) if self.skip_coefficient else math.nan


@torch.no_grad()
def profile(model: "PreTrainedModel", batch: Mapping[str, Tensor]) -> Profile:
    """The stream of one batch by layer; padded positions do not count."""
    sites, result = backbone(model), Profile()
    is_counted_BT = batch["attention_mask"].bool()
    handles = []
    for layer in sites.layers:
        handles.append(layer.module.register_forward_hook(_stream_noter(result, layer, sites, is_counted_BT)))
        if isinstance(layer.module, Block):
            handles += _skip_noters(result, layer.module, is_counted_BT)
    try:
        with evaluating(model):
            hidden_states(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return result


def _stream_noter(result: Profile, layer: Layer, sites: Backbone, is_counted_BT: Tensor) -> Any:
    def after(module: Any, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        before_MD, behind_MD = (
            wide(states[..., : sites.hidden_size])[is_counted_BT] for states in (arguments[0], output)
        )
        result.act_rms.append(behind_MD.square().mean().sqrt().item())
        result.adjacent_cosine.append(nn.functional.cosine_similarity(before_MD, behind_MD, dim=-1).mean().item())
        result.effective_rank.append(effective_rank(behind_MD[:RANK_TOKENS]))

    return after


def effective_rank(rows_MD: Tensor) -> float:
    """exp of the entropy of the singular values over their sum; 0 for a matrix of zeros."""
    values = torch.linalg.svdvals(rows_MD)
    shares = values[values > 0] / values.sum()
    return float(torch.exp(-(shares * shares.log()).sum())) if len(shares) else 0.0


def _skip_noters(result: Profile, block: Block, is_counted_BT: Tensor) -> list[Any]:
    """The block's coefficient is the product over the sums on its skip path; 1 where there are none."""

    def open_block(module: Any, arguments: Any) -> None:
        result.skip_coefficient.append(1.0)

    def after(module: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        skip, total = (wide(states)[is_counted_BT] for states in (inputs[0], output))
        left_M = module.skip_factor * rms(skip) / rms(total)
        result.skip_coefficient[-1] *= left_M.mean().item()

    sums = [block.sum_of(name).register_forward_hook(after) for name in skip_path(block.plan)]
    return [block.register_forward_pre_hook(open_block), *sums]


def rms(rows_MD: Tensor) -> Tensor:
    """Root mean square of each row, [M]."""
    return rows_MD.square().mean(-1).sqrt()


def gradient_norms(model: "PreTrainedModel", loss_of: Callable[[], Tensor]) -> dict[str, list[float]]:
    """Norm of the gradient of a loss by layer: `all` parameters, and those of `attention` (q, k, v, o) alone.

    The parameters' own gradients are left as they were.
    """
    sites = backbone(model)
    groups = {
        "all": [list(layer.module.parameters()) for layer in sites.layers],
        "attention": [list(layer.attention.parameters()) for layer in sites.layers],
    }
    flat = [parameter for group in groups["all"] for parameter in group if parameter.requires_grad]
    with evaluating(model), torch.enable_grad():
        gradients = torch.autograd.grad(loss_of(), flat, allow_unused=True)
    by_id = {id(parameter): gradient for parameter, gradient in zip(flat, gradients, strict=True)}
    norms: dict[str, list[float]] = {}
    for name, layers in groups.items():
        norms[name] = []
        for parameters in layers:
            known = [by_id[id(parameter)] for parameter in parameters if by_id.get(id(parameter)) is not None]
            norms[name].append(float(torch.nn.utils.get_total_norm(known)) if known else 0.0)
    return norms


@torch.no_grad()
def removal_deltas(model: "PreTrainedModel", loss_of: Callable[[], Tensor]) -> list[float]:
    """Loss without a layer less the loss of the whole model, layer by layer; nan for one that begins or ends a span or
    a side stream, which cannot be left out."""
    deltas = []
    with evaluating(model):
        whole = loss_of().item()
        for layer in backbone(model).layers:
            plan = layer.module.plan if isinstance(layer.module, Block) else None
            if plan is not None and plan.takes_side != plan.gives_side:
                deltas.append(math.nan)
                continue
            handle = layer.module.register_forward_hook(_passed_by)
            try:
                deltas.append(loss_of().item() - whole)
            finally:
                handle.remove()
    return deltas


def _passed_by(module: Any, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
    passed = module.embedded(wide(arguments[0])) if isinstance(module, Block) else arguments[0]
    return passed.to(output.dtype)
