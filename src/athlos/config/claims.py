"""Claims as data: what a method's paper says, and which runs would show it. `athlos claims` joins both; no torch.

A method lists its claims as `CLAIMS` in `src/athlos/methods/<slug>/claims.py`. Runs are chosen by their config keys,
and every number of ours comes from run folders: nothing here but the paper's side is typed.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any

from athlos.errors import ConfigError


class Tag(StrEnum):
    """Where a claim was read: the paper, official code, a second-hand account; `ours` is our own bar, no claim of
    the paper."""

    PAPER = "paper"
    CODE = "code"
    NOTE = "note"
    OURS = "ours"


class Direction(StrEnum):
    UP = "up"
    DOWN = "down"
    WITHIN = "within"


class Compare(StrEnum):
    """The quantity that is claimed, of a metric m of our arm and of the other one."""

    VALUE = "value"
    """m(ours); no other arm."""
    DIFFERENCE = "difference"
    """m(ours) - m(against)."""
    RATIO = "ratio"
    """m(ours) / m(against); both above 0."""
    CHANGE = "change"
    """100 (m(ours) / m(against) - 1), in percent."""
    EXCESS = "excess"
    """(m(ours) - m(origin)) / (m(against) - m(origin)): which share of a loss is left."""


NEUTRAL = {Compare.DIFFERENCE: 0.0, Compare.RATIO: 1.0, Compare.CHANGE: 0.0, Compare.EXCESS: 1.0}
"""What means "no difference"; the bar of a comparison that names none."""


class Reduce(StrEnum):
    """One number of several metrics, for a name with `*`."""

    MEAN = "mean"
    MAX = "max"
    MIN = "min"
    SPREAD = "spread"
    """The greatest over the least."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One arm: a metric of the runs whose config has the values of `where`."""

    metric: str
    """Name in metrics.json. A `*` stands for the last part of several names, `diag/act_rms/*`."""
    where: Mapping[str, Any] = field(default_factory=dict)
    """Dotted config key -> value, or a tuple of accepted values."""
    reduce: Reduce | None = None
    is_fixed: bool = False
    """Whether the number does not depend on the seed: then one run is enough, and is the partner of every seed."""

    def __post_init__(self) -> None:
        if ("*" in self.metric) != (self.reduce is not None):
            raise ConfigError(f"claims: metric '{self.metric}': a name with * needs `reduce`, and no other has it")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is computed from runs, and on which side of the bar it should be."""

    ours: Measure
    against: Measure | None = None
    origin: Measure | None = None
    compare: Compare = Compare.VALUE
    direction: Direction
    bar: float | tuple[float, float] | None = None
    """Reached is enough. Both ends for `within`; None: better than no difference at all."""
    where: Mapping[str, Any] = field(default_factory=dict)
    """Added to the `where` of every arm."""
    by: tuple[str, ...] = ()
    """Config keys, such as the depth: each value that all arms have is a row of its own."""
    varies: tuple[str, ...] = ()
    """Beginnings of further config keys in which the arms may differ, beside those that select them."""
    equal: tuple[str, ...] = ()
    """Config keys in which arms must not differ, such as the passages that are read: else nothing is compared."""
    label: str = ""
    """What is compared, in a few words."""

    def __post_init__(self) -> None:
        is_within = self.direction is Direction.WITHIN
        if is_within != isinstance(self.bar, tuple):
            raise ConfigError(f"claims: '{self.name}': bar: got {self.bar}, expected two ends for `within` alone")
        if (self.compare is Compare.VALUE) != (self.against is None):
            raise ConfigError(f"claims: '{self.name}': `against` is needed by all but compare=value")
        if (self.compare is Compare.EXCESS) != (self.origin is not None):
            raise ConfigError(f"claims: '{self.name}': `origin` belongs to compare=excess, and to it alone")
        if self.compare is Compare.VALUE and self.bar is None:
            raise ConfigError(f"claims: '{self.name}': compare=value needs a bar")

    @property
    def name(self) -> str:
        return self.label or self.ours.metric

    @property
    def arms(self) -> dict[str, Measure]:
        named = {"ours": self.ours, "against": self.against, "origin": self.origin}
        return {name: measure for name, measure in named.items() if measure is not None}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim. What cannot be measured on our runs has no comparison and says what it `needs`."""

    id: str
    text: str
    tag: Tag
    source: str
    """Place in the paper, or our document for a bar of ours."""
    paper: float | tuple[float, float] | None = None
    """The paper's number, or both ends of its range; None where it names none."""
    unit: str = ""
    comparisons: tuple[Comparison, ...] = ()
    needs: str = ""
    is_by_construction: bool = False
    """Whether the configuration makes it true by itself: then it is no result, and counted apart."""

    def __post_init__(self) -> None:
        if bool(self.comparisons) == bool(self.needs):
            raise ConfigError(f"claims: '{self.id}': expected comparisons, or `needs` with the reason for none")


@cache
def all_claims() -> dict[str, tuple[Claim, ...]]:
    """Slug -> claims, of every method that has a `claims.py`."""
    methods = importlib.import_module("athlos.methods")
    by_method: dict[str, tuple[Claim, ...]] = {}
    for slug in sorted(module.name for module in pkgutil.iter_modules(methods.__path__) if module.ispkg):
        package = importlib.import_module(f"athlos.methods.{slug}")
        if "claims" in {module.name for module in pkgutil.iter_modules(package.__path__)}:
            by_method[slug] = tuple(importlib.import_module(f"athlos.methods.{slug}.claims").CLAIMS)
    identifiers = [claim.id for claims in by_method.values() for claim in claims]
    if repeated := sorted({identifier for identifier in identifiers if identifiers.count(identifier) > 1}):
        raise ConfigError(f"claims: listed twice: {', '.join(repeated)}")
    return by_method
