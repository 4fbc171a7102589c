"""The surgery `spannorm`: the decoder layers of a Llama-type model with their norms elsewhere, from scratch."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from athlos.config.compose import plain
from athlos.config.part_report import PartReport
from athlos.errors import SurgeryError
from athlos.methods.spannorm.block import Block, HeadNormAttention, Merge, Norm
from athlos.methods.spannorm.config import SpanNormSurgeryConfig
from athlos.methods.spannorm.experts import Experts, tell_padding
from athlos.methods.spannorm.placements import Plan, plan_of
from athlos.methods.spannorm.scaling import branch_variances, depth_factor, initialise, own_rule, skip_product
from athlos.models.sites import DECODER_LAYERS, FINAL_NORM, TWO_NORMS, Backbone, Layer, backbone
from athlos.models.surgical import record_surgery, surgeries
from athlos.parts import PartContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
"""Decoders whose layer is attention and FFN with a norm before each, and whose embedding is taken as it is."""
CALIBRATION_ROWS, CALIBRATION_LENGTH = 8, 128
"""The batch that branch variances are measured on."""


PERMISSIONS = ("_target_", "combine_scales", "from_scratch")
"""Keys of the config that decide neither the structure nor the start."""


class SpanNormSurgery:
    def __init__(self, config: SpanNormSurgeryConfig) -> None:
        self.config = config

    def apply(self, model: "PreTrainedModel", *, context: PartContext) -> tuple["PreTrainedModel", PartReport]:
        """Changes the model in place and draws its weights anew; raises `SurgeryError` for a model it does not fit."""
        sites = backbone(model)
        _check(model, sites, span_blocks=self.config.span_blocks)
        plan = self._settings(sites)
        _restructure(model, plan)
        record_surgery(model, name="spannorm", plan=plan)
        changed = backbone(model)
        metrics = {"spannorm/norm_params": float(_count_norms(changed))}
        if not changed.head.weight.is_meta:
            initialise(changed, plan, seed=context.config.seed)
            ids_BT = _batch(model, context)
            if plan["branch_calibration"] == "measured":
                branch_variances(model, changed, ids_BT, wanted=_wanted(plan, num_layers=len(changed.layers)))
            variances = branch_variances(model, changed, ids_BT)
            metrics |= {f"spannorm/s2_{name}": sum(values) / len(values) for name, values in variances.items()}
            if plan["placement"] == "spannorm" and plan["span_skip"]:
                on_path = variances["ffn"][plan["span_blocks"] - 1 :: plan["span_blocks"]]
                metrics["spannorm/skip_product"] = skip_product(on_path)
        experts = f", {self.config.moe.num_experts} experts" if self.config.moe.num_experts else ""
        summary = f"{self.config.placement.value}{experts}, depth scale {plan['init_scale']}"
        return model, PartReport(summary=summary, metrics=metrics)

    @staticmethod
    def rebuild(model: "PreTrainedModel", plan: dict[str, Any]) -> None:
        """Change a fresh model alike; its weights are loaded afterwards."""
        _restructure(model, plan)

    def _settings(self, sites: Backbone) -> dict[str, Any]:
        """What the structure and the start follow from, as JSON values."""
        config = self.config
        values: dict[str, Any] = plain(config)
        rule = own_rule(values["placement"]) if values["init_scale"] == "auto" else values["init_scale"]
        factor = (config.c / len(sites.layers)) ** 0.5 if rule == "branch_multiplier" else 1.0
        settings = {name: value for name, value in values.items() if name not in PERMISSIONS}
        return {**settings, "init_scale": rule, "branch_factor": factor}


def _wanted(settings: dict[str, Any], *, num_layers: int) -> list[float]:
    """Variance of each layer's FFN output for a skip of variance 1, less what the forward pass multiplies."""
    return [
        depth_factor(settings["init_scale"], num_layers=num_layers, layer=layer, c=settings["c"]) ** 2
        for layer in range(num_layers)
    ]


