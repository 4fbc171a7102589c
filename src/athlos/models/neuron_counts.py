"""How often FFN neurons fire, by layer and language: what the activation probe counts and the layer selectors read.

L layers, X languages, J neurons of a layer. numpy alone, so that a selection from saved counts loads no model.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from athlos.errors import DataError


@dataclass(frozen=True, kw_only=True)
class NeuronCounts:
    """Sums over tokens (and over texts); shares and means are properties of them. Counts of disjoint texts add up."""

    languages: tuple[str, ...]
    tokens: np.ndarray
    """int64 [X]: counted tokens."""
    positive: np.ndarray
    """int64 [L, X, J]: tokens at which the gate is above zero before its activation function."""
    sums: np.ndarray
    """float64 [L, X, J]: the activation behind the gate, summed over tokens."""
    texts: np.ndarray
    """int64 [X]: texts (batch rows) with at least one counted token."""
    text_shares: np.ndarray
    """float64 [L, X, J]: over texts, the sum of the share of the text's tokens at which the gate is above zero."""

    @property
    def num_layers(self) -> int:
        return int(self.positive.shape[0])

    def index(self, language: str) -> int:
        """Position of a language; raises `DataError` for one without counted tokens."""
        if language not in self.languages:
            raise DataError(f"probe: language '{language}' has no text; probed: {', '.join(self.languages) or 'none'}")
        return self.languages.index(language)

    def share_positive(self) -> np.ndarray:
        """float64 [L, X, J]: share of the tokens at which the gate is above zero."""
        return np.asarray(self.positive / self._filled(self.tokens)[None, :, None])

    def mean(self) -> np.ndarray:
        """float64 [L, X, J]: mean activation over tokens."""
        return np.asarray(self.sums / self._filled(self.tokens)[None, :, None])

    def share_positive_by_text(self) -> np.ndarray:
        """float64 [L, X, J]: the share within a text, averaged over texts, so that long texts weigh no more."""
        return np.asarray(self.text_shares / self._filled(self.texts)[None, :, None])

    def _filled(self, counts_X: np.ndarray) -> np.ndarray:
        empty = [name for name, count in zip(self.languages, counts_X, strict=True) if not count]
        if empty:
            raise DataError(f"probe: language '{empty[0]}' has no counted token")
        return counts_X

    def subset(self, languages: Sequence[str]) -> "NeuronCounts":
        """The counts of these languages, in this order."""
        chosen = [self.index(language) for language in languages]
        return NeuronCounts(
            languages=tuple(languages),
            tokens=self.tokens[chosen],
            positive=self.positive[:, chosen],
            sums=self.sums[:, chosen],
            texts=self.texts[chosen],
            text_shares=self.text_shares[:, chosen],
        )


ARRAYS = ("tokens", "positive", "sums", "texts", "text_shares")


def merge(parts: Iterable[NeuronCounts]) -> NeuronCounts:
    """Counts of several sets of texts as one. All name the same languages; a set may come twice (a bootstrap)."""
    counts = list(parts)
    if not counts:
        raise DataError("probe: no counts to merge")
    first = counts[0]
    for other in counts[1:]:
        if other.languages != first.languages or other.positive.shape != first.positive.shape:
            raise DataError(
                f"probe: counts do not fit together: {first.languages}, {first.positive.shape} and {other.languages}, "
                f"{other.positive.shape}"
            )
    totals = {name: sum((getattr(part, name) for part in counts[1:]), getattr(first, name).copy()) for name in ARRAYS}
    return NeuronCounts(languages=first.languages, **totals)


def save_blocks(path: Path, blocks: Sequence[NeuronCounts]) -> None:
    """Write the counts of consecutive blocks of texts as one npz file of plain arrays."""
    stacked = {name: np.stack([getattr(block, name) for block in blocks]) for name in ARRAYS}
    languages = np.array(blocks[0].languages, dtype=np.str_)
    np.savez_compressed(path, languages=languages, **stacked)  # type: ignore[arg-type]  # none is `allow_pickle`


def load_blocks(path: Path) -> list[NeuronCounts]:
    """Read what `save_blocks` wrote. Raises `DataError` naming the file when an array is missing."""
    with np.load(path, allow_pickle=False) as stored:
        missing = [name for name in ("languages", *ARRAYS) if name not in stored]
        if missing:
            raise DataError(f"no array '{missing[0]}'; found {', '.join(stored)}", file=str(path))
        languages = tuple(str(name) for name in stored["languages"])
        arrays = {name: stored[name] for name in ARRAYS}
    count = len(arrays["tokens"])
    return [NeuronCounts(languages=languages, **{name: arrays[name][at] for name in ARRAYS}) for at in range(count)]
