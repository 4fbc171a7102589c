"""Naive twins of KMKC, from the equations of its specification, in plain loops over Python floats."""

import math


def uncertainty(log_probs):
    total, count = 0.0, 0
    for log_prob in log_probs:
        total += log_prob
        count += 1
    return -total / count


def shares(answers, right):
    """(Acc, kappa, omega)."""
    kappa = omega = 0
    for answer in answers:
        same = sum(other == answer for other in answers)
        kappa = max(kappa, same)
    for answer, is_right in zip(answers, right, strict=True):
        if not is_right:
            same = sum(other == answer and not other_right for other, other_right in zip(answers, right, strict=True))
            omega = max(omega, same)
    return sum(right) / len(right), kappa / len(answers), omega / len(answers)


def region(acc, ubar, omega, u_lo, u_hi, high, low):
    if acc >= high and ubar <= u_lo:
        return "mastered"
    if acc <= low:
        if ubar >= u_hi:
            return "missing"
        if omega >= 0.5:
            return "missing"
    return "confused"


def h(entropies, mask, reference):
    total, count = 0.0, 0
    for entropy, is_token in zip(entropies, mask, strict=True):
        if is_token:
            total += entropy
            count += 1
    return min(max(total / count / reference, 0.0), 1.0)


def reward(is_right, h_value, weights, is_formed):
    g = (1 - h_value) - 0.5 if is_right else h_value - 0.5
    return (1.0 if is_right else 0.0) + weights[0 if is_right else 1] * g + (0.1 if is_formed else 0.0)


def advantages(rewards, eps=1e-4):
    mean = sum(rewards) / len(rewards)
    variance = sum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - 1)
    return [(reward - mean) / (math.sqrt(variance) + eps) for reward in rewards]


def entropy(logits):
    top = max(logits)
    weights = [math.exp(value - top) for value in logits]
    probs = [weight / sum(weights) for weight in weights]
    return -sum(p * math.log(p) for p in probs if p > 0)
