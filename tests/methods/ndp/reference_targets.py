"""NDP from its equations, with loops: nested dicts of tuples, dense float64 targets, a double loop for the loss."""

import math
from collections import Counter

from scipy.optimize import brentq


def count_tables(samples, *, n, mono=()):
    """(sup, clm): {prefix tuple: Counter of next tokens}. A sample is (tokens, [(start, end) of its answers])."""
    sup, clm = {}, {}
    for tokens, answers in samples:
        for start, end in answers:
            for place in range(start, end):
                if place == 0:
                    continue
                sup.setdefault(tuple(tokens[:place]), Counter())[tokens[place]] += 1
                if place - start >= n:
                    clm.setdefault(tuple(tokens[start:place]), Counter())[tokens[place]] += 1
    for document in mono:
        for place in range(len(document)):
            if place >= n:
                clm.setdefault(tuple(document[:place]), Counter())[document[place]] += 1
    return sup, clm


def counters_of(samples, sup, clm, *, n):
    """[(sup counter, clm counter or the sup one)] of every answer position, sample by sample, and hits."""
    found = []
    for tokens, answers in samples:
        for start, end in answers:
            for place in range(max(start, 1), end):
                own = sup[tuple(tokens[:place])]
                prefix = tuple(tokens[start:place])
                is_hit = len(prefix) >= n and prefix in clm
                found.append((own, clm[prefix] if is_hit else own, is_hit))
    return found


def dense(counter, *, smooth, zero_prob, vocab_size, temperature=None):
    """One row of probabilities over the vocabulary, a list of floats."""
    total = sum(counter.values())
    unseen = vocab_size - len(counter)
    row = [0.0] * vocab_size
    if smooth == "argmax":
        top = max(counter.values())
        winners = [token for token, count in counter.items() if count == top]
        for token in winners:
            row[token] = 1 / len(winners)
    elif smooth == "softmax":
        z = sum(math.exp(count) for count in counter.values())
        for token, count in counter.items():
            row[token] = math.exp(count) / z
    elif smooth == "div":
        for token in range(vocab_size):
            if token in counter:
                row[token] = (1 - (zero_prob if unseen else 0)) * counter[token] / total
            else:
                row[token] = zero_prob / unseen
    elif smooth == "temp_row":
        return _temp_row(counter, zero_prob=zero_prob, vocab_size=vocab_size)
    else:
        return _temp_batch(counter, vocab_size=vocab_size, temperature=temperature)
    return row


def _temp_row(counter, *, zero_prob, vocab_size):
    if zero_prob >= 1 / (len(counter) + 1):
        return dense(counter, smooth="div", zero_prob=zero_prob, vocab_size=vocab_size)
    temperature = row_temperature(list(counter.values()), zero_prob=zero_prob)
    z = sum(math.exp(count / temperature) for count in counter.values())
    row = [zero_prob / (vocab_size - len(counter))] * vocab_size
    for token, count in counter.items():
        row[token] = (1 - zero_prob) * math.exp(count / temperature) / z
    return row


def _temp_batch(counter, *, vocab_size, temperature):
    top = max(counter.values()) / temperature
    unseen = vocab_size - len(counter)
    z = unseen * math.exp(-top) + sum(math.exp(count / temperature - top) for count in counter.values())
    return [math.exp(counter.get(token, 0) / temperature - top) / z for token in range(vocab_size)]


def row_temperature(counts, *, zero_prob):
    """T with 1 / (1 + sum exp(c / T)) = z, by scipy."""

    def excess(temperature):
        top = max(counts) / temperature
        return (
            math.log(1 - zero_prob)
            - math.log(zero_prob)
            - top
            - math.log(sum(math.exp(count / temperature - top) for count in counts))
        )

    return brentq(excess, 1e-7, 100, xtol=1e-14)


def batch_temperature(counters, *, zero_prob, vocab_size, solver=brentq):
    """T with sum_r Z_r / (Z_r + sum exp(c / T)) = R z."""

    def excess(temperature):
        total = 0.0
        for counter in counters:
            top = max(counter.values()) / temperature
            unseen = (vocab_size - len(counter)) * math.exp(-top)
            total += unseen / (unseen + sum(math.exp(count / temperature - top) for count in counter.values()))
        return total - len(counters) * zero_prob

    return solver(excess, 0.01, 50, xtol=1e-14)


def mix(sup_row, clm_row, *, sup_share):
    return [sup_share * a + (1 - sup_share) * b for a, b in zip(sup_row, clm_row, strict=True)]


def soft_cross_entropy(logits, targets, weights=None):
    """Sum over positions of weight * - sum_v p_v log q_v, in nats."""
    total = 0.0
    for position, (row, target) in enumerate(zip(logits, targets, strict=True)):
        top = max(row)
        log_z = top + math.log(sum(math.exp(score - top) for score in row))
        weight = 1.0 if weights is None else weights[position]
        for score, prob in zip(row, target, strict=True):
            total -= weight * prob * (score - log_z)
    return total


def neighbour_targets(states, labels, *, num, temperature, share, vocab_size):
    """Dense targets: share * label + (1 - share) * softmax over the nearest other positions of -distance / T."""
    found = []
    for at, state in enumerate(states):
        distances = [
            (sum((a - b) ** 2 for a, b in zip(state, other, strict=True)), labels[place])
            for place, other in enumerate(states)
            if place != at
        ]
        found.append(sorted(distances)[:num])
    scale = sum(distance for row in found for distance, _ in row) / (len(found) * num)
    rows = []
    for label, neighbours in zip(labels, found, strict=True):
        weights = [math.exp(-distance / (temperature * scale)) if scale else 1.0 for distance, _ in neighbours]
        row = [0.0] * vocab_size
        row[label] = share
        for weight, (_, token) in zip(weights, neighbours, strict=True):
            row[token] += (1 - share) * weight / sum(weights)
        rows.append(row)
    return rows
