"""Files of JSON rows, one a line, that our own stages write and go on with after a stop."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO


def add_row(file: TextIO, row: Any) -> None:
    file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_rows(path: Path, rows: Iterable[Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            add_row(file, row)


def read_rows(path: Path) -> list[Any]:
    """The rows of a file, none of one that is not there; a last line that a kill cut off is taken away."""
    whole = path.read_bytes() if path.is_file() else b""
    kept = whole[: whole.rfind(b"\n") + 1]
    if len(kept) < len(whole):
        path.write_bytes(kept)
    # No `splitlines`: a text may hold a line separator (U+2028), which JSON leaves as it is.
    return [json.loads(line) for line in kept.decode("utf-8").split("\n")[:-1]]
