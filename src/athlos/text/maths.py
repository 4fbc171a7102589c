"""Final answers of worked problems: taken from a text and compared. The same functions score tests and give rewards.

Numbers are read in any script of Unicode decimal digits. Decisions where writing is ambiguous:

- `1,234` and `1.234` (one separator, exactly three digits behind it, one to three non-zero-led digits before it) can be
  1234 or 1.234. In a *gold* answer a comma groups and a point is the decimal mark. A *prediction* counts as right if
  either reading equals the gold: models write the convention of the answer's language, and the two readings differ by
  1,000, so the wrong one is not hit by chance.
- `1,5` is 1.5; `1.234.567`, `1,23,456` (Indian) group; with both marks present the last one is the decimal mark.
- Spaces (plain, no-break, thin) and apostrophes group when exactly three digits follow: `12 000` is 12000.
- `50%` equals 50 and 0.5.
"""

import re
import unicodedata
from fractions import Fraction

from athlos.text.math_verifier import verify_latex

MAX_LATEX_CHARACTERS = 500
"""Longer expressions are not handed to the symbolic comparison; they are wrong unless equal as strings or numbers."""
MAX_NUMBER_CHARACTERS = 1000
"""Longer numbers have no value: they are wrong unless equal as strings. Python's own limit of int() is 4,300 digits."""

_MARKS: dict[int, str | None] = {
    **dict.fromkeys(map(ord, "\u066c\u060c\uff0c\ufe50"), ","),
    **dict.fromkeys(map(ord, "\u066b\uff0e\ufe52"), "."),
    **dict.fromkeys(map(ord, "\u2212\uff0d\ufe63\u2010\u2011"), "-"),
    **dict.fromkeys(map(ord, "\u066a\uff05\ufe6a"), "%"),
    **dict.fromkeys(map(ord, "\u00a0\u2007\u2009\u202f\u3000"), " "),
    **dict.fromkeys(map(ord, "\u200e\u200f\u061c")),
    **dict(
        zip(map(ord, "\uff0b\uff04\uff08\uff09\uff3b\uff3d\uff5b\uff5d\uff1d\uff0f\u2019"), "+$()[]{}=/'", strict=True)
    ),
}
"""Signs of other scripts with the meaning of an ASCII one; direction marks are dropped."""


class _AsciiTable(dict[int, str | None]):
    """`_MARKS` and every decimal digit; a character is looked up once."""

    def __missing__(self, codepoint: int) -> str:
        character = chr(codepoint)
        is_digit = unicodedata.category(character) == "Nd"
        self[codepoint] = replacement = str(unicodedata.decimal(character)) if is_digit else character
        return replacement


_TO_ASCII = _AsciiTable(_MARKS)
_GROUPING_SPACE = re.compile(r"(?<=\d)(?:\\[,;:! ]|\{,\}|\\text\{,\}|~)(?=\d{3}(?!\d))")
_NUMBER = re.compile(
    r"""
    (?: (?<![\w.)\]}%]) [-+] (?=\.?\d) )?       # a sign, unless it stands between two terms
    (?:
        \d{1,3} (?: [ '] \d{3} (?!\d) )+ (?: [.,] \d+ )?          # 12 000,5
      | \d+ (?: [.,] \d+ )*                                       # 1,234.5   1.234,5   1,23,456
      | (?<![\w.]) \. \d+                                         # .5
    )
    """,
    re.VERBOSE,
)
_BASE = re.compile(r"(?<=\d)\s*_\s*(?:\{\s*\(?|\()\s*(\d+)\s*(?:\)?\s*\}|\))")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)|\\(?:boxed|fbox)\s+(\S+?)(?=[\s$.,;]|$)")
_WRAPPED_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_ADORNMENT = re.compile(
    r"\\[,;:!\ ] | \\(?:left|right|displaystyle)\b | \*\* | \\?\$ | [€£¥₹฿] | \^?\\circ | °", re.VERBOSE
)
"""Spacing, sizes, bold and signs of currency and degree: they change no number."""
_WORDS = re.compile(r"[^\d+\-*/^=\\(){}\[\]<>_|,;:]{0,40}")
SHORT_UNITS = frozenset(
    {"m", "g", "h", "s", "l", "t", "cm", "mm", "km", "kg", "mg", "ml", "lb", "oz", "ft", "mi", "hr", "rs", "am", "pm"}
)
"""Units of one or two Latin letters; other such words beside a number are factors (2x, 3ab)."""


def ascii_digits(text: str) -> str:
    """The text with decimal digits of every script (Unicode Nd) and their separators as ASCII."""
    return text.translate(_TO_ASCII)


def _boxed(text: str) -> list[str]:
    """Contents of all closed boxes, in order; a box that is cut off is none."""
    contents = []
    for match in _BOX.finditer(text):
        if match.group(1) is not None:
            contents.append(match.group(1))
            continue
        depth = 0
        for index in range(match.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[index], 0) if text[index - 1] != "\\" else 0
            if depth == 0:
                contents.append(text[match.end() + 1 : index])
                break
    return contents


