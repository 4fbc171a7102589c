"""Texts as the words that a lexical index counts, by language.

Where words are written apart a word is a run of letters, digits, underscores and the marks on them: `\\w+`, but that
a vowel sign of Hindi or Bengali does not cut its word in two. Elsewhere each run of letters gives its pairs of
neighbours: a single character says too little, and no word list is needed. Latin words and digits there stay whole.
"""

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache

from athlos.errors import ConfigError, did_you_mean
from athlos.text.language import CANDIDATES, base_language

Analyser = Callable[[str], list[str]]

BIGRAM_LANGUAGES = frozenset({"hani", "ja", "km", "lo", "my", "th", "thai", "zh"})
"""Written without spaces between words; `hani` and `thai` are the lab's."""
WORD_LANGUAGES = frozenset({*CANDIDATES, "af", "cyrl", "grek", "latn", "ms"}) - BIGRAM_LANGUAGES
ANALYSED_LANGUAGES = tuple(sorted(WORD_LANGUAGES | BIGRAM_LANGUAGES))
ANALYSER_VERSION = 1
"""Raised when a text gives other words; part of the key of every index that counts them."""

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff"
_UNSPACED += "\uff66-\uff9f\U00020000-\U000323af"
"""Thai, Lao, Burmese, Khmer, kana and Han, as ranges of a character class."""


def analyser(language: str) -> Analyser:
    """The analyser of a language, whatever region or script its code adds; `ConfigError` for an unknown one."""
    base = base_language(language)
    if base in BIGRAM_LANGUAGES:
        return bigrams
    if base in WORD_LANGUAGES:
        return words
    near = did_you_mean(base, ANALYSED_LANGUAGES)
    raise ConfigError(
        f"language: got '{language}', which no index knows how to cut into words{near or ';'} "
        f"accepted: {', '.join(ANALYSED_LANGUAGES)}"
    )


def words(text: str) -> list[str]:
    """Lower-cased words of a text whose words are written apart."""
    return _patterns()[0].findall(text.lower())


def bigrams(text: str) -> list[str]:
    """Pairs of neighbouring characters of each run of unspaced script, one alone as itself; other words whole."""
    return list(_bigrams(text.lower()))


def _bigrams(text: str) -> Iterator[str]:
    for match in _patterns()[1].finditer(text):
        run = match["unspaced"]
        if run is None:
            yield match[0]
        elif len(run) == 1:
            yield run
        else:
            yield from (first + second for first, second in itertools.pairwise(run))


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    marks = _class_of_marks()
    unspaced = f"(?:(?=[\\w{marks}])[{_UNSPACED}])+"
    return re.compile(f"[\\w{marks}]+"), re.compile(f"(?P<unspaced>{unspaced})|(?:(?![{_UNSPACED}])[\\w{marks}])+")


def _class_of_marks() -> str:
    """All combining marks as ranges of a character class; Unicode has none beyond U+1FFFF but selectors of variants."""
    codes = [code for code in range(0x20000) if unicodedata.category(chr(code))[0] == "M"]
    ranges = []
    for _, group in itertools.groupby(enumerate(codes), key=lambda pair: pair[1] - pair[0]):
        run = [code for _, code in group]
        ranges.append(f"{chr(run[0])}-{chr(run[-1])}")
    return "".join(ranges)
