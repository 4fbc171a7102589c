"""Small colour pictures of emoji with a caption and search words in 14 languages."""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from athlos.data.records import CaptionRecord, Record
from athlos.data.source import data_part, decoded_lines, parse_json_line, require
from athlos.data.splits import SplitConfig, SplitSource, split_errors
from athlos.errors import DataError

if TYPE_CHECKING:
    import numpy as np

IMAGES_KEY = "images"


@dataclass(kw_only=True)
class EmojiCaptionsConfig(SplitConfig):
    captions_file: str = "captions.jsonl"
    """JSON lines below `data.dir`; field `i` is the picture's place in the array."""
    images_file: str = "images_32x32.npz"
    """NumPy archive with the array `images`, uint8 [number, height, width, 3]."""
    language: str = "en"
    """Language that every record must have a caption in; the other captions come along."""


class EmojiCaptionsSource(SplitSource[EmojiCaptionsConfig]):
    """The picture decides the split: several flags are one picture with two captions (France, St. Martin)."""

    record_type = CaptionRecord

    def all_files(self) -> list[Path]:
        return [self.file(self.config.captions_file), self.file(self.config.images_file)]

    def split_key(self, record: Record) -> str:
        assert isinstance(record, CaptionRecord)
        return bytes(record.pixels.tobytes()).hex()

    def read_all(self) -> Iterator[CaptionRecord | DataError]:
        captions_path, images_path = self.all_files()
        images_NHWC = load_images(images_path)
        for number, line in decoded_lines(captions_path):
            if isinstance(line, DataError):
                yield line
                continue
            if not line.strip():
                continue
            try:
                row = parse_json_line(line, file=captions_path, number=number)
                yield self._record(row, images_NHWC, captions_path, number)
            except DataError as error:
                yield error

    def _record(self, row: dict[str, Any], images_NHWC: "np.ndarray", path: Path, number: int) -> CaptionRecord:
        place = require(row, "i", int, file=path, line=number)
        if not 0 <= place < len(images_NHWC):
            message = f"got {place}, but there are {len(images_NHWC)} pictures"
            raise DataError(message, file=path, line=number, field="i")
        captions = require(row, "label", dict, file=path, line=number)
        require(captions, self.config.language, str, file=path, line=number)
        for language, caption in captions.items():
            if not isinstance(caption, str) or not caption.strip():
                raise DataError(f"expected text, got {caption!r}", file=path, line=number, field=f"label.{language}")
        tags = require(row, "tags", dict, file=path, line=number)
        for language, words in tags.items():
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise DataError("expected a list of words", file=path, line=number, field=f"tags.{language}")
        return CaptionRecord(
            identifier=require(row, "hexcode", str, file=path, line=number),
            language=self.config.language,
            captions=captions,
            tags=tags,
            group=require(row, "group", str, file=path, line=number),
            subgroup=require(row, "subgroup", str, file=path, line=number),
            pixels=images_NHWC[place],
            meta={"emoji": require(row, "emoji", str, file=path, line=number)},
        )


def load_images(path: Path) -> "np.ndarray":
    """The pictures, uint8 [number, height, width, 3]; never unpickles."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as archive:
            if IMAGES_KEY not in archive:
                raise DataError(f"missing; the archive holds: {', '.join(archive.files)}", file=path, field=IMAGES_KEY)
            images: np.ndarray = archive[IMAGES_KEY]
    # ValueError: pickled objects, or no NumPy file at all; EOFError: an empty file; TypeError: one bare array (.npy).
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"not a NumPy archive: {error}", file=path) from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        got = f"{images.dtype} {list(images.shape)}"
        raise DataError(f"expected uint8 [number, height, width, 3], got {got}", file=path, field=IMAGES_KEY)
    return images


PARTS = [
    data_part(
        "emoji_captions",
        EmojiCaptionsConfig,
        EmojiCaptionsSource,
        "1,879 small pictures with captions in 14 languages",
        check=split_errors,
    )
]
