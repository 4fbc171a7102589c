"""Naive twins of the evaluation metrics, written from their definitions in plain loops over Python floats."""

import math


def mean(values):
    total = 0.0
    for value in values:
        total += value
    return total / len(values)


def means_of_ties(conf, correct):
    """Each item's correctness as the mean over the items that are as sure."""
    return [mean([y for other, y in zip(conf, correct, strict=True) if other == c]) for c in conf]


def mass_parts(conf, correct, num_bins):
    """Parts whose sizes differ by at most one, the larger ones first, along rising confidence."""
    correct = means_of_ties(conf, correct)
    items = sorted(zip(conf, correct, range(len(conf)), strict=True), key=lambda item: (item[0], item[2]))
    size, larger = divmod(len(items), num_bins)
    parts = []
    for index in range(num_bins):
        length = size + 1 if index < larger else size
        parts.append(items[:length])
        items = items[length:]
    return [part for part in parts if part]


def width_parts(conf, correct, num_bins):
    parts = []
    for j in range(num_bins):
        low, high = j / num_bins, (j + 1) / num_bins
        part = [(c, y) for c, y in zip(conf, correct, strict=True) if low <= c < high or (j == num_bins - 1 and c == 1)]
        if part:
            parts.append(part)
    return parts


def gaps(parts):
    return [abs(mean([item[1] for item in part]) - mean([item[0] for item in part])) for part in parts]


def expected_error(parts):
    total = sum(len(part) for part in parts)
    return sum(len(part) / total * gap for part, gap in zip(parts, gaps(parts), strict=True))


def brier(conf, correct):
    return mean([(c - y) ** 2 for c, y in zip(conf, correct, strict=True)])


def auroc(conf, correct):
    wins, pairs = 0.0, 0
    for right_conf, is_right in zip(conf, correct, strict=True):
        for wrong_conf, other_right in zip(conf, correct, strict=True):
            if is_right and not other_right:
                pairs += 1
                wins += 1.0 if right_conf > wrong_conf else 0.5 if right_conf == wrong_conf else 0.0
    return wins / pairs if pairs else math.nan


def aurc(conf, correct):
    correct = means_of_ties(conf, correct)
    order = sorted(range(len(conf)), key=lambda i: (-conf[i], i))
    risks, errors = [], 0
    for count, index in enumerate(order, start=1):
        errors += 1 - correct[index]
        risks.append(errors / count)
    return mean(risks)


def e_aurc(conf, correct):
    perfect = [1.0] * int(sum(correct)) + [0.0] * (len(correct) - int(sum(correct)))
    return aurc(conf, correct) - aurc(list(range(len(perfect), 0, -1)), perfect)


def log_loss(conf, correct, temperature):
    losses = []
    for c, y in zip(conf, correct, strict=True):
        c = min(max(c, 1e-6), 1 - 1e-6)
        scaled = 1 / (1 + math.exp(-math.log(c / (1 - c)) / temperature))
        losses.append(-math.log(scaled if y else 1 - scaled))
    return mean(losses)


def self_knowledge(answered, right, known):
    counts = {"tp": 0, "fp": 0, "fn": 0, "tn": 0}
    for is_answered, is_right, is_known in zip(answered, right, known, strict=True):
        if is_answered:
            counts["tp" if is_right else "fp"] += 1
        else:
            counts["fn" if is_known else "tn"] += 1
    return counts
