"""Schemas of SpanNorm: one surgery for every norm placement, and the method that watches depth while it trains."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import TYPE_CHECKING

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


# Made by a call because `none` reads better in YAML than a null.
InitScale = Enum(
    "InitScale",
    [(name, name) for name in ("auto", "none", "inv_sqrt_L", "inv_sqrt_2L", "layerwise", "branch_multiplier")],
    type=str,
)
"""What output projections are scaled by; `auto` = what the placement's own rule says."""
WidthScale = Enum("WidthScale", [(name, name) for name in ("none", "inv_sqrt_d")], type=str)
Calibration = Enum("Calibration", [(name, name) for name in ("none", "analytic", "measured")], type=str)


class NormKind(StrEnum):
    """`rms`: root mean square with gain. `layer`: mean and variance, with gain and bias."""

    rms = "rms"
    layer = "layer"


@dataclass(kw_only=True)
class NormConfig:
    kind: NormKind = MISSING
    eps: float = MISSING
    """Added to the mean square, > 0."""


@dataclass(kw_only=True)
class MoeConfig:
    num_experts: int = MISSING
    """Experts of an FFN; 0 = dense, otherwise >= 2."""
    top_k: int = MISSING
    """Experts a token is sent to, 1 .. num_experts."""
    balance_loss: float = MISSING
    """Weight of the balance loss, a mean over layers that is 1 for even loads, >= 0."""


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
    span_blocks: int = MISSING
    """Blocks that one skip spans, 1 or 2; must divide the number of layers."""
    init_scale: InitScale = MISSING  # type: ignore[valid-type]
    combine_scales: bool = MISSING
    """Let `init_scale` act on top of a placement that brings its own scale (deepnorm, rezero)."""
    c: float = MISSING
    """Branch variance of inv_sqrt_L and branch_multiplier is c / L, > 0."""
    width_scale: WidthScale = MISSING  # type: ignore[valid-type]
    """Standard deviation of the matrices: the model's `initializer_range`, or 1 / sqrt(inputs)."""
    branch_calibration: Calibration = MISSING  # type: ignore[valid-type]
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

    probe_every: int = MISSING
    """Steps between looks at the stream during training; 0 = none."""
    probe_rows: int = MISSING
    """Rows of the batch that is looked at, >= 1."""
    layer_removal: bool = MISSING
    """Also leave out each layer of the trained model in turn and note the loss."""


OWN_SCALE = (Placement.deepnorm, Placement.rezero)
"""Placements with an initial scale of their own."""
SPAN_SWITCHES = {"span_skip": True, "norm1": True, "pre_norm": False, "final_norm": False, "initial_norm": True,
                 "span_blocks": 1}  # fmt: skip
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
    if node.span_blocks not in (1, 2):
        yield f"surgery.span_blocks: got {node.span_blocks}, expected 1 or 2"
    elif node.span_blocks == 2 and not node.span_skip:
        yield "surgery.span_blocks: got 2 with span_skip=false, so there is no skip to span them"
    if node.c <= 0:
        yield f"surgery.c: got {node.c}, expected a number > 0"
    if node.norm.eps <= 0:
        yield f"surgery.norm.eps: got {node.norm.eps}, expected a number > 0"
    yield from _scale_errors(node)
    yield from _moe_errors(node.moe)


def _scale_errors(node: SpanNormSurgeryConfig) -> Iterable[str]:
    placement, scale = node.placement, node.init_scale.value  # type: ignore[attr-defined]
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


def _moe_errors(moe: MoeConfig) -> Iterable[str]:
    if moe.num_experts < 0 or moe.num_experts == 1:
        yield f"surgery.moe.num_experts: got {moe.num_experts}, expected 0 (dense) or an integer >= 2"
    elif moe.num_experts and not 1 <= moe.top_k <= moe.num_experts:
        yield f"surgery.moe.top_k: got {moe.top_k}, expected 1 .. moe.num_experts = {moe.num_experts}"
    if moe.balance_loss < 0:
        yield f"surgery.moe.balance_loss: got {moe.balance_loss}, expected a number >= 0"


def _method_errors(config: "RunConfig") -> Iterable[str]:
    node = config.method
    assert isinstance(node, SpanNormConfig)
    if node.probe_every < 0:
        yield f"method.probe_every: got {node.probe_every}, expected an integer >= 0"
    elif node.probe_every % config.train.log_every:
        every = config.train.log_every
        yield f"method.probe_every: got {node.probe_every}, expected a multiple of train.log_every = {every}"
    if node.probe_rows < 1:
        yield f"method.probe_rows: got {node.probe_rows}, expected an integer >= 1"


PARTS = [
    Part(
        group="surgery", name="spannorm", schema=SpanNormSurgeryConfig,
        target="athlos.methods.spannorm.surgery.SpanNormSurgery",
        summary="norm placement of a Llama-type model from scratch: spannorm and its baselines", check=_surgery_errors,
    ),
    Part(
        group="method", name="spannorm", schema=SpanNormConfig, target="athlos.methods.spannorm.module.SpanNormModule",
        summary="training from scratch that is watched by depth: activations, gradients, skip path, layer removal",
        check=_method_errors,
    ),
]  # fmt: skip
