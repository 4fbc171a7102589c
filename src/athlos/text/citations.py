"""Answers with citations such as `[2]`, read sentence by sentence, and written. No torch.

What a citation is, is ALCE's (arXiv:2305.14627): a number behind an opening bracket. `Mode` says where the two ways of
reading differ.
"""

import importlib.util
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from athlos.errors import ConfigError, DataError
from athlos.text.sentences import CLOSING, WIDE_MARKS, sentences

MAX_CITATIONS = 3
"""Citations of a sentence that count. Source: ALCE's command line."""
MAX_RANGE = 100
"""Documents of the longest range that is written out."""
_MAX_DIGITS = 9
"""A longer number is no document's, and Python refuses to read one of some thousand digits."""

_NUMBER = re.compile(r"\[(\d+)")
_GROUP = re.compile(r"[\[［【〔]\s*(\d+(?:\s*(?:[,，、;；&\-‐‑–—~～]|and|und)\s*\d+)*)\s*[\]］】〕]")
_PART = re.compile(r"(\d+)(?:\s*[-‐‑–—~～]\s*(\d+))?")
_BEHIND_MARK = re.compile(rf"([.!?…][{CLOSING}]*)(?=\[\d)")
_AT_FRONT = re.compile(r"\s*(?:\[\d+\]?[\s,;]*)+")
_END = re.compile(rf"\s*(?:[.!?…{WIDE_MARKS}]+[{CLOSING}]*)?\s*\Z")


class Mode(StrEnum):
    """How an answer is read.

    `strict`: all of it, and a line ends a sentence; `[1, 2]`, `[1-3]` and full-width brackets are written out as
    `[1][2]` first; a number that a sentence repeats counts once; `[0]` is no document; a citation behind the full stop
    belongs to the sentence before.
    `parity`: as ALCE's program does it. The first line alone; `[1, 2]` cites document 1; numbers repeat; `[0]` is the
    last document; a citation belongs to the piece that the splitter leaves it in.
    """

    strict = "strict"
    parity = "parity"


@dataclass(frozen=True)
class Splitter:
    """Cuts a text of a language into sentences; `name` stands in results."""

    name: str
    split: Callable[[str, str], list[str]]


@dataclass(frozen=True)
class CitedSentence:
    text: str
    """Without citations."""
    cited: tuple[int, ...]
    """Numbers of documents, counted from 1, in their order; those of no document are among them."""


@dataclass(frozen=True)
class CitedAnswer:
    sentences: list[CitedSentence]
    counts: dict[str, int]
    """`normalised`: brackets that were written out. `orphan`: citations behind the end of their sentence.
    `out_of_range`: citations of no document. `over3`: sentences with more than three citations, `none`: without one."""


def _by_language(text: str, language: str) -> list[str]:
    """A line without marks inside is one sentence: the equal parts that it could be cut into are none."""
    units = sentences(text, language)
    return units.pieces if units.kind == "sentences" else [text]


BY_LANGUAGE = Splitter("sentences", _by_language)
"""By the marks of each script."""


def _punkt() -> Splitter:
    import punkt

    # The model that ALCE's program takes for whatever it reads.
    return Splitter(f"punkt-english-{punkt.__version__}", lambda text, language: list(punkt.sent_tokenize(text)))


def _listed(question: str) -> Splitter:
    """Source: the mode of ALCE's program for QAMPARI."""

    def split(text: str, language: str) -> list[str]:
        items = text.rstrip().rstrip(".").rstrip(",").split(",")
        return [f"{question} {item.strip()}" for item in items if item.strip()]

    return Splitter("commas", split)


SPLITTERS: dict[str, Callable[[str], Splitter]] = {
    "sentences": lambda question: BY_LANGUAGE,
    "punkt": lambda question: _punkt(),
    "commas": _listed,
}


def splitter_named(name: str, *, question: str = "") -> Splitter:
    """The splitter of a name of `SPLITTERS`; of a list, each item is read behind the question that it answers.

    Raises `ConfigError` where its package is not installed.
    """
    if name == "punkt" and importlib.util.find_spec("punkt") is None:
        raise ConfigError("splitter: got punkt, which needs a package: pip install 'athlos[citations]'; or sentences")
    return SPLITTERS[name](question)


