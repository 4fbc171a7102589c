"""Tokenizers made here: any text comes back unchanged, ids are as documented, training happens once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

from athlos.errors import ModelError
from athlos.models.tokenizers import bpe_tokenizer, byte_tokenizer, texts_hash, tokenizer_hash
from athlos.stages import StageStore

TEXTS = ["the cat sat on the mat, the cat sat", "Grüße aus Köln", "世界 ไทย ಕನ್ನಡ", "12 + 34 = 46\n\n\tend"] * 5
BYTES = byte_tokenizer()


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
@settings(max_examples=200, deadline=None)
def test_a_byte_tokenizer_gives_the_bytes_of_utf8_and_the_text_back(text: str) -> None:
    ids = BYTES(text).input_ids
    assert ids == list(text.encode())
    assert BYTES.decode(ids) == text


def test_byte_ids_and_specials() -> None:
    assert len(BYTES) == 259
    assert (BYTES.pad_token_id, BYTES.bos_token_id, BYTES.eos_token_id) == (256, 257, 258)
    assert BYTES("a<eos>").input_ids == [97, 258]
    assert BYTES.decode([97, 258, 98], skip_special_tokens=True) == "ab"
    assert set(BYTES.convert_ids_to_tokens(range(256))) == set(pre_tokenizers.ByteLevel.alphabet())
    padded = BYTES(["ab", "abcd"], padding=True)
    assert padded.input_ids[0] == [97, 98, 256, 256]
    assert padded.attention_mask[0] == [1, 1, 0, 0]


def test_a_byte_tokenizer_survives_saving(tmp_path: Path) -> None:
    BYTES.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again("Grüße 世界").input_ids == list("Grüße 世界".encode())
    assert tokenizer_hash(again) == tokenizer_hash(BYTES)


def test_bpe_is_trained_once_for_a_text_and_size(tmp_path: Path) -> None:
    stages = StageStore(tmp_path)
    passes = []

    def texts() -> Iterator[str]:
        passes.append(1)
        return iter(TEXTS)

    first = bpe_tokenizer(texts, vocab_size=290, stages=stages)
    second = bpe_tokenizer(texts, vocab_size=290, stages=stages)
    assert [product.reused for product in stages.history] == [False, True]
    assert len(passes) == 3  # the hash twice, the training once
    assert len(first) == 290
    assert (first.pad_token_id, first.bos_token_id, first.eos_token_id) == (0, 1, 2)
    text = "the mat. Grüße, 世界! \U0001f917 unseen"
    assert first(text).input_ids == second(text).input_ids
    assert first.decode(first(text).input_ids) == text
    assert len(first("the cat sat").input_ids) < len("the cat sat")
    bpe_tokenizer(lambda: iter([*TEXTS, "more"]), vocab_size=290, stages=stages)
    assert not stages.history[-1].reused


def test_bpe_of_little_text_says_that_it_is_smaller(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = bpe_tokenizer(lambda: iter(["ab"]), vocab_size=400, stages=StageStore(tmp_path))
    assert len(tokenizer) == 260
    assert "gives 260 entries, not 400" in caplog.text


def test_bpe_below_the_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="got 100, expected at least 259"):
        bpe_tokenizer(lambda: iter(TEXTS), vocab_size=100, stages=StageStore(tmp_path))


def test_the_hash_of_texts_knows_their_boundaries() -> None:
    assert texts_hash(["ab", "c"]) != texts_hash(["a", "bc"]) != texts_hash(["abc"])
    assert texts_hash(iter(["ab"])) == texts_hash(["ab"])
