"""Tables against brute-force counts, merging, order, what must raise, and sabotages that the counts must notice."""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.methods.ndp import reference
from tests.methods.ndp.reference import Counts, Sample

from athlos.errors import DataError
from athlos.methods.ndp import building, hashing, tables
from athlos.methods.ndp.building import Chunk, Corpus
from athlos.methods.ndp.merging import merge
from athlos.methods.ndp.positions import answer_positions, row_positions
from athlos.methods.ndp.tables import CountRows, CountTable, TableIdentity, TableWriter

IDENTITY = TableIdentity(kind="clm", n=1, vocab_size=100, tokenizer="t", template="c", data="d")
END = 9
# Two dialogues. The first has two turns of the assistant that begin alike, and the second's answer begins like them.
DIALOGUES: list[Sample] = [
    ([1, 2, 5, 6, END, 3, 5, 7, END], [-100, -100, 5, 6, END, -100, 5, 7, END]),
    ([1, 4, 5, 6, END], [-100, -100, 5, 6, END]),
]
MONO = [[5, 6, END], [5, 7, END], [5, 6, END]]
"""The answers again as documents: every CLM count doubles."""


def flat(samples: list[Sample], *, joins_first: bool = False) -> Corpus:
    tokens = np.array([token for one, _ in samples for token in one], dtype=np.int32)
    labels = np.array([label for _, many in samples for label in many])
    lengths = np.array([len(one) for one, _ in samples], dtype=np.int64)
    return Corpus(tokens_N=tokens, is_predicted_N=labels != -100, lengths_R=lengths, joins_first=joins_first)


def documents(texts: list[list[int]]) -> Corpus:
    return flat([(text, text) for text in texts])


def built(rows: CountRows, folder: Path, *, identity: TableIdentity = IDENTITY) -> CountTable:
    return building.build([Chunk(make=lambda: rows, most=len(rows))], folder, identity=identity)


def content(table: CountTable, keys: list[tuple[int, ...]]) -> dict[tuple[int, ...], Counter[int]]:
    """What a table says of the keys; absent ones are left out."""
    hashed = np.concatenate(
        [hashing.segment_totals(np.array(key, dtype=np.int64), np.array([len(key)])) for key in keys]
    )
    rows = table.lookup(hashed)
    offsets, token_ids, counts = table.gather(rows)
    return {
        key: Counter(dict(zip(token_ids[a:b].tolist(), counts[a:b].tolist(), strict=True)))
        for key, row, a, b in zip(keys, rows, offsets[:-1], offsets[1:], strict=True)
        if row >= 0
    }


def assert_table_is(table: CountTable, expected: Counts) -> None:
    assert content(table, [*expected, (77,), (78, 79)]) == expected
    assert table.num_rows == len(expected)
    assert table.num_positions == sum(sum(counter.values()) for counter in expected.values())


def same_files(first: CountTable, second: CountTable) -> bool:
    return all(
        (first.folder / f"{name}.npy").read_bytes() == (second.folder / f"{name}.npy").read_bytes()
        for name in tables.ARRAYS
    )


HAND_MADE = {
    0: {(): {5: 3}, (5,): {6: 2, 7: 1}, (5, 6): {END: 2}, (5, 7): {END: 1}},
    1: {(5,): {6: 2, 7: 1}, (5, 6): {END: 2}, (5, 7): {END: 1}},
    4: {},
}


@pytest.mark.parametrize("n", [0, 1, 4])
def test_the_fixture_has_the_hand_made_counts(tmp_path: Path, n: int) -> None:
    expected = {key: Counter(counter) for key, counter in HAND_MADE[n].items()}
    rows = building.clm_rows(flat(DIALOGUES), n=n)
    assert_table_is(built(rows, tmp_path / "clm"), expected)
    mono = building.mono_rows(documents(MONO), n=n, longest=9)
    both = built(CountRows.joined([rows, mono]), tmp_path / "both")
    doubled = {key: Counter({token: 2 * times for token, times in row.items()}) for key, row in expected.items()}
    assert_table_is(both, doubled)


def test_sup_of_the_fixture(tmp_path: Path) -> None:
    table = built(building.sup_rows(flat(DIALOGUES)), tmp_path)
    keys = [(1, 2), (1, 2, 5), (1, 2, 5, 6), (1, 2, 5, 6, 9, 3), (1, 4), (1, 4, 5), (1, 4, 5, 6)]
    keys += [(1, 2, 5, 6, 9, 3, 5), (1, 2, 5, 6, 9, 3, 5, 7)]
    nexts = [5, 6, END, 5, 5, 6, END, 7, END]
    assert_table_is(table, {key: Counter({token: 1}) for key, token in zip(keys, nexts, strict=True)})
    assert table.num_bytes == 9 * 20 + 8, "a row that was seen once is its key and one word"


