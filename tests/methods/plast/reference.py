"""PLAST from its definition, in loops: firing shares, specific neurons, scores, the shallow prefix, label masks."""

import math


def share_positive(gates, masks):
    """gates: list of texts, each a list of tokens, each a list of neurons; masks alike. -> share by neuron."""
    num_neurons = len(gates[0][0])
    counts, tokens = [0] * num_neurons, 0
    for text, mask in zip(gates, masks, strict=True):
        for token, kept in zip(text, mask, strict=True):
            if kept:
                tokens += 1
                for neuron, value in enumerate(token):
                    counts[neuron] += value > 0
    return [count / tokens for count in counts]


def percentile(values, wanted):
    """Linear interpolation between the two nearest ranks."""
    ordered = sorted(values)
    place = wanted / 100 * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def entropy(shares):
    """Of p over languages, divided by log of their number; None for a neuron that never fires."""
    total = sum(shares)
    if total == 0:
        return None
    return -sum(p / total * math.log(p / total) for p in shares if p > 0) / math.log(len(shares))


def specific(p, *, wanted_percentile, entropy_share):
    """p[layer][language][neuron] -> set of (layer, language, neuron)."""
    threshold = percentile([v for layer in p for language in layer for v in language], wanted_percentile)
    living, candidates = 0, []
    for layer_index, layer in enumerate(p):
        for neuron in range(len(layer[0])):
            shares = [language[neuron] for language in layer]
            value = entropy(shares)
            if value is None:
                continue
            living += 1
            if max(shares) > threshold and value < 1 - 1e-9:
                candidates.append((value, layer_index, neuron))
    candidates.sort()
    found = set()
    for _, layer_index, neuron in candidates[: int(entropy_share * living)]:
        for language, shares in enumerate(p[layer_index]):
            if shares[neuron] > threshold:
                found.add((layer_index, language, neuron))
    return found


def scores(found, *, num_layers, num_languages, reference):
    """Mean over languages but the reference of the number of specific neurons, 1 in sum over layers."""
    means = []
    for layer in range(num_layers):
        counts = [
            sum(1 for one in found if one[0] == layer and one[1] == x) for x in range(num_languages) if x != reference
        ]
        means.append(sum(counts) / len(counts))
    total = sum(means)
    return [mean / total for mean in means] if total else means


def prefix(values, *, std_factor, region, fallback_share):
    mean = sum(values) / len(values)
    std = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    lowest = max(1, math.floor(region * len(values) + 1e-6))
    chosen = []
    for layer in range(lowest):
        if values[layer] <= mean + std_factor * std:
            break
        chosen.append(layer)
    return chosen or list(range(math.ceil(fallback_share * len(values) - 1e-6)))
