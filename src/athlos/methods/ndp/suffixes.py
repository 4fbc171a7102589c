"""The sliding-window extension: counts of what follows the last tokens, whatever came before them.

A context is the last L tokens of the row, L = 0 .. window. Its key is a running sum from the end, so that one more
token is one addition. A context is stored only where the next shorter one was seen twice or more: all that is longer
than a context seen once says the same as that one. So a table stays near the size of the corpus.

A position's target mixes its contexts from the longest known, of length m, down to min(n, m): the longest has the
weight 1 - b, each shorter one b times that of the one above, the shortest what is left. b = 0 takes the longest alone,
which is the infinite-gram model. `additive` is then added to every token of the vocabulary.

N tokens, P positions, E entries.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from athlos.methods.ndp.building import Corpus, entries
from athlos.methods.ndp.counting import order_by_key
from athlos.methods.ndp.hashing import mix
from athlos.methods.ndp.smoothing import Distributions
from athlos.methods.ndp.tables import CountRows, CountTable, new_keys

FROM_END = 1 << 31
"""Added to distances from the end, so that no term of a suffix is a term of a prefix."""
BLOCK_POSITIONS = 4096
"""Positions mixed at a time: short contexts have many candidates."""


def suffix_levels(corpus: Corpus, *, window: int) -> Iterator[CountRows]:
    """Entries of the contexts of 0, 1, .. `window` tokens, each level in memory at its turn."""
    places, room = _places(corpus)
    keys = np.zeros((len(places), 2), dtype=np.uint64)
    for length in range(window + 1):
        yield entries(keys, corpus.tokens_N[places])
        grows = (room > length) & _seen_again(keys)
        if length == window or not grows.any():
            return
        places, room, keys = places[grows], room[grows], keys[grows]
        keys = longer(keys, corpus.tokens_N[places - 1 - length], length)


def _places(corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
    """Predicted tokens, and how many tokens of their row stand before each."""
    starts_R = np.cumsum(corpus.lengths_R) - corpus.lengths_R
    places = np.flatnonzero(corpus.is_predicted_N)
    return places, places - np.repeat(starts_R, corpus.lengths_R)[places]


def longer(keys_P2: np.ndarray, tokens_P: np.ndarray, length: int) -> np.ndarray:
    """Keys of contexts of `length` tokens with one more token in front."""
    distances = np.full(len(tokens_P), FROM_END + length, dtype=np.uint64)
    longer_P2: np.ndarray = keys_P2 + np.stack(mix(tokens_P, distances), axis=1)
    return longer_P2


def _seen_again(keys_P2: np.ndarray) -> np.ndarray:
    """Whether another position has the same key, bool [P]."""
    order = order_by_key(keys_P2[:, 0], keys_P2[:, 1])
    is_new = new_keys(keys_P2[order, 0], keys_P2[order, 1])
    again = np.empty(len(order), dtype=bool)
    again[order] = ~is_new | ~np.append(is_new[1:], True)
    return again


@dataclass(frozen=True, kw_only=True)
class SuffixReader:
    """A table of contexts with what turns its counts into targets."""

    table: CountTable
    key: str
    """Of the stage product."""
    window: int
    n: int
    """Shortest context that is mixed in where a longer one is known."""
    backoff: float
    """b in [0, 1)."""
    additive: float
    """Added to every token's probability before rows are scaled to 1."""

    def distributions(self, corpus: Corpus, *, vocab_size: int) -> Distributions:
        """The target of each predicted token, in order."""
        levels = self._levels(corpus)
        num_positions = len(levels[0])
        parts = [
            self._mixed([rows[start : start + BLOCK_POSITIONS] for rows in levels], vocab_size)
            for start in range(0, num_positions, BLOCK_POSITIONS)
        ]
        sizes = np.concatenate([np.zeros(0, dtype=np.int64), *(np.diff(offsets) for offsets, _, _ in parts)])
        scale = 1 / (1 + self.additive * vocab_size)
        return Distributions(
            offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            token_ids=np.concatenate([np.zeros(0, dtype=np.int64), *(ids for _, ids, _ in parts)]),
            probs=(np.concatenate([np.zeros(0), *(probs for _, _, probs in parts)]) + self.additive) * scale,
            leak=np.full(num_positions, self.additive * scale),
        )

    def _levels(self, corpus: Corpus) -> list[np.ndarray]:
        """Rows of each position's contexts of 0, 1, .. tokens, int64 [P] a level; -1 = not known, nor any longer."""
        places, room = _places(corpus)
        active = np.arange(len(places))
        keys = np.zeros((len(places), 2), dtype=np.uint64)
        levels: list[np.ndarray] = []
        for length in range(self.window + 1):
            rows = np.full(len(places), -1, dtype=np.int64)
            rows[active] = self.table.lookup(keys)
            levels.append(rows)
            grows = (rows[active] >= 0) & (room[active] > length)
            active, keys = active[grows], keys[grows]
            if not len(active):
                break
            keys = longer(keys, corpus.tokens_N[places[active] - 1 - length], length)
        return levels

    def _mixed(self, levels: list[np.ndarray], vocab_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(offsets, token ids, probabilities) of a block of positions."""
        longest: np.ndarray = np.sum([rows >= 0 for rows in levels], axis=0) - 1
        shortest = np.minimum(self.n, longest)
        keys, probs = [], []
        for length, rows in enumerate(levels):
            used = np.flatnonzero((length >= shortest) & (length <= longest))
            offsets, token_ids, counts = self.table.gather(rows[used])
            weights = self.backoff ** (longest[used] - length).astype(float)
            weights *= np.where(length == shortest[used], 1.0, 1.0 - self.backoff)
            sizes = np.diff(offsets)
            totals = np.add.reduceat(counts, offsets[:-1]) if len(used) else counts
            keys.append(np.repeat(used, sizes) * vocab_size + token_ids)
            probs.append(np.repeat(weights / totals, sizes) * counts)
        union, place = np.unique(np.concatenate(keys), return_inverse=True)
        summed = np.bincount(place, weights=np.concatenate(probs), minlength=len(union))
        sizes = np.bincount(union // vocab_size, minlength=len(longest))
        return np.concatenate([[0], np.cumsum(sizes)]), union % vocab_size, summed
