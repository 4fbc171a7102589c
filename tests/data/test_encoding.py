"""Records to token ids: the border between prompt and completion, and what is cut where a row is too long."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from athlos.config.schema import Batching
from athlos.data.encoding import cut_prompt, encode_pair, encode_split, joint_ids
from athlos.data.records import InstructionRecord
from athlos.stages import StageStore

TEXTS = st.text(alphabet="ab 问你é\n", max_size=6)


def fast(backend: Tokenizer, *, has_bos: bool) -> PreTrainedTokenizerFast:
    backend.add_special_tokens(["<s>", "</s>"])
    if has_bos:
        bos = backend.token_to_id("<s>")
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def of_mistral(*, is_legacy: bool) -> PreTrainedTokenizerFast:
    """A tokenizer that puts a space before every text, as Mistral's: by its normalizer, or by its pre-tokenizer."""
    vocabulary = {piece: number for number, piece in enumerate(["<unk>", "▁", *"ab问你é：\n", "▁a", "▁问", "ab"])}
    merges = [("▁", "a"), ("▁", "问"), ("a", "b")]
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    if is_legacy:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Metaspace()
    return fast(backend, has_bos=True)


def of_bytes() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that joins two line breaks into one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate([*alphabet, "ĊĊ"])}
    backend = Tokenizer(models.BPE(vocabulary, [("Ċ", "Ċ")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return fast(backend, has_bos=False)


TOKENIZERS = {
    "mistral, legacy": of_mistral(is_legacy=True), "mistral": of_mistral(is_legacy=False), "bytes": of_bytes()
}  # fmt: skip


@pytest.mark.parametrize("name", ["mistral, legacy", "mistral"])
def test_a_completion_has_no_space_that_the_text_has_not(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    prompt_ids, completion_ids = encode_pair(tokenizer, "问：", "你a")
    assert tokenizer.convert_ids_to_tokens(prompt_ids) == ["<s>", "▁问", "："]
    assert tokenizer.convert_ids_to_tokens(completion_ids) == ["你", "a", "</s>"]


@pytest.mark.parametrize("name", TOKENIZERS)
@given(prompt=TEXTS, completion=TEXTS)
def test_both_parts_together_are_the_joint_text(name: str, prompt: str, completion: str) -> None:
    tokenizer = TOKENIZERS[name]
    prompt_ids, completion_ids = joint_ids(tokenizer, prompt, completion)
    assert prompt_ids + completion_ids == tokenizer.encode(prompt + completion, add_special_tokens=False)
    if not completion:
        assert completion_ids == []
    if not prompt:
        assert prompt_ids == []


def test_a_token_of_both_parts_belongs_to_the_completion() -> None:
    tokenizer = TOKENIZERS["bytes"]
    prompt_ids, completion_ids = joint_ids(tokenizer, "a\n", "\nb")
    assert tokenizer.convert_ids_to_tokens(prompt_ids) == ["a"]
    assert tokenizer.convert_ids_to_tokens(completion_ids) == ["ĊĊ", "b"]


@pytest.mark.parametrize(
    ("room", "prefix", "kept"),
    [(4, 7, [7, 1, 2, 3]), (3, 7, [7, 2, 3]), (1, 7, [7]), (3, None, [1, 2, 3]), (1, None, [3])],
)
def test_a_cut_prompt_keeps_its_end_and_what_stands_before_every_text(
    room: int, prefix: int | None, kept: list[int]
) -> None:
    assert cut_prompt([7, 1, 2, 3], room=room, prefix=prefix) == kept


def test_rows_of_a_split_keep_what_stands_before_every_text(tmp_path: Path) -> None:
    tokenizer = TOKENIZERS["mistral"]
    rows = encode_split(
        lambda: iter([InstructionRecord(identifier="r", prompt="问：a问：b", completion="你")]),
        text_of=lambda record: (record.prompt, record.completion),  # type: ignore[attr-defined]
        tokenizer=tokenizer, max_length=5, batching=Batching.bucket, inputs={}, config={}, stages=StageStore(tmp_path),
    )  # fmt: skip
    assert tokenizer.convert_ids_to_tokens(rows.row(0)[0].tolist()) == ["<s>", "：", "b", "你", "</s>"]
