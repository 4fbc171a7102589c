"""Files that a wandb run kept: its tables as rows of predictions, its pictures as PNG.

A name out of a run never becomes a path: it is only ever the last part of one, and made of plain characters. Only what
really lies below the run's own `files/` is read.
"""

import io
import json
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from athlos.errors import DataError
from athlos.report.wandb_contents import WandbContents

MAX_TABLE_BYTES, MAX_PICTURE_BYTES = 2**26, 2**25
MAX_PICTURES_OF_A_NAME = 64
MAX_NAME = 48
"""Characters of a name in a file name: at four bytes each, with a number and an ending, below 255 bytes."""
PNG = b"\x89PNG\r\n\x1a\n"
OTHER_PICTURES = ("JPEG", "BMP")


def file_name(name: str) -> str:
    """`name` as a part of a file name: letters, digits and `._-`, no dot first, at most `MAX_NAME` characters."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._-")[:MAX_NAME] or "unnamed"


def kept_file(run_folder: Path, name: str, max_bytes: int) -> bytes | None:
    """Bytes of a file that the run kept under `files/`; nothing where it is not there, or not really below it.

    Raises `DataError` for a file that is too large or cannot be read.
    """
    files = run_folder.resolve() / "files"
    try:
        path = (files / name).resolve()
        if not (path.is_relative_to(files) and path.is_file()):
            return None
        if path.stat().st_size > max_bytes:
            raise DataError(f"larger than {max_bytes} bytes", file=name)
        return path.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:  # of names no file can have, and of links in a circle
        raise DataError("cannot be read", file=name[:100]) from error


def finite(value: Any) -> Any:
    """Nested values with null for nan and the infinities, which JSON does not know."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass
class WandbMedia:
    """Tables and pictures of a run. `left_out` names, a line each, what is not in the run folder."""

    target: Path
    run_folder: Path
    contents: WandbContents
    left_out: list[str] = field(default_factory=list)

    def write(self) -> None:
        """The last one of each name: a run can log one under the same name at every step."""
        taken: set[Path] = set()
        for name, description in sorted(self.contents.media.items()):
            if (number := self.contents.num_media[name]) > 1:
                self.left_out.append(f"{name}: the first {number - 1} of {number}")
            try:
                if description["_type"] == "table-file":
                    path = self._free("predictions", name, ".jsonl", taken)
                    path.write_text(self._table(description), encoding="utf-8", errors="replace")
                else:
                    for content in self._pictures(description):
                        self._free("figures", name, ".png", taken).write_bytes(content)
            except DataError as error:
                self.left_out.append(f"{name}: {error}")

    def _free(self, folder: str, name: str, ending: str, taken: set[Path]) -> Path:
        """A file that no other table or picture has, the first of this name without a number."""
        parent = self.target / folder
        parent.mkdir(exist_ok=True)
        plain = file_name(name)
        path, number = parent / f"{plain}{ending}", 1
        while path in taken:
            number += 1
            path = parent / f"{plain}-{number}{ending}"
        taken.add(path)
        return path

    def _file(self, name: Any, max_bytes: int) -> bytes:
        content = kept_file(self.run_folder, name, max_bytes) if isinstance(name, str) else None
        if content is None:
            raise DataError("no such file among the run's files")
        return content

    def _table(self, description: dict[str, Any]) -> str:
        """One JSON object a row."""
        try:
            table = json.loads(self._file(description.get("path"), MAX_TABLE_BYTES))
            columns = _distinct([str(column) for column in table["columns"]])
            rows = [dict(zip(columns, row, strict=False)) for row in table["data"]]
            return "".join(json.dumps(finite(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DataError(f"no table that can be read: {type(error).__name__}") from error

    def _pictures(self, description: dict[str, Any]) -> Iterator[bytes]:
        names = (
            description.get("filenames") if description["_type"] == "images/separated" else [description.get("path")]
        )
        if not isinstance(names, list):
            raise DataError("no list of files")
        for name in names[:MAX_PICTURES_OF_A_NAME]:
            yield _as_png(self._file(name, MAX_PICTURE_BYTES))
        if len(names) > MAX_PICTURES_OF_A_NAME:
            raise DataError(f"all but the first {MAX_PICTURES_OF_A_NAME} of {len(names)}")


def _distinct(columns: list[str]) -> list[str]:
    """Two columns of one name would be one key: the later ones get a number."""
    found: dict[str, None] = {}
    for column in columns:
        name, number = column, 1
        while name in found:
            number += 1
            name = f"{column}-{number}"
        found[name] = None
    return list(found)


def _as_png(content: bytes) -> bytes:
    """A picture as PNG: as it is, or drawn anew from another format."""
    from PIL import Image

    if content.startswith(PNG):
        return content
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=OTHER_PICTURES) as image:
                drawn = io.BytesIO()
                image.convert("RGB").save(drawn, format="PNG")
        return drawn.getvalue()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"no picture that can be read: {type(error).__name__}") from error