tokens_of_a_sample = st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=12)


def as_sample(pairs: list[tuple[int, bool]]) -> Sample:
    tokens = [token for token, _ in pairs]
    return tokens, [token if target and index else -100 for index, (token, target) in enumerate(pairs)]


@given(st.lists(tokens_of_a_sample, min_size=1, max_size=8), st.integers(0, 4), st.booleans())
def test_tables_equal_the_brute_force_counts(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[list[tuple[int, bool]]], n: int, joins_first: bool
) -> None:
    samples = [as_sample(pairs) for pairs in drawn]
    folder = tmp_path_factory.mktemp("tables")
    sup = built(building.sup_rows(flat(samples)), folder / "sup")
    assert_table_is(sup, reference.sup_counts(samples))
    rows = building.clm_rows(flat(samples, joins_first=joins_first), n=n)
    clm = built(rows, folder / "clm")
    assert_table_is(clm, reference.clm_counts(samples, n=n, joins_first=joins_first))
    texts = [list(tokens) for tokens, _ in samples]
    mono = built(building.mono_rows(documents(texts), n=n, longest=2), folder / "mono")
    assert_table_is(mono, reference.mono_counts(texts, n=n, longest=2))


@given(st.lists(tokens_of_a_sample, min_size=1, max_size=8), st.data())
def test_order_and_shards_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[list[tuple[int, bool]]], data: st.DataObject
) -> None:
    samples = [as_sample(pairs) for pairs in drawn]
    folder = tmp_path_factory.mktemp("tables")

    def of(part: list[Sample], name: str) -> CountTable:
        return built(building.clm_rows(flat(part, joins_first=True), n=0), folder / name)

    whole = of(samples, "whole")
    assert same_files(whole, of(data.draw(st.permutations(samples)), "shuffled"))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(samples)), max_size=3)))
    bounds = [0, *cuts, len(samples)]
    parts = [of(samples[a:b], f"part{index}") for index, (a, b) in enumerate(itertools.pairwise(bounds)) if b > a]
    assert same_files(whole, merge(parts, folder / "merged", identity=IDENTITY))


def test_a_merge_in_many_ranges_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    corpus = Corpus(
        tokens_N=rng.integers(0, 3, 10_000).astype(np.int32),
        is_predicted_N=np.arange(10_000) % 25 > 0,
        lengths_R=np.full(400, 25),
        joins_first=True,
    )
    rows = building.clm_rows(corpus, n=0)
    halves = [
        CountRows(
            keys_0=rows.keys_0[part],
            keys_1=rows.keys_1[part],
            token_ids=rows.token_ids[part],
            counts=rows.counts[part],
        )
        for part in (slice(None, 4000), slice(4000, None))
    ]
    whole = built(rows, tmp_path / "whole")
    parts = [built(half, tmp_path / str(index)) for index, half in enumerate(halves)]
    monkeypatch.setattr("athlos.methods.ndp.merging.RANGE_ENTRIES", 100)
    assert same_files(whole, merge(parts, tmp_path / "merged", identity=IDENTITY, threads=2))


def test_keys_that_share_words_are_told_apart(tmp_path: Path) -> None:
    """Ties in the high bits, in the whole first word, and true repeats, mixed."""
    rng = np.random.default_rng(0)
    first = (rng.integers(0, 3, 500) << 60).astype(np.uint64) + rng.integers(0, 4, 500).astype(np.uint64)
    second, token_ids = rng.integers(0, 3, 500).astype(np.uint64), rng.integers(0, 3, 500).astype(np.int32)
    rows = CountRows(keys_0=first, keys_1=second, token_ids=token_ids, counts=rng.integers(1, 3, 500))
    expected: Counter[tuple[int, int, int]] = Counter()
    for a, b, c, times in zip(first, second, token_ids, rows.counts, strict=True):
        expected[int(a), int(b), int(c)] += int(times)
    table = built(rows, tmp_path)
    queries = np.array([(a, b) for a in {*first.tolist(), 5} for b in range(4)], dtype=np.uint64)
    offsets, ids, counts = table.gather(table.lookup(queries))
    for query, start, stop in zip(queries, offsets[:-1], offsets[1:], strict=True):
        mine = {c: times for (a, b, c), times in expected.items() if (a, b) == (int(query[0]), int(query[1]))}
        assert dict(zip(ids[start:stop].tolist(), counts[start:stop].tolist(), strict=True)) == mine


