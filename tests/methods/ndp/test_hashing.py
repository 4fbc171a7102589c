"""Keys against a loop over Python's exact integers, and golden values that hold on every platform."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athlos.errors import DataError
from athlos.methods.ndp import hashing

MASK = (1 << 64) - 1


def slow_mix(token: int, position: int) -> tuple[int, int]:
    """g(token, position) in Python's integers."""
    x = ((token << 32 | position) + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & MASK
    x ^= x >> 31
    y = (x * 0x9FB21C651E98DF25) & MASK
    y = ((y ^ y >> 28) * 0xBF58476D1CE4E5B9) & MASK
    return x, y ^ y >> 32


def slow_key(tokens: list[int]) -> tuple[int, int]:
    pairs = [slow_mix(token, position) for position, token in enumerate(tokens)]
    return sum(x for x, _ in pairs) & MASK, sum(y for _, y in pairs) & MASK


token = st.integers(0, hashing.MAX_TOKEN)


def key_of(tokens: list[int]) -> tuple[int, ...]:
    [total] = hashing.segment_totals(np.array(tokens, dtype=np.int64), np.array([len(tokens)]))
    return tuple(map(int, total))


@given(st.lists(st.lists(token, max_size=9), max_size=6))
def test_totals_equal_the_loop(segments: list[list[int]]) -> None:
    flat = np.array([one for segment in segments for one in segment], dtype=np.int64)
    totals = hashing.segment_totals(flat, np.array([len(segment) for segment in segments], dtype=np.int64))
    assert totals.dtype == np.uint64
    assert [tuple(map(int, total)) for total in totals] == [slow_key(segment) for segment in segments]


@given(st.lists(st.lists(token, max_size=9), max_size=6))
def test_segment_keys_restart_at_each_segment(segments: list[list[int]]) -> None:
    flat = np.array([one for segment in segments for one in segment], dtype=np.int64)
    keys = hashing.segment_keys(flat, np.array([len(segment) for segment in segments], dtype=np.int64))
    expected = [slow_key(segment[:index]) for segment in segments for index in range(len(segment))]
    assert [tuple(map(int, key)) for key in keys] == expected


def test_long_segments_cross_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = np.random.default_rng(0).integers(0, 50_000, 300).astype(np.int32)
    lengths = np.array([1, 0, 200, 3, 90, 6])
    expected = hashing.segment_keys(tokens, lengths)
    monkeypatch.setattr(hashing, "CHUNK_TOKENS", 7)
    assert np.array_equal(hashing.segment_keys(tokens, lengths), expected)
    assert np.array_equal(hashing.segment_keys(tokens[1:201], np.array([200])), expected[1:201])


def test_golden_keys() -> None:
    """A change makes every table on disk useless: raise the stage's version with it."""
    assert [hex(word) for word in key_of([3, 1, 4, 1, 5])] == ["0x3917a32bef2d408f", "0xc07df65ecf65648d"]
    assert key_of([]) == (0, 0)


def test_order_and_place_matter() -> None:
    assert len({key_of(tokens) for tokens in ([1, 2], [2, 1], [1, 2, 0], [0, 1, 2], [0], [0, 0])}) == 6


@pytest.mark.parametrize("tokens", [np.array([-1]), np.array([1 << 32]), np.array([1.0])])
def test_what_is_no_token_is_refused(tokens: np.ndarray) -> None:
    with pytest.raises(DataError, match="tokens: got"):
        hashing.segment_keys(tokens, np.array([len(tokens)]))


def test_collisions_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = np.random.default_rng(0).integers(0, 4, 4000).astype(np.int32)
    lengths = np.full(100, 40)
    assert hashing.num_collisions(tokens, lengths, sample=4000) == 0
    assert hashing.num_collisions(tokens, lengths, sample=500) == 0
    exact = hashing.segment_keys
    monkeypatch.setattr(hashing, "segment_keys", lambda *args: exact(*args) & np.uint64(0xFF))
    assert hashing.num_collisions(tokens, lengths, sample=4000) > 0
