"""WikiText: articles of Wikipedia as one running text, word-level (`<unk>`, ` @-@ `) or raw.

Source: Merity et al. 2017, arXiv 1609.07843. The text of all records of a split, joined, is the file, byte for byte.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from athlos.config.schema import DataConfig
from athlos.data.hub import hub_rows
from athlos.data.records import TextRecord
from athlos.data.rows import check_split
from athlos.data.source import Source, data_part
from athlos.errors import DataError

TITLE = re.compile(r" = (?!= )(.+) = ?\n?")
"""A level-1 heading; ` = = Section = = ` is deeper."""
SPLIT_MARK = re.compile(r" @([-,.])@ ")
"""How word-level WikiText writes a hyphen, comma or point inside a word or number."""
HUB_SPLITS = {"valid": "validation"}


class Unit(StrEnum):
    """What one record is. The empty lines after a line belong to it."""

    article = "article"
    line = "line"


@dataclass(kw_only=True)
class WikitextConfig(DataConfig):
    files: dict[str, str] = field(default_factory=dict)
    """File name below `data.dir` of each split."""
    unit: Unit = Unit.article
    detokenize: bool = False
    """Undo ` @-@ `, ` @,@ ` and ` @.@ `; the text then differs from the file."""
    hub_config: str = "wikitext-2-v1"
    """Configuration of the hub's data set, read when `data.dir` is empty."""
    language: str = "en"


class WikitextSource(Source[WikitextConfig]):
    record_type = TextRecord
    hub = "Salesforce/wikitext"

    def files(self, split: str) -> list[Path]:
        check_split(split, list(self.config.files))
        return [self.file(self.config.files[split])]

    def read(self, split: str) -> Iterator[TextRecord]:
        [path] = self.files(split)
        return self._records(split, exact_lines(path))

    def read_hub(self, split: str) -> Iterator[TextRecord]:
        check_split(split, list(self.config.files))
        rows = hub_rows(self.hub, self.config.hub_config, HUB_SPLITS.get(split, split))
        # The hub stores an empty line, which is a space and a newline in the file, as an empty string.
        return self._records(split, (row["text"] or " \n" for row in rows))

    def fingerprint(self, split: str) -> str:
        known = super().fingerprint(split)
        return known if self.config.dir else f"{known}:{self.config.hub_config}"

    def _records(self, split: str, lines: Iterable[str]) -> Iterator[TextRecord]:
        for start, title, text in blocks(lines, unit=self.config.unit):
            if self.config.detokenize:
                text = SPLIT_MARK.sub(r"\1", text)
            yield TextRecord(
                identifier=f"{split}-{start}",
                language=self.config.language,
                text=text,
                meta={"title": title} if title else {},
            )


def blocks(lines: Iterable[str], *, unit: Unit) -> Iterator[tuple[int, str, str]]:
    """Cut lines into (1-based number of the first line, title of the article, text), nothing added or lost.

    A heading stands between empty lines: body text such as ` = 1 <unk> and k = ` in a formula is none. Empty lines at
    the front belong to the first block.
    """
    block: list[str] = []
    start, title = 1, ""
    for number, (before, line, after) in enumerate(with_neighbours(lines), start=1):
        heading = TITLE.fullmatch(line) if not before.strip() and not after.strip() else None
        begins = heading is not None if unit is Unit.article else bool(line.strip())
        if begins and any(text.strip() for text in block):
            yield start, title, "".join(block)
            block, start = [], number
        if heading is not None:
            title = heading[1]
        block.append(line)
    if block:
        yield start, title, "".join(block)


def with_neighbours(lines: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Each line with the one before and the one after it; empty strings at the ends."""
    before, line = "", None
    for after in lines:
        if line is not None:
            yield before, line, after
            before = line
        line = after
    if line is not None:
        yield before, line, ""


def exact_lines(path: Path) -> Iterator[str]:
    """Stream the lines of a UTF-8 file with their line ends, so that joined they are the file."""
    try:
        with path.open("rb") as handle:
            for number, raw in enumerate(handle, start=1):
                try:
                    yield raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(f"not UTF-8 at byte {error.start}", file=path, line=number) from error
    except OSError as error:
        raise DataError(error.strerror or str(error), file=path) from error


PARTS = [
    data_part("wikitext", WikitextConfig, WikitextSource, "WikiText, articles of Wikipedia for language modelling")
]
