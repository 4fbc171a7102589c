"""Values and texts of the files of a run: numbers that JSON does not know, names from anywhere, reasons in a line."""

import json
import math
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """A JSON value; nan and infinite numbers, which JSON does not know, are None. Raises `ValueError`."""
    try:
        return json.loads(text, parse_constant=lambda _: None, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def as_number(value: Any) -> float | None:
    """A JSON value as a float: null and infinite ones as nan, None for what is no number."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def printable(text: str) -> str:
    """`text` with what UTF-8 cannot hold (bytes of a file name, half of a surrogate pair) replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")


def one_line(text: str) -> str:
    """`text` with what is not printable replaced: names of files and metrics come from anywhere."""
    return "".join(character if character.isprintable() else "?" for character in printable(text))


def shortened(value: object) -> str:
    text = printable(str(value))
    return text if len(text) <= 80 else text[:79] + "\N{HORIZONTAL ELLIPSIS}"


def reason_of(error: Exception) -> str:
    """Why a file cannot be read, without its path."""
    return shortened(error.strerror if isinstance(error, OSError) and error.strerror else error)