def read_citations(
    answer: str,
    *,
    num_documents: int,
    language: str = "en",
    mode: Mode = Mode.strict,
    splitter: Splitter = BY_LANGUAGE,
) -> CitedAnswer:
    """The sentences of an answer with what each cites. Source of `Mode.parity`: compute_autoais of ALCE's eval.py."""
    counts = dict.fromkeys(("normalised", "orphan", "out_of_range", "over3", "none"), 0)
    if mode is Mode.parity:
        pieces = splitter.split(answer.strip().split("\n")[0], language)
        counts["orphan"] = sum(len(_NUMBER.findall(_front(piece))) for piece in pieces[1:])
        read = [(piece, [number or num_documents for number in _numbers(piece)]) for piece in pieces if piece.strip()]
    else:
        written, counts["normalised"] = _written_out(answer, num_documents=num_documents)
        lines = _BEHIND_MARK.sub(r"\1 ", written).splitlines()
        pieces = [piece for line in lines for piece in splitter.split(line.strip(), language)]
        read, counts["orphan"] = _at_their_sentences(pieces)
        read = [(piece, list(dict.fromkeys(numbers))) for piece, numbers in read]
    counts["out_of_range"] = sum(not 1 <= number <= num_documents for _, numbers in read for number in numbers)
    counts["over3"] = sum(len(numbers) > MAX_CITATIONS for _, numbers in read)
    counts["none"] = sum(not numbers for _, numbers in read)
    return CitedAnswer([CitedSentence(_bare(piece).strip(), tuple(numbers)) for piece, numbers in read], counts)


def without_citations(text: str) -> str:
    """A text less its citations of all forms, and less every closing bracket. Source: remove_citations of ALCE."""
    return _bare(_written_out(text, num_documents=10**_MAX_DIGITS)[0])


def with_citations(sentence: str, numbers: Iterable[int]) -> str:
    """A sentence with citations before its final mark, ascending; of several sentences in one text, the last.

    Raises `DataError` for a number below 1.
    """
    ascending = sorted(set(numbers))
    if not ascending:
        return sentence
    if ascending[0] < 1:
        raise DataError(f"got {ascending[0]}, expected the number of a document, from 1 on", field="citation")
    end = _END.search(sentence)
    assert end is not None  # it matches nothing at the end, too
    marker = "".join(f"[{number}]" for number in ascending)
    return f"{sentence[: end.start()]} {marker}{end.group()}"


def renumbered(answer: str, numbers: Mapping[int, int]) -> str:
    """An answer whose citations have other numbers, all forms written out.

    Raises `DataError` for a citation that has no new number.
    """

    def other(match: re.Match[str]) -> str:
        number = _number(match.group(1))
        if number not in numbers:
            known = ", ".join(map(str, numbers)) or "none"
            raise DataError(f"got [{match.group(1)}], expected one of {known}", field="citation")
        return f"[{numbers[number]}"

    return _NUMBER.sub(other, _written_out(answer, num_documents=max(numbers, default=0))[0])


def _number(digits: str) -> int:
    return int(digits) if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS


def _numbers(text: str) -> list[int]:
    return [_number(digits) for digits in _NUMBER.findall(text)]


def _bare(text: str) -> str:
    return re.sub(r" ?\[\d+", "", text).replace(" |", "").replace("]", "")


def _written_out(text: str, *, num_documents: int) -> tuple[str, int]:
    """`[1, 3-4]` as `[1][3][4]`, and how many brackets were changed.

    A range that goes past the documents, or down, stands for its two ends: one in a list of years is no range of
    documents, and one of a billion is no list to make.
    """
    num_changed = 0

    def out(match: re.Match[str]) -> str:
        nonlocal num_changed
        numbers: list[int] = []
        for part in _PART.finditer(match.group(1)):
            first, last = _number(part.group(1)), _number(part.group(2) or part.group(1))
            is_range = first <= last <= num_documents and last - first < MAX_RANGE
            numbers += range(first, last + 1) if is_range else dict.fromkeys((first, last))
        written = "".join(f"[{number}]" for number in numbers)
        num_changed += written != match.group()
        return written

    return _GROUP.sub(out, text), num_changed


def _front(piece: str) -> str:
    """The citations that a piece begins with."""
    match = _AT_FRONT.match(piece)
    return match.group() if match else ""


def _at_their_sentences(pieces: list[str]) -> tuple[list[tuple[str, list[int]]], int]:
    """Pieces with their citations, those at the front of a piece at the piece before; and how many these are."""
    read: list[tuple[str, list[int]]] = []
    num_moved = 0
    for piece in pieces:
        front = _front(piece) if read else ""
        if front:
            read[-1][1].extend(_numbers(front))
            num_moved += len(_numbers(front))
        rest = piece[len(front) :]
        if any(character.isalnum() for character in _bare(rest)):
            read.append((rest, _numbers(rest)))
        elif read:
            read[-1][1].extend(_numbers(rest))
    return read, num_moved
