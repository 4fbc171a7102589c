"""Which layers share the attention of the layer below."""

import logging
import math
from collections.abc import Sequence

import numpy as np

from athlos.errors import SurgeryError

log = logging.getLogger(__name__)

SHALLOW_SHARE = 0.2
"""Errors in the first fifth of the layers cost most (the paper's finding): a choice there is warned of."""
DEFAULT_SHARE = 0.53


def chosen(
    select: str, *, num_layers: int, count: int, explicit: Sequence[int], adjacent_L: np.ndarray | None
) -> list[int]:
    """Indices of the shared layers, ascending. `count` 0 = ceil(0.53 L); `adjacent_L` for `similarity` only.

    Raises `SurgeryError` for layer 0, for layers that are not there or named twice, and for more than there can be.
    """
    if select == "explicit":
        layers = [index + num_layers if index < 0 else index for index in explicit]
    else:
        count = count or math.ceil(DEFAULT_SHARE * num_layers)
        first = math.ceil(SHALLOW_SHARE * num_layers)
        layers = _by_rule(select, num_layers=num_layers, count=count, first=first, adjacent_L=adjacent_L)
    layers = sorted(layers)
    if not layers:
        raise SurgeryError("surgery.layers: no layer would share its attention")
    if len(set(layers)) != len(layers):
        raise SurgeryError(f"surgery.layers.explicit: got {list(explicit)}, which names a layer twice")
    if layers[0] <= 0 or layers[-1] >= num_layers:
        raise SurgeryError(
            f"surgery.layers: got {layers}, expected any of 1 .. {num_layers - 1}: layer 0 has none below"
        )
    shallow = [index for index in layers if index < SHALLOW_SHARE * num_layers]
    if shallow:
        log.warning("shared layers %s stand in the first fifth, where errors cost most", shallow)
    return layers


def _by_rule(select: str, *, num_layers: int, count: int, first: int, adjacent_L: np.ndarray | None) -> list[int]:
    if count > num_layers - 1:
        raise SurgeryError(f"surgery.layers.count: got {count}, expected at most {num_layers - 1}")
    if select == "last_k":
        return list(range(num_layers - count, num_layers))
    if select == "alternate":
        layers = list(range(num_layers - 1, 0, -2))
        if count > len(layers):
            raise SurgeryError(f"surgery.layers.count: got {count}, but every second layer gives {len(layers)}")
        return layers[:count]
    assert adjacent_L is not None
    deep = sorted(range(max(1, first), num_layers), key=lambda index: (-adjacent_L[index], -index))
    shallow = sorted(range(1, max(1, first)), key=lambda index: -index)
    return (deep + shallow)[:count]
