"""Reading files that anybody may have written: bounded in size, depth and time, and never out of their folder.

A run folder is read as it came, from a colleague or out of an archive. So a link that leads out of it, a pipe, a
device, a file without end, and the texts that make parsers hang or crash are refused: `ValueError` or `OSError`.
"""

import json
import math
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import yaml

try:
    from yaml import CSafeLoader as SafeLoader  # ten times faster; absent where PyYAML was built without libyaml
except ImportError:
    from yaml import SafeLoader

MAX_VALUES = 20_000
"""Values in one file; more (a YAML of nested aliases grows without end) are refused."""
MAX_DEPTH = 64
"""Mappings and lists in each other."""
MAX_NUMBER = 300
"""Characters of a YAML number: `1:59:59:...` takes a time that grows with their square."""


def open_inside(path: Path, *, top: str, max_bytes: int) -> BinaryIO:
    """A regular file that really stands below `top` (a real path) and has at most `max_bytes`, open for reading.

    Raises `ValueError` or `OSError` with the reason.
    """
    if not is_inside(path, top=top):
        raise ValueError("a link out of the run folder")
    # Without waiting: opening a pipe would wait for its writer, for ever.
    handle = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    found = os.fstat(handle.fileno())
    if not stat.S_ISREG(found.st_mode) or found.st_size > max_bytes:
        handle.close()
        is_regular = stat.S_ISREG(found.st_mode)
        raise ValueError(f"{found.st_size} bytes are too many" if is_regular else "no regular file")
    return handle


def is_inside(path: Path, *, top: str) -> bool:
    """Whether `path`, with all its links followed, stands below the real path `top`."""
    return os.path.realpath(path).startswith(top.rstrip(os.sep) + os.sep)


def read_inside(path: Path, *, top: str, max_bytes: int) -> str:
    """The text of such a file."""
    with open_inside(path, top=top, max_bytes=max_bytes) as handle:
        return handle.read().decode("utf-8")


def parse_json(text: str | bytes) -> Any:
    """A JSON value; nan and infinite numbers, which JSON does not know, are None. Raises `ValueError`."""
    try:
        return json.loads(text, parse_constant=lambda _: None, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def parse_yaml(text: str) -> Any:
    """A YAML value of plain tags. Raises `ValueError`, also for what is too deep to be read without a crash."""
    depth = 0
    try:
        for event in yaml.parse(text, Loader=SafeLoader):  # the loader below goes one call deeper a level, in C
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise ValueError("nested too deeply")
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


class _Loader(SafeLoader):  # type: ignore[misc]
    """Without merge keys, which double a mapping at each level, and with numbers, dates and truths of sane form."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.constructor.ConstructorError(None, None, "merge keys are not read", node.start_mark)


def _checked(loader: Any, node: yaml.ScalarNode) -> Any:
    construct = SafeLoader.yaml_constructors[node.tag]
    try:
        if len(loader.construct_scalar(node)) > MAX_NUMBER:
            raise ValueError("too long")
        return construct(loader, node)
    except (ValueError, ArithmeticError, LookupError, AttributeError) as error:
        kind = node.tag.rpartition(":")[2]
        raise yaml.constructor.ConstructorError(None, None, f"no {kind} that can be read", node.start_mark) from error


for _tag in ("int", "float", "bool", "timestamp"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _checked)


def excess(value: Any) -> str:
    """What nested mappings and lists have too much of; empty when they may be walked through."""
    pending, count = [(value, 0)], 0
    while pending:
        one, depth = pending.pop()
        count += 1
        if count > MAX_VALUES:
            return f"more than {MAX_VALUES} values"
        if depth > MAX_DEPTH:
            return f"deeper than {MAX_DEPTH} levels"
        if isinstance(one, dict):
            pending.extend((inner, depth + 1) for inner in one.values())
        elif isinstance(one, list | tuple | set):
            pending.extend((inner, depth + 1) for inner in one)
    return ""


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
