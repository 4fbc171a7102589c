"""Tokenizers that need no download: bytes, a byte-level BPE of the run's own text, and closed lists of words."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from athlos.errors import ModelError
from athlos.stages import Stage, StageStore, content_hash

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
SPECIALS = (PAD, BOS, EOS)
NUM_BYTES = 256
SMALLEST_BPE = NUM_BYTES + len(SPECIALS)
TRAINING_VERSION = 1
"""Raised when the same text and size give another BPE tokenizer."""
TOKENIZER_FILE = "tokenizer.json"

WORD_START = "\u2581"
"""Stands for a space inside a word tokenizer, as in SentencePiece."""
SPACED_START = r"\A(?=[\p{Latin}\p{Cyrillic}\p{Greek}0-9])"
"""Before the first letter of a text in a script with spaces."""

TextSource = Callable[[], Iterator[str]]
"""Gives a fresh pass over the training texts at each call."""


def byte_tokenizer() -> "PreTrainedTokenizerBase":
    """One token a byte: ids 0-255 are the byte's value, then <pad> 256, <bos> 257, <eos> 258; 259 in all, not padded.

    Any text comes back unchanged from decode(encode(text)). Encoding adds no special token by itself.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = _byte_alphabet()
    backend = Tokenizer(models.BPE(vocab={char: value for value, char in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIALS))
    return _wrapped(backend)


def bpe_tokenizer(texts: TextSource, *, vocab_size: int, stages: StageStore) -> "PreTrainedTokenizerBase":
    """Byte-level BPE of at most `vocab_size` entries: <pad> 0, <bos> 1, <eos> 2, the 256 bytes, then merges.

    Any text comes back unchanged. Trained once for each training text and size; small text gives fewer merges, which
    is logged. Encoding adds no special token by itself.
    """
    from tokenizers import Tokenizer

    if vocab_size < SMALLEST_BPE:
        raise ModelError(
            f"model.tokenizer.vocab_size: got {vocab_size}, expected at least {SMALLEST_BPE} (256 bytes and 3 specials)"
        )

    def train(folder: Path) -> None:
        _trained(texts(), vocab_size=vocab_size).save(str(folder / TOKENIZER_FILE))

    stage = Stage(
        name="bpe_tokenizer",
        version=TRAINING_VERSION,
        build=train,
        config={"vocab_size": vocab_size},
        inputs={"texts": texts_hash(texts())},
    )
    backend = Tokenizer.from_file(str(stages.get(stage).path / TOKENIZER_FILE))
    if backend.get_vocab_size() < vocab_size:
        log.warning(
            "model.tokenizer.vocab_size: the training text gives %d entries, not %d",
            backend.get_vocab_size(),
            vocab_size,
        )
    return _wrapped(backend)


def word_tokenizer(pieces: Iterable[str]) -> "PreTrainedTokenizerBase":
    """A tokenizer of the given pieces: <pad> 0, <bos> 1, <eos> 2, 256 bytes, then the pieces in order.

    A piece that begins with a space is the start of a word. Text is cut into the fewest pieces; what no piece covers
    becomes bytes. A text that begins with a letter of a script with spaces, or with a digit, gets a space before it,
    and decoding takes one leading space away: so "a b" and " a b" are the same ids, and a completion that begins with
    a space continues its prompt. Everything else comes back unchanged, U+2581 (the mark of a space) excepted. Encoding
    adds no special token by itself.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    words = dict.fromkeys(piece.replace(" ", WORD_START) for piece in (" ", *pieces))
    entries = [*SPECIALS, *(f"<0x{value:02X}>" for value in range(NUM_BYTES)), *words]
    # Equal scores: the best cut is the one of fewest pieces.
    backend = Tokenizer(models.Unigram([(entry, -1.0) for entry in entries], unk_id=0, byte_fallback=True))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(SPACED_START), WORD_START), normalizers.Replace(" ", WORD_START)]
    )
    # Cut before each space: the search for the best cut is then short, and no piece crosses a word.
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(WORD_START), behavior="merged_with_next")
    backend.decoder = decoders.Sequence(
        [decoders.Replace(WORD_START, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(list(SPECIALS))
    return _wrapped(backend)


def texts_hash(texts: Iterable[str]) -> str:
    """sha256 of a sequence of texts; the boundaries between them count."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


def tokenizer_hash(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Content hash of what a fast tokenizer does to text; padding and truncation of its last call do not count."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    return content_hash({key: value for key, value in state.items() if key not in ("padding", "truncation")})


def _trained(texts: Iterator[str], *, vocab_size: int) -> "Tokenizer":
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer=trainer)
    return backend


def _wrapped(backend: "Tokenizer") -> "PreTrainedTokenizerBase":
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=PAD, bos_token=BOS, eos_token=EOS, clean_up_tokenization_spaces=False
    )


def _byte_alphabet() -> list[str]:
    """The character that stands for each byte in byte-level tokenizers: printable ones as themselves, the rest shifted.

    Source: the byte-to-unicode table of GPT-2's tokenizer; a test holds it against the tokenizers library.
    """
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    alphabet, shift = [], 0
    for value in range(NUM_BYTES):
        if value in printable:
            alphabet.append(chr(value))
        else:
            alphabet.append(chr(NUM_BYTES + shift))
            shift += 1
    return alphabet
