"""Answer normalisers, each named after the evaluation it reproduces. Texts are compared only after one of them.

`squad`: lower case; ASCII punctuation deleted; a, an, the -> space; spaces squeezed. In this order.
`mkqa`: the same with the articles of the language; zh, ja, th, km: one token per character. Source: apple/ml-mkqa.
`mkqa_unicode`: ours, as `mkqa` with its faults repaired, see `mkqa_unicode`.
`clue`: lower case; all whitespace and ASCII punctuation deleted.
"""

import re
import string
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from athlos.errors import ConfigError, did_you_mean
from athlos.text.language import base_language

UNSPACED_LANGUAGES = frozenset({"zh", "ja", "th", "km"})
"""Languages written without spaces between words: a token is a character."""

ARTICLES = {
    "da": ("en", "et"),
    "de": ("ein", "eine", "einen", "einem", "eines", "einer", "der", "die", "das", "den", "dem", "des"),
    "en": ("a", "an", "the"),
    "es": ("un", "una", "unos", "unas", "el", "la", "los", "las"),
    "fi": ("se", "yks", "yksi"),
    "fr": ("le", "la", "les", "du", "de", "des", "un", "une"),
    "hu": ("a", "az", "egy"),
    "it": (
        "il",
        "lo",
        "la",
        "i",
        "gli",
        "le",
        "del",
        "dello",
        "della",
        "dei",
        "degli",
        "delle",
        "uno",
        "una",
        "un",
    ),
    "nl": ("de", "het", "een", "des", "der", "den"),
    "no": ("en", "et", "ei"),
    "pt": ("o", "a", "os", "as", "um", "uma", "uns", "umas"),
    "sv": ("en", "ett"),
    "vi": ("của", "là", "cái", "chiếc", "những"),
}
"""Whole-word articles. Elided forms (l', d', un') are left out: punctuation is deleted before articles are looked for,
so the original never finds them either."""

ARABIC_ARTICLE = "ال"
OPEN_ENDED = frozenset({"fr", "it"})
"""Languages whose pattern lacks the closing word boundary in the original."""

_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ENGLISH_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


class _PunctuationTable(dict[int, str | None]):
    """Deletes ASCII punctuation, Unicode class P and invisible format characters; decimal digits become ASCII ones.

    Categories are looked up once a character.
    """

    def __missing__(self, codepoint: int) -> str | None:
        character = chr(codepoint)
        category = unicodedata.category(character)
        replacement: str | None = character
        if category == "Nd":
            replacement = str(unicodedata.decimal(character))
        elif character in string.punctuation or category.startswith("P") or category == "Cf":
            replacement = None
        self[codepoint] = replacement
        return replacement


_UNICODE_PUNCTUATION = _PunctuationTable()
_DOTLESS = {ord("\N{COMBINING DOT ABOVE}"): None, ord("\N{LATIN SMALL LETTER DOTLESS I}"): "i"}


@lru_cache(maxsize=256)
def _article_pattern(language: str, closed: bool) -> re.Pattern[str] | None:
    """Pattern of the articles of a language, or None; `closed` adds the boundary that the original forgets."""
    if language == "ar":
        # A prefix: only at the beginning of a word with at least two more letters. The original: anywhere.
        return re.compile(rf"\b{ARABIC_ARTICLE}(?=\w\w)" if closed else ARABIC_ARTICLE)
    if language not in ARTICLES:
        return None
    end = r"\b" if closed or language not in OPEN_ENDED else ""
    return re.compile(rf"\b(?:{'|'.join(ARTICLES[language])}){end}")


def _split(text: str, language: str) -> str:
    tokens = list("".join(text.split())) if language in UNSPACED_LANGUAGES else text.split()
    return " ".join(tokens)


def squad(text: str, language: str) -> str:
    """English normaliser of SQuAD, used for every language alike. Source: FlashRAG, ALCE, HippoRAG."""
    without_punctuation = text.lower().translate(_ASCII_PUNCTUATION)
    return " ".join(_ENGLISH_ARTICLES.sub(" ", without_punctuation).split())


def mkqa(text: str, language: str) -> str:
    """Normaliser of MKQA, faults included, for comparison with published numbers. Source: apple/ml-mkqa.

    Non-ASCII punctuation stays; French and Italian articles eat word beginnings; the Arabic article is deleted
    anywhere.
    """
    language = base_language(language)
    text = text.lower().translate(_ASCII_PUNCTUATION)
    pattern = _article_pattern(language, closed=False)
    return _split(pattern.sub(" ", text) if pattern else text, language)


def mkqa_unicode(text: str, language: str) -> str:
    """`mkqa` without its faults (ours).

    NFKC first; all Unicode punctuation and direction marks deleted; digits of every script alike; cases folded, the
    dotted and the dotless i alike; articles only as whole words.
    """
    language = base_language(language)
    # Lower case gives the dotted capital I of Turkish as i with a dot above, and casefold keeps the dotless i apart.
    text = unicodedata.normalize("NFKC", text).casefold().translate(_DOTLESS)
    text = unicodedata.normalize("NFKC", text).translate(_UNICODE_PUNCTUATION)
    pattern = _article_pattern(language, closed=True)
    return _split(pattern.sub(" ", text) if pattern else text, language)


def clue(text: str, language: str) -> str:
    """Lower case without whitespace and ASCII punctuation, for every language alike. Source: ClueAnchor."""
    return "".join(text.lower().translate(_ASCII_PUNCTUATION).split())


NORMALISERS: dict[str, Callable[[str, str], str]] = {
    "squad": squad,
    "mkqa": mkqa,
    "mkqa_unicode": mkqa_unicode,
    "clue": clue,
}


def default_normaliser(language: str) -> str:
    """`squad` for English, `mkqa_unicode` for every other language."""
    return "squad" if base_language(language) == "en" else "mkqa_unicode"


@lru_cache(maxsize=65536)
def normalise(text: str, *, normaliser: str, language: str) -> str:
    """The normalised text, tokens joined by single spaces. Raises `ConfigError` for an unknown normaliser."""
    if normaliser not in NORMALISERS:
        near = did_you_mean(normaliser, list(NORMALISERS))
        raise ConfigError(f"normaliser: got '{normaliser}'{near} Accepted: {', '.join(NORMALISERS)}")
    return NORMALISERS[normaliser](text, language)
