"""MuSiQue: questions of two to four hops over twenty paragraphs, with their gold decomposition. JSON lines."""

from dataclasses import dataclass

from athlos.config.registry import Part
from athlos.data.records import Passage, QuestionRecord, Step
from athlos.data.rows import Row, RowSource, SplitFilesConfig


@dataclass(kw_only=True)
class MusiqueConfig(SplitFilesConfig):
    """Nothing beyond the files: `musique_ans` and `musique_full` have one format."""


class MusiqueSource(RowSource[MusiqueConfig]):
    """Answers are the answer and its aliases; a question with `answerable: false` has none.

    A step's `supporting` is the identifier of its passage (`idx` in the file); titles repeat. `meta` holds `hops`, the
    kind of composition that the id begins with (2hop, 3hop1, ...).
    """

    record_type = QuestionRecord
    hub = "dgslibisey/MuSiQue"

    def parse(self, row: Row, split: str) -> QuestionRecord:
        identifier = row.need("id", str)
        passages = [
            Passage(
                title=paragraph.need("title", str), text=paragraph.need("paragraph_text", str),
                is_supporting=paragraph.need("is_supporting", bool), identifier=str(paragraph.need("idx", int)),
            )
            for paragraph in row.children("paragraphs")
        ]  # fmt: skip
        known = {passage.identifier for passage in passages}
        is_answerable = row.values.get("answerable", True)
        answers = [row.need("answer", str), *row.texts("answer_aliases")] if is_answerable else []
        return QuestionRecord(
            identifier=identifier, language=self.config.language, question=row.need("question", str),
            answers=list(dict.fromkeys(answers)), passages=passages,
            steps=[_step(step, known) for step in row.children("question_decomposition")],
            meta={"hops": identifier.partition("__")[0]},
        )  # fmt: skip


def _step(row: Row, known: set[str]) -> Step:
    # Unanswerable questions of `musique_full` lack the paragraph of a step: null.
    index = row.need("paragraph_support_idx", (int, type(None)))
    supporting = "" if index is None else str(index)
    if supporting and supporting not in known:
        raise row.error(f"got {index}, no paragraph has this idx", field="paragraph_support_idx")
    return Step(question=row.need("question", str), answer=row.need("answer", str), supporting=supporting)


PARTS = [
    Part(
        group="data", name="musique", schema=MusiqueConfig, target=f"{__name__}.MusiqueSource",
        summary="questions of two to four hops with gold sub-questions",
    )
]  # fmt: skip
