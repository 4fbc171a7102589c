"""The runs of an arm: selection by config, one run a seed, and in what the runs of an arm, or two arms, differ."""

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from athlos.config.claims import Measure, Reduce
from athlos.report.comparison import canonical, is_operational
from athlos.runs.records import RunRecord

TARGET = "._target_"
UNRANKED = ("seed", "study")


@dataclass(kw_only=True)
class Arm:
    """The runs of one arm in one stratum. `values` has those that count: seed -> number."""

    records: dict[int | None, RunRecord] = field(default_factory=dict)
    values: dict[int | None, float] = field(default_factory=dict)
    left_out: dict[int | None, str] = field(default_factory=dict)
    """Seed -> why its run has no number."""
    notes: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    """Why this is not one arm: several configs."""

    @property
    def first(self) -> RunRecord:
        return next(iter(self.records.values()))

    @property
    def config(self) -> Mapping[str, Any]:
        return self.first.config


def matches(record: RunRecord, where: Mapping[str, Any]) -> bool:
    """Whether the config has these values; a key that is not there has none."""
    return all(
        key in record.config and any(_same(record.config[key], accepted) for accepted in _accepted(value))
        for key, value in where.items()
    )


def _accepted(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _same(actual: Any, wanted: Any) -> bool:
    """Equal in value; true is not 1, and 1e-3 is 0.001."""
    if isinstance(actual, bool) or isinstance(wanted, bool):
        return actual is wanted
    return bool(actual == wanted)


def arm_of(records: Iterable[RunRecord], measure: Measure) -> Arm:
    """An arm of runs that match, by seed. Of runs with one config and seed the one that ended last counts."""
    arm = Arm()
    for record in sorted(records, key=lambda record: (str(record.status.get("end", "")), record.name)):
        seed, value, older = record.seed, value_of(record, measure), arm.records.get(record.seed)
        if older is not None and (keys := differing(older.config, record.config)):
            arm.conflicts.append(f"{older.name} and {record.name} differ in {', '.join(keys)}")
        elif older is not None and value is not None and seed in arm.values:
            arm.notes.append(f"{record.name} stands for the older {older.name}")
        elif value is None and seed in arm.values:
            arm.notes.append(f"{record.name} left out: {_why_none(record, measure)}")
            continue  # a repetition that did not end takes no number away
        arm.records[seed] = record
        if value is None:
            arm.left_out[seed] = f"{record.name} left out: {_why_none(record, measure)}"
        else:
            arm.values[seed] = value
            arm.left_out.pop(seed, None)
    arm.records = dict(sorted(arm.records.items(), key=lambda item: (item[0] is not None, item[0] or 0)))
    first, *rest = arm.records.values()
    for other in rest:
        if keys := differing(first.config, other.config):
            arm.conflicts.append(f"{first.name} and {other.name} differ in {', '.join(keys)}")
    return arm


def _why_none(record: RunRecord, measure: Measure) -> str:
    if record.state != "finished":
        error = record.status.get("error")
        return f"{record.state}{f' ({error})' if isinstance(error, str) else ''}"
    return f"no {measure.metric}"


def value_of(record: RunRecord, measure: Measure) -> float | None:
    """The number of a run, or None where it has none: not finished, no such metric, undefined.

    A run that failed counts for the metrics it left (`train/diverged`): dropping it would flatter the method.
    """
    if record.state not in ("finished", "failed"):
        return None
    if measure.reduce is None:
        values = [record.metrics[measure.metric]] if measure.metric in record.metrics else []
    else:
        depth = measure.metric.count("/")
        values = [
            value
            for name, value in record.metrics.items()
            if name.count("/") == depth and fnmatch.fnmatchcase(name, measure.metric)
        ]
    if not values or not all(math.isfinite(value) for value in values):
        return None
    return reduced(values, measure.reduce)


def reduced(values: Sequence[float], how: Reduce | None) -> float | None:
    """One number of several; a spread whose least value is not above 0 is undefined."""
    if how is Reduce.MAX:
        return max(values)
    if how is Reduce.MIN:
        return min(values)
    if how is Reduce.SPREAD:
        return max(values) / min(values) if min(values) > 0 else None
    return math.fsum(values) / len(values)


def differing(first: Mapping[str, Any], other: Mapping[str, Any], *, varies: Sequence[str] = ()) -> list[str]:
    """Config keys that both have with different values, less seed, study, operational ones and those in `varies`.

    A key that only one has was added to the schema between the runs and says nothing. A seed of a part that follows the
    run's own in both is no difference.
    """
    return [
        key
        for key in first
        if key in other
        and key not in UNRANKED
        and not (key.endswith(".seed") and first[key] == first.get("seed") and other[key] == other.get("seed"))
        and not is_operational(key)
        and not any(key.startswith(start) for start in varies)
        and canonical(first[key]) != canonical(other[key])
    ]


def selecting(wheres: Iterable[Mapping[str, Any]]) -> list[str]:
    """Beginnings of the keys in which arms differ by their selection; a `_target_` stands for its whole group."""
    keys = [key for where in wheres for key in where]
    return [key.removesuffix("_target_") if key.endswith(TARGET) else key for key in keys]
