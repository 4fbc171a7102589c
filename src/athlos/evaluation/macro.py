"""How benchmarks of several parts become one number: plain means, and PolyMath's weights by difficulty."""

from collections.abc import Mapping, Sequence

import numpy as np

from athlos.errors import DataError

POLYMATH_WEIGHTS = {"low": 1, "medium": 2, "high": 4, "top": 8}
"""Weight of each level of difficulty; they sum to 15. Source: PolyMath, 2504.18428."""


def polymath_score(accuracy_by_level: Mapping[str, float]) -> float:
    """Accuracy weighted 1, 2, 4, 8 over the four levels, / 15. Raises `DataError` when a level is missing."""
    if set(accuracy_by_level) != set(POLYMATH_WEIGHTS):
        raise DataError(
            f"PolyMath score: got the levels {', '.join(sorted(accuracy_by_level))}, expected "
            f"{', '.join(POLYMATH_WEIGHTS)}"
        )
    weighted = sum(weight * accuracy_by_level[level] for level, weight in POLYMATH_WEIGHTS.items())
    return weighted / sum(POLYMATH_WEIGHTS.values())


def mean_of_parts(values: Sequence[float], parts: Sequence[str]) -> float:
    """The mean over parts of the mean in each; nan for no items. Raises ValueError for unequal lengths."""
    by_part: dict[str, list[float]] = {}
    for value, part in zip(values, parts, strict=True):
        by_part.setdefault(part, []).append(value)
    return float(np.mean([np.mean(items) for items in by_part.values()])) if by_part else float("nan")
