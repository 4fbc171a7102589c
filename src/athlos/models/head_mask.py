"""Attention heads that are silent for a while: nothing of the model changes, and no hook is left behind.

A query head is silent when it gives nothing to the output projection (its slice of that input is zero, which equals
zeroed columns of the projection), or when it attends to all that is visible alike (its query is zero, so that all its
scores are). Either holds for every attention kernel. B rows, T columns, H query heads, D head size.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from athlos.errors import ConfigError, ModelError
from athlos.models.sites import Backbone


def sharing_heads(sites: Backbone, heads: Iterable[tuple[int, int]], *, follow: bool) -> list[tuple[int, int]]:
    """The heads and, with `follow`, the same heads of all layers that share attention with theirs, sorted.

    A layer without a query matrix of its own takes its attention from the nearest layer below that has one (LISA).
    Raises `ConfigError` for a head of a sharing layer without `follow`: silencing it in one layer would leave what it
    attends to at work in the others.
    """
    owners: list[int] = []
    for decoder_layer in sites.layers:
        owners.append(decoder_layer.index if "q" in decoder_layer.sites else owners[-1])
    groups = {owner: [layer for layer, of in enumerate(owners) if of == owner] for owner in set(owners)}
    silenced = set()
    for layer, head in heads:
        group = groups[owners[layer]] if 0 <= layer < len(owners) else [layer]  # `HeadMask` refuses one outside
        if len(group) > 1 and not follow:
            raise ConfigError(
                f"mask.shared: got refuse, but head {layer}-{head} is shared by the attention of layers "
                f"{', '.join(map(str, group))}; expected follow, which silences it in all of them"
            )
        silenced |= {(member, head) for member in group}
    return sorted(silenced)


class HeadMask:
    """Of query heads (layer, head), counted from 0, in all rows or in every second one from the second on.

    Raises `ConfigError` for a head that the model does not have, `ModelError` for a projection of several kinds in one.
    """

    def __init__(
        self, sites: Backbone, heads: Iterable[tuple[int, int]], *, is_uniform: bool = False, every_second: bool = False
    ) -> None:
        self.is_uniform, self.every_second = is_uniform, every_second
        self.is_active = True
        """Set to false, the heads speak again, also inside `applied`."""
        by_layer: dict[int, list[int]] = {}
        for layer, head in heads:
            if not (0 <= layer < len(sites.layers) and 0 <= head < sites.num_heads):
                raise ConfigError(
                    f"heads: got {layer}-{head}, expected layers below {len(sites.layers)} and query heads below "
                    f"{sites.num_heads}"
                )
            by_layer.setdefault(layer, []).append(head)
        self.projections: list[tuple[nn.Module, Tensor]] = []
        for layer, silent in by_layer.items():
            site = sites.layer(layer).sites.get("q" if is_uniform else "o")
            if site is None or site.is_fused:
                raise ModelError(f"layer {layer}: its heads cannot be silenced, for no projection is theirs alone")
            keeps_H = torch.ones(sites.num_heads, device=site.weight.device)
            keeps_H[silent] = 0
            self.projections.append((site.module, keeps_H))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the heads are silent while `is_active`. Another context's `forward` stays below this one."""
        before = [(module, vars(module).get("forward")) for module, _ in self.projections]
        for module, keeps_H in self.projections:
            vars(module)["forward"] = SilencedProjection(mask=self, keeps_H=keeps_H, below=module.forward)
        try:
            yield
        finally:
            for module, forward in before:
                if forward is None:
                    del vars(module)["forward"]
                else:
                    vars(module)["forward"] = forward


@dataclass(frozen=True, kw_only=True)
class SilencedProjection:
    """What takes the place of the forward pass of an output projection or, for a uniform mask, of a query matrix."""

    mask: HeadMask
    keeps_H: Tensor
    """1 for a head that speaks, 0 for one that is silent."""
    below: Callable[..., Tensor]
    """The forward pass that stood there."""

    def __call__(self, inputs: Tensor, *rest: Any) -> Tensor:
        if self.mask.is_uniform:
            return self._silenced(self.below(inputs, *rest))
        return self.below(self._silenced(inputs), *rest)

    def _silenced(self, values: Tensor) -> Tensor:
        """`values` [B, T, H * D] without those of the silent heads."""
        if not self.mask.is_active:
            return values
        keeps = self.keeps_H.repeat_interleave(values.shape[-1] // len(self.keeps_H)).to(values.dtype)
        if not self.mask.every_second:
            return values * keeps
        silent = values.clone()
        silent[1::2] *= keeps
        return silent
