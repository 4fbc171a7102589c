"""The script of a letter, from the name that Unicode gives it."""

import re
import unicodedata
from functools import lru_cache

SCRIPTS = frozenset(
    re.findall(
        "[A-Z]+",
        """
        ARABIC ARMENIAN BENGALI CJK CYRILLIC DEVANAGARI ETHIOPIC GEORGIAN GREEK GUJARATI GURMUKHI HANGUL HEBREW KANA
        KANNADA KHMER LAO LATIN MALAYALAM MYANMAR SINHALA TAMIL TELUGU THAI
        """,
    )
)
_OTHER_NAMES = {"HIRAGANA": "KANA", "KATAKANA": "KANA", "IDEOGRAPHIC": "CJK"}


@lru_cache(maxsize=65536)
def script_of(character: str) -> str | None:
    """One of `SCRIPTS` for a letter or a vowel sign of a script; None for other characters.

    Marks count, for in Thai and the scripts of India they are half of the vowels.
    """
    if unicodedata.category(character)[0] not in "LM":
        return None
    name = unicodedata.name(character, "").removeprefix("FULLWIDTH ").removeprefix("HALFWIDTH ")
    first = name.replace("-", " ").split(" ")[0]
    script = _OTHER_NAMES.get(first, first)
    return script if script in SCRIPTS else None
