"""The equations of LISA's shared layer, written out over b, h, i, j and the aligner's units. Float64, slow."""

import math

import numpy as np


def rotary(vector: np.ndarray, position: int, frequencies: np.ndarray) -> np.ndarray:
    """A vector [r] turned by its position; dimension j pairs with j + r / 2."""
    half, out = len(vector) // 2, np.zeros_like(vector)
    for pair in range(half):
        cos, sin = math.cos(position * frequencies[pair]), math.sin(position * frequencies[pair])
        out[pair] = vector[pair] * cos - vector[pair + half] * sin
        out[pair + half] = vector[pair + half] * cos + vector[pair] * sin
    return out


def align(scores_H: np.ndarray, *, mix: np.ndarray, w1: np.ndarray, b1: np.ndarray, w2: np.ndarray, b2: np.ndarray):
    """M s + W2 act(W1 s + b1) + b2 with the exact GELU."""
    heads, hidden = len(scores_H), len(b1)
    units = np.zeros(hidden)
    for unit in range(hidden):
        value = b1[unit] + sum(w1[unit, head] * scores_H[head] for head in range(heads))
        units[unit] = value * 0.5 * (1 + math.erf(value / math.sqrt(2)))
    out = np.zeros(heads)
    for head in range(heads):
        out[head] = b2[head] + sum(mix[head, other] * scores_H[other] for other in range(heads))
        out[head] += sum(w2[head, unit] * units[unit] for unit in range(hidden))
    return out


def shared_layer(
    x: np.ndarray,
    below: np.ndarray,
    *,
    aligner: dict,
    uq: np.ndarray,
    uk: np.ndarray,
    wv: np.ndarray,
    wo: np.ndarray,
    frequencies: np.ndarray,
    pairs: np.ndarray,
    head_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Output [B, T, D] and scores [B, H, T, T] of a shared layer. `pairs` [G, r / 2] index `frequencies` [d / 2]."""
    batch, rows, _ = x.shape
    heads, groups = below.shape[1], len(pairs)
    rank = 2 * pairs.shape[1]
    scores = np.full((batch, heads, rows, rows), np.nan)
    mixed = np.zeros((batch, rows, heads * head_size))
    for b in range(batch):
        for i in range(rows):
            for j in range(i + 1):
                aligned = align(below[b, :, i, j], **aligner)
                for h in range(heads):
                    g = h // (heads // groups)
                    query = rotary(uq[h * rank : (h + 1) * rank] @ x[b, i], i, frequencies[pairs[g]])
                    key = rotary(uk[g * rank : (g + 1) * rank] @ x[b, j], j, frequencies[pairs[g]])
                    scores[b, h, i, j] = aligned[h] + query @ key / math.sqrt(head_size)
            for h in range(heads):
                g = h // (heads // groups)
                weights = np.exp(scores[b, h, i, : i + 1] - scores[b, h, i, : i + 1].max())
                weights /= weights.sum()
                for j in range(i + 1):
                    value = wv[g * head_size : (g + 1) * head_size] @ x[b, j]
                    mixed[b, i, h * head_size : (h + 1) * head_size] += weights[j] * value
    return mixed @ wo.T, scores
