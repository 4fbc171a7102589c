"""The surgery `lisa`: layers that take their attention scores from the layer below; copied as they are with no aligner
and no low-rank part (`shared_attention`)."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from athlos.config.part_report import PartReport
from athlos.errors import SurgeryError
from athlos.methods.lisa.attention import SharedAttention, carry_scores, hand_on, refuse_unusual_scores
from athlos.methods.lisa.cache_cost import cache_metrics
from athlos.methods.lisa.config import AlignInit, LisaSurgeryConfig, LowRankInit, Select
from athlos.methods.lisa.head_shuffle import shuffle_heads
from athlos.methods.lisa.layer_choice import chosen
from athlos.methods.lisa.lowrank import automatic_rank, kept_pairs, kept_rows
from athlos.methods.lisa.score_parts import Aligner, LowRank
from athlos.methods.lisa.similarity import Similarity, similarity, with_parameters_of
from athlos.models.sites import ATTENTION_MODULE, Backbone, Layer, backbone
from athlos.models.surgical import record_surgery
from athlos.parts import PartContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LisaSurgery:
    def __init__(self, config: LisaSurgeryConfig) -> None:
        self.config = config

    def apply(self, model: "PreTrainedModel", *, context: PartContext) -> tuple["PreTrainedModel", PartReport]:
        config, sites = self.config, backbone(model)
        is_meta = sites.head.weight.is_meta
        rank = (config.lowrank.rank or automatic_rank(sites.head_size)) if config.lowrank.enabled else 0
        if rank > sites.head_size:
            raise SurgeryError(f"surgery.lowrank.rank: got {rank}, expected at most the head size {sites.head_size}")
        uses_mix = uses_map(config)
        similarities = None
        shuffle_heads(sites, seed=config.shuffle_heads)
        if not is_meta and reads_text(config):
            similarities = similarity(model, context=context, config=config)
        layers = _choice(config, sites, similarities=similarities)
        plan = {
            "layers": layers,
            "share_point": config.share_point.value,
            "align": {
                "hidden": config.align.hidden,
                "activation": config.align.act.value,
                "residual": config.align.residual,
                "has_mix": uses_mix,
            }
            if config.align.enabled
            else None,
            "low_rank": {"rank": rank, "gate": config.gate.value, "has_bias": _has_bias(sites)} if rank else None,
        }
        _check(sites, layers, config=config, rank=rank)
        shared = with_parameters_of(model)
        _share(shared, plan, config=config, similarities=similarities)
        record_surgery(shared, name="lisa", plan=plan)
        return shared, _report(shared, base=model, plan=plan)

    @staticmethod
    def rebuild(model: "PreTrainedModel", plan: dict[str, Any]) -> None:
        """Change a fresh model alike; its weights are loaded afterwards."""
        _share(model, plan)


def uses_map(config: LisaSurgeryConfig) -> bool:
    """Whether M is measured."""
    return config.align.enabled and config.align.residual and config.align.init is not AlignInit.identity


def reads_text(config: LisaSurgeryConfig) -> bool:
    """Whether the surgery measures the model on text."""
    return uses_map(config) or config.layers.select is Select.similarity


def directly_shared(model: "PreTrainedModel", layers: list[int]) -> "PreTrainedModel":
    """A model over the same parameters whose given layers copy the scores of the layer below."""
    plan = {"layers": layers, "share_point": "logits", "align": None, "low_rank": None}
    shared = with_parameters_of(model)
    _share(shared, plan)
    record_surgery(shared, name="lisa", plan=plan)
    return shared


def aligned_only(model: "PreTrainedModel") -> "PreTrainedModel":
    """A model over the same parameters as one of `LisaSurgery`, whose shared layers have the calibrated M alone."""
    aligned = with_parameters_of(model)
    for attention in shared_attentions(aligned):
        attention.low_rank, attention.aligner = None, _mix_of(attention.aligner)
    return aligned


def _mix_of(aligner: Any) -> Aligner:
    alone = Aligner(aligner.num_heads, hidden=0, activation="none", residual=aligner.residual, has_mix=aligner.has_mix)
    if aligner.has_mix:
        alone.mix.data = aligner.mix.detach().clone()
    return alone


def _choice(config: LisaSurgeryConfig, sites: Backbone, *, similarities: Similarity | None) -> list[int]:
    select = config.layers.select.value
    if select == "similarity" and similarities is None:  # on the meta device only the number of layers counts
        select = "last_k"
    return chosen(
        select,
        num_layers=len(sites.layers),
        count=config.layers.count,
        explicit=config.layers.explicit,
        adjacent_L=similarities.adjacent(with_matching=True) if similarities is not None else None,
    )


def _has_bias(sites: Backbone) -> bool:
    return any(
        site.module.bias is not None for layer in sites.layers for name, site in layer.sites.items() if name in "qk"
    )


def _check(sites: Backbone, layers: list[int], *, config: LisaSurgeryConfig, rank: int) -> None:
    values = sites.config.to_dict()
    refuse_unusual_scores(sites)
    types = values.get("layer_types") or ["full_attention"] * len(sites.layers)
    for index in layers:
        if any(name not in sites.layers[index - step].sites for name in "qk" for step in (0, 1)):
            raise SurgeryError(f"layer {index}: another surgery took its queries and keys away")
        here, below = types[index], types[index - 1]
        if here != below and not (config.allow_mixed and below == "full_attention"):
            raise SurgeryError(
                f"layer {index}: {here} above {below}; neighbours must see the same keys"
                + ("" if here == "full_attention" else ", or set surgery.allow_mixed=true")
            )
        norms = {"query", "key"} & set(sites.layers[index].norms)
        if rank and norms and config.lowrank.init is LowRankInit.energy_pairs:
            raise SurgeryError(f"layer {index}: energy_pairs does not fit a model that normalises its queries and keys")


def _share(
    model: "PreTrainedModel",
    plan: dict[str, Any],
    *,
    config: LisaSurgeryConfig | None = None,
    similarities: Similarity | None = None,
) -> None:
    """The structure of a plan, and its first weights where a config says how they begin; else they are loaded."""
    sites = backbone(model)
    shared = set(plan["layers"])
    for layer in sites.layers:
        if layer.index in shared:
            setattr(layer.module, ATTENTION_MODULE, _shared(layer, sites, plan, config, similarities))
        elif layer.index + 1 in shared:
            hand_on(layer.attention)
    carry_scores(sites.decoder)


def _shared(
    layer: Layer,
    sites: Backbone,
    plan: dict[str, Any],
    config: LisaSurgeryConfig | None,
    similarities: Similarity | None,
) -> SharedAttention:
    weight = layer.sites["v"].weight
    # Copies of a model that was built under torch.device("meta") leave that context behind.
    aligner = low_rank = None
    with torch.device(weight.device):
        if plan["align"] is not None:
            aligner = Aligner(sites.num_heads, **plan["align"]).to(weight.dtype)
        if plan["low_rank"] is not None:
            low_rank = LowRank(
                sites.hidden_size, num_heads=sites.num_heads, num_groups=sites.num_kv_heads, **plan["low_rank"]
            ).to(weight.dtype)
    attention = SharedAttention(
        layer,
        sites,
        share_point=plan["share_point"],
        aligner=aligner,
        low_rank=low_rank,
        is_read=layer.index + 1 in plan["layers"],
    )
    if config is not None and not weight.is_meta:
        with torch.no_grad():
            _initialise(attention, layer, sites, config=config, similarities=similarities)
    return attention


def _initialise(
    attention: SharedAttention,
    layer: Layer,
    sites: Backbone,
    *,
    config: LisaSurgeryConfig,
    similarities: Similarity | None,
) -> None:
    aligner, low_rank, init = attention.aligner, attention.low_rank, config.lowrank.init
    if aligner is not None and aligner.residual and aligner.has_mix:
        assert similarities is not None
        aligner.mix.copy_(head_map(similarities, layer.index, config.align.init))
    if low_rank is None:
        return
    pairs = kept_pairs(
        layer,
        num_heads=sites.num_heads,
        num_groups=sites.num_kv_heads,
        head_size=sites.head_size,
        rank=low_rank.rank,
    )
    low_rank.pairs.copy_(pairs)
    if init is LowRankInit.random:
        for linear in (low_rank.query, low_rank.key):
            nn.init.normal_(linear.weight, std=sites.config.initializer_range)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)
        return
    for linear, name, heads in ((low_rank.query, "q", sites.num_heads), (low_rank.key, "k", sites.num_kv_heads)):
        weight, bias = kept_rows(layer.sites[name], pairs, heads=heads, head_size=sites.head_size)
        is_zero = name == "q" and init is LowRankInit.zero_q
        linear.weight.copy_(torch.zeros_like(weight) if is_zero else weight)
        if linear.bias is not None:
            linear.bias.copy_(torch.zeros_like(linear.bias) if is_zero or bias is None else bias)


def head_map(similarities: Similarity, layer: int, init: AlignInit) -> Tensor:
    """M [H, H] of a layer."""
    heads = similarities.cosine_LHH.shape[1]
    if init is AlignInit.hungarian:
        return torch.eye(heads)[torch.from_numpy(similarities.matched(layer))]
    return torch.from_numpy(similarities.least_squares(layer)).float() if init is AlignInit.lstsq else torch.eye(heads)


def shared_attentions(model: "PreTrainedModel") -> list[SharedAttention]:
    """The shared layers' attention modules of a model, from the bottom."""
    return [layer.attention for layer in backbone(model).layers if isinstance(layer.attention, SharedAttention)]


def _report(model: "PreTrainedModel", *, base: "PreTrainedModel", plan: dict[str, Any]) -> PartReport:
    sites = backbone(model)
    attentions = shared_attentions(model)
    rank = plan["low_rank"]["rank"] if plan["low_rank"] else 0
    metrics = {
        "lisa/shared_layers": float(len(attentions)),
        "lisa/shared_layer_share": len(attentions) / len(sites.layers),
        "lisa/new_params": float(sum(parameter.numel() for attention in attentions for parameter in attention.added())),
        **cache_metrics(model, base=base),
    }
    if rank:
        metrics["lisa/qk_compression"] = sites.head_size / rank
    layers = ", ".join(str(index) for index in plan["layers"])
    words = f"attention of layers {layers} shared"
    return PartReport(summary=f"{words}, rank {rank}" if rank else words, metrics=metrics)
