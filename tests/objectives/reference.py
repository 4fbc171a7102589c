"""Next-token cross-entropy from its equation, in loops and float64."""

import math


def next_token_nll(logits, labels, *, label_smoothing: float = 0.0, prior=None) -> tuple[float, int]:
    """(sum of -sum_v q_v log p_v over counted targets, their number); q = (1 - e) one-hot + e * prior, else e / V."""
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
            spread = prior or [1 / len(log_probs)] * len(log_probs)
            smooth = sum(share * log_prob for share, log_prob in zip(spread, log_probs, strict=True))
            total -= (1 - label_smoothing) * log_probs[target] + label_smoothing * smooth
            count += 1
    return total, count


def group_advantages(groups, *, std: str, eps: float) -> list[list[float]]:
    """(r - mean) / (deviation + eps), group by group; `sample` divides by n - 1 inside the root, `population` by n."""
    found = []
    for rewards in groups:
        mean = sum(rewards) / len(rewards)
        squares = sum((reward - mean) ** 2 for reward in rewards)
        spread = 1.0
        if std != "none":
            spread = math.sqrt(squares / (len(rewards) - (std == "sample"))) + eps
        found.append([(reward - mean) / spread for reward in rewards])
    return found


def policy_loss(new, old, advantages, *, low: float, high: float, denominator: str, constant: int) -> float:
    """PPO's clipped loss of a mini-batch. `new` and `old` hold the log-probabilities of each response's tokens."""
    rows, num_tokens = [], 0
    for new_row, old_row, advantage in zip(new, old, advantages, strict=True):
        losses = []
        for one, other in zip(new_row, old_row, strict=True):
            ratio = math.exp(one - other)
            clipped = min(max(ratio, 1 - low), 1 + high)
            losses.append(-min(ratio * advantage, clipped * advantage))
        rows.append(losses)
        num_tokens += len(losses)
    if denominator == "sequence":
        return sum(sum(row) / len(row) for row in rows) / len(rows)
    total = sum(sum(row) for row in rows)
    return total / num_tokens if denominator == "token" else total / (len(rows) * constant)


def topk_divergence(wanted, given, *, topk: int) -> float:
    """Sum over rows of KL(wanted || given) on the `topk` likeliest tokens of `wanted` and all others as one outcome."""
    total = 0.0
    for wanted_row, given_row in zip(wanted, given, strict=True):
        kept = sorted(range(len(wanted_row)), key=lambda token: -wanted_row[token])[:topk]
        outcomes = [[token] for token in kept] + [[token for token in range(len(wanted_row)) if token not in kept]]
        for tokens in outcomes:
            wanted_mass = sum(math.exp(wanted_row[token]) for token in tokens)
            given_mass = sum(math.exp(given_row[token]) for token in tokens)
            total += wanted_mass * math.log(wanted_mass / given_mass)
    return total


def unigrams(rows, *, vocab_size: int) -> list[float]:
    """Relative frequency of each token among the targets of rows (tokens, is target); a row's first token is none."""
    counts = [0] * vocab_size
    for tokens, is_target in rows:
        for place in range(1, len(tokens)):
            if is_target[place]:
                counts[tokens[place]] += 1
    return [count / sum(counts) for count in counts]


def multi_token_nll(hidden, heads, output, labels, *, weight: float) -> tuple[float, int]:
    """(CE of the next token + weight * CE of the token j places behind it, as sums; number of next-token targets).

    Head j scores with output . (h + W_j h). A later token counts where all labels from the next one to it do.
    """
    total, count = 0.0, 0
    for row_hidden, row_labels in zip(hidden, labels, strict=True):
        for position in range(len(row_labels) - 1):
            if row_labels[position + 1] == -100:
                continue
            count += 1
            for place in range(len(heads) + 1):
                until = position + 1 + place
                if until >= len(row_labels) or -100 in row_labels[position + 1 : until + 1]:
                    break
                state = list(row_hidden[position])
                if place:
                    state = [
                        own + sum(entry * other for entry, other in zip(line, row_hidden[position], strict=True))
                        for own, line in zip(state, heads[place - 1], strict=True)
                    ]
                scores = [sum(a * b for a, b in zip(line, state, strict=True)) for line in output]
                top = max(scores)
                log_z = top + math.log(sum(math.exp(score - top) for score in scores))
                total += (weight if place else 1.0) * (log_z - scores[row_labels[until]])
    return total, count


def preference_loss(log_probs, references, lengths, *, config) -> tuple[float, list[float]]:
    """Loss of one pair and its two rewards, from the equations of the papers; the better answer stands first."""
    better, worse = (log_prob - against for log_prob, against in zip(log_probs, references, strict=True))
    rewards = [config.beta * better, config.beta * worse]
    if config.kind != "dpo":
        better, worse = better / lengths[0], worse / lengths[1]
    if config.kind == "simpo":
        rewards = [config.beta * better, config.beta * worse]
    if config.kind == "ipo":
        loss = (better - worse - 1 / (2 * config.beta)) ** 2
    else:
        margin = config.beta * (better - worse) - (config.gamma if config.kind == "simpo" else 0)
        right, wrong = (1 / (1 + math.exp(-sign * margin)) for sign in (1, -1))
        loss = -(1 - config.label_smoothing) * math.log(right) - config.label_smoothing * math.log(wrong)
    return loss - config.sft_weight * log_probs[0] / lengths[0], rewards
