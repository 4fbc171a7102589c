"""Naive twin of the engines: one row at a time, the whole sequence read anew for every token, in float64."""

import copy
import math

import torch

from athlos.generation.rules import generator


def log_softmax(values):
    top = max(values)
    total = top + math.log(sum(math.exp(value - top) for value in values))
    return [value - total for value in values]


def kept(logits, *, top_k, top_p, min_p):
    """Indices that stay, walking down from the most probable one."""
    order = sorted(range(len(logits)), key=lambda index: -logits[index])
    if top_k:
        order = order[:top_k]
    probs = [math.exp(value) for value in log_softmax([logits[index] for index in order])]
    chosen, mass = [], 0.0
    for index, prob in zip(order, probs, strict=True):
        if mass >= top_p:
            break
        mass += prob
        chosen.append(index)
    best = logits[order[0]]
    return [index for index in chosen if math.exp(logits[index] - best) >= min_p]


def generate(model, prompt, *, rule, sample, ends):
    """(token ids, log-probabilities of the plain model) of one sample."""
    model = copy.deepcopy(model).double()
    source = generator(prompt.seed, sample, device=torch.device("cpu"))
    ids, answer, logs = list(prompt.token_ids), [], []
    for _ in range(prompt.max_new_tokens):
        logits = model(torch.tensor([ids])).logits[0, -1].tolist()
        changed = list(logits)
        for token in set(ids):
            by = rule.repetition_penalty
            changed[token] = changed[token] / by if changed[token] > 0 else changed[token] * by
        for token in set(answer):
            changed[token] -= rule.presence_penalty
        if rule.temperature == 0:
            token = max(range(len(changed)), key=changed.__getitem__)
        else:
            changed = [value / rule.temperature for value in changed]
            noise = torch.empty(len(changed)).uniform_(generator=source).tolist()
            allowed = kept(changed, top_k=rule.top_k, top_p=rule.top_p, min_p=rule.min_p)
            token = max(allowed, key=lambda index: changed[index] - math.log(-math.log(noise[index])))
        logs.append(log_softmax(logits)[token])
        ids.append(token)
        answer.append(token)
        if token in ends:
            break
    return answer, logs
