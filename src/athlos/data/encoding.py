"""Records -> rows of token ids, kept as a memory-mapped stage product so that a sweep tokenises once.

A record is a prompt (not trained on) and a completion (trained on, end-of-sequence token included); running text is a
completion alone. `pack` joins all records into full rows of `max_length` tokens; attention crosses record borders, as
is usual for language modelling. `bucket` keeps one record a row. A preference pair is a row too: what both answers
follow, the better answer, the worse one.

T tokens of the whole split, R rows.
"""

import hashlib
import logging
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from athlos.config.schema import Batching
from athlos.data.conversations import encode_conversation
from athlos.data.records import ChatRecord, InstructionRecord, LongAnswerRecord, PreferenceRecord, Record
from athlos.errors import ConfigError, DataError
from athlos.stages import Stage, StageStore, content_hash

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

ENCODE_VERSION = 3
FLUSH_TOKENS = 1 << 20
"""Tokens held in memory before they are written out, and looked at together when targets are counted."""
Encoded = tuple[list[int], list[bool], tuple[int, ...]]
"""Ids of a record, whether each is a target, and, of a preference pair, its row of `Rows.pairs_R3`."""
NO_WORD = "."
"""A text that begins with no letter, and that no tokenizer writes with another sign."""


@dataclass(kw_only=True)
class Rows:
    """Rows of one split. `tokens_T` int32 and `is_target_T` bool; row r spans `starts_R[r]:ends_R[r]`.

    `num_targets_R` counts the targets that a row predicts: its first token has nothing before it and is none.
    """

    tokens_T: np.ndarray
    is_target_T: np.ndarray
    starts_R: np.ndarray
    ends_R: np.ndarray
    num_targets_R: np.ndarray
    pixels: np.ndarray | None = None
    """uint8 [N, height, width, 3]: the different pictures of the rows, where they have any."""
    pictures_R: np.ndarray | None = None
    """int64 [R]: which of them a row shows."""
    picture_key: str = ""
    """Under which name a batch carries `picture_values` [N, ...], the pictures as the model wants them."""
    picture_values: np.ndarray | None = None
    pairs_R3: np.ndarray | None = None
    """int64 [R, 3], of preference pairs: tokens that both answers follow, tokens of the better answer, and how many the
    prompt had more. `num_targets_R` is then about the better answer."""

    def __len__(self) -> int:
        return len(self.starts_R)

    def row(self, index: int, *, worse: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """(input ids, labels) of a row, both int64 [length]; labels are -100 where nothing is predicted.

        Of a preference pair: the prompt with the better answer, or with the `worse` one.
        """
        span = slice(int(self.starts_R[index]), int(self.ends_R[index]))
        input_ids, is_target = self.tokens_T[span].astype(np.int64), self.is_target_T[span]
        if self.pairs_R3 is not None:
            prompt, better, _ = self.pairs_R3[index]
            other = slice(prompt, prompt + better) if worse else slice(prompt + better, None)
            input_ids, is_target = np.delete(input_ids, other), np.delete(is_target, other)
        labels = np.where(is_target, input_ids, -100)
        labels[0] = -100
        return input_ids, labels

    def subset(self, kept: np.ndarray) -> "Rows":
        """The rows with the given indices, in that order; tokens and places in them stay."""
        return replace(
            self,
            starts_R=self.starts_R[kept],
            ends_R=self.ends_R[kept],
            num_targets_R=self.num_targets_R[kept],
            pairs_R3=None if self.pairs_R3 is None else self.pairs_R3[kept],
        )


def rows_hash(rows: Rows) -> str:
    """Content hash of rows: tokens, which of them are targets, where rows begin and end, and the answers of pairs."""
    arrays = [rows.tokens_T, rows.is_target_T, rows.starts_R, rows.ends_R]
    arrays += [] if rows.pairs_R3 is None else [rows.pairs_R3]
    return content_hash([hashlib.sha256(np.ascontiguousarray(array).data).hexdigest() for array in arrays])


def tokenizer_hash(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Content hash of a fast tokenizer: vocabulary, merges, rules and special tokens."""
    return content_hash({"rules": tokenizer.backend_tokenizer.to_str(), "special": tokenizer.special_tokens_map})


def raise_error(error: DataError) -> None:
    raise error


def encode_split(
    records: Callable[[], Iterator[Record]],
    *,
    text_of: Callable[[Record], tuple[str, str]],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    batching: Batching,
    inputs: dict[str, str],
    config: dict[str, Any],
    stages: StageStore,
    takes_pairs: bool = False,
    on_error: Callable[[DataError], None] = raise_error,
) -> Rows:
    """Encode a split once. `text_of` gives (prompt, completion); `inputs` and `config` identify the records.

    A record whose completion does not fit into `max_length`, or whose conversation the chat template refuses, goes to
    `on_error` and is left out. Raises `DataError` when there is no row to train on, `ConfigError` for preference pairs
    that nobody takes.
    """

    def encode(record: Record) -> Encoded:
        if isinstance(record, PreferenceRecord) and takes_pairs:
            return encode_preference(record, tokenizer=tokenizer, max_length=max_length)
        room = max_length if batching is Batching.bucket else None
        return *encode_record(record, text_of=text_of, tokenizer=tokenizer, max_length=room), ()

    stage = Stage(
        name="encode",
        version=ENCODE_VERSION,
        inputs={**inputs, "tokenizer": tokenizer_hash(tokenizer)},
        config={**config, "max_length": max_length, "batching": batching.value}
        | ({"takes_pairs": True} if takes_pairs else {}),
        build=lambda folder: _write(folder, records(), encode, batching, on_error),
    )
    return load_rows(stages.get(stage).path, max_length=max_length, batching=batching)


def _write(
    folder: Path,
    records: Iterator[Record],
    encode: Callable[[Record], Encoded],
    batching: Batching,
    on_error: Callable[[DataError], None],
) -> None:
    ends = array("q")
    pictures = Pictures()
    pairs: list[tuple[int, ...]] = []
    total = 0
    tokens: list[int] = []
    targets: list[bool] = []
    with (folder / "tokens.bin").open("wb") as token_file, (folder / "targets.bin").open("wb") as target_file:

        def flush() -> None:
            token_file.write(np.asarray(tokens, dtype=np.int32).tobytes())
            target_file.write(np.asarray(targets, dtype=np.bool_).tobytes())
            tokens.clear()
            targets.clear()

        for record in records:
            try:
                ids, is_target, parts = encode(record)
            except DataError as error:
                on_error(error)
                continue
            pictures.add(record)
            pairs.append(parts)
            tokens += ids
            targets += is_target
            total += len(ids)
            ends.append(total)
            if len(tokens) >= FLUSH_TOKENS:
                flush()
        flush()
    np.save(folder / "ends.npy", np.asarray(ends, dtype=np.int64), allow_pickle=False)
    pictures.write(folder, batching=batching)
    if any(pairs):
        if not all(pairs):
            num_pairs = sum(map(bool, pairs))
            raise DataError(f"{num_pairs} of {len(pairs)} records are preference pairs; expected all or none")
        np.save(folder / "pairs.npy", np.asarray(pairs, dtype=np.int64), allow_pickle=False)


class Pictures:
    """The different pictures of a split, each kept once, and which of them each record shows."""

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}
        self._pixels: list[np.ndarray] = []
        self._shown: list[int] = []

    def add(self, record: Record) -> None:
        """Raises `DataError` for a picture of another size than the first one."""
        if not isinstance(record, InstructionRecord) or record.pixels is None:
            return
        pixels = np.asarray(record.pixels, dtype=np.uint8)
        if self._pixels and pixels.shape != self._pixels[0].shape:
            wanted = "x".join(map(str, self._pixels[0].shape))
            shape = "x".join(map(str, pixels.shape))
            raise DataError(f"record '{record.identifier}': its picture is {shape}, the first one is {wanted}")
        place = self._places.setdefault(pixels.tobytes(), len(self._pixels))
        if place == len(self._pixels):
            self._pixels.append(pixels)
        self._shown.append(place)

    def write(self, folder: Path, *, batching: Batching) -> None:
        if not self._shown:
            return
        if batching is not Batching.bucket:
            raise DataError("train.batching: pictures need bucket, since a row holds one picture")
        np.save(folder / "pixels.npy", np.stack(self._pixels), allow_pickle=False)
        np.save(folder / "pictures.npy", np.asarray(self._shown, dtype=np.int64), allow_pickle=False)


def encode_record(
    record: Record,
    *,
    text_of: Callable[[Record], tuple[str, str]],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int | None = None,
) -> tuple[list[int], list[bool]]:
    """Token ids of a record, and for each whether it is a target.

    With a `max_length` a prompt is cut from the left so that the row fits; a completion, a conversation and the
    documents of a long answer, which may cite the one that would be gone, are never cut. Raises `DataError` for one
    that does not fit, `ConfigError` for a preference pair, which makes no such row.
    """
    if isinstance(record, PreferenceRecord):
        raise ConfigError(
            f"objective: record '{record.identifier}' is a preference pair, which objective=preference trains on; the "
            "better answers alone are trained on by objective.kind=sft_chosen of that objective"
        )
    if isinstance(record, ChatRecord):
        return _encode_chat(record, tokenizer=tokenizer, max_length=max_length)
    prompt_ids, completion_ids = encode_pair(tokenizer, *text_of(record))
    if max_length is not None:
        num_tokens = len(prompt_ids) + len(completion_ids)
        if isinstance(record, LongAnswerRecord) and num_tokens > max_length:
            raise DataError(
                f"record '{record.identifier}': its documents and its answer have {num_tokens} tokens, "
                f"train.max_length is {max_length}; data.on_bad=skip leaves such records out"
            )
        prefix = prefix_token(tokenizer)
        prompt_ids = _fit(
            prompt_ids, completion_ids, max_length=max_length, prefix=prefix, identifier=record.identifier
        )
    return prompt_ids + completion_ids, [False] * len(prompt_ids) + [True] * len(completion_ids)


def _encode_chat(
    record: ChatRecord, *, tokenizer: "PreTrainedTokenizerBase", max_length: int | None
) -> tuple[list[int], list[bool]]:
    ids, is_target = encode_conversation(tokenizer, record)
    if max_length is not None and len(ids) > max_length:
        raise DataError(
            f"record '{record.identifier}': its conversation has {len(ids)} tokens, train.max_length is "
            f"{max_length}; data.on_bad=skip leaves such records out"
        )
    return ids, is_target


def encode_preference(record: PreferenceRecord, *, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> Encoded:
    """Token ids of prompt, better answer and worse answer, which of them are targets, and the numbers of `pairs_R3`.

    The prompt is written once: what the two rows begin with alike, before the first target of either. A text is cut
    from the left so that prompt and longer answer fit into `max_length`; answers and conversations are never cut.
    Raises `DataError` for one that does not fit.
    """
    num_cut = 0
    rows: list[tuple[list[int], list[bool]]] = []
    if isinstance(record.prompt, str):
        assert isinstance(record.chosen, str)
        assert isinstance(record.rejected, str)
        prompt, better = encode_pair(tokenizer, record.prompt, record.chosen)
        _, worse = encode_pair(tokenizer, record.prompt, record.rejected)
        longer = max(better, worse, key=len)
        prefix = prefix_token(tokenizer)
        kept = _fit(prompt, longer, max_length=max_length, prefix=prefix, identifier=record.identifier)
        num_cut = len(prompt) - len(kept)
        rows = [(kept + ids, [False] * len(kept) + [True] * len(ids)) for ids in (better, worse)]
    else:
        for answer in (record.chosen, record.rejected):
            assert not isinstance(answer, str)
            messages, num_given = [*record.prompt, *answer], len(record.prompt)
            chat = ChatRecord(identifier=record.identifier, messages=messages, num_given=num_given)
            rows.append(_encode_chat(chat, tokenizer=tokenizer, max_length=max_length))
    (better, is_better), (worse, is_worse) = rows
    most = min(is_better.index(True), is_worse.index(True))
    differs = (place for place in range(most) if better[place] != worse[place])
    shared = next(differs, most)
    return better + worse[shared:], is_better + is_worse[shared:], (shared, len(better) - shared, num_cut)


def encode_pair(tokenizer: "PreTrainedTokenizerBase", prompt: str, completion: str) -> tuple[list[int], list[int]]:
    """Token ids of the two parts: begin-of-sequence where models expect one, end-of-sequence after the completion."""
    bos = prefix_token(tokenizer)
    prompt_ids = ([] if bos is None else [bos]) + (tokenizer.encode(prompt, add_special_tokens=False) if prompt else [])
    return prompt_ids, [*continued_ids(tokenizer, prompt, completion), tokenizer.eos_token_id]


def continued_ids(tokenizer: "PreTrainedTokenizerBase", prompt: str, completion: str) -> list[int]:
    """Token ids of a completion behind its prompt.

    Tokenizers of SentencePiece's kind put a mark before every text that they are given, which has no place between a
    prompt and its completion. Theirs are the ids of the joint text that follow those of the prompt. Where a token of
    the joint text has letters of both, so that the prompt's own ids are not in it, a line break stands for the prompt.
    """

    def ids(text: str) -> list[int]:
        encoded: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return encoded

    if prompt and marks_beginnings(tokenizer):
        for before in (prompt, "\n"):
            front, joint = ids(before), ids(before + completion)
            if joint[: len(front)] == front:
                return joint[len(front) :]
    return ids(completion)


def marks_beginnings(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether a tokenizer puts a mark before every text, even one that begins with no word (Llama 2, Mistral).

    The words of the lab begin with a space by themselves: theirs stay as they are alone.
    """
    backend = tokenizer.backend_tokenizer
    text = backend.normalizer.normalize_str(NO_WORD) if backend.normalizer else NO_WORD
    pieces = [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text)] if backend.pre_tokenizer else [text]
    return not "".join(pieces).startswith(NO_WORD)


def prefix_token(tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """The begin-of-sequence token, for models that expect one before a text (Llama, Gemma); not for SmolLM2, Qwen."""
    bos: int | None = tokenizer.bos_token_id
    return bos if bos is not None and tokenizer.encode("a")[:1] == [bos] else None


def pair_rows(pairs: Sequence[Encoded]) -> Rows:
    """Encoded preference pairs as rows in memory."""
    ends_R = np.cumsum([len(ids) for ids, _, _ in pairs])
    return Rows(
        tokens_T=np.concatenate([ids for ids, _, _ in pairs]).astype(np.int32),
        is_target_T=np.concatenate([is_target for _, is_target, _ in pairs]),
        starts_R=np.concatenate([[0], ends_R[:-1]]),
        ends_R=ends_R,
        num_targets_R=np.array([sum(is_target[1 : sum(parts[:2])]) for _, is_target, parts in pairs]),
        pairs_R3=np.array([parts for _, _, parts in pairs]),
    )


def _fit(
    prompt_ids: list[int], completion_ids: list[int], *, max_length: int, prefix: int | None, identifier: str
) -> list[int]:
    """`cut_prompt` for a row of `max_length` tokens; a completion is never cut."""
    room = max_length - len(completion_ids)
    if room < (1 if prompt_ids else 0):
        raise DataError(
            f"record '{identifier}': its completion has {len(completion_ids)} tokens, train.max_length is {max_length}"
        )
    return cut_prompt(prompt_ids, room=room, prefix=prefix)


def cut_prompt(prompt_ids: list[int], *, room: int, prefix: int | None) -> list[int]:
    """A prompt cut from the left to `room` >= 1 tokens; its `prefix_token` stays in front, as the model expects it."""
    if len(prompt_ids) <= room:
        return prompt_ids
    if prefix is None:
        return prompt_ids[-room:]
    return [prefix, *prompt_ids[len(prompt_ids) - room + 1 :]]


def targets_before(is_target_T: np.ndarray, places_P: np.ndarray) -> np.ndarray:
    """Number of targets before each of these ascending places, int64 [P]; a file of targets is read once, in pieces."""
    counts_P = np.zeros(len(places_P), dtype=np.int64)
    before = 0
    for start in range(0, len(is_target_T), FLUSH_TOKENS):
        running = before + np.cumsum(is_target_T[start : start + FLUSH_TOKENS], dtype=np.int64)
        here = slice(*np.searchsorted(places_P, [start, start + len(running)], side="right"))
        counts_P[here] = running[places_P[here] - start - 1]
        before = int(running[-1])
    return counts_P


def load_rows(folder: Path, *, max_length: int, batching: Batching) -> Rows:
    """Map an encoded split into memory; packed rows are cut here, the last short one included."""
    ends = np.load(folder / "ends.npy", allow_pickle=False)
    total = int(ends[-1]) if len(ends) else 0
    if total < 2:
        raise DataError("no tokens to train on: the split is empty")
    tokens = np.memmap(folder / "tokens.bin", dtype=np.int32, mode="r", shape=(total,))
    is_target = np.memmap(folder / "targets.bin", dtype=np.bool_, mode="r", shape=(total,))
    if batching is Batching.pack:
        starts = np.arange(0, total, max_length)
        ends = np.minimum(starts + max_length, total)
    else:
        starts = np.concatenate([[0], ends[:-1]])
    pairs = np.load(folder / "pairs.npy", allow_pickle=False) if (folder / "pairs.npy").is_file() else None
    until = targets_before(is_target, ends)
    before = np.concatenate([[0], until[:-1]])
    if pairs is not None:
        until = targets_before(is_target, starts + pairs[:, 0] + pairs[:, 1])
    # Targets of a span, less its first token.
    num_targets = until - before - is_target[starts]
    kept = num_targets > 0
    if not kept.any():
        raise DataError("no targets to train on: every row is shorter than two tokens")
    pixels = pictures_R = None
    if (folder / "pictures.npy").is_file():
        pixels = np.load(folder / "pixels.npy", allow_pickle=False)
        pictures_R = np.load(folder / "pictures.npy", allow_pickle=False)
        if len(pictures_R) != len(kept):
            raise DataError(f"{len(pictures_R)} of {len(kept)} rows have a picture; expected all or none")
        pictures_R = pictures_R[kept]
    return Rows(
        pixels=pixels,
        pictures_R=pictures_R,
        tokens_T=tokens,
        is_target_T=is_target,
        starts_R=starts[kept],
        ends_R=ends[kept],
        num_targets_R=num_targets[kept],
        pairs_R3=None if pairs is None else pairs[kept],
    )
