"""Which rotary pairs the low-rank part keeps, and the weights it begins with.

D width, H query heads, G key-value heads, d head size, r rank. A pair is dimensions (j, j + d / 2) of a head.
"""

import torch
from torch import Tensor

from athlos.models.sites import Layer, Site


def automatic_rank(head_size: int) -> int:
    """The largest even number <= d / 6, at least 2: 20, 10, 4, 2 for d = 128, 64, 32, 16."""
    return max(2, head_size // 6 // 2 * 2)


def kept_pairs(layer: Layer, *, num_heads: int, num_groups: int, head_size: int, rank: int) -> Tensor:
    """Per key-value group the r / 2 pairs of greatest ||Wq_pair|| * ||Wk_pair||, in ascending order: int64 [G, r / 2].

    The query side is summed over the heads of the group.
    """
    query = _pair_norms(layer.sites["q"], num_heads, head_size).view(num_groups, -1, head_size // 2).sum(1)
    energy_GP = query * _pair_norms(layer.sites["k"], num_groups, head_size)
    return energy_GP.topk(rank // 2, dim=-1).indices.sort(-1).values


def _pair_norms(site: Site, heads: int, head_size: int) -> Tensor:
    """[heads, d / 2]."""
    rows = site.weight[site.rows].detach().double().view(heads, 2, head_size // 2, -1)
    return rows.square().sum((1, 3)).sqrt()


def kept_rows(site: Site, pairs_GP: Tensor, *, heads: int, head_size: int) -> tuple[Tensor, Tensor | None]:
    """Weight [heads * r, D] and bias of the kept pairs of each head; heads of a group keep the same pairs."""
    pairs = pairs_GP.repeat_interleave(heads // len(pairs_GP), dim=0)
    dims = torch.cat([pairs, pairs + head_size // 2], dim=1)  # [heads, r]: the layout of `rotated`
    rows = (torch.arange(heads, device=dims.device)[:, None] * head_size + dims).flatten()
    bias = site.bias
    return (
        site.weight[site.rows].detach()[rows],
        None if bias is None else bias[site.rows].detach()[rows],
    )
