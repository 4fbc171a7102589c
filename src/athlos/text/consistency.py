"""Whether a text is in the language asked for, whatever maths, code and addresses stand in it."""

import re
from collections import Counter

from athlos.text.language import Detector, base_language
from athlos.text.sentences import sentences

MAX_FOREIGN_SHARE = 0.25
"""Share of a text's letters that may stand in sentences of other languages: a quoted sentence among four of its own."""
MIN_FOREIGN_LETTERS = 40
"""Letters that the sentences of another language have together, from which they count: one short sentence is misjudged
one time in fifty.

With both values py3langid refuses 0.4 % of the sentences of NTREX (0.3 % by the whole sentence alone), none of 3,818
times three sentences in a row nor of 2,500 questions of MSVAMP, and 87 % of texts whose second half is an English
sentence (23 % by the whole text alone).
"""
CLOSING_THINK_TAG = "</think>"
OPENING_THINK_TAG = "<think>"

_NOT_PROSE = re.compile(
    r"""
      ```.*?(?:```|\Z)                                  # fenced code, the last fence perhaps cut off
    | `[^`\n]*`                                         # inline code
    | \$\$.*?\$\$                                       # displayed and inline maths; no formula begins within
    | \\\[(?:(?!\\\[).)*?\\\] | \\\((?:(?!\\\().)*?\\\)   # another one, or many open ones take quadratic time
    | (?<!\\)\$(?![\s$])[^$\n]*?(?<![\s\\])\$(?!\d)     # $..$; the conditions let "from $5 to $7" stand
    | \\(?:boxed|fbox)\{(?:[^{}]|\{[^{}]*\})*\} | \\[A-Za-z]+
    | </?[A-Za-z][^<>\n]*> | \{\{?[^{}\n]*\}?\}         # tags, {name}
    | %\([^()\n]*\)[#0\- +]*\d*[a-zA-Z] | %[#0\-+]*\d*(?:\.\d+)?[sdifgeExXroc](?![A-Za-z])
    | https?://\S+
    """,
    re.VERBOSE | re.DOTALL,
)


def prose(text: str) -> str:
    """The text without maths, code, placeholders, tags and addresses, which belong to no language."""
    return _NOT_PROSE.sub(" ", text)


def language_consistent(text: str, language: str, detector: Detector) -> bool:
    """Whether each part of a text is in the language asked for; parts of at most `free_letters` letters are.

    A text with thinking tags has two parts, thought and answer, checked apart, and must have exactly one closing tag.
    A part is in the language if the whole is, and sentences of others have at most `MAX_FOREIGN_SHARE` of its letters.
    """
    if CLOSING_THINK_TAG not in text and OPENING_THINK_TAG not in text:
        return _part_consistent(prose(text), language, detector)
    parts = text.split(CLOSING_THINK_TAG)
    return len(parts) == 2 and all(_part_consistent(prose(part), language, detector) for part in parts)


def _part_consistent(part: str, language: str, detector: Detector) -> bool:
    num_letters = _num_letters(part)
    if num_letters <= detector.free_letters:
        return True
    if detector.detect(part) != base_language(language):
        return False
    num_foreign: Counter[str] = Counter()
    for sentence in sentences(part, language).pieces:
        if _num_letters(sentence) > detector.free_letters and (detected := detector.detect(sentence)) is not None:
            num_foreign[detected] += _num_letters(sentence)
    del num_foreign[base_language(language)]
    counted = sum(number for number in num_foreign.values() if number >= MIN_FOREIGN_LETTERS)
    return counted <= MAX_FOREIGN_SHARE * num_letters


def _num_letters(text: str) -> int:
    return sum(map(str.isalpha, text))
