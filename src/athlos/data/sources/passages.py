"""A corpus of passages to search: JSON of `title` and `text`, or the table `id`, `text`, `title` of DPR's Wikipedia."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from athlos.data.records import TextRecord
from athlos.data.rows import Row, RowSource, SplitFilesConfig, json_rows, tsv_rows
from athlos.data.source import data_part

IDENTIFIERS = ("id", "_id")
"""Fields that name a passage, in the table of DPR and in the JSON lines of BEIR."""


@dataclass(kw_only=True)
class PassagesConfig(SplitFilesConfig):
    """`files` names a corpus: `.tsv` is a table with a header, any other name JSON lines or a JSON array."""


class PassagesSource(RowSource[PassagesConfig]):
    """Identified by the file's own id, else by split and place. `meta` holds the title."""

    record_type = TextRecord

    def rows(self, path: Path) -> Iterator[Row]:
        return tsv_rows(path, self.bad) if path.suffix == ".tsv" else json_rows(path, self.bad)

    def parse(self, row: Row, split: str) -> TextRecord:
        named = next((str(row.need(key, (str, int))) for key in IDENTIFIERS if key in row.values), None)
        return TextRecord(
            identifier=named or f"{split}-{row.index}",
            language=self.config.language,
            text=row.need("text", str),
            meta={"title": row.need("title", str)},
        )


PARTS = [data_part("passages", PassagesConfig, PassagesSource, "a corpus of titled passages for retrieval")]
