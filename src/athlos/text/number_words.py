"""Whole numbers as the words of a language, by num2words: twelve, douze, dwanaście, สิบสอง."""

import re
from functools import lru_cache

from athlos.text.language import base_language
from athlos.text.normalisation import UNSPACED_LANGUAGES

MOST = 10**12
"""The largest number that is written out: no result of a word problem is, beyond it."""
_CHINESE = str.maketrans("两兩萬亿", "二二万億")
"""Chinese numerals as the Japanese ones, which num2words writes."""
_BETWEEN = r"[\s,\-\u2010-\u2015\u200c]"
"""What parts the words of one number, or does not: twenty-one, twenty one."""


def number_word_places(text: str, value: int, language: str) -> list[int]:
    """Where a text has a number as a word, in the form in which one counts: inflected forms are not recognised.

    One is left out, which is an article in many languages. Empty in a language that num2words does not know.
    """
    language = base_language(language)
    pattern = _pattern(value, "ja" if language == "zh" else language)
    if pattern is None:
        return []
    return [match.start() for match in pattern.finditer(text.translate(_CHINESE) if language == "zh" else text)]


@lru_cache(maxsize=4096)
def _pattern(value: int, language: str) -> re.Pattern[str] | None:
    import num2words

    if language not in num2words.CONVERTER_CLASSES or value == 1 or not 0 <= value <= MOST:
        return None
    parts = re.split(f"{_BETWEEN}+", num2words.num2words(value, lang=language))
    words = f"{_BETWEEN}*".join(map(re.escape, parts))
    return re.compile(words if language in UNSPACED_LANGUAGES else rf"(?<!\w){words}(?!\w)", re.IGNORECASE)
