"""Fields that say which values they accept, and which counts a smoke test lowers.

The range or the choices of a key stand in its field alone: `wrong_values` reads them, and no docstring repeats them. A
field is required unless it is given a default. The commands of the lab import this file, so it is quick to import.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from athlos.errors import did_you_mean

MISSING: Any = "???"
"""OmegaConf's mark of a required value, written out because OmegaConf takes a tenth of a second to import."""
MOST_SEED = 2**32 - 1
"""The largest seed: the trainer multiplies it by a stride and by the number of processes, within torch's 64 bits."""
MOST_INTEGER = 2**63 - 1
"""The largest integer that numpy and torch hold."""
ACCEPTS, ITEMS, STEPS = "accepts", "items", "steps"
"""Keys of field metadata: what is accepted; what the caps of a smoke test lower (see `caps.py`)."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Numbers between two ends."""

    low: float
    high: float = math.inf
    is_low_in: bool = True
    is_high_in: bool = False
    words: str
    """The interval in an error message, such as `>= 1`."""

    def refusal(self, value: float) -> str:
        """What is expected in place of `value`; empty where it is accepted."""
        is_high_enough = value > self.low or (self.is_low_in and value == self.low)
        if is_high_enough and (value < self.high or (self.is_high_in and value == self.high)):
            return ""
        return f"{'an integer' if isinstance(value, int) else 'a number'} {self.words}"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Names, one of which a value is, or all entries of a list are."""

    names: tuple[str, ...]
    words: str
    """`one of` or `any of`, in an error message."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Name that was accepted once -> the one that took its place."""

    def refusal(self, value: str) -> str:
        """What is expected in place of `value`; empty where it is accepted."""
        if value in self.names:
            return ""
        new_name = self.renamed.get(value)
        hint = f"; it is '{new_name}' now" if new_name else did_you_mean(value, self.names)
        return f"{self.words} {', '.join(self.names)}{hint}"


def _field(default: Any, accepted: Interval) -> Any:
    """A field for one number, or for a list or mapping of numbers, whose default is then a factory: `dict`."""
    default_argument = {"default_factory" if callable(default) else "default": default}
    return field(**default_argument, metadata={ACCEPTS: accepted})


def at_least(low: float, *, default: Any = MISSING, why: str = "") -> Any:
    """A field for numbers >= `low`. `why` ends the error message: a reason, or what to set instead."""
    return _field(default, Interval(low=low, words=f">= {low}{why}"))


def above(low: float, *, default: Any = MISSING, why: str = "") -> Any:
    """A field for numbers > `low`."""
    return _field(default, Interval(low=low, is_low_in=False, words=f"> {low}{why}"))


def bounded(interval: str, *, default: Any = MISSING, why: str = "") -> Any:
    """A field for the numbers of an interval as it is written: `bounded("(0, 1]")`."""
    low, high = map(float, interval[1:-1].split(","))
    accepted = Interval(
        low=low, high=high, is_low_in=interval[0] == "[", is_high_in=interval[-1] == "]", words=f"in {interval}{why}"
    )
    return _field(default, accepted)


def one_of(*names: str, default: Any = MISSING, renamed: Mapping[str, str] | None = None) -> Any:
    """A field for one of these names; one that is `renamed` is refused with its new name."""
    accepted = Choices(names=names, words="one of", renamed=renamed or {})
    return field(default=default, metadata={ACCEPTS: accepted})


def any_of(*names: str) -> Any:
    """A field for a list of these names, by default an empty one."""
    return field(default_factory=list, metadata={ACCEPTS: Choices(names=names, words="any of")})


def sized(count: Any, *, least: int | None = None) -> Any:
    """The field `count` of items, which `hardware.limit_items_cap` lowers, though never below `least`. 0 stays 0.

    By default `least` is the lower end of what the field accepts, or 1.
    """
    lowest = max(1, int(count.metadata[ACCEPTS].low)) if least is None else least
    return field(default=count.default, metadata={**count.metadata, ITEMS: lowest})


def stepped(count: Any) -> Any:
    """The field `count` of some of the run's steps, which `hardware.max_steps_cap` lowers in proportion. 0 stays 0."""
    return field(default=count.default, metadata={**count.metadata, STEPS: True})


def wrong_values(config: Any, *, path: str = "") -> Iterator[str]:
    """One line for each value that is wrong by itself, whatever the others are, in a run or in a config at `path`.

    It is nan or infinite, beyond what libraries hold, or not what its field accepts. Infinity is accepted in plain
    mappings: their keys belong to a library, and Mamba's architecture has an infinite limit.
    """
    for key, value, accepted, is_free in _leaves(config, path=path):
        expected = ""
        if isinstance(value, float) and (math.isnan(value) or (math.isinf(value) and not is_free)):
            expected = "a finite number"
        elif isinstance(value, int) and key.endswith("seed") and not 0 <= value <= MOST_SEED:
            expected = f"an integer in [0, {MOST_SEED}]"
        elif isinstance(value, int) and abs(value) > MOST_INTEGER:
            expected = "an integer of at most 64 bits"
        elif accepted is not None and value is not None:
            expected = accepted.refusal(value)
        if expected:
            yield f"{key}: got {value!r}, expected {expected}"


def _leaves(
    node: Any, *, path: str = "", accepted: Any = None, is_free: bool = False
) -> Iterator[tuple[str, Any, Any, bool]]:
    """(dotted key, value, what its field accepts, whether it lies in a plain mapping) of what holds no other values.

    The entries of a list of which the field accepts some only have the key of the list.
    """
    if dataclasses.is_dataclass(node):
        for info in dataclasses.fields(node):
            full = f"{path}.{info.name}" if path else info.name
            yield from _leaves(getattr(node, info.name), path=full, accepted=info.metadata.get(ACCEPTS))
    elif isinstance(node, dict):
        for name, child in node.items():
            yield from _leaves(child, path=f"{path}.{name}", accepted=accepted, is_free=accepted is None)
    elif isinstance(node, list):
        for index, child in enumerate(node):
            full = path if accepted else f"{path}.{index}"
            yield from _leaves(child, path=full, accepted=accepted, is_free=is_free)
    else:
        yield path, node, accepted, is_free
