"""Schema of the surgery that places norms: SpanNorm and what it is compared with."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import TYPE_CHECKING

from athlos.config.registry import Part
from athlos.config.schema import MISSING, SurgeryConfig

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig


class Placement(StrEnum):
    """Where a block normalises. The equations stand in `block.py`."""

    spannorm = "spannorm"
    prenorm = "prenorm"
    postnorm = "postnorm"
    scaled_prenorm = "scaled_prenorm"
    deepnorm = "deepnorm"
    sandwich = "sandwich"
    peri_ln = "peri_ln"
    mixln = "mixln"
    hybridnorm = "hybridnorm"
    layernorm_scaling = "layernorm_scaling"
    residual = "residual"
    siamesenorm = "siamesenorm"
    keel = "keel"
    rezero = "rezero"


# Made by a call because `none` reads better in YAML than a null.
InitScale = Enum(
    "InitScale",
    [(name, name) for name in ("auto", "none", "inv_sqrt_L", "inv_sqrt_2L", "layerwise", "branch_multiplier")],
    type=str,
)
WidthScale = Enum("WidthScale", [(name, name) for name in ("none", "inv_sqrt_d")], type=str)
BranchCalibration = Enum("BranchCalibration", [(name, name) for name in ("none", "analytic", "measured")], type=str)


class NormKind(StrEnum):
    rms = "rms"
    layer = "layer"


@dataclass(kw_only=True)
class NormConfig:
    kind: NormKind = MISSING
    eps: float = MISSING
    """Added to the mean square, > 0."""


@dataclass(kw_only=True)
class SpanNormConfig(SurgeryConfig):
    placement: Placement = MISSING
    init_scale: InitScale = MISSING  # type: ignore[valid-type]
    """Factor on the output projections at the start. `auto`: what the placement is defined with."""
    c: float = MISSING
    """Total branch variance over depth, > 0: each branch begins with c / L (inv_sqrt_L and branch_multiplier)."""
    width_scale: WidthScale = MISSING  # type: ignore[valid-type]
    """Standard deviation of all matrices of the blocks: none = 0.02, inv_sqrt_d = 1 / sqrt(inputs)."""
    branch_calibration: BranchCalibration = MISSING  # type: ignore[valid-type]
    """Further factor on the FFN's output projection, so that the FFN has unit variance for unit input."""
    norm: NormConfig = field(default_factory=NormConfig)
    span_skip: bool = MISSING
    """SpanNorm: the skip begins at the block input. False: at the middle, as PostNorm."""
    span_blocks: int = MISSING
    """SpanNorm: blocks under one skip, 1 or 2."""
    norm1: bool = MISSING
    """SpanNorm: the norm after the attention."""
    pre_norm: bool = MISSING
    """SpanNorm: a norm before the attention besides."""
    initial_norm: bool = MISSING
    """SpanNorm: a norm before the first attention, off the skip."""
    final_norm: bool = MISSING
    """SpanNorm: a norm before the head besides."""
    embed_norm: bool = MISSING
    """SpanNorm: the embeddings are scaled to root mean square 1, since the first skip begins at them."""
    from_scratch: bool = MISSING
    """Allow it on trained weights, which are drawn anew."""


SPAN_DEFAULTS = {
    "span_skip": True, "span_blocks": 1, "norm1": True, "pre_norm": False, "initial_norm": True, "final_norm": False,
    "embed_norm": True,
}  # fmt: skip
"""Switches of SpanNorm alone: another placement refuses to change them, since it would not read them."""
OWN_INIT = (Placement.deepnorm, Placement.rezero, Placement.scaled_prenorm)
"""Placements that are defined with an initialisation of their own."""


def _errors(config: "RunConfig") -> Iterable[str]:
    node = config.surgery
    assert isinstance(node, SpanNormConfig)
    if node.c <= 0:
        yield f"surgery.c: got {node.c}, expected a number > 0"
    if node.norm.eps <= 0:
        yield f"surgery.norm.eps: got {node.norm.eps}, expected a number > 0"
    if node.span_blocks not in (1, 2):
        yield f"surgery.span_blocks: got {node.span_blocks}, expected 1 or 2"
    if node.placement is not Placement.spannorm:
        for name, value in SPAN_DEFAULTS.items():
            if getattr(node, name) != value:
                yield f"surgery.{name}: belongs to placement=spannorm, and this is {node.placement.value}"
    if node.span_blocks == 2 and not node.span_skip:
        yield "surgery.span_blocks: a skip over two blocks needs span_skip=true"
    if node.placement in OWN_INIT and node.init_scale.value not in ("auto", "none"):
        yield f"surgery.init_scale: {node.placement.value} is defined with its own initialisation; leave it at auto"
    if config.model.source != "random" and not node.from_scratch:
        yield (
            f"surgery=spannorm: {config.model.name} has trained weights, which another norm placement makes useless; "
            "use a model with source=random, or surgery.from_scratch=true to draw them anew"
        )


PARTS = [
    Part(
        group="surgery", name="spannorm", schema=SpanNormConfig, check=_errors,
        target="athlos.methods.spannorm.surgery.SpanNormSurgery",
        summary="norm placement of a model trained from scratch: SpanNorm and thirteen others",
    )
]  # fmt: skip
