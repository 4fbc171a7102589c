"""Rows of a split: how targets are counted, and what happens to records that cannot be encoded."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athlos.config.schema import Batching
from athlos.data import encoding
from athlos.data.encoding import Rows, encode_split, rows_hash, targets_before
from athlos.data.records import InstructionRecord, LongAnswerRecord, PreferenceRecord, Record
from athlos.errors import ConfigError, DataError
from athlos.models.tokenizers import byte_tokenizer
from athlos.stages import StageStore


@given(
    is_target=st.lists(st.booleans(), min_size=1, max_size=60),
    places=st.lists(st.integers(0, 60), max_size=8),
    piece=st.integers(1, 70),
)
def test_targets_are_counted_the_same_in_pieces_of_any_size(
    is_target: list[bool], places: list[int], piece: int
) -> None:
    places = sorted(min(place, len(is_target)) for place in places)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "FLUSH_TOKENS", piece)
        counted = targets_before(np.array(is_target), np.array(places, dtype=np.int64))
    assert counted.tolist() == [sum(is_target[:place]) for place in places]


def encoded(tmp_path: Path, records: list[Record], **options: object) -> Rows:
    return encode_split(
        lambda: iter(records),
        text_of=lambda record: (record.prompt, record.completion),
        tokenizer=byte_tokenizer(),
        max_length=8,
        inputs={},
        config={},
        stages=StageStore(tmp_path / "cache"),
        **options,
    )


RECORDS = [
    InstructionRecord(identifier="short", prompt="ab", completion="c"),
    InstructionRecord(identifier="long", prompt="a", completion="0123456789"),
    InstructionRecord(identifier="cut", prompt="abcdefgh", completion="é"),
]


def test_a_record_that_does_not_fit_goes_to_on_error_and_the_rest_is_encoded(tmp_path: Path) -> None:
    errors: list[DataError] = []
    rows = encoded(tmp_path, RECORDS, batching=Batching.bucket, on_error=errors.append)
    texts = [bytes(token for token in rows.row(index)[0] if token < 256).decode() for index in range(len(rows))]
    assert texts == ["abc", "defghé"]
    assert rows.num_targets_R.tolist() == [2, 3]
    [error] = errors
    assert str(error) == "record 'long': its completion has 11 tokens, train.max_length is 8"
    with pytest.raises(DataError, match="record 'long'"):
        encoded(tmp_path / "raises", RECORDS, batching=Batching.bucket)


def test_documents_that_an_answer_may_cite_are_never_cut(tmp_path: Path) -> None:
    records = [LongAnswerRecord(identifier=text, question=text, answer="é") for text in ("abcde", "abcdef")]
    rows_of = dict(tokenizer=byte_tokenizer(), max_length=8, inputs={}, config={}, stages=StageStore(tmp_path))
    errors: list[DataError] = []
    rows = encode_split(
        lambda: iter(records),
        text_of=lambda record: (record.question, record.answer),  # type: ignore[attr-defined]
        batching=Batching.bucket,
        on_error=errors.append,
        **rows_of,  # type: ignore[arg-type]
    )
    assert len(rows) == 1
    assert [str(error) for error in errors] == [
        "record 'abcdef': its documents and its answer have 9 tokens, train.max_length is 8; data.on_bad=skip leaves "
        "such records out"
    ]


def pair(prompt: str, chosen: str, rejected: str) -> PreferenceRecord:
    return PreferenceRecord(identifier=prompt, prompt=prompt, chosen=chosen, rejected=rejected)


def text(ids: np.ndarray) -> str:
    return bytes(token for token in ids if token < 256).decode()


def test_a_pair_is_a_row_with_one_prompt_cut_so_that_the_longer_answer_fits(tmp_path: Path) -> None:
    pairs = [pair("abcdefgh", "é", "wxyz"), pair("", "bc", "b"), pair("a", "0123456", "x"), pair("k", "lmnopqrs", "t")]
    errors: list[DataError] = []
    rows = encoded(tmp_path, pairs, batching=Batching.bucket, takes_pairs=True, on_error=errors.append)
    assert [str(error) for error in errors] == [
        "record 'a': its completion has 8 tokens, train.max_length is 8",
        "record 'k': its completion has 9 tokens, train.max_length is 8",
    ]
    sides = [[rows.row(index, worse=worse) for worse in (False, True)] for index in range(len(rows))]
    assert [[text(ids) for ids, _ in row] for row in sides] == [["fghé", "fghwxyz"], ["bc", "b"]]
    assert [[(labels != -100).sum() for _, labels in row] for row in sides] == [[3, 5], [2, 1]]
    assert rows.num_targets_R.tolist() == [3, 2]
    assert rows.pairs_R3 is not None
    assert rows.pairs_R3.tolist() == [[3, 3, 5], [0, 3, 0]]
    assert (rows.ends_R - rows.starts_R).tolist() == [3 + 3 + 5, 3 + 2]
    other_border = replace(rows, pairs_R3=rows.pairs_R3 + np.array([0, 1, 0]))
    assert rows_hash(other_border) != rows_hash(rows)
    assert [text(rows.subset(np.array([1])).row(0, worse=worse)[0]) for worse in (False, True)] == ["bc", "b"]


def test_pairs_do_not_mix_with_other_records(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 of 2 records are preference pairs; expected all or none"):
        encoded(tmp_path, [pair("a", "b", "c"), RECORDS[0]], batching=Batching.bucket, takes_pairs=True)


def test_preference_pairs_that_nobody_takes_are_refused_in_one_line(tmp_path: Path) -> None:
    pair = PreferenceRecord(identifier="p.jsonl:1", prompt="a", chosen="b", rejected="c")
    message = r"'p\.jsonl:1' is a preference pair, which objective=preference trains on.*kind=sft_chosen"
    with pytest.raises(ConfigError, match=message) as caught:
        encoded(tmp_path, [pair], batching=Batching.pack, on_error=lambda error: None)
    assert "\n" not in str(caught.value)
