"""Texts cut into sentences, by the marks of each script; the pieces join to the text.

Thai and Lao write no mark at the end of a sentence, and a text in any language may have none. Then lines are taken, and
where there is one line alone, parts of equal length. No cut falls inside LaTeX.
"""

import re
import unicodedata
from dataclasses import dataclass

from athlos.text.language import base_language

NUM_PARTS = 8
"""Equal parts of a text that has neither marks nor lines: an eighth is about a sentence of a short solution."""

LATEX = re.compile(
    r"""
      \$\$.*?(?:\$\$|\Z) | \\\[.*?(?:\\\]|\Z) | \\\(.*?(?:\\\)|\Z)
    | (?<!\\)\$(?![\s$])[^$\n]*?(?<![\s\\])\$(?!\d)
    | \\begin\{(\w+\*?)\}.*?(?:\\end\{\1\}|\Z)
    | \\[A-Za-z]+\s*(?:\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})+
    """,
    re.VERBOSE | re.DOTALL,
)
"""Formulas, environments, and commands with their arguments such as `\\boxed{..}`, to three levels of braces."""

CLOSING = "\"')\\]}»”’」』）】〉》"
"""Inside of brackets of a pattern: what may stand behind the mark that ends a sentence."""
WIDE_MARKS = "。！？｡．؟۔।॥።፧။៕ฯ"
"""Marks that end a sentence whatever follows."""
_END = re.compile(
    rf"""
      [.!?…;]+[{CLOSING}]*(?=\s|\Z)            # Latin, Cyrillic, Greek (whose question mark is ;), Korean, Vietnamese
    | [{WIDE_MARKS}]+[{CLOSING}]*
    """,
    re.VERBOSE,
)
_NO_SEMICOLON = re.compile(r";[\"')\]}]*\Z")


@dataclass(frozen=True, kw_only=True)
class Units:
    """`"".join(pieces)` is the text; `kind` says how it was cut: sentences, lines, parts or tokens."""

    pieces: list[str]
    kind: str


def sentences(text: str, language: str) -> Units:
    """Sentences; lines where no mark stands inside the text; equal parts where there is one line."""
    spans = _latex_spans(text)
    ends = [end for match in _END.finditer(text) if not _inside(end := match.end(), spans)]
    if base_language(language) not in ("el", "grek"):
        ends = [end for end in ends if not _NO_SEMICOLON.search(text[:end])]
    pieces = _cut(text, ends)
    if len(pieces) > 1:
        return Units(pieces=pieces, kind="sentences")
    pieces = _cut(text, [m.end() for m in re.finditer(r"\n+", text) if not _inside(m.start(), spans)])
    if len(pieces) > 1:
        return Units(pieces=pieces, kind="lines")
    return Units(pieces=_cut(text, _equal_places(text, spans)), kind="parts")


def _latex_spans(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in LATEX.finditer(text)]


def _inside(place: int, spans: list[tuple[int, int]]) -> bool:
    return any(start < place < end for start, end in spans)


def _is_mark(character: str) -> bool:
    """Vowel signs and accents, which belong to the letter before them."""
    return unicodedata.category(character).startswith("M")


def _cut(text: str, ends: list[int]) -> list[str]:
    """Pieces that end at the given places; spaces behind an end belong to the piece before."""
    pieces, at = [], 0
    for end in ends:
        while end < len(text) and text[end].isspace():
            end += 1
        if end > at and text[at:end].strip():
            pieces.append(text[at:end])
            at = end
    if text[at:].strip():
        pieces.append(text[at:])
    elif pieces:
        pieces[-1] += text[at:]
    return pieces


def _equal_places(text: str, spans: list[tuple[int, int]]) -> list[int]:
    """Up to `NUM_PARTS` - 1 places of equal distance, each moved on to the next one that may be cut."""
    has_spaces = any(character.isspace() for character in text.strip())
    places: list[int] = []
    for part in range(1, NUM_PARTS):
        place = max(part * len(text) // NUM_PARTS, places[-1] if places else 1)
        while place < len(text) and (
            _inside(place, spans) or _is_mark(text[place]) or (has_spaces and not text[place - 1].isspace())
        ):
            place += 1
        if place < len(text) and (not places or place > places[-1]):
            places.append(place)
    return places
