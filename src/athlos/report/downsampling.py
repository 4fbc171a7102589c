"""Fewer points of a curve, with its peaks."""

import math
from array import array

from athlos.runs.records import Curve


def downsample(curve: Curve, *, max_points: int) -> Curve:
    """At most `max_points` (>= 8) of the points: the first, the last, and of each stretch the least, the greatest and,
    where it has one, the first undefined, in order of steps. A curve that is short enough comes back as it is.
    """
    length = len(curve.steps)
    if length <= max_points:
        return curve
    num_kinds = 3 if any(math.isnan(value) for value in curve.values) else 2
    num_stretches = (max_points - 2) // num_kinds
    kept = {0, length - 1}
    for stretch in range(num_stretches):
        start = 1 + stretch * (length - 2) // num_stretches
        stop = 1 + (stretch + 1) * (length - 2) // num_stretches
        known = [index for index in range(start, stop) if not math.isnan(curve.values[index])]
        if known:
            kept.add(min(known, key=curve.values.__getitem__))
            kept.add(max(known, key=curve.values.__getitem__))
        if len(known) < stop - start:
            kept.add(next(index for index in range(start, stop) if math.isnan(curve.values[index])))
    order = sorted(kept)
    return Curve(
        steps=array("q", (curve.steps[index] for index in order)),
        values=array("d", (curve.values[index] for index in order)),
    )
