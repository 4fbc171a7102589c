"""Targets beside the rows, against the naive twin: every position, every switch, and batches in any order."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.methods.ndp import reference_targets as reference

from athlos.config.compose import run_config
from athlos.data.batches import collate
from athlos.data.encoding import Rows
from athlos.errors import DataError
from athlos.methods.ndp import building, positions, reading
from athlos.methods.ndp.building import Corpus
from athlos.methods.ndp.counting import count
from athlos.methods.ndp.reading import NdpTables, TargetStore, write_targets
from athlos.methods.ndp.tables import CountRows, CountTable, TableIdentity, TableWriter

V = 40
# Two dialogues of two turns, one of them twice, and a row that is an answer from its second token on.
DIALOGUES: list[tuple[list[int], list[tuple[int, int]]]] = [
    ([1, 2, 3, 10, 11, 12, 30, 4, 5, 10, 11, 13, 30], [(3, 7), (9, 13)]),
    ([1, 2, 3, 10, 11, 14, 30, 6, 10, 15, 30], [(3, 7), (8, 11)]),
    ([1, 2, 3, 10, 11, 12, 30, 4, 5, 10, 11, 13, 30], [(3, 7), (9, 13)]),
    ([7, 10, 11, 12, 16, 17, 18, 30], [(1, 8)]),
]
MONO = [[10, 11, 12, 30], [10, 11, 13, 30], [10, 11, 12, 16, 17, 19, 30]]


def rows_of(samples: list[Any]) -> Rows:
    ends = np.cumsum([len(tokens) for tokens, _ in samples])
    is_target = np.zeros(ends[-1], dtype=bool)
    for (tokens, answers), end in zip(samples, ends, strict=True):
        for start, stop in answers:
            is_target[end - len(tokens) + start : end - len(tokens) + stop] = True
    return Rows(
        tokens_T=np.concatenate([tokens for tokens, _ in samples]).astype(np.int32),
        is_target_T=is_target,
        starts_R=np.concatenate([[0], ends[:-1]]),
        ends_R=ends,
        num_targets_R=np.zeros(len(ends), dtype=np.int64),
    )


def tables_of(rows: Rows, folder: Path, *, n: int, mono: list[list[int]]) -> NdpTables:
    lengths = rows.ends_R - rows.starts_R
    corpus = Corpus(
        tokens_N=rows.tokens_T, is_predicted_N=positions.predicted(rows.is_target_T, lengths), lengths_R=lengths
    )
    clm = [building.clm_rows(corpus, n=n)]
    if mono:
        documents = np.concatenate(mono).astype(np.int32)
        everywhere = np.ones(len(documents), dtype=bool)
        texts = Corpus(tokens_N=documents, is_predicted_N=everywhere, lengths_R=np.array([len(one) for one in mono]))
        clm.append(building.mono_rows(texts, n=n, longest=100))
    sup = written(building.sup_rows(corpus), folder / "sup", "sup", n)
    joined = written(CountRows.joined(clm), folder / "clm", "clm", n)
    return NdpTables(rows=rows, sup=sup, clm=joined, n=n, joins_first=False, sup_key="", clm_key="")


def written(entries: CountRows, folder: Path, kind: str, n: int) -> CountTable:
    identity = TableIdentity(kind=kind, n=n, vocab_size=V, tokenizer="t", template="p", data="d")
    with TableWriter(folder, identity=identity) as writer:
        writer.add(count(entries))
    return CountTable.open(folder)


def config_of(*overrides: str) -> Any:
    return run_config(["objective=ndp", "train.batching=bucket", *overrides]).objective


def store_of(tmp_path: Path, config: Any, *, n: int = 1, mono: Any = (), samples: Any = None) -> TargetStore:
    rows = rows_of(samples or DIALOGUES)
    tables = tables_of(rows, tmp_path, n=n, mono=list(mono))
    folder = tmp_path / "targets"
    folder.mkdir()
    write_targets(folder, tables, config, vocab_size=V)
    return TargetStore(folder)


def dense_of(store: TargetStore, batch: Mapping[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    targets, _ = store.of_batch(batch)
    dense = targets.leak_N[:, None].repeat(1, V).double()
    row_of = torch.repeat_interleave(torch.arange(len(targets)), targets.offsets_N.diff())
    dense[row_of, targets.token_ids_K] = targets.probs_K.double()
    return dense.numpy(), targets.weights_N.numpy()


def batch_of(indices: list[int]) -> dict[str, torch.Tensor]:
    return collate(rows_of(DIALOGUES), np.array(indices), pad_id=0, step_targets=1)


def expected_rows(config: Any, *, n: int, mono: Any, order: list[int]) -> tuple[list[Any], list[float], float]:
    sup, clm = reference.count_tables(DIALOGUES, n=n, mono=mono)
    dense, weights, hits = [], [], []
    for index in order:
        tokens, answers = DIALOGUES[index]
        for answer in answers:
            counters = reference.counters_of([(tokens, [answer])], sup, clm, n=n)
            sides = []
            for side in (0, 1):
                temperature = None
                if config.smooth == "temp_batch":
                    temperature = reference.batch_temperature(
                        [pair[side] for pair in counters], zero_prob=config.zero_prob, vocab_size=V
                    )
                sides.append(
                    [
                        reference.dense(
                            pair[side],
                            smooth=config.smooth.value,
                            zero_prob=config.zero_prob,
                            vocab_size=V,
                            temperature=temperature,
                        )
                        for pair in counters
                    ]
                )
            for at, (own, other, is_hit) in enumerate(counters):
                share = 1.0 if not config.use_clm else 0.0 if not config.use_sup else config.lambda_
                dense.append(reference.mix(sides[0][at], sides[1][at], sup_share=share))
                hits.append(is_hit)
                totals = [(own, config.xmax_sup, config.use_sup), (other, config.xmax_clm, config.use_clm)]
                weights.append(
                    sum(
                        min(1.0, (sum(counter.values()) / xmax) ** config.power)
                        for counter, xmax, used in totals
                        if used
                    )
                )
    return dense, weights, sum(hits) / len(hits)


@pytest.mark.parametrize("n", [0, 1, 4])
@pytest.mark.parametrize("mono", [(), MONO])
def test_every_position_equals_the_twin(n: int, mono: Any, tmp_path: Path) -> None:
    config = config_of()
    store, order = store_of(tmp_path, config, n=n, mono=mono), [3, 1, 0, 2]
    expected, _, _ = expected_rows(config, n=n, mono=mono, order=order)
    found, weights = dense_of(store, batch_of(order))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (weights == 1).all()
    _, _, hits = expected_rows(config, n=n, mono=mono, order=[0, 1, 2, 3])
    assert store.seen["diag/clm_hit_rate"] == pytest.approx(hits)
    multi = np.mean([np.count_nonzero(row) > 1 for row in expected])
    assert store.seen["diag/multi_candidate_share"] == pytest.approx(multi)
    entropy = np.mean([-(row[row > 0] * np.log(row[row > 0])).sum() for row in np.asarray(expected)])
    assert store.seen["diag/target_entropy"] == pytest.approx(entropy, rel=1e-6)


@pytest.mark.parametrize(
    "overrides",
    [
        ["objective.smooth=div"],
        ["objective.smooth=div", "objective.zero_prob=0.1"],
        ["objective.smooth=argmax", "objective.lambda_=0.3"],
        ["objective.smooth=temp_row", "objective.zero_prob=0.1"],
        ["objective.smooth=temp_batch", "objective.zero_prob=0.05"],
        ["objective.use_sup=false"],
        ["objective.use_clm=false"],
        ["objective.weighted=true"],
        ["objective.weighted=true", "objective.use_clm=false", "objective.xmax_sup=3", "objective.power=0.5"],
    ],
)
def test_every_switch_equals_the_twin(overrides: list[str], tmp_path: Path) -> None:
    config = config_of(*overrides)
    store, order = store_of(tmp_path, config, mono=MONO), [0, 1, 3]
    expected, weights, _ = expected_rows(config, n=1, mono=MONO, order=order)
    found, found_weights = dense_of(store, batch_of(order))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    if config.weighted:
        np.testing.assert_allclose(found_weights, weights, rtol=1e-6)


def test_blocks_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("objective.smooth=temp_batch", "objective.zero_prob=0.05")
    whole = dense_of(store_of(tmp_path / "a", config), batch_of([0, 1, 2, 3]))[0]
    monkeypatch.setattr(reading, "BLOCK_TOKENS", 9)
    np.testing.assert_array_equal(dense_of(store_of(tmp_path / "b", config), batch_of([0, 1, 2, 3]))[0], whole)


def test_a_cap_on_candidates(tmp_path: Path) -> None:
    store = store_of(tmp_path, config_of("objective.topk=1"), mono=MONO)
    found, _ = dense_of(store, batch_of([0, 1]))
    assert ((found > 0).sum(1) == 1).all()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


def test_tables_of_other_rows_are_refused(tmp_path: Path) -> None:
    rows, other = rows_of(DIALOGUES), rows_of([([9, 9, 10, 30], [(2, 4)])])
    tables = replace(tables_of(other, tmp_path, n=1, mono=[]), rows=rows)
    with pytest.raises(DataError, match="30 of 30 training prefixes are not in the table"):
        write_targets(tmp_path, tables, config_of(), vocab_size=V)


def test_one_answer_a_question_and_no_answer_prefixes_is_one_hot(tmp_path: Path) -> None:
    samples = [([50 % V, index, 20 + index, 30], [(2, 4)]) for index in range(3)]
    store = store_of(tmp_path, config_of("objective.use_clm=false"), samples=samples)
    rows = rows_of(samples)
    batch = collate(rows, np.arange(3), pad_id=0, step_targets=1)
    found, _ = dense_of(store, batch)
    labels = batch["labels"][:, 1:][batch["labels"][:, 1:] != -100].numpy()
    np.testing.assert_array_equal(found, np.eye(V)[labels])


def test_sabotages_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prefix without its last token, and the question left in the answer's key, give other targets."""
    config = config_of("objective.use_sup=false")
    right, _ = dense_of(store_of(tmp_path / "a", config, mono=MONO), batch_of([1]))
    plain = positions.answer_positions

    def with_question(tokens: Any, is_predicted: Any, lengths: Any, *, joins_first: bool) -> Any:
        return positions.row_positions(tokens, is_predicted, lengths)

    def one_short(tokens: Any, is_predicted: Any, lengths: Any, *, joins_first: bool) -> Any:
        found = plain(tokens, is_predicted, lengths, joins_first=joins_first)
        return positions.Positions(keys=np.roll(found.keys, 1, axis=0), lengths=found.lengths)

    for name, wrong in (("question", with_question), ("short", one_short)):
        monkeypatch.setattr(reading.positions, "answer_positions", wrong)
        found, _ = dense_of(store_of(tmp_path / name, config, mono=MONO), batch_of([1]))
        assert np.abs(found - right).max() > 0.1
