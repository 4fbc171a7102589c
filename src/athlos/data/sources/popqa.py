"""PopQA: questions about entities of graded popularity. A tab-separated table with a header."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from athlos.config.registry import Part
from athlos.data.records import QuestionRecord
from athlos.data.rows import Row, RowSource, SplitFilesConfig, tsv_rows


@dataclass(kw_only=True)
class PopQAConfig(SplitFilesConfig):
    """Nothing beyond the files."""


class PopQASource(RowSource[PopQAConfig]):
    """Answers are the JSON list in `possible_answers`. `meta`: subj, prop, obj; s_pop, the subject's page views."""

    record_type = QuestionRecord
    hub = "akariasai/PopQA"

    def rows(self, path: Path) -> Iterator[Row]:
        return tsv_rows(path, self.bad)

    def parse(self, row: Row, split: str) -> QuestionRecord:
        popularity = str(row.need("s_pop", (str, int)))
        if not popularity.isascii() or not popularity.isdigit():
            raise row.error(f"got '{popularity}', expected a whole number", field="s_pop")
        meta = {key: row.need(key, str) for key in ("subj", "prop", "obj")}
        return QuestionRecord(
            identifier=str(row.need("id", (str, int))), language=self.config.language,
            question=row.need("question", str), answers=_answers(row), meta={**meta, "s_pop": int(popularity)},
        )  # fmt: skip


def _answers(row: Row) -> list[str]:
    text = row.need("possible_answers", str)
    try:
        listed = json.loads(text)
    except json.JSONDecodeError as error:
        raise row.error(f"not JSON: {error.msg} in '{text}'", field="possible_answers") from error
    answers = replace(row, values={"possible_answers": listed}).texts("possible_answers")
    if not answers:
        raise row.error("empty", field="possible_answers")
    return list(dict.fromkeys(answers))


PARTS = [
    Part(
        group="data", name="popqa", schema=PopQAConfig, target=f"{__name__}.PopQASource",
        summary="questions about entities of graded popularity, English",
    )
]  # fmt: skip
