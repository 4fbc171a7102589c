"""A tokenizer of transformers in the words of llama.cpp: entries, their types, merges or scores, how a text is cut."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby
from typing import TYPE_CHECKING, Any

from athlos.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPLITS_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [SPLITS_BYTES],
    "smollm": [{"type": "Digits", "individual_digits": True}, SPLITS_BYTES],
    "qwen2": [
        {"type": "Split", "pattern": {"Regex": QWEN_WORDS}, "behavior": "Isolated", "invert": False},
        {**SPLITS_BYTES, "use_regex": False},
    ],
}
"""llama.cpp's name of each way to cut a text before its byte-level BPE, and the steps of it in tokenizers' words."""
ACCEPTED = (
    f"byte-level BPE cut as by {', '.join(PRE_TOKENIZERS)}; BPE of characters with byte fallback, as Gemma's; Unigram "
    "with byte fallback"
)


class TokenType(IntEnum):
    """llama.cpp's numbers."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(kw_only=True)
class Vocabulary:
    model: str
    """`gpt2` is byte-level BPE, `llama` BPE of characters, `t5` Unigram."""
    tokens: list[str]
    """By id; rows of the embedding that no token has are unused entries."""
    types: list[int]
    scores: list[float] | None = None
    """What `llama` and `t5` choose by."""
    merges: list[str] | None = None
    """What `gpt2` chooses by."""
    pre_tokenizer: str = "default"
    begins_with_space: bool = False
    """Whether a space is put before each text."""


def vocabulary_of(tokenizer: "PreTrainedTokenizerBase", *, num_rows: int) -> Vocabulary:
    """The tokenizer, filled up to the rows of the embedding.

    Raises `ModelError` for one that llama.cpp has no form of, and for one of more tokens than rows.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    if len(tokenizer) > num_rows:
        raise ModelError(f"engine.source: the tokenizer has {len(tokenizer)} tokens, the embedding {num_rows} rows")
    tokens, types = _entries(state, tokenizer=tokenizer, num_rows=num_rows)
    model = state["model"]
    if model["type"] == "Unigram" and model["byte_fallback"]:
        scores = dict(model["vocab"])
        return Vocabulary(
            model="t5", tokens=tokens, types=types, scores=_scores(tokens, scores), begins_with_space=True
        )
    if model["type"] == "BPE" and model["byte_fallback"]:
        return Vocabulary(
            model="llama",
            tokens=tokens,
            types=types,
            scores=_scores(tokens, _ranks(model["merges"])),
            begins_with_space="Prepend" in json.dumps(state["normalizer"]),
        )
    if model["type"] == "BPE" and (name := _pre_tokenizer(state["pre_tokenizer"])) is not None:
        merges = [" ".join(merge) for merge in model["merges"]]
        # llama.cpp wants one at least; no text is cut into these two.
        never = f"{tokenizer.pad_token} {tokenizer.pad_token}"
        return Vocabulary(model="gpt2", tokens=tokens, types=types, merges=merges or [never], pre_tokenizer=name)
    raise ModelError(f"engine.source: llama.cpp has no form of this tokenizer ({model['type']}); accepted: {ACCEPTED}")


def _entries(
    state: Mapping[str, Any], *, tokenizer: "PreTrainedTokenizerBase", num_rows: int
) -> tuple[list[str], list[int]]:
    """Token and type of each id."""
    tokens = [f"[UNUSED{index}]" for index in range(num_rows)]
    types = [int(TokenType.UNUSED)] * num_rows
    has_bytes = state["model"].get("byte_fallback", False)
    for token, index in tokenizer.get_vocab().items():
        is_byte = has_bytes and len(token) == 6 and token.startswith("<0x") and token.endswith(">")
        tokens[index], types[index] = token, int(TokenType.BYTE if is_byte else TokenType.NORMAL)
    for added in state["added_tokens"]:
        types[added["id"]] = int(TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED)
        tokens[added["id"]] = added["content"]
    if tokenizer.unk_token_id is not None:
        types[tokenizer.unk_token_id] = int(TokenType.UNKNOWN)
    return tokens, types


def _pre_tokenizer(state: Mapping[str, Any] | None) -> str | None:
    """llama.cpp's name of the steps, or None. `trim_offsets` moves no border."""
    steps = [] if state is None else state["pretokenizers"] if state["type"] == "Sequence" else [state]
    plain = [{key: value for key, value in step.items() if key != "trim_offsets"} for step in steps]
    return next((name for name, known in PRE_TOKENIZERS.items() if plain == known), None)


def _ranks(merges: list[list[str]]) -> dict[str, float]:
    """Minus the place of each merged token: `llama` merges first what scores highest, whatever two it is made of.

    Raises `ModelError` where that is another order than that of the merges.
    """
    order = [token for token, _ in groupby("".join(merge) for merge in merges)]
    if len(set(order)) < len(order):
        raise ModelError(f"engine.source: its merges are in no order of their tokens; accepted: {ACCEPTED}")
    known = {letter for merge in merges for letter in merge} | set(order)
    allowed = {(first, second) for first, second in merges}
    for token in order:
        for end in range(1, len(token)):
            pair = (token[:end], token[end:])
            if pair not in allowed and known.issuperset(pair):
                raise ModelError(f"engine.source: its merges leave out {' + '.join(pair)}; accepted: {ACCEPTED}")
    return {token: -float(place) for place, token in enumerate(order, start=1)}


def _scores(tokens: list[str], known: Mapping[str, float]) -> list[float]:
    return [known.get(token, 0.0) for token in tokens]
