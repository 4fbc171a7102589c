"""Plain text: one file a split, one record a line, paragraph or document."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from athlos.config.schema import DataConfig
from athlos.data.records import TextRecord
from athlos.data.rows import check_split
from athlos.data.source import Source, data_part, read_lines


class Unit(StrEnum):
    """What one record is."""

    line = "line"
    paragraph = "paragraph"
    file = "file"


@dataclass(kw_only=True)
class PlainTextConfig(DataConfig):
    files: dict[str, str] = field(default_factory=dict)
    """File name below `data.dir` of each split."""
    unit: Unit = Unit.paragraph
    """`paragraph` = lines up to an empty one."""
    language: str = "en"


class PlainTextSource(Source[PlainTextConfig]):
    record_type = TextRecord

    def files(self, split: str) -> list[Path]:
        check_split(split, list(self.config.files))
        return [self.file(self.config.files[split])]

    def read(self, split: str) -> Iterator[TextRecord]:
        [path] = self.files(split)
        block: list[str] = []
        start = 1
        for number, line in read_lines(path, on_error=self.bad):
            ends = self.config.unit is Unit.line or (self.config.unit is Unit.paragraph and not line.strip())
            if line.strip() or self.config.unit is Unit.file:
                start = number if not block else start
                block.append(line)
            if ends and block:
                yield self._record(split, start, block)
                block = []
        if block:
            yield self._record(split, start, block)

    def _record(self, split: str, start: int, block: list[str]) -> TextRecord:
        return TextRecord(identifier=f"{split}-{start}", language=self.config.language, text="\n".join(block) + "\n")


PARTS = [data_part("plain_text", PlainTextConfig, PlainTextSource, "plain text files, one a split")]
