"""Final answers of worked problems: taken from a text and compared. The same functions score tests and give rewards.

Numbers are read in any script of Unicode decimal digits. Decisions where writing is ambiguous:

- `1,234` and `1.234` (one separator, exactly three digits behind it, one to three non-zero-led digits before it) can be
  1234 or 1.234. In a *gold* answer a comma groups and a point is the decimal mark. A *prediction* counts as right if
  either reading equals the gold: models write the convention of the answer's language, and the two readings differ by
  1,000, so the wrong one is not hit by chance.
- `1,5` is 1.5; `1.234.567`, `1,23,456` (Indian) group; with both marks present the last one is the decimal mark.
- Spaces (plain, no-break, thin) and apostrophes group when exactly three digits follow: `12 000` is 12000.
- `50%` equals 50 and 0.5.
- `7万`, `1万2000`, `3억 5천만` are 70000, 12000, 350000000: the units of Chinese, Japanese and Korean multiply.
- `1/2`, `\\frac{1}{2}` and the mixed `2 1/2`, `2\\frac{1}{2}` are numbers; `3/4/2019` and `24/7/365` are not.
- A minus is a sign unless it stands behind a term. Behind a letter of a script without spaces it is one (`答案是-3`),
  but not where that letter is the unit of a number (`10元-5元`). `-$7` is -7.
"""

import re
import unicodedata
from collections.abc import Iterator
from decimal import Decimal
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
        zip(
            map(ord, "\uff0b\uff04\uffe5\uff08\uff09\uff3b\uff3d\uff5b\uff5d\uff1d\uff0f\u2019"),
            "+$¥()[]{}=/'",
            strict=True,
        )
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
CURRENCIES = "$€£¥₹฿₩₫₽₺₪₱₴₦"
_GROUPING_SPACE = re.compile(r"(?<=\d)(?:\\[,;:! ]|\{,\}|\\text\{,\}|~)(?=\d{3}(?!\d))")
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
"""Thai, Lao, Burmese, Khmer, kana, Han; and Hangul, whose particles stand before a number without a space."""
_CONJUNCTIONS = "或和与與及と와과"
_SIGN = (
    rf"(?=[-+])(?<![^\W{_UNSPACED}])(?<![.)\]}}%])"
    rf"(?<!\d(?![{_CONJUNCTIONS}])[{_UNSPACED}])(?<!\d(?![{_CONJUNCTIONS}])[{_UNSPACED}]{{2}})[-+]"
)
"""A minus or plus that does not stand between two terms."""
_NUMBER = re.compile(
    rf"""
    (?: {_SIGN} (?=\.?\d) )?
    (?:
        \d{{1,3}} (?: [ '] \d{{3}} (?!\d) )+ (?: [.,] \d+ )?      # 12 000,5
      | \d+ (?: [.,] \d+ )*                                       # 1,234.5   1.234,5   1,23,456
      | (?<![\w.]) \. \d+                                         # .5
    )
    """,
    re.VERBOSE,
)
_FRACTION = re.compile(
    rf"""
    (?P<sign> {_SIGN} )?
    (?: (?<![\d.,/]) (?<! \d[ '] ) (?P<whole> \d{{1,3}} ) (?: \s+ (?=\d) | \s* (?=\\) ) )?
    (?:
        (?<![\w.,/]) (?P<over> 0 | [1-9]\d* ) \s? / \s? (?P<under> \d+ ) (?! [\d/] | [.,]\d )
      | \\[dt]?frac \s* (?: \{{ (?P<top> -?\d+ ) \}} | (?P<top_digit> \d ) )
        \s* (?: \{{ (?P<bottom> \d+ ) \}} | (?P<bottom_digit> \d ) )
    )
    """,
    re.VERBOSE,
)
"""A fraction of whole numbers, perhaps behind a whole number that is added to it."""
_UNITS = {"千": 10**3, "천": 10**3, "百": 100, "백": 100}
_MYRIADS = {"万": 10**4, "萬": 10**4, "만": 10**4, "億": 10**8, "亿": 10**8, "억": 10**8, "兆": 10**12, "조": 10**12}
_MULTIPLIERS = "".join((*_UNITS, *_MYRIADS))
_IN_MYRIADS = re.compile(
    rf"""
    (?<![\d.,]) \d{{1,20}} (?: ,\d{{3}} )* (?: \.\d+ )? [{_MULTIPLIERS}]++ (?![克米瓦卡焦帕큼각])
    (?: \ ? (?: \d{{1,4}} | \d,\d{{3}} ) (?![\d.,]*\d) [{_MULTIPLIERS}]*+ )*
    """,
    re.VERBOSE,
)
"""1万2000, 3억 5천만; but 3千克 are three kilograms, 3조각 three pieces, 3만큼 is as much as three."""
_BEFORE_CURRENCY = re.compile(rf"(?<!\$)({_SIGN})\s?(\\?[{CURRENCIES}])\s?(?=\.?\d)")
_BASE = re.compile(r"(?<=\d)\s*_\s*(?:\{\s*\(?|\()\s*(\d+)\s*(?:\)?\s*\}|\))")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)|\\(?:boxed|fbox)\s+(\S+?)(?=[\s$.,;]|$)")
_WRAPPED_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_ADORNMENT = re.compile(
    rf"\\[,;:!\ ] | \\(?:left|right|displaystyle)\b | \*\* | \\?\$ | [{CURRENCIES[1:]}] | \^?\\circ | °", re.VERBOSE
)
"""Spacing, sizes, bold and signs of currency and degree: they change no number."""
_POWER = re.compile(r"(?:\^\{?[23]\}?|[²³])\Z")
_WORDS = re.compile(r"[^\d+\-*/^=\\(){}\[\]<>_|,;:]{0,40}")
SHORT_UNITS = frozenset(
    {"m", "g", "h", "s", "l", "t", "cm", "mm", "km", "kg", "mg", "ml", "lb", "oz", "ft", "mi", "hr", "rs", "am", "pm"}
)
"""Units of one or two Latin letters; other such words beside a number are factors (2x, 3ab)."""


