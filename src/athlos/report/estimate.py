"""The compared quantity of two arms with its 95 % interval: paired over seeds where they share some."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from athlos.config.claims import Compare
from athlos.report.seeds import seed_mean, t_quantile

Values = Mapping[int | None, float]
"""Seed -> number."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """`value` with the ends of its interval, None where there is none; `method` says how both were made.

    `seeds` are those that count, `unpaired` those without a partner in the other arm.
    """

    value: float
    low: float | None = None
    high: float | None = None
    method: str
    seeds: tuple[int | None, ...] = ()
    unpaired: tuple[int | None, ...] = ()


def estimate(
    compare: Compare, ours: Values, against: Values | None = None, origin: Values | None = None
) -> Estimate | None:
    """The quantity over seeds; None where it is undefined, or where single seeds have no partner.

    Ratios are averaged as logarithms, so that twice and half cancel. Two arms without a common seed are compared by
    Welch's interval; with one, every seed without a partner is left out and named.
    """
    others = [values for values in (against, origin) if values is not None]
    seeds = tuple(sorted((seed for seed in ours if all(seed in other for other in others)), key=_order))
    everyone = {seed for values in (ours, *others) for seed in values}
    if not seeds:
        return _welch(compare, ours, against) if origin is None and against is not None else None
    points = [_point(compare, *(values[seed] for values in (ours, *others))) for seed in seeds]
    if any(point is None for point in points):
        return None
    mean = seed_mean([point for point in points if point is not None])
    back = _back(compare)
    paired = f"{'paired ' if others else ''}t over {len(seeds)} seeds{' of logs' if _in_logs(compare) else ''}"
    return Estimate(
        value=back(mean.mean),
        low=None if mean.low is None else back(mean.low),
        high=None if mean.high is None else back(mean.high),
        method=paired if mean.low is not None else "one run",
        seeds=seeds,
        unpaired=tuple(sorted(everyone - set(seeds), key=_order)),
    )


def _order(seed: int | None) -> tuple[bool, int]:
    return seed is not None, seed or 0


def _in_logs(compare: Compare) -> bool:
    return compare in (Compare.RATIO, Compare.CHANGE)


def _point(compare: Compare, ours: float, against: float = 0.0, origin: float = 0.0) -> float | None:
    """The quantity of one seed, ratios as logarithms."""
    if compare is Compare.VALUE:
        return ours
    if compare is Compare.DIFFERENCE:
        return ours - against
    if compare is Compare.EXCESS:
        return (ours - origin) / (against - origin) if against != origin else None
    return math.log(ours / against) if ours > 0 and against > 0 else None


def _back(compare: Compare) -> Callable[[float], float]:
    """From the scale in which seeds are averaged to that of the claim."""
    if compare is Compare.RATIO:
        return math.exp
    if compare is Compare.CHANGE:
        return lambda value: 100 * math.expm1(value)
    return lambda value: value


def _welch(compare: Compare, ours: Values, against: Values) -> Estimate | None:
    """Welch's interval of the difference of two means, of logarithms for ratios; for arms without a common seed."""
    sides: list[Sequence[float]] = []
    for values in (ours, against):
        if len(values) < 2 or (_in_logs(compare) and min(values.values()) <= 0):
            return None
        sides.append([math.log(value) if _in_logs(compare) else value for value in values.values()])
    parts = [statistics.variance(side) / len(side) for side in sides]
    middle = statistics.fmean(sides[0]) - statistics.fmean(sides[1])
    total, back = sum(parts), _back(compare)
    # Rounded down: fewer degrees of freedom give the wider interval.
    degrees = (
        int(total**2 / sum(part**2 / (len(side) - 1) for part, side in zip(parts, sides, strict=True)))
        if (total > 0)
        else 1
    )
    half = t_quantile(max(1, degrees)) * math.sqrt(total)
    return Estimate(
        value=back(middle),
        low=back(middle - half),
        high=back(middle + half),
        method=f"Welch's t, {len(ours)} and {len(against)} unpaired seeds{' of logs' if _in_logs(compare) else ''}",
        seeds=tuple(sorted({*ours, *against}, key=_order)),
    )
