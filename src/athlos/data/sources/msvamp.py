"""MSVAMP: 1,000 short word problems in ten languages. JSON lines `query`, `equation`, `response`, `m_query`."""

import re
from dataclasses import dataclass

from athlos.data.records import MathRecord
from athlos.data.rows import LanguagesConfig, LanguageSource, Row
from athlos.data.source import data_part

NAMES = {
    "bn": "Bengali",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "ja": "Japanese",
    "ru": "Russian",
    "sw": "Swahili",
    "th": "Thai",
    "zh": "Chinese",
}
ANSWER = re.compile(r"(-?\d+)(\.\d+)?")


@dataclass(kw_only=True)
class MsvampConfig(LanguagesConfig):
    """Nothing beyond the languages."""


class MsvampSource(LanguageSource[MsvampConfig]):
    """The answer is `response` without a zero fraction ("8.0" -> "8"); `english` is the field `query`."""

    record_type = MathRecord
    hub = "Mathoctopus/MSVAMP"
    accepted = tuple(NAMES)

    def file_name(self, language: str) -> str:
        return f"test_{NAMES[language]}.json"

    def parse(self, row: Row, language: str) -> MathRecord:
        response = str(row.need("response", (str, int, float))).strip()
        match = ANSWER.fullmatch(response)
        if not match:
            raise row.error(f"got '{response}', expected a number", field="response")
        whole, fraction = match.groups()
        question = row.need("m_query", str)
        return MathRecord(
            identifier=f"{language}-{row.index}",
            language=language,
            question=question,
            answer=response if (fraction or "").strip(".0") else whole,
            # The English file has no `query`: its `m_query` is the English text.
            english=question if language == "en" else row.need("query", str),
            meta={"equation": row.values.get("equation", "")},
        )


PARTS = [data_part("msvamp", MsvampConfig, MsvampSource, "short word problems in ten languages")]
