"""A completion behind its prompt: no mark of a text's beginning between them, and lab rows as they were."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from athlos.config.schema import Batching
from athlos.data.encoding import continued_ids, encode_pair, encode_split, marks_beginnings
from athlos.data.records import InstructionRecord
from athlos.models.tokenizers import byte_tokenizer, word_tokenizer
from athlos.stages import StageStore

MARK = "\u2581"
MERGES = [("1", "8"), (MARK, "a"), ("a", "b"), (f"{MARK}a", "b"), ("答", "案"), ("18", "元"), ("是", "的")]
LETTERS = [MARK, *"答案是的：元18ab.:", *(f"<0x{value:02X}>" for value in range(256))]


def sentencepiece(kind: str) -> PreTrainedTokenizerFast:
    """BPE with byte fallback behind one of the ways in which tokenizers mark the beginning of a text."""
    pieces = ["<s>", "</s>", *LETTERS, *("".join(merge) for merge in MERGES)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=MERGES, byte_fallback=True, fuse_unk=True, unk_token="<s>"))
    if kind == "prepend":  # Llama 2, Mistral 7B
        backend.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(MARK, prepend_scheme=kind, split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("kind", ["prepend", "always", "first"])
@pytest.mark.parametrize(
    ("prompt", "completion", "pieces"),
    [
        ("答案是：", "18元", ["18元"]),
        ("答案是：\n", "元", ["元"]),
        ("ab:", "ab", ["ab"]),
        ("ab:", " ab", [f"{MARK}ab"]),
        ("a b", ".", ["."]),
        ("答案是", "的", ["的"]),  # the joint text has one token for both characters
        ("", "18元", [MARK, "18元"]),  # a text of its own begins with the mark
    ],
)
def test_a_completion_has_the_ids_of_the_joint_text(kind: str, prompt: str, completion: str, pieces: list[str]) -> None:
    tokenizer = sentencepiece(kind)
    found = continued_ids(tokenizer, prompt, completion)
    assert tokenizer.convert_ids_to_tokens(found) == pieces
    before, after = encode_pair(tokenizer, prompt, completion)
    assert (after[:-1], after[-1]) == (found, tokenizer.eos_token_id)
    assert tokenizer.decode(before + found) == prompt + completion
    if completion != "的":
        assert before + found == tokenizer.encode(prompt + completion, add_special_tokens=False)


def test_only_a_mark_before_every_text_counts() -> None:
    assert all(marks_beginnings(sentencepiece(kind)) for kind in ("prepend", "always", "first"))
    assert not marks_beginnings(sentencepiece("never"))
    spaced = byte_tokenizer()
    assert not marks_beginnings(spaced)
    spaced.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    assert marks_beginnings(spaced)
    assert continued_ids(spaced, "a", "b") == [ord("b")]
    assert continued_ids(spaced, "", "b") == [ord(" "), ord("b")]


@pytest.mark.parametrize("answer", ["cat", " cat", "山", "."])
def test_a_lab_completion_stays_as_it_is_alone(answer: str) -> None:
    lab = word_tokenizer([" cat", "cat", "山", ".", "?", "\n"])
    assert not marks_beginnings(lab)
    assert encode_pair(lab, "?\n", answer)[1][:-1] == lab.encode(answer, add_special_tokens=False)


def test_a_row_of_a_split_holds_no_mark_between_its_parts(tmp_path: Path) -> None:
    tokenizer = sentencepiece("prepend")
    rows = encode_split(
        lambda: iter([InstructionRecord(identifier="r", prompt="答案是：", completion="18元")]),
        text_of=lambda record: (record.prompt, record.completion),  # type: ignore[attr-defined]
        tokenizer=tokenizer,
        max_length=16,
        batching=Batching.bucket,
        inputs={},
        config={},
        stages=StageStore(tmp_path),
    )
    assert tokenizer.convert_ids_to_tokens(rows.row(0)[0].tolist()) == [
        MARK,
        "答案",
        "是",
        "：",
        "18元",
        "</s>",
    ]
    assert rows.row(0)[1].tolist()[:4] == [-100] * 4