def ascii_digits(text: str) -> str:
    """The text with decimal digits of every script (Unicode Nd) and their separators as ASCII."""
    return text.translate(_TO_ASCII)


def _as_read(text: str) -> str:
    """`ascii_digits`, with numbers in myriads written out and a minus behind its sign of currency."""
    text = ascii_digits(text)
    if not text.isascii():
        text = _IN_MYRIADS.sub(_written_out, text)
    return _BEFORE_CURRENCY.sub(r"\2\1", text) if "-" in text else text


def _written_out(number: re.Match[str]) -> str:
    """`1万2000` -> `12000`: units up to a thousand belong to the next greater one, as in 3千5百万."""
    total = section = Decimal(0)
    for digits, units in re.findall(r"([\d,.]+)(\D*)", number.group()):
        value = Decimal(digits.replace(",", ""))
        for unit in units.strip():
            if unit in _UNITS:
                value *= _UNITS[unit]
            else:
                total += (section + value) * _MYRIADS[unit]
                section = value = Decimal(0)
        section += value
    return f"{(total + section).normalize():f}"


def _boxed(text: str) -> Iterator[str]:
    """Contents of all closed boxes, the last one first; a box that is cut off is none."""
    open_braces: list[int] = []
    ends: dict[int, int] = {}
    for brace in re.finditer(r"(?<!\\)[{}]", text):
        if brace.group() == "{":
            open_braces.append(brace.start())
        elif open_braces:
            ends[open_braces.pop()] = brace.start()
    for box in reversed(list(_BOX.finditer(text))):
        if box.group(1) is not None:
            yield box.group(1)
        elif box.end() in ends:
            yield text[box.end() + 1 : ends[box.end()]]


def extract_answer(text: str) -> str | None:
    """The content of the last closed `\\boxed{}`, else the last number or fraction as written; None without any.

    Digits are ASCII ones and myriads are written out; which separators group is decided in the comparison (see the top
    of this file).
    """
    text = _as_read(text)
    for content in _boxed(text):
        if content.strip():
            return content.strip()
    text = _GROUPING_SPACE.sub(",", text)
    *_, last = (None, *_NUMBER.finditer(text))
    # Nearly every text has neither; looking for the pattern takes longest of all.
    fractions = list(_FRACTION.finditer(text)) if "/" in text or "frac" in text else []
    last_fraction = fractions[-1] if fractions else None
    if last_fraction and last and last_fraction.end() >= last.end():
        return last_fraction.group()
    return _last_term(last.group()) if last else None


def states(text: str, answer: str) -> bool:
    """Whether `extract_answer` reads exactly this answer from a text."""
    extracted = extract_answer(text)
    return extracted is not None and _squeezed(extracted) == _squeezed(_as_read(answer))


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
    match = _FRACTION.match(bare) or _NUMBER.search(bare)
    if match is None:
        return ()
    before, after = bare[: match.start()].strip(), bare[match.end() :].strip().removeprefix("\\")
    is_percent = after.startswith("%")
    if not _is_unit(before) or not _is_unit(after.removeprefix("%").strip()):
        return ()
    readings = _fraction(match) if match.re is _FRACTION else _readings(match.group())
    return (*readings, *(reading / 100 for reading in readings)) if is_percent else readings


def number_values(answer: str) -> tuple[Fraction, ...]:
    """What an answer that is one number can mean, without its sign and the English reading first; else empty."""
    return tuple(abs(value) for value in _plain_number(_as_read(answer).strip()))


def _fraction(match: re.Match[str]) -> tuple[Fraction, ...]:
    """The value of a match of `_FRACTION`, as a tuple of one; empty for a denominator of 0 and a number too long."""
    if len(match.group()) > MAX_NUMBER_CHARACTERS:
        return ()
    part = match.groupdict()
    over, under = (
        part["over"] or part["top"] or part["top_digit"],
        part["under"] or part["bottom"] or part["bottom_digit"],
    )
    if not int(under):
        return ()
    value = int(part["whole"] or 0) + Fraction(int(over), int(under))
    return (-value if "-" in (part["sign"] or "") else value,)


def _is_unit(words: str) -> bool:
    """Whether what stands beside a number is nothing or names what is counted, not a part of an expression.

    A rate (`km/h`) and a power (`cm^2`) of units are units.
    """
    parts = [part.strip() for part in words.split("/")]
    return (len(parts) == 1 or all(parts)) and all(map(_is_single_unit, parts))


def _is_single_unit(words: str) -> bool:
    power = _POWER.search(words)
    if power and words[: power.start()].lower() in SHORT_UNITS:
        return True
    if not _WORDS.fullmatch(words) or words[:1] in _MYRIADS:
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
    prediction, gold = _as_read(prediction).strip(), _as_read(gold).strip()
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
