"""NQ-Open: real questions to a search engine with short answers, no passages. JSON lines `question`, `answer`."""

from dataclasses import dataclass

from athlos.config.registry import Part
from athlos.data.records import QuestionRecord
from athlos.data.rows import Row, RowSource, SplitFilesConfig


@dataclass(kw_only=True)
class NqOpenConfig(SplitFilesConfig):
    """Nothing beyond the files: NQ-Open and its EfficientQA splits have one format."""


class NqOpenSource(RowSource[NqOpenConfig]):
    """All annotated answers, without repeats; every question has at least one."""

    record_type = QuestionRecord
    hub = "google-research-datasets/nq_open"

    def parse(self, row: Row, split: str) -> QuestionRecord:
        answers = list(dict.fromkeys(row.texts("answer")))
        if not answers:
            raise row.error("empty", field="answer")
        return QuestionRecord(
            identifier=f"{split}-{row.index}", language=self.config.language, question=row.need("question", str),
            answers=answers,
        )  # fmt: skip


PARTS = [
    Part(
        group="data", name="nq_open", schema=NqOpenConfig, target=f"{__name__}.NqOpenSource",
        summary="open-domain questions with short answers, English",
    )
]  # fmt: skip
