"""Records of a wandb run: its `run-<id>.wandb` file, a log of protobuf messages that wandb writes as the run goes.

wandb has no reader of this file in Python; its command `wandb leet inspect` joins nested names with dots, writes nan as
text and takes a process for each run. So the frames are read here and the messages decoded by wandb's own classes. The
tests compare the two. Frames: seven bytes that name the format, then the log format of LevelDB
(https://github.com/google/leveldb/blob/main/doc/log_format.md) with a plain CRC-32 where LevelDB has a masked CRC-32C.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from athlos.errors import DataError

IDENTITY = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
BLOCK_BYTES = 2**15
FRAME = struct.Struct("<IHB")
"""Checksum of kind and content, length of the content, kind."""
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
MAX_RECORD_BYTES = 2**26
"""A longer record is passed over: a curve's row is never that long, and a hostile file must not fill the memory."""

MAX_LEVELS = 64

KeyPath = tuple[str, ...]


class WandbLog:
    """Iterate to get wandb's `Record` messages in the order written; afterwards the counters tell what was damaged.

    `num_damaged` counts places that were passed over (a wrong checksum loses the rest of its 32 KiB block);
    `is_cut` is true when the file ends inside a record, as that of a killed run does. Raises `DataError` for a file
    that cannot be read or is no log of wandb.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_records = self.num_damaged = 0
        self.is_cut = False

    def __iter__(self) -> Iterator[Any]:
        from google.protobuf.message import DecodeError
        from wandb.proto import wandb_internal_pb2 as messages

        for content in self._contents():
            try:
                record = messages.Record.FromString(content)
            except DecodeError:
                self.num_damaged += 1
                continue
            self.num_records += 1
            yield record

    def _contents(self) -> Iterator[bytes]:
        """The bytes of every whole record."""
        try:
            with self.path.open("rb") as file:
                yield from self._joined(file)
        except OSError as error:
            raise DataError(error.strerror or str(error), file=self.path) from error

    def _joined(self, file: BinaryIO) -> Iterator[bytes]:
        """Records whose frames may lie in several blocks, made whole; those with a lost frame are dropped."""
        parts: list[bytes] | None = None
        size = 0
        for kind, content in self._frames(file):
            if kind in (FULL, FIRST):
                parts, size = [], 0
            if parts is None:  # a frame of a record whose beginning was lost
                continue
            size += len(content)
            if kind == 0 or size > MAX_RECORD_BYTES:
                self.num_damaged += kind != 0
                parts = None
                continue
            parts.append(content)
            if kind in (FULL, LAST):
                yield b"".join(parts)
                parts = None
        self.is_cut |= parts is not None

    def _frames(self, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
        """(kind, content) of every whole frame; (0, b"") where some were lost."""
        block = file.read(BLOCK_BYTES)
        if not block.startswith(IDENTITY):
            what = "is empty" if not block else "is cut in its first bytes" if IDENTITY.startswith(block) else ""
            raise DataError(what or "is no log of wandb, or of a version that is not known", file=self.path)
        position = len(IDENTITY)
        while block:
            while position + FRAME.size <= len(block):
                checksum, length, kind = FRAME.unpack_from(block, position)
                content = block[position + FRAME.size : position + FRAME.size + length]
                whole = len(content) == length and FULL <= kind <= LAST
                if not whole or zlib.crc32(content, zlib.crc32(bytes([kind]))) != checksum:
                    break
                yield kind, content
                position += FRAME.size + length
            rest = block[position:]
            following = file.read(BLOCK_BYTES)
            if len(rest) >= FRAME.size or any(rest):
                # What ends inside the last block was being written when the run stopped; all else is damage.
                self.is_cut |= not following
                self.num_damaged += bool(following)
                yield 0, b""
            block, position = following, 0


def key_path(item: Any) -> KeyPath:
    """Name of an item of history, summary or config, one entry a level; in one piece where there are too many."""
    levels = tuple(item.nested_key) or (item.key,)
    return levels if len(levels) <= MAX_LEVELS else (".".join(levels),)


def number(text: str) -> float | None:
    """The value of an item of history where it is a number (a boolean is 0 or 1), nothing for all else."""
    try:
        return float(text)
    except ValueError:
        return {"true": 1.0, "false": 0.0}.get(text)


def decoded(text: str) -> Any:
    """A JSON value; text that is no JSON, or too deeply nested to read, as it is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


class Updates:
    """Nested values that come as changes: the last one of each name counts. Decoded once, at the end."""

    def __init__(self) -> None:
        self._texts: dict[KeyPath, str] = {}

    def apply(self, record: Any) -> list[KeyPath]:
        """Take the changes of a config or summary record; returns the removed names."""
        for item in record.update:
            path = key_path(item)
            self._texts.pop(path, None)  # to the end: a later whole replaces earlier parts
            self._texts[path] = item.value_json
        removed = [key_path(item) for item in record.remove]
        for path in removed:
            for known in [known for known in self._texts if known[: len(path)] == path]:
                del self._texts[known]
        return removed

    def nested(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for path, text in self._texts.items():
            put(values, path, decoded(text))
        return values


def put(values: dict[str, Any], path: KeyPath, value: Any) -> None:
    """Set a nested value; a plain value that stands in the way is replaced."""
    for key in path[:-1]:
        inner = values.get(key)
        if not isinstance(inner, dict):
            inner = values[key] = {}
        values = inner
    values[path[-1]] = value