def test_a_key_is_found_by_its_second_word_too(tmp_path: Path) -> None:
    rows = CountRows(
        keys_0=np.array([7, 7, 7], dtype=np.uint64),
        keys_1=np.array([1, 2, 3], dtype=np.uint64),
        token_ids=np.array([4, 5, 6], dtype=np.int32),
        counts=np.array([1, 1, 2]),
    )
    table = built(rows, tmp_path)
    assert table.lookup(np.array([[7, 3], [7, 4], [7, 0], [7, 1], [8, 1]], dtype=np.uint64)).tolist() == [
        2,
        -1,
        -1,
        0,
        -1,
    ]


def test_an_empty_table(tmp_path: Path) -> None:
    with TableWriter(tmp_path, identity=IDENTITY):
        pass
    table = CountTable.open(tmp_path, expected=IDENTITY)
    rows = table.lookup(np.zeros((3, 2), dtype=np.uint64))
    assert rows.tolist() == [-1, -1, -1]
    assert [array.tolist() for array in table.gather(rows)] == [[0, 0, 0, 0], [], []]
    assert table.lookup(np.zeros((0, 2), dtype=np.uint64)).tolist() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("tokenizer", "u"), ("template", "x"), ("n", 4), ("data", "e"), ("vocab_size", 99), ("kind", "sup")],
)
def test_a_table_of_something_else_is_refused(tmp_path: Path, name: str, value: object) -> None:
    built(building.clm_rows(flat(DIALOGUES), n=1), tmp_path)
    wanted = TableIdentity(**{**IDENTITY.__dict__, name: value})  # type: ignore[arg-type]
    with pytest.raises(DataError, match=f"{name} is {getattr(IDENTITY, name)!r}, expected {value!r}"):
        CountTable.open(tmp_path, expected=wanted)


def test_token_ids_beyond_the_vocabulary_are_refused(tmp_path: Path) -> None:
    small = TableIdentity(**{**IDENTITY.__dict__, "vocab_size": 9})
    rows = building.clm_rows(flat(DIALOGUES), n=0)
    with pytest.raises(DataError, match="token id 9, expected less than the vocabulary's 9"):
        built(rows, tmp_path, identity=small)


def test_no_table_and_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a table"):
        CountTable.open(tmp_path)
    built(building.clm_rows(flat(DIALOGUES), n=0), tmp_path)
    np.save(tmp_path / "values.npy", np.zeros(3), allow_pickle=False)
    with pytest.raises(DataError, match=r"values\.npy holds float64"):
        CountTable.open(tmp_path)


# Sabotages of the specification: the counts of the fixture must notice them.


def without_the_last_token(tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Key of the prefix that lacks the token right before the predicted one."""
    keys = hashing.segment_keys(tokens, lengths)
    shifted = keys.copy()
    shifted[1:] = keys[:-1]
    shifted[np.cumsum(lengths) - lengths] = 0
    return shifted


def test_a_prefix_without_its_last_token_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("athlos.methods.ndp.positions.segment_keys", without_the_last_token)
    table = built(building.clm_rows(flat(DIALOGUES), n=1), tmp_path)
    with pytest.raises(AssertionError):
        assert_table_is(table, {key: Counter(row) for key, row in HAND_MADE[1].items()})


def test_a_prompt_left_in_the_key_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "answer_positions", lambda *arrays, joins_first: row_positions(*arrays))
    table = built(building.clm_rows(flat(DIALOGUES), n=1), tmp_path)
    with pytest.raises(AssertionError):
        assert_table_is(table, {key: Counter(row) for key, row in HAND_MADE[1].items()})


def test_one_start_for_all_turns_is_noticed() -> None:
    corpus = flat(DIALOGUES)
    positions = answer_positions(corpus.tokens_N, corpus.is_predicted_N, corpus.lengths_R, joins_first=False)
    assert positions.lengths.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("threads", [1, 3])
def test_many_parts_and_threads_give_the_table_of_one_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    rng = np.random.default_rng(0)
    corpus = Corpus(
        tokens_N=rng.integers(0, 3, 6000).astype(np.int32),
        is_predicted_N=np.arange(6000) % 30 > 2,
        lengths_R=np.full(200, 30),
    )
    whole = built(building.clm_rows(corpus, n=1), tmp_path / "whole")
    monkeypatch.setattr(building, "FEW_ENTRIES", 0)
    chunks = corpus.chunks(lambda piece: building.clm_rows(piece, n=1), size=500)
    assert len(chunks) > 10
    assert same_files(whole, building.build(chunks, tmp_path / "parts", identity=IDENTITY, threads=threads))
