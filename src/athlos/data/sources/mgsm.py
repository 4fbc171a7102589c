"""MGSM: 250 word problems of GSM8K in eleven languages. `mgsm_<language>.tsv`: question, tab, integer answer."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from athlos.data.records import MathRecord
from athlos.data.rows import LanguagesConfig, LanguageSource, Row
from athlos.data.source import OnError, data_part, read_lines
from athlos.errors import DataError

ANSWER = re.compile(r"-?\d[\d,]*")
"""An integer, in the digits of any script, with the thousands separators of the file ("2,125")."""


@dataclass(kw_only=True)
class MgsmConfig(LanguagesConfig):
    """Nothing beyond the languages: the files have no header and no other field."""


class MgsmSource(LanguageSource[MgsmConfig]):
    """Records keep question and answer as they stand; `english` is the same line of `mgsm_en.tsv`."""

    record_type = MathRecord
    hub = "juletxara/mgsm"
    accepted = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")
    pairs_english = True

    def file_name(self, language: str) -> str:
        return f"mgsm_{language}.tsv"

    def rows(self, path: Path, on_error: OnError) -> Iterator[Row]:
        for number, line in read_lines(path, on_error=on_error):
            if not line.strip():
                continue
            question, tab, answer = line.partition("\t")
            if tab:
                yield Row(values={"question": question, "answer": answer}, file=path, index=number, line=number)
            else:
                on_error(DataError("missing: no tab after the question", file=path, line=number, field="answer"))

    def from_hub(self, row: Row) -> Row:
        return replace(row, values={**row.values, "answer": str(row.need("answer_number", int))})

    def parse(self, row: Row, language: str) -> MathRecord:
        answer = row.need("answer", str).strip()
        if not ANSWER.fullmatch(answer):
            raise row.error(f"got '{answer}', expected an integer", field="answer")
        question = row.need("question", str)
        if not question.strip():
            raise row.error("empty", field="question")
        return MathRecord(
            identifier=f"{language}-{row.index}",
            language=language,
            question=question,
            answer=answer,
            english=self.english(row),
        )


PARTS = [data_part("mgsm", MgsmConfig, MgsmSource, "grade-school word problems in eleven languages")]
