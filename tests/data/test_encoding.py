"""Rows of a split: how targets are counted, and what happens to records that cannot be encoded."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from athlos.config.schema import Batching
from athlos.data import encoding
from athlos.data.encoding import Rows, encode_split, targets_before
from athlos.data.records import InstructionRecord, PreferenceRecord, Record
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


def test_preference_pairs_are_refused_in_one_line(tmp_path: Path) -> None:
    pair = PreferenceRecord(identifier="p.jsonl:1", prompt="a", chosen="b", rejected="c")
    with pytest.raises(ConfigError, match=r"'p\.jsonl:1' is a preference pair.*completion: chosen") as caught:
        encoded(tmp_path, [pair], batching=Batching.pack, on_error=lambda error: None)
    assert "\n" not in str(caught.value)
