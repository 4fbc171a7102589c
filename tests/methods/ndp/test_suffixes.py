"""The sliding window against counts by brute force over all occurrences of a context."""

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tolerances import EXACT

from athlos.methods.ndp import building
from athlos.methods.ndp.building import Chunk, Corpus
from athlos.methods.ndp.suffixes import SuffixReader, suffix_levels
from athlos.methods.ndp.tables import CountRows, CountTable, TableIdentity

V = 7
IDENTITY = TableIdentity(kind="slide", n=1, vocab_size=V, tokenizer="t", template="c", data="d")
Rows = list[list[int]]


def corpus_of(rows: Rows) -> Corpus:
    lengths = np.array([len(row) for row in rows])
    is_predicted = np.ones(lengths.sum(), dtype=bool)
    is_predicted[np.cumsum(lengths) - lengths] = False
    tokens = np.array([token for row in rows for token in row], dtype=np.int32)
    return Corpus(tokens_N=tokens, is_predicted_N=is_predicted, lengths_R=lengths)


def table_of(rows: Rows, folder: Path, *, window: int) -> CountTable:
    levels = CountRows.joined(list(suffix_levels(corpus_of(rows), window=window)))
    return building.build([Chunk(make=lambda: levels, most=len(levels))], folder, identity=IDENTITY)


def seen_after(rows: Rows, context: list[int]) -> Counter[int]:
    """What follows a context, wherever it ends in a row; the first token of a row follows nothing."""
    found: Counter[int] = Counter()
    for row in rows:
        for index in range(max(1, len(context)), len(row)):
            if row[index - len(context) : index] == context:
                found[row[index]] += 1
    return found


def expected(rows: Rows, before: list[int], *, window: int, n: int, backoff: float, additive: float) -> list[float]:
    """The target by the definition: the longest context that was seen, then shorter ones."""
    counters = [seen_after(rows, [])]
    for length in range(1, min(window, len(before)) + 1):
        if sum(counters[-1].values()) < 2:
            break  # the longer one can say nothing else
        counter = seen_after(rows, before[-length:])
        if not counter:
            break
        counters.append(counter)
    longest = len(counters) - 1
    shortest = min(n, longest)
    probs = [0.0] * V
    for length in range(shortest, longest + 1):
        weight = backoff ** (longest - length) * (1.0 if length == shortest else 1 - backoff)
        for token, times in counters[length].items():
            probs[token] += weight * times / sum(counters[length].values())
    return [(prob + additive) / (1 + additive * V) for prob in probs]


rows_of_tokens = st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=10), min_size=1, max_size=5)


@pytest.mark.parametrize(("window", "n", "backoff"), [(256, 1, 0.4), (2, 0, 0.7), (3, 2, 0.0), (0, 1, 0.5)])
@given(rows=rows_of_tokens, read=rows_of_tokens)
def test_equals_brute_force(
    tmp_path_factory: pytest.TempPathFactory, rows: Rows, read: Rows, window: int, n: int, backoff: float
) -> None:
    """On the counted rows and on others."""
    table = table_of(rows, tmp_path_factory.mktemp("slide"), window=window)
    reader = SuffixReader(table=table, key="k", window=window, n=n, backoff=backoff, additive=1e-3)
    target = partial(expected, rows, window=window, n=n, backoff=backoff, additive=1e-3)
    for some in (rows, read):
        found = reader.distributions(corpus_of(some), vocab_size=V)
        positions = [(row, index) for row in some for index in range(1, len(row))]
        assert len(found) == len(positions)
        for position, (row, index) in enumerate(positions):
            dense = np.full(V, found.leak[position])
            span = slice(found.offsets[position], found.offsets[position + 1])
            dense[found.token_ids[span]] = found.probs[span]
            assert dense.sum() == pytest.approx(1, abs=EXACT)
            np.testing.assert_allclose(dense, target(row[:index]), rtol=0, atol=EXACT)


def test_contexts_stop_where_one_was_seen_once(tmp_path: Path) -> None:
    """`0 1 2` and `3 1 2`: after 1 the context is known twice, with its left neighbour once, and no longer one."""
    table = table_of([[0, 1, 2], [3, 1, 2]], tmp_path, window=256)
    # (), (0), (3), (1), (0 1), (3 1)
    assert table.num_rows == 6
    assert table.num_positions == 4 + 4 + 2, "each of four positions at the empty context and at one token, two at two"


def test_no_back_off_is_the_longest_match(tmp_path: Path) -> None:
    rows = [[0, 1, 2], [3, 1, 4], [5, 1, 4]]
    table = table_of(rows, tmp_path, window=256)
    reader = SuffixReader(table=table, key="k", window=256, n=1, backoff=0.0, additive=0.0)
    found = reader.distributions(corpus_of([[6, 1, 0]]), vocab_size=V)
    span = slice(found.offsets[1], found.offsets[2])
    assert dict(zip(found.token_ids[span].tolist(), found.probs[span].tolist(), strict=True)) == pytest.approx(
        {2: 1 / 3, 4: 2 / 3}, abs=EXACT
    )
