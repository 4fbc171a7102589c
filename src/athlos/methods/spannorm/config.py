"""Schemas of SpanNorm: one surgery for every norm placement, and the method that watches depth while it trains."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from athlos.config.fields import above, at_least, bounded
from athlos.config.registry import Part
from athlos.config.schema import MISSING, MethodConfig, SurgeryConfig

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig


class Placement(StrEnum):
    """Where the norms of a block stand; the equations are in `placements.py`."""

    spannorm = "spannorm"
    prenorm = "prenorm"
    postnorm = "postnorm"
    deepnorm = "deepnorm"
    sandwich = "sandwich"
    peri_ln = "peri_ln"
    mixln = "mixln"
    hybridnorm = "hybridnorm"
    hybridnorm_star = "hybridnorm_star"
    layernorm_scaling = "layernorm_scaling"
    residual = "residual"
    siamesenorm = "siamesenorm"
    scaled_prenorm = "scaled_prenorm"
    keel = "keel"
    rezero = "rezero"


class InitScale(StrEnum):
    """What output projections are scaled by; `auto` = what the placement's own rule says."""

    auto = "auto"
    none = "none"
    inv_sqrt_L = "inv_sqrt_L"
    inv_sqrt_2L = "inv_sqrt_2L"
    layerwise = "layerwise"
    branch_multiplier = "branch_multiplier"


WidthScale = StrEnum("WidthScale", ["none", "inv_sqrt_d"])
Calibration = StrEnum("Calibration", ["none", "analytic", "measured"])


class NormKind(StrEnum):
    """`rms`: root mean square with gain. `layer`: mean and variance, with gain and bias."""

    rms = "rms"
    layer = "layer"


@dataclass(kw_only=True)
class NormConfig:
    kind: NormKind = MISSING
    eps: float = above(0)
    """Added to the mean square."""


@dataclass(kw_only=True)
class MoeConfig:
    num_experts: int = at_least(0)
    """Experts of an FFN, at least 2; 0 = dense."""
    top_k: int = at_least(1)
    """Experts a token is sent to, at most `num_experts`."""
    balance_loss: float = at_least(0)
    """Weight of the balance loss, a mean over layers that is 1 for even loads."""


@dataclass(kw_only=True)
class SpanNormSurgeryConfig(SurgeryConfig):
    placement: Placement = MISSING
    span_skip: bool = MISSING
    """The FFN's skip starts at the block's input; false: at the attention's sum, as in postnorm."""
    norm1: bool = MISSING
    """Normalise the attention's sum."""
    pre_norm: bool = MISSING
    """Also normalise the input of attention and FFN."""
    final_norm: bool = MISSING
    """Also normalise before the output matrix."""
    initial_norm: bool = MISSING
    """Normalise the first attention's input; the skip keeps the raw embedding."""
    span_blocks: int = bounded("[1, 2]")
    """Blocks that one skip spans; must divide the number of layers."""
    init_scale: InitScale = MISSING
    combine_scales: bool = MISSING
    """Let `init_scale` act on top of a placement that brings its own scale (deepnorm, rezero)."""
    c: float = above(0)
    """Branch variance of inv_sqrt_L and branch_multiplier is c / L."""
    width_scale: WidthScale = MISSING
    """Standard deviation of the matrices: the model's `initializer_range`, or 1 / sqrt(inputs)."""
    branch_calibration: Calibration = MISSING
    """Bring the FFN's output variance to the wanted one: not, by SwiGLU's E[silu(a)^2], or by one batch."""
    embed_norm: bool = MISSING
    """Divide each embedding by its root mean square, since the first skip begins there. The matrix is untouched."""
    norm: NormConfig = field(default_factory=NormConfig)
    moe: MoeConfig = field(default_factory=MoeConfig)
    from_scratch: bool = MISSING
    """Allow a model with trained weights, and draw all of its weights anew."""


@dataclass(kw_only=True)
class SpanNormConfig(MethodConfig):
    """Trains like `finetune` and measures the model by depth: at the start, at the end, and on the way."""

    probe_every: int = at_least(0)
    """Steps between looks at the stream during training; 0 = none."""
    probe_rows: int = at_least(1)
    """Rows of the batch that is looked at."""
    layer_removal: bool = MISSING
    """Also leave out each layer of the trained model in turn and note the loss."""


OWN_SCALE = (Placement.deepnorm, Placement.rezero)
"""Placements with an initial scale of their own."""
SPAN_SWITCHES = {
    "span_skip": True,
    "norm1": True,
    "pre_norm": False,
    "final_norm": False,
    "initial_norm": True,
    "span_blocks": 1,
}
"""Switches that only placement=spannorm reads, with their defaults."""


def _surgery_errors(config: "RunConfig") -> Iterable[str]:
    node = config.surgery
    assert isinstance(node, SpanNormSurgeryConfig)
    placement = node.placement
    if config.model.source != "random" and not node.from_scratch:
        yield (
            f"surgery.placement: {placement.value} changes what trained weights mean (model.source="
            f"{config.model.source}); set surgery.from_scratch=true to draw them anew, or model.source=random"
        )
    if placement is not Placement.spannorm:
        for name, default in SPAN_SWITCHES.items():
            if getattr(node, name) != default:
                yield f"surgery.{name}: got {getattr(node, name)}, but only placement=spannorm has this switch"
    if node.span_blocks == 2 and not node.span_skip:
        yield "surgery.span_blocks: got 2 with span_skip=false, so there is no skip to span them"
    yield from _scale_errors(node)
    if node.moe.num_experts == 1:
        yield "surgery.moe.num_experts: got 1, expected 0 (dense) or an integer >= 2"
    elif node.moe.num_experts and node.moe.top_k > node.moe.num_experts:
        yield f"surgery.moe.top_k: got {node.moe.top_k}, expected at most moe.num_experts = {node.moe.num_experts}"


def _scale_errors(node: SpanNormSurgeryConfig) -> Iterable[str]:
    placement, scale = node.placement, node.init_scale.value
    own = placement in OWN_SCALE
    if own and scale not in ("auto", "none") and not node.combine_scales:
        yield (
            f"surgery.init_scale: got {scale}, but {placement.value} has a scale of its own; "
            "set surgery.combine_scales=true if you want both"
        )
    if placement is Placement.scaled_prenorm and scale == "none":
        yield "surgery.init_scale: got none, which makes placement=scaled_prenorm plain prenorm"
    if node.combine_scales and not own:
        yield f"surgery.combine_scales: {placement.value} has no scale of its own to combine"


def _method_errors(config: "RunConfig") -> Iterable[str]:
    node = config.method
    assert isinstance(node, SpanNormConfig)
    if node.probe_every % config.train.log_every:
        every = config.train.log_every
        yield f"method.probe_every: got {node.probe_every}, expected a multiple of train.log_every = {every}"


PARTS = [
    Part(
        group="surgery",
        name="spannorm",
        schema=SpanNormSurgeryConfig,
        target="athlos.methods.spannorm.surgery.SpanNormSurgery",
        summary="norm placement of a Llama-type model from scratch: spannorm and its baselines",
        check=_surgery_errors,
    ),
    Part(
        group="method",
        name="spannorm",
        schema=SpanNormConfig,
        target="athlos.methods.spannorm.module.SpanNormModule",
        summary="training from scratch that is watched by depth: activations, gradients, skip path, layer removal",
        check=_method_errors,
    ),
]
