"""Next-token cross-entropy from its equation, in loops and float64."""

import math


def next_token_nll(logits, labels, *, label_smoothing: float = 0.0) -> tuple[float, int]:
    """(sum of -sum_v q_v log p_v over counted targets, their number); q = (1 - e) one-hot + e / V."""
    total, count = 0.0, 0
    for row_logits, row_labels in zip(logits, labels, strict=True):
        for position in range(1, len(row_labels)):
            target = row_labels[position]
            if target == -100:
                continue
            scores = [float(score) for score in row_logits[position - 1]]
            top = max(scores)
            log_z = top + math.log(sum(math.exp(score - top) for score in scores))
            log_probs = [score - log_z for score in scores]
            smooth = sum(log_probs) / len(log_probs)
            total -= (1 - label_smoothing) * log_probs[target] + label_smoothing * smooth
            count += 1
    return total, count
