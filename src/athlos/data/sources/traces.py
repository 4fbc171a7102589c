"""Problems with worked traces in many languages, as JSON lines: what reinforcement learning with hints is given.

Fields of a line: `language`, `question`, `answer`, `solution` (the trace, in the language of the question), and where
there are any `id`, `english` and `english_solution` (question and trace in English), `solution_language`, `teacher`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from athlos.data.records import MathRecord
from athlos.data.rows import Row, RowSource, SplitFilesConfig
from athlos.data.source import data_part

OPTIONAL = ("english", "english_solution", "solution_language", "teacher")


@dataclass(kw_only=True)
class TracesConfig(SplitFilesConfig):
    """`language` is that of lines which name none."""


class TracesSource(RowSource[TracesConfig]):
    """`meta.teacher` names who wrote the trace. A limit on the records is a limit on each language."""

    record_type = MathRecord

    def parse(self, row: Row, split: str) -> MathRecord:
        texts = {name: row.need(name, str) if name in row.values else "" for name in OPTIONAL}
        teacher = texts.pop("teacher")
        return MathRecord(
            identifier=str(row.need("id", (str, int))) if "id" in row.values else f"{split}-{row.index}",
            language=row.need("language", str) if "language" in row.values else self.config.language,
            question=row.need("question", str),
            answer=str(row.need("answer", (str, int, float))),
            solution=row.need("solution", str),
            meta={"teacher": teacher} if teacher else {},
            **texts,
        )

    def languages_of(self, split: str) -> Iterable[str]:
        return dict.fromkeys(record.language for record in self._stream(split))


PARTS = [
    data_part(
        "traces", TracesConfig, TracesSource, "problems with worked traces in many languages, JSON lines of your own"
    )
]
