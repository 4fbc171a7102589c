"""Norm placements as data: how attention and FFN of each block join the stream.

x the stream, f a sub-layer, N a norm with a gain of its own, L layers, l the layer from 0. Every sub-layer is a case of

    in = N_pre(x [+ N_merge(side)]) * input_factor
    x' = N_sum(skip_factor * skip + branch_factor * N_out(f(in)))

where each norm is there or not and `skip` is x, the start of the span, or `in` before its factor.
"""

from dataclasses import dataclass, replace
from typing import Any

STREAM, SPAN, INPUT = "stream", "span", "input"
"""Where a skip starts."""
MIXLN_SHARE = 0.25
"""Share of the layers, from the bottom, that are postnorm in mixln."""
REZERO_START = 1e-3
"""A learned scale begins here."""


@dataclass(frozen=True, kw_only=True)
class SubLayer:
    """How one sub-layer joins the stream."""

    pre: bool = False
    """Norm on the sub-layer's input."""
    branch: bool = False
    """Norm on the sub-layer's output."""
    outer: bool = False
    """Norm on the sum."""
    merge: bool = False
    """The input is the stream plus the normed side stream."""
    skip: str = STREAM
    skip_factor: float = 1.0
    branch_factor: float = 1.0
    input_factor: float = 1.0
    side_factor: float = 0.0
    """What the raw branch output is added to the side stream with; 0 = not at all."""
    is_gated: bool = False
    """A learned number multiplies the branch."""


@dataclass(frozen=True, kw_only=True)
class BlockPlan:
    """One decoder layer."""

    attention: SubLayer
    ffn: SubLayer
    embedding_norm: bool = False
    """Norm on the embedding, skip included, but not on a side stream that begins there; first layer only."""
    has_unit_embedding: bool = False
    """Each embedding is divided by its root mean square, without a gain; first layer only."""
    opens_side: bool = False
    """Begins a side stream with the embedding as it is before `embedding_norm`."""
    takes_side: bool = False
    """Gets stream and side stream side by side, [B, T, 2 D]."""
    gives_side: bool = False
    head_norms: bool = False
    """Norms over single heads on queries, keys and values."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All layers, and what stands before the output matrix."""

    blocks: tuple[BlockPlan, ...]
    final: str
    """`none`, `norm`, `merge`: stream + N(side stream), or `normed_merge`: N(stream + N(side stream))."""


def plan_of(settings: dict[str, Any], *, num_layers: int) -> Plan:
    """The plan of a placement. `settings` are the JSON values that the surgery records."""
    placement = settings["placement"]
    own = {"spannorm": _spannorm, "residual": _residual, "siamesenorm": _siamesenorm}
    if placement in own:
        plan = own[placement](settings, num_layers)
    else:
        blocks = tuple(_single_stream(placement, layer, num_layers) for layer in range(num_layers))
        has_final = placement not in ("postnorm", "deepnorm", "keel")
        plan = Plan(blocks=blocks, final="norm" if has_final else "none")
    factor = settings["branch_factor"]
    blocks = tuple(
        replace(block, attention=_multiplied(block.attention, factor), ffn=_multiplied(block.ffn, factor))
        for block in plan.blocks
    )
    first = replace(blocks[0], has_unit_embedding=settings["embed_norm"])
    return replace(plan, blocks=(first, *blocks[1:]))


def _multiplied(rule: SubLayer, factor: float) -> SubLayer:
    return replace(rule, branch_factor=factor * rule.branch_factor, side_factor=factor * rule.side_factor)


def _twice(rule: SubLayer) -> BlockPlan:
    return BlockPlan(attention=rule, ffn=rule)


PRE, POST = SubLayer(pre=True), SubLayer(outer=True)