def _check(model: "PreTrainedModel", sites: Backbone, *, span_blocks: int) -> None:
    if surgeries(model.config):
        raise SurgeryError("surgery=spannorm: apply it first, to an untouched model; this one was changed before")
    if sites.config.model_type not in MODEL_TYPES:
        raise SurgeryError(
            f"surgery=spannorm: {sites.config.model_type} is no Llama-type model; accepted: {', '.join(MODEL_TYPES)}"
        )
    for layer in sites.layers:
        roles = set(layer.norms) - {"query", "key"}
        if roles != set(TWO_NORMS) or len(layer.sites) != 7 or any(site.is_fused for site in layer.sites.values()):
            raise SurgeryError(
                f"{layer.path}: wanted 7 single matrices and norms {', '.join(TWO_NORMS)}; found "
                f"{len(layer.sites)} matrices and norms {', '.join(sorted(roles))}"
            )
    if len(sites.layers) % span_blocks:
        raise SurgeryError(f"surgery.span_blocks: got {span_blocks}, which does not divide {len(sites.layers)} layers")


def _restructure(model: "PreTrainedModel", settings: dict[str, Any]) -> None:
    """Blocks in the place of the layers, and the norm that the plan wants before the output matrix."""
    sites = backbone(model)
    plan = plan_of(settings, num_layers=len(sites.layers))
    weight: Any = sites.head.weight
    # Copies of a model that was built under torch.device("meta") leave that context behind.
    with torch.device(weight.device):
        blocks = [_block(layer, sites, plan, settings) for layer in sites.layers]
        final = _final(plan.final, sites.hidden_size, settings["norm"])
        for module in (*blocks, final):
            module.to(weight.dtype)
    setattr(sites.decoder, DECODER_LAYERS, nn.ModuleList(blocks))
    setattr(sites.decoder, FINAL_NORM, final)
    if settings["moe"]["num_experts"]:
        tell_padding(sites.decoder)


def _block(layer: Layer, sites: Backbone, plan: Plan, settings: dict[str, Any]) -> Block:
    block_plan, moe, norm = plan.blocks[layer.index], settings["moe"], settings["norm"]
    attention, ffn = layer.attention, layer.ffn
    if block_plan.head_norms:
        if set(layer.norms) & {"query", "key"}:
            raise SurgeryError(f"{layer.path}: this model normalises its heads already; hybridnorm would do it twice")
        attention = HeadNormAttention(attention, **norm)
    if moe["num_experts"]:
        ffn = Experts(
            ffn,
            width=sites.hidden_size,
            num_experts=moe["num_experts"],
            top_k=moe["top_k"],
            balance=moe["balance_loss"],
        )
    block = Block(
        block_plan,
        attention=attention,
        ffn=ffn,
        width=sites.hidden_size,
        **norm,
        is_last=layer.index == len(sites.layers) - 1 and plan.final == "none",
    )
    # transformers notes on each layer whether and how it is computed again in the backward pass.
    block.gradient_checkpointing = bool(layer.module.gradient_checkpointing)
    if block.gradient_checkpointing:
        block._gradient_checkpointing_func = layer.module._gradient_checkpointing_func
    return block.train(layer.module.training)


def _final(kind: str, width: int, norm: dict[str, Any]) -> nn.Module:
    if kind in ("merge", "normed_merge"):
        return Merge(width, **norm, is_normed=kind == "normed_merge")
    return Norm(width, **norm, is_last=True) if kind == "norm" else nn.Identity()


def _count_norms(sites: Backbone) -> int:
    """Parameters of norms and learned scales: what placements differ in."""
    inside = sum(p.numel() for layer in sites.layers for p in layer.module.parameters() if p.ndim == 1)
    return inside + sum(parameter.numel() for parameter in sites.final_norm.parameters())


def _batch(model: "PreTrainedModel", context: PartContext) -> Tensor:
    """[B, T] training tokens of full rows; random ones where the run has no training split."""
    data, device = context.data, model.device
    split = context.config.data.train_split
    if data is not None and split is not None and context.config.num_steps:
        rows = data.rows(split)
        lengths = rows.ends_R - rows.starts_R
        longest = sorted(lengths.argsort(kind="stable")[-CALIBRATION_ROWS:].tolist())
        length = min(CALIBRATION_LENGTH, int(lengths[longest].min()))
        return torch.stack([torch.from_numpy(rows.row(index)[0][:length]) for index in longest]).to(device)
    generator = torch.Generator().manual_seed(context.config.seed)
    vocabulary = backbone(model).embedding.num_embeddings
    shape = (CALIBRATION_ROWS, CALIBRATION_LENGTH)
    assert isinstance(vocabulary, int)
    return torch.randint(vocabulary, shape, generator=generator).to(device)
