"""Runs that differ only in their seed: grouping, and the interval of their mean."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from athlos.config.schema import OPERATIONAL_KEYS
from athlos.runs.records import RunRecord


@dataclass(frozen=True, kw_only=True)
class SeedMean:
    """Mean over n runs; `low` and `high` are None for fewer than two."""

    mean: float
    n: int
    low: float | None = None
    high: float | None = None


def t_quantile(degrees: int) -> float:
    """The 97.5 % point of Student's t, to the four digits that the intervals in the studies were computed with."""
    if degrees < 1:
        raise ValueError(f"degrees of freedom: got {degrees}, expected an integer >= 1")
    return round(float(stdtrit(degrees, 0.975)), 4)


def seed_mean(values: Sequence[float]) -> SeedMean:
    """Mean of the defined values and its 95 % interval by Student's t with n - 1 degrees of freedom.

    It shows the variance of the seed, not of the choice of test items. No defined value gives a mean of nan.
    """
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return SeedMean(mean=math.nan, n=0)
    mean = statistics.fmean(known)
    if len(known) == 1:
        return SeedMean(mean=mean, n=1)
    half = t_quantile(len(known) - 1) * statistics.stdev(known) / math.sqrt(len(known))
    return SeedMean(mean=mean, n=len(known), low=mean - half, high=mean + half)


def identity_key(record: RunRecord) -> str:
    """What a run computes, less its seed, and the study it belongs to: equal for the seeds of one experiment.

    A run without a readable config is alike to none.
    """
    if not record.config:
        return f"\0{record.path}"
    kept = {
        key: value
        for key, value in record.config.items()
        if key != "seed" and (key == "study" or key.partition(".")[0] not in OPERATIONAL_KEYS)
    }
    return json.dumps(kept, sort_keys=True, ensure_ascii=True)


def seed_groups(records: Sequence[RunRecord]) -> list[list[int]]:
    """Positions of the runs of each group, in order of first appearance; every run is in one group."""
    groups: dict[str, list[int]] = {}
    for position, record in enumerate(records):
        groups.setdefault(identity_key(record), []).append(position)
    return list(groups.values())