def extract_answer(text: str) -> str | None:
    """The content of the last closed `\\boxed{}`, else the last number as written, with ASCII digits; None without any.

    A number keeps its separators: which of them group is decided in the comparison (see the top of this file).
    """
    text = ascii_digits(text)
    boxed = [content.strip() for content in _boxed(text) if content.strip()]
    if boxed:
        return boxed[-1]
    numbers = _NUMBER.findall(_GROUPING_SPACE.sub(",", text))
    return _last_term(numbers[-1]) if numbers else None


def _last_term(number: str) -> str:
    """The number itself, or the last term of what turns out to be a list such as `1,2,3`."""
    is_list = len(number) <= MAX_NUMBER_CHARACTERS and not _readings(number)
    return re.split(r"[.,]", number)[-1] if is_list else number


def _readings(number: str) -> tuple[Fraction, ...]:
    """What a number as written can mean, the English reading first; empty if it is no number or too long for one."""
    if len(number) > MAX_NUMBER_CHARACTERS:
        return ()
    sign = -1 if number.startswith("-") else 1
    digits = re.sub(r"[ ']", "", number.lstrip("+-"))
    marks = re.findall(r"[.,]", digits)
    if not re.fullmatch(r"\d+(?:[.,]\d+)*|\.\d+", digits):
        return ()
    whole = sign * Fraction(re.sub(r"[.,]", "", digits))
    if not marks:
        return (whole,)
    decimal = whole / 10 ** len(re.split(r"[.,]", digits)[-1])
    groups = re.split(r"[.,]", digits)
    if len(set(marks)) == 2:
        is_number = marks[-1] not in marks[:-1] and _is_grouped(groups[:-1])
        return (decimal,) if is_number else ()
    if len(marks) > 1:
        return (whole,) if _is_grouped(groups) else ()
    if not _is_grouped(groups):
        return (decimal,)
    return (whole, decimal) if marks == [","] else (decimal, whole)


def _is_grouped(groups: list[str]) -> bool:
    """Whether digits between marks are thousands (1 234 567) or Indian groups (12 34 567)."""
    first, *middle, last = groups
    if not 1 <= len(first) <= 3 or first.startswith("0") or len(last) != 3:
        return False
    return all(len(group) == 3 for group in middle) or (len(first) <= 2 and all(len(group) == 2 for group in middle))


def _plain_number(answer: str) -> tuple[Fraction, ...]:
    """Readings of an answer that is one number, perhaps with currency, unit words or a percent sign; else empty."""
    bare = _ADORNMENT.sub(" ", _WRAPPED_TEXT.sub(r" \1 ", _GROUPING_SPACE.sub(",", answer))).strip()
    assigned = re.fullmatch(r"[A-Za-z]\s*=([^=]*)", bare)
    bare = (assigned.group(1) if assigned else bare).strip().rstrip(".。।")
    match = _NUMBER.search(bare)
    if match is None:
        return ()
    before, after = bare[: match.start()].strip(), bare[match.end() :].strip().removeprefix("\\")
    is_percent = after.startswith("%")
    if not _is_unit(before) or not _is_unit(after.removeprefix("%").strip()):
        return ()
    readings = _readings(match.group())
    return (*readings, *(reading / 100 for reading in readings)) if is_percent else readings


def _is_unit(words: str) -> bool:
    """Whether what stands beside a number is nothing or names what is counted, not a part of an expression."""
    if not _WORDS.fullmatch(words):
        return False
    # Below U+0400: Latin and Greek letters, which stand for variables and constants.
    is_letters = len(words) in (1, 2) and all(letter < "\u0400" for letter in words)
    return not is_letters or words.lower().rstrip(".") in SHORT_UNITS


def answers_equal(prediction: str | None, gold: str) -> bool:
    """Whether an extracted answer is right: equal as text, as number, or as LaTeX expression by math-verify.

    None (nothing extracted) is wrong. No tolerance: 0.333333 is not 1/3, irrational numbers are compared to 60 places.
    """
    if prediction is None or not prediction.strip():
        return False
    prediction, gold = ascii_digits(prediction).strip(), ascii_digits(gold).strip()
    if _squeezed(prediction) == _squeezed(gold):
        return True
    predicted_values, gold_values = _plain_number(prediction), _plain_number(gold)
    if predicted_values and gold_values:
        is_percent = "%" in gold
        return bool(set(predicted_values) & set(gold_values if is_percent else gold_values[:1]))
    if max(len(prediction), len(gold)) > MAX_LATEX_CHARACTERS:
        return False
    return verify_latex(_GROUPING_SPACE.sub("", prediction), _GROUPING_SPACE.sub("", gold))


def _squeezed(answer: str) -> str:
    """The answer without the spaces that part nothing: `( 1, 2 )` is `(1,2)`, but `3 4` is not `34`.

    The base of a number stands behind `_` alone: `12_{(5)}` is `12_5`.
    """
    answer = _BASE.sub(r"_\1", answer)
    return " ".join(re.sub(r"\s+(?!\w)|(?<!\w)\s+", "", answer).split())
