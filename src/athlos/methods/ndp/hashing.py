"""128-bit keys of token prefixes, for whole corpora at once, the same on every platform.

The key of the tokens t_0 .. t_(i-1) is the sum over j < i of g(t_j, j), with g a fixed mixer of 64 bits into two words
of 64 bits, each word summed modulo 2^64. A prefix one token longer costs one addition, and a running sum over a corpus
gives all its prefixes. g is one-to-one in (token, position), so prefixes that differ in one token never collide; any
other two do so with probability about 2^-128. A sum of powers, the usual rolling hash, is weaker: modulo 2^64 its low
bits hardly depend on the order of the tokens.

Only integer arithmetic modulo 2^64 is used: nothing rounds, and nothing depends on the machine or on numpy's version.

N tokens, S segments (each with its own first token), word 0 before word 1 in the order of keys.
"""

from collections.abc import Iterator

import numpy as np

from athlos.errors import DataError

MAX_TOKEN = (1 << 32) - 1
"""A token and its position share one word of 64 bits."""
CHUNK_TOKENS = 1 << 15
"""Tokens mixed at a time: their words stay in the second-level cache."""
# Odd constants without structure: those of splitmix64 (Steele, Lea, Flood 2014) and of rrmxmx.
OFFSET = np.uint64(0x9E3779B97F4A7C15)
FIRST = np.uint64(0xBF58476D1CE4E5B9)
SECOND = np.uint64(0x94D049BB133111EB)
THIRD = np.uint64(0x9FB21C651E98DF25)


def segment_keys(tokens_N: np.ndarray, lengths_S: np.ndarray) -> np.ndarray:
    """For each token the key of the tokens before it in its own segment, uint64 [N, 2].

    Segments lie end to end in `tokens_N`; the first token of each has the key of the empty prefix, (0, 0). The result
    is stored word by word, so that `keys[:, 0]` is contiguous.
    """
    check_tokens(tokens_N)
    keys = np.empty((2, len(tokens_N)), dtype=np.uint64)
    lengths_S = lengths_S[lengths_S > 0]
    for span, segments in whole_segments(lengths_S, size=CHUNK_TOKENS):
        lengths = lengths_S[segments]
        starts = np.cumsum(lengths) - lengths
        positions = np.arange(span.stop - span.start) - np.repeat(starts, lengths)
        for word, values in zip(keys, mix(tokens_N[span], positions.view(np.uint64)), strict=True):
            totals = np.add.reduceat(values, starts)
            # The sum before a token: that before its neighbour and the neighbour's own; zero again at each start.
            word[span.start] = 0
            word[span.start + 1 : span.stop] = values[:-1]
            word[span.start + starts[1:]] -= totals[:-1]
            np.cumsum(word[span], out=word[span])
    return keys.T


def segment_totals(tokens_N: np.ndarray, lengths_S: np.ndarray) -> np.ndarray:
    """The key of each whole segment, uint64 [S, 2]."""
    check_tokens(tokens_N)
    totals = np.zeros((2, len(lengths_S)), dtype=np.uint64)
    filled = np.flatnonzero(lengths_S)
    for span, segments in whole_segments(lengths_S[filled], size=CHUNK_TOKENS):
        lengths = lengths_S[filled[segments]]
        starts = np.cumsum(lengths) - lengths
        positions = np.arange(span.stop - span.start) - np.repeat(starts, lengths)
        for word, values in zip(totals, mix(tokens_N[span], positions.view(np.uint64)), strict=True):
            word[filled[segments]] = np.add.reduceat(values, starts)
    return totals.T


def check_tokens(tokens: np.ndarray) -> np.ndarray:
    """The tokens themselves; `DataError` unless they are integers in 0 .. 2^32 - 1."""
    if not np.issubdtype(tokens.dtype, np.integer):
        raise DataError(f"tokens: got {tokens.dtype}, expected integers")
    if len(tokens) and (tokens.min() < 0 or tokens.max() > MAX_TOKEN):
        raise DataError(f"tokens: got {tokens.min()} .. {tokens.max()}, expected 0 .. {MAX_TOKEN}")
    return tokens


def mix(tokens_N: np.ndarray, positions_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both words of g(token, position), uint64 [N] each."""
    first = tokens_N.astype(np.uint64)
    first <<= np.uint64(32)
    first |= positions_N
    first += OFFSET
    scratch = first >> np.uint64(30)
    first ^= scratch
    first *= FIRST
    first ^= np.right_shift(first, np.uint64(27), out=scratch)
    first *= SECOND
    first ^= np.right_shift(first, np.uint64(31), out=scratch)
    # The second word is a further round, not linear in the first: equal sums of one say nothing of the other.
    second = first * THIRD
    second ^= np.right_shift(second, np.uint64(28), out=scratch)
    second *= FIRST
    second ^= np.right_shift(second, np.uint64(32), out=scratch)
    return first, second


def whole_segments(lengths_S: np.ndarray, *, size: int) -> Iterator[tuple[slice, slice]]:
    """Cut a corpus between segments into pieces of about `size` tokens: the span of tokens and that of segments."""
    ends = np.cumsum(lengths_S)
    first, start = 0, 0
    while first < len(lengths_S):
        last = max(first + 1, int(np.searchsorted(ends, start + size, side="right")))
        stop = int(ends[last - 1])
        yield slice(start, stop), slice(first, last)
        first, start = last, stop


def num_collisions(tokens_N: np.ndarray, lengths_S: np.ndarray, *, sample: int, seed: int = 0) -> int:
    """Different prefixes with one key among `sample` random positions: exact keys against hashed ones. Expect 0.

    Every position is looked at where there are at most `sample` of them.
    """
    keys = segment_keys(tokens_N, lengths_S)
    starts = np.repeat(np.cumsum(lengths_S) - lengths_S, lengths_S)
    chosen = np.arange(len(tokens_N))
    if len(chosen) > sample:
        chosen = np.random.default_rng(seed).choice(chosen, size=sample, replace=False)
    exact_of: dict[tuple[int, int], bytes] = {}
    collisions = 0
    for index in chosen:
        exact = tokens_N[starts[index] : index].astype("<u4").tobytes()
        key = (int(keys[index, 0]), int(keys[index, 1]))
        collisions += exact_of.setdefault(key, exact) != exact
    return collisions
