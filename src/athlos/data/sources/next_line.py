"""Lines of a text, each asked for by the lines before it: short answers that share prefixes, with a context that tells.

A line is cut behind `max_words` words, so that a paragraph of Wikipedia becomes several. Empty lines and headings do
not count. Files are cut into splits in their order. The licence is that of the text.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from athlos.config.fields import at_least
from athlos.config.schema import RunConfig
from athlos.data.records import ContinuationRecord, Record
from athlos.data.source import data_part, decoded_lines
from athlos.data.splits import SplitConfig, SplitSource, split_errors
from athlos.errors import DataError


@dataclass(kw_only=True)
class NextLineConfig(SplitConfig):
    files: list[str] = field(default_factory=list)
    """File names below `data.dir`, read one after the other."""
    context_lines: int = at_least(0, default=1)
    """Lines before a line that its record shows; 0 = none, and the line is all there is."""
    max_words: int = at_least(1, default=16)
    """Longest line, in words between spaces."""
    language: str = "en"


class NextLineSource(SplitSource[NextLineConfig]):
    record_type = ContinuationRecord

    def all_files(self) -> list[Path]:
        return [self.file(name) for name in self.config.files]

    def split_key(self, record: Record) -> str:
        assert isinstance(record, ContinuationRecord)
        return record.text

    def read_all(self) -> Iterator[Record | DataError]:
        for path in self.all_files():
            before: list[str] = []
            for number, line in self._lines(path):
                if isinstance(line, DataError):
                    yield line
                    before = []  # the line after it does not follow the lines before it
                    continue
                context = "".join(f"{line}\n" for line in before)
                if before or not self.config.context_lines:
                    yield ContinuationRecord(
                        identifier=f"{path.name}:{number}", language=self.config.language, context=context, text=line
                    )
                before = [*before, line][-self.config.context_lines :] if self.config.context_lines else []

    def _lines(self, path: Path) -> Iterator[tuple[str, str | DataError]]:
        """(line number, and the piece within it), text or why there is none."""
        for number, line in decoded_lines(path):
            if isinstance(line, DataError):
                yield str(number), line
                continue
            words = line.split()
            if not words or words[0] == "=":
                continue
            for start in range(0, len(words), self.config.max_words):
                yield f"{number}.{start}", " ".join(words[start : start + self.config.max_words])


def _errors(data: NextLineConfig, config: RunConfig) -> Iterable[str]:
    yield from split_errors(data, config)
    if not data.files:
        yield "data.files: got [], expected at least one file name"


PARTS = [
    data_part(
        "next_line", NextLineConfig, NextLineSource, "lines of a text, each after the lines before it", check=_errors
    )
]
