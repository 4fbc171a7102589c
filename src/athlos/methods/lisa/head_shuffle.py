"""A permutation of a trained model's heads that leaves its function: a premise of LISA as a dial.

Copying scores from the layer below counts on heads of neighbouring layers standing in one order. Whole key-value groups
are permuted, and the query heads inside each; queries, keys, values and the columns of the output move together.
"""

import torch
from torch import Tensor

from athlos.errors import SurgeryError
from athlos.models.sites import Backbone, Layer


@torch.no_grad()
def shuffle_heads(sites: Backbone, *, seed: int) -> None:
    """Permute the heads of every layer, each by a draw of its own, in place; seed 0 leaves all as it is."""
    if not seed or sites.head.weight.is_meta:
        return
    generator = torch.Generator().manual_seed(seed)
    for layer in sites.layers:
        groups = torch.randperm(sites.num_kv_heads, generator=generator)
        size = sites.num_heads // sites.num_kv_heads
        heads = torch.cat([group * size + torch.randperm(size, generator=generator) for group in groups])
        _permute(layer, heads=heads, groups=groups, head_size=sites.head_size)


def _permute(layer: Layer, *, heads: Tensor, groups: Tensor, head_size: int) -> None:
    if any(layer.sites[name].is_fused for name in "qkv"):
        raise SurgeryError("surgery.shuffle_heads: not for models with one matrix for queries, keys and values")
    for name, order in (("q", heads), ("k", groups), ("v", groups)):
        rows, site = _rows(order, head_size), layer.sites[name]
        for parameter in (site.weight, site.bias):
            if parameter is not None:
                parameter.copy_(parameter[rows].clone())
    weight = layer.sites["o"].weight
    weight.copy_(weight[:, _rows(heads, head_size)].clone())


def _rows(order: Tensor, head_size: int) -> Tensor:
    return (order[:, None] * head_size + torch.arange(head_size)).flatten()
