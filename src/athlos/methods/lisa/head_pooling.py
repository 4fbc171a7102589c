"""The surgery `gqa_meanpool`: fewer key-value heads, each the mean of the heads it stands for; `mqa_meanpool` has one.

The result is a plain model of transformers with a smaller `num_key_value_heads`: nothing to rebuild on loading.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from athlos.config.part_report import PartReport
from athlos.errors import SurgeryError
from athlos.methods.lisa.cache_cost import cache_metrics
from athlos.methods.lisa.config import MeanpoolConfig
from athlos.methods.lisa.similarity import with_parameters_of
from athlos.models.sites import Layer, Site, backbone
from athlos.parts import PartContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class MeanpoolSurgery:
    def __init__(self, config: MeanpoolConfig) -> None:
        self.config = config

    def apply(self, model: "PreTrainedModel", *, context: PartContext) -> tuple["PreTrainedModel", PartReport]:
        """A model over the same parameters, keys and values of `groups` heads in each layer, the rest as it was.

        Raises `SurgeryError` where `groups` does not divide the number of key-value heads or a layer has none of its
        own.
        """
        old, groups = backbone(model).num_kv_heads, self.config.groups
        if old % groups:
            raise SurgeryError(f"surgery.groups: got {groups}, expected a divisor of the {old} key-value heads")
        changed = with_parameters_of(model)
        sites = backbone(changed)
        for layer in sites.layers:
            if any(name not in layer.sites for name in "kv"):
                raise SurgeryError(f"layer {layer.index}: another surgery took its keys or values away")
        with torch.no_grad():
            for layer in sites.layers:
                _pool(layer, old=old, groups=groups)
                attention: Any = layer.attention
                attention.num_key_value_groups = sites.num_heads // groups
                if hasattr(attention, "num_key_value_heads"):
                    attention.num_key_value_heads = groups
        sites.config.num_key_value_heads = groups
        summary = f"{old} key-value heads pooled to {groups}"
        return changed, PartReport(summary=summary, metrics=cache_metrics(changed, base=model))


def _pool(layer: Layer, *, old: int, groups: int) -> None:
    """New matrices for keys and values; in a fused matrix the rows of the other sites are taken over."""
    for path in dict.fromkeys(layer.sites[name].path for name in "kv"):
        sites = [site for site in layer.sites.values() if site.path == path]
        weight, bias = sites[0].weight, sites[0].bias
        weights = [_rows(site, site.weight, old=old, groups=groups) for site in sites]
        changed = nn.Linear(weight.shape[1], 1, bias=bias is not None, device="meta")
        changed.weight = nn.Parameter(torch.cat(weights), requires_grad=weight.requires_grad)
        changed.out_features = len(changed.weight)
        if bias is not None:
            biases = [_rows(site, bias, old=old, groups=groups) for site in sites]
            changed.bias = nn.Parameter(torch.cat(biases), requires_grad=bias.requires_grad)
        setattr(layer.attention, path.rpartition(".")[2], changed)


def _rows(site: Site, values: Tensor, *, old: int, groups: int) -> Tensor:
    """The site's rows of a weight [rows, D] or bias [rows]; of keys and values the means over neighbouring heads."""
    rows = values[site.rows]
    if site.name not in ("k", "v"):
        return rows
    heads = rows.view(groups, old // groups, len(rows) // old, *rows.shape[1:])
    return heads.mean(1).flatten(0, 1)
