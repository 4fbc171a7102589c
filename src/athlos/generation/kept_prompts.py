"""Prompts that earlier calls have read, for later ones that begin alike: the rounds of a pipeline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from athlos.generation.kv_cache import KVCache
from athlos.generation.prefixes import MIN_SHARED_TOKENS, common_length

MOST_BYTES = 2**29
"""Of keys and values that are kept, whatever the model: some 23 thousand tokens of SmolLM2-135M in 16 bit. Those used
last stay. Source: ours."""


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """The first tokens of a prompt, in a cache."""

    cache: KVCache
    row: int
    pad: int
    """Columns of the row before its first token."""
    length: int
    """Tokens, which may be fewer than the row has."""


class KeptPrompts:
    """Valid as long as the model computes the same: whoever makes one answers for that."""

    def __init__(self) -> None:
        self._rows: dict[KVCache, Mapping[Sequence[int], int]] = {}
        """Of each cache the row of each text; the cache that was used last stands last."""

    def keep(self, cache: KVCache, rows: Mapping[Sequence[int], int]) -> None:
        self._rows[cache] = rows
        size = sum(cache.nbytes for cache in self._rows)
        for oldest in list(self._rows):
            if size <= MOST_BYTES:
                return
            size -= oldest.nbytes
            del self._rows[oldest]

    def longest(self, prompt: Sequence[int]) -> Beginning | None:
        """The longest beginning that is kept. The last token of a prompt is always read: its logits are wanted."""
        best: Beginning | None = None
        for cache, rows in self._rows.items():
            for text, row in rows.items():
                length = min(common_length(text, prompt), len(prompt) - 1)
                if length >= max(MIN_SHARED_TOKENS, best.length + 1 if best else 0):
                    best = Beginning(cache=cache, row=row, pad=cache.length - len(text), length=length)
        if best is not None:
            self._rows[best.cache] = self._rows.pop(best.cache)
        return best
