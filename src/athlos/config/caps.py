"""Caps on size, for smoke tests: a run made smaller before anything reads it, so that no method knows of a cap.

`hardware.max_steps_cap` lowers `train.max_steps` and, in proportion, every field declared with `fields.stepped`;
`hardware.limit_items_cap` lowers the limits of the evaluation splits and every field declared with `fields.sized`.
"""

import dataclasses
from typing import Any

from athlos.config.fields import ITEMS, STEPS
from athlos.config.schema import RunConfig


def capped(config: RunConfig) -> RunConfig:
    """The config within the caps of its hardware; itself where there are none or it is within them already."""
    items, steps = config.hardware.limit_items_cap, config.hardware.max_steps_cap
    most_steps = config.train.max_steps
    if steps and most_steps > steps:
        config = _lowered(config, lambda info, value: _share_of_steps(info, value, cap=steps, most=most_steps))
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, max_steps=steps))
    if items:
        config = _lowered(config, lambda info, value: _at_most(info, value, cap=items))
        limits = (config.data.limit_val, config.data.limit_test)
        val, test = (items if limit is None else min(limit, items) for limit in limits)
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, limit_val=val, limit_test=test))
    return config


def _share_of_steps(info: Any, value: int, *, cap: int, most: int) -> int:
    """A part of the steps keeps its share, and at least one step for itself and one for the rest."""
    if STEPS not in info.metadata or not value:
        return value
    return max(1, min(cap - 1, round(value * cap / most)))


def _at_most(info: Any, value: int, *, cap: int) -> int:
    return min(value, max(cap, info.metadata[ITEMS])) if ITEMS in info.metadata else value


def _lowered(node: Any, lower: Any) -> Any:
    """The dataclass with `lower(field, value)` in place of each integer, nested dataclasses included."""
    changes = {}
    for info in dataclasses.fields(node):
        value = getattr(node, info.name)
        if dataclasses.is_dataclass(value):
            changes[info.name] = _lowered(value, lower)
        elif isinstance(value, int) and not isinstance(value, bool):
            changes[info.name] = lower(info, value)
    return dataclasses.replace(node, **changes)
