"""Naive twins of the probe and the layer selectors: Python loops from the definitions, no numpy, no hooks."""

import math
from collections import defaultdict
from collections.abc import Sequence

Values = list[list[list[float]]]
"""[layer][language][neuron]"""


def count_positive(gates: dict[str, list[list[list[list[float]]]]], masks: dict[str, list[list[bool]]]) -> dict:
    """(layer, language, neuron) -> tokens with a gate above zero; gates[language][text][layer][token] is a row."""
    counts: dict[tuple[int, str, int], int] = defaultdict(int)
    for language, texts in gates.items():
        for text, mask in zip(texts, masks[language], strict=True):
            for layer, rows in enumerate(text):
                for row, is_counted in zip(rows, mask, strict=True):
                    for neuron, value in enumerate(row):
                        if is_counted and value > 0:
                            counts[layer, language, neuron] += 1
    return counts


def deviation(values: Values, reference: int) -> list[float]:
    result = []
    for layer in values:
        total, count = 0.0, 0
        for language, neurons in enumerate(layer):
            if language == reference:
                continue
            for neuron, value in enumerate(neurons):
                total += (value - layer[reference][neuron]) ** 2
                count += 1
        result.append(total / count)
    return result


def prefix(scores: Sequence[float], k_max: int) -> list[int]:
    mean = sum(scores) / len(scores)
    chosen: list[int] = []
    for index in range(len(scores) // 2):
        if scores[index] <= mean or len(chosen) == k_max:
            break
        chosen.append(index)
    return chosen


def shallow_prefix(scores: Sequence[float], std_factor: float, lowest: int) -> list[int]:
    mean = sum(scores) / len(scores)
    std = math.sqrt(sum((score - mean) ** 2 for score in scores) / len(scores))
    chosen: list[int] = []
    for index in range(lowest):
        if scores[index] <= mean + std_factor * std:
            break
        chosen.append(index)
    return chosen


def entropy(shares: Sequence[float]) -> float | None:
    total = sum(shares)
    if total == 0:
        return None
    return -sum(p / total * math.log(p / total) for p in shares if p > 0) / math.log(len(shares))


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear between the two nearest ranks."""
    ordered = sorted(values)
    place = percent / 100 * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def ranked_value(values: Sequence[float], percent: float) -> float:
    """The value of the rank next to a share of all values; ranks begin at 1."""
    return sorted(values)[max(1, round(percent / 100 * len(values))) - 1]


def lape(
    probs: Values, percent: float, entropy_share: float, *, living_only: bool
) -> tuple[set[tuple[int, int, int]], int]:
    """(layer, language, neuron) of specific neurons, and how many neurons are dead."""
    num_layers, num_languages, num_neurons = len(probs), len(probs[0]), len(probs[0][0])
    threshold_of = percentile if living_only else ranked_value
    threshold = threshold_of([p for layer in probs for row in layer for p in row], percent)
    dead, alive, ranked = 0, 0, []
    for layer in range(num_layers):
        for neuron in range(num_neurons):
            shares = [probs[layer][language][neuron] for language in range(num_languages)]
            value = entropy(shares)
            if value is None:
                dead += 1
                continue
            alive += 1
            if max(shares) > threshold and value < 1 - 1e-9:
                ranked.append((value, layer, neuron))
    ranked.sort()
    specific = set()
    wanted = int(entropy_share * alive) if living_only else round(entropy_share * (alive + dead))
    for _, layer, neuron in ranked[:wanted]:
        for language in range(num_languages):
            if probs[layer][language][neuron] > threshold:
                specific.add((layer, language, neuron))
    return specific, dead


def top_active(probs: Values, share: float) -> set[tuple[int, int, int]]:
    num_layers, num_languages, num_neurons = len(probs), len(probs[0]), len(probs[0][0])
    chosen = set()
    for language in range(num_languages):
        ranked = sorted(
            (-probs[layer][language][neuron], layer, neuron)
            for layer in range(num_layers)
            for neuron in range(num_neurons)
        )
        for value, layer, neuron in ranked[: int(share * num_layers * num_neurons)]:
            if value < 0:
                chosen.add((layer, language, neuron))
    return chosen