def _single_stream(placement: str, layer: int, num_layers: int) -> BlockPlan:
    """Placements whose rule needs nothing but the stream."""
    is_first = layer == 0
    if placement in ("prenorm", "scaled_prenorm"):
        return _twice(PRE)
    if placement == "postnorm":
        return _twice(POST)
    if placement == "deepnorm":
        return _twice(replace(POST, skip_factor=deepnorm_alpha(num_layers)))
    if placement == "sandwich":
        return _twice(SubLayer(pre=True, branch=True))
    if placement == "peri_ln":
        return replace(_twice(SubLayer(pre=True, branch=True)), embedding_norm=is_first)
    if placement == "mixln":
        return _twice(POST if layer < MIXLN_SHARE * num_layers else PRE)
    if placement == "hybridnorm":
        return BlockPlan(attention=SubLayer(), ffn=SubLayer(pre=True, skip=INPUT), head_norms=True)
    if placement == "hybridnorm_star":
        plain = BlockPlan(attention=SubLayer(), ffn=SubLayer(pre=True, skip=INPUT), head_norms=True)
        return BlockPlan(attention=PRE, ffn=PRE, head_norms=True) if is_first else plain
    if placement == "layernorm_scaling":
        return _twice(replace(PRE, input_factor=(layer + 1) ** -0.5))
    if placement == "keel":
        return _twice(SubLayer(pre=True, outer=True, skip_factor=2.0 * num_layers))
    assert placement == "rezero"
    return _twice(replace(PRE, is_gated=True))


def _spannorm(settings: dict[str, Any], num_layers: int) -> Plan:
    """y = N1(h + Attn(A)), h' = N2(h + FFN(y)), where h is the start of the span; A_0 = N(h_0), else A = h."""
    blocks = []
    for layer in range(num_layers):
        place = layer % settings["span_blocks"]
        skip = SPAN if settings["span_skip"] else STREAM
        has_pre = settings["pre_norm"] or (layer == 0 and settings["initial_norm"])
        blocks.append(
            BlockPlan(
                attention=SubLayer(pre=has_pre, outer=settings["norm1"], skip=skip),
                ffn=SubLayer(pre=settings["pre_norm"], outer=True, skip=skip),
                takes_side=place > 0,
                gives_side=place < settings["span_blocks"] - 1,
            )
        )
    return Plan(blocks=tuple(blocks), final="norm" if settings["final_norm"] else "none")


def _residual(settings: dict[str, Any], num_layers: int) -> Plan:
    """x = N(x + f(x)), d += f(x), d from the embedding; out x + N(d). As microsoft/ResiDual, `resi_dual.py`."""
    rule = replace(POST, side_factor=1.0)
    return _two_streams([_twice(rule)] * num_layers, final="merge")


def _siamesenorm(settings: dict[str, Any], num_layers: int) -> Plan:
    """p = N(p), d = f(N(p + N(u))), u += d, p += d / sqrt(2 (l + 1)), p and u from the embedding; out N(N(p) + N(u)).

    As Qwen-Applications/SiameseNorm, the block of DeiT. The norm that opens a sub-layer is here the one behind the sum
    before it; so the first stands on the embedding.
    """
    rules = [
        SubLayer(pre=True, merge=True, outer=True, side_factor=1.0, branch_factor=(2 * (layer + 1)) ** -0.5)
        for layer in range(num_layers)
    ]
    plan = _two_streams([_twice(rule) for rule in rules], final="normed_merge")
    return replace(plan, blocks=(replace(plan.blocks[0], embedding_norm=True), *plan.blocks[1:]))


def _two_streams(blocks: list[BlockPlan], *, final: str) -> Plan:
    joined = [replace(block, takes_side=index > 0, gives_side=True) for index, block in enumerate(blocks)]
    joined[0] = replace(joined[0], opens_side=True)
    return Plan(blocks=tuple(joined), final=final)


def deepnorm_alpha(num_layers: int) -> float:
    """Factor of the skip in deepnorm: (2 L)^(1/4)."""
    return float((2 * num_layers) ** 0.25)


def deepnorm_beta(num_layers: int) -> float:
    """Gain of values, output and FFN at the start in deepnorm: (8 L)^(-1/4)."""
    return float((8 * num_layers) ** -0.25)


def skip_path(block: BlockPlan) -> tuple[str, ...]:
    """The sub-layers whose sums the skip path goes through in a block; none where the span goes on in the next one."""
    if block.ffn.skip == SPAN:
        return () if block.gives_side else ("ffn",)
    return ("attention", "ffn")
