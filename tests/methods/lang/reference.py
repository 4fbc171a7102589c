"""LANG's loop from the specification's pseudocode, in plain Python, with a scripted policy in place of a model."""

import math


def shown(step, num_steps, schedule):
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * step / num_steps))
    if schedule == "linear":
        return 1 - step / num_steps
    if schedule == "exp":
        return math.exp(-5 * step / num_steps)
    return {"constant": 1.0, "none": 0.0}[schedule]


def train(batches, policy, *, group_of, num_steps, schedule, alpha, tau, t_min):
    """`batches[t]` holds (language, hint) pairs; `policy(t, language, k)` gives the group's rewards of 0 and 1.

    Returns for each step (k of each prompt, advantages of each prompt, averages by group, groups that are off).
    """
    average = {group: 0.0 for group in sorted(set(group_of.values()))}
    off = {group: False for group in average}
    found = []
    for step in range(num_steps):
        counts, advantages, signals = [], [], {}
        for language, hint in batches[step]:
            share = 0.0 if off[group_of[language]] else shown(step, num_steps, schedule)
            kept = math.floor(share * len(hint) + 1e-9)
            rewards = policy(step, language, kept)
            mean = sum(rewards) / len(rewards)
            deviation = math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / (len(rewards) - 1))
            group_advantages = [(reward - mean) / (deviation + 1e-6) for reward in rewards]
            counts.append(kept)
            advantages.append(group_advantages)
            signals.setdefault(group_of[language], []).append(float(max(group_advantages) > 0))
        for group, carried in signals.items():
            average[group] = alpha * average[group] + (1 - alpha) * sum(carried) / len(carried)
            if step >= t_min and average[group] >= tau:
                off[group] = True
        found.append((counts, advantages, dict(average), dict(off)))
    return found
