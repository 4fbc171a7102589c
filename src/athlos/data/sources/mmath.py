"""MMATH: 374 competition problems in ten languages, `<language>.json`: question, answer, where it comes from."""

from collections.abc import Hashable
from dataclasses import dataclass

from athlos.data.records import MathRecord
from athlos.data.rows import LanguagesConfig, LanguageSource, Row
from athlos.data.source import data_part


@dataclass(kw_only=True)
class MmathConfig(LanguagesConfig):
    """Nothing beyond the languages."""


class MmathSource(LanguageSource[MmathConfig]):
    """Answers are LaTeX or numbers as they stand. `meta` holds `source` (aime2024, ...), `source_id` and `gid`.

    `english` is the problem of `en.json` with the same source and id.
    """

    record_type = MathRecord
    accepted = ("ar", "en", "es", "fr", "ja", "ko", "pt", "th", "vi", "zh")
    pairs_english = True

    def file_name(self, language: str) -> str:
        return f"{language}.json"

    def pair_key(self, row: Row) -> Hashable:
        return row.need("data_source", str), str(row.need("data_source_id", (int, str)))

    def parse(self, row: Row, language: str) -> MathRecord:
        stated = row.values.get("lang", language)
        if stated != language:
            raise row.error(f"got '{stated}' in the file of '{language}'", field="lang")
        source, source_id = row.need("data_source", str), row.need("data_source_id", (int, str))
        return MathRecord(
            identifier=f"{language}-{source}-{source_id}",
            language=language,
            question=row.need("question", str),
            answer=str(row.need("answer", (str, int, float))),
            english=self.english(row),
            meta={"source": source, "source_id": source_id, "gid": row.values.get("gid")},
        )


PARTS = [data_part("mmath", MmathConfig, MmathSource, "competition problems in ten languages")]
