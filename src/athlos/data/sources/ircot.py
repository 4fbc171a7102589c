"""Multi-hop questions as IRCoT processes them: one format for HotpotQA, 2WikiMultihopQA and MuSiQue. JSON lines."""

from dataclasses import dataclass
from typing import Any

from athlos.config.registry import Part
from athlos.data.records import Passage, QuestionRecord, Step
from athlos.data.rows import Row, RowSource, SplitFilesConfig

STEP_MARK = " >>>> "
"""Between sub-question and answer in the `reasoning_steps` of MuSiQue."""


@dataclass(kw_only=True)
class IrcotConfig(SplitFilesConfig):
    """Nothing beyond the files of one of the three data sets."""


class IrcotSource(RowSource[IrcotConfig]):
    """Steps come from MuSiQue's `reasoning_steps`, where earlier answers are already filled in for `#1`.

    The `reasoning_steps` of 2WikiMultihopQA are triples run together, which cannot be taken apart: they stay in `meta`,
    beside `dataset`, `type` and `level` where the file has them.
    """

    record_type = QuestionRecord

    def parse(self, row: Row, split: str) -> QuestionRecord:
        passages = [
            Passage(
                title=context.need("title", str), text=context.need("paragraph_text", str),
                is_supporting=context.need("is_supporting", bool), identifier=_identifier(context),
            )
            for context in row.children("contexts")
        ]  # fmt: skip
        meta: dict[str, Any] = {key: row.values[key] for key in ("dataset", "type", "level") if key in row.values}
        reasoning = row.texts("reasoning_steps") if "reasoning_steps" in row.values else []
        steps: list[Step] = []
        if reasoning and all(STEP_MARK in text for text in reasoning):
            for text in reasoning:
                question, _, answer = text.rpartition(STEP_MARK)
                steps.append(Step(question=question, answer=answer))
        elif reasoning:
            meta["reasoning_steps"] = reasoning
        return QuestionRecord(
            identifier=row.need("question_id", str), language=self.config.language,
            question=row.need("question_text", str), answers=_answers(row), passages=passages, steps=steps, meta=meta,
        )  # fmt: skip


def _identifier(context: Row) -> str:
    """The `idx` of a passage; in the files of HotpotQA it is called `id` and may be a text."""
    return str(context.need("idx" if "idx" in context.values or "id" not in context.values else "id", (int, str)))


def _answers(row: Row) -> list[str]:
    """One answer an object. Several spans would be one answer of several parts, which these data sets do not have."""
    answers: list[str] = []
    for answer in row.children("answers_objects"):
        spans = answer.texts("spans")
        if len(spans) != 1:
            raise answer.error(f"got {len(spans)} spans, expected 1", field="spans")
        answers += spans
    if not answers:
        raise row.error("empty", field="answers_objects")
    return list(dict.fromkeys(answers))


PARTS = [
    Part(
        group="data", name="ircot", schema=IrcotConfig, target=f"{__name__}.IrcotSource",
        summary="HotpotQA, 2WikiMultihopQA or MuSiQue as processed by IRCoT",
    )
]  # fmt: skip
