"""Questions with short answers in the official files of several data sets: one source, and a layout for each data set.

A layout names the fields of a row and says how the data set writes answers, passages and reasoning steps.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from athlos.data.records import Passage, QuestionRecord, Record, Step
from athlos.data.rows import Row, RowSource, SplitFilesConfig, json_rows, tsv_rows
from athlos.data.source import OnError, data_part
from athlos.errors import did_you_mean

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig

log = logging.getLogger(__name__)

STEP_MARK = " >>>> "
"""Between sub-question and answer in the `reasoning_steps` of MuSiQue as IRCoT processes it."""


@dataclass(kw_only=True)
class QuestionsConfig(SplitFilesConfig):
    layout: str = MISSING
    """Whose official files these are, one of `LAYOUTS`."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a data set keeps what its questions have."""

    identifier: str = "id"
    """Field; empty = the data set has none, and split and place stand for it."""
    identifier_kind: type | tuple[type, ...] = str
    question: str = "question"
    answers: Callable[[Row], list[str]]
    """Accepted answers; those that repeat count once."""
    supporting_facts: Callable[[Row], list[tuple[str, int]]] = lambda row: []
    passages: Callable[[Row], list[Passage]] = lambda row: []
    steps: Callable[[Row, QuestionRecord], list[Step]] = lambda row, record: []
    meta: Callable[[Row], dict[str, Any]] = lambda row: {}
    rows: Callable[[Path, OnError], Iterator[Row]] = json_rows
    hub: str | None = None
    hub_config: str | None = None
    from_hub: Callable[[Row], Row] = lambda row: row
    """A row of the hub with the fields of the official file."""


class QuestionSource(RowSource[QuestionsConfig]):
    """A record without `context`, as some copies of 2WikiMultihopQA have, is a question over no passages: a warning."""

    record_type = QuestionRecord

    def __init__(self, config: QuestionsConfig) -> None:
        super().__init__(config)
        self.layout = LAYOUTS[config.layout]
        self.hub, self.hub_config = self.layout.hub, self.layout.hub_config

    def rows(self, path: Path) -> Iterator[Row]:
        return self.layout.rows(path, self.bad)

    def from_hub(self, row: Row) -> Row:
        return self.layout.from_hub(row)

    def read(self, split: str) -> Iterator[Record]:
        num_without_context = 0
        for record in super().read(split):
            num_without_context += not record.meta.get("has_context", True)
            yield record
        if num_without_context:
            name, file = self.config.name, self.config.files[split]
            log.warning("%s: %d records of %s have no context", name, num_without_context, file)

    def parse(self, row: Row, split: str) -> QuestionRecord:
        layout = self.layout
        identifier = (
            row.need(layout.identifier, layout.identifier_kind) if layout.identifier else f"{split}-{row.index}"
        )
        record = QuestionRecord(
            identifier=str(identifier),
            language=self.config.language,
            question=row.need(layout.question, str),
            answers=list(dict.fromkeys(layout.answers(row))),
            supporting_facts=layout.supporting_facts(row),
            passages=layout.passages(row),
            meta=layout.meta(row),
        )
        record.steps = layout.steps(row, record)
        return record


# HotpotQA and 2WikiMultihopQA: lists of pairs


def supporting_facts(row: Row) -> list[tuple[str, int]]:
    """(title, sentence index) pairs as they stand: some official ones point past the end of their paragraph."""
    facts: list[tuple[str, int]] = []
    for position, pair in enumerate(row.need("supporting_facts", list)):
        match pair:
            case [str() as title, int() as index] if not isinstance(index, bool):
                facts.append((title, index))
            case _:
                raise row.error("expected [title, sentence index]", field=f"supporting_facts[{position}]")
    return facts


def context_passages(row: Row, *, joiner: str) -> list[Passage]:
    """The paragraphs of `context`, numbered from 0. Support is known by title, so paragraphs of one title share it."""
    supporting = {title for title, _ in supporting_facts(row)}
    passages: list[Passage] = []
    for position, pair in enumerate(row.need("context", list)):
        match pair:
            case [str() as title, list() as sentences] if all(isinstance(item, str) for item in sentences):
                passages.append(
                    Passage(
                        title=title,
                        text=joiner.join(sentences),
                        sentences=sentences,
                        identifier=str(position),
                        is_supporting=title in supporting,
                    )
                )
            case _:
                raise row.error("expected [title, [sentences]]", field=f"context[{position}]")
    return passages


def from_parallel_lists(row: Row) -> Row:
    """A row of the hub, where `context` and `supporting_facts` are dicts of parallel lists, in the official form."""
    shared = {
        "_id": row.need("id", str),
        "context": row.pairs("context", "title", "sentences"),
        "supporting_facts": row.pairs("supporting_facts", "title", "sent_id"),
    }
    return replace(row, values={**row.values, **shared})


def evidence_steps(row: Row, record: QuestionRecord) -> list[Step]:
    """The gold evidence triples, as `subject >> relation` with the object as answer (MuSiQue's notation).

    A step names its subject as the file does, not as `#1`: the names of a bridge entity differ between triples.
    """
    titles = {title for title, _ in record.supporting_facts}
    steps: list[Step] = []
    for position, triple in enumerate(row.need("evidences", list)):
        match triple:
            case [str() as subject, str() as relation, str() as answer]:
                supporting = subject if subject in titles else ""
                steps.append(Step(question=f"{subject} >> {relation}", answer=answer, supporting=supporting))
            case _:
                raise row.error("expected [subject, relation, object]", field=f"evidences[{position}]")
    return steps


def two_wiki_passages(row: Row) -> list[Passage]:
    return context_passages(row, joiner=" ") if "context" in row.values else []


# MuSiQue, also as processed by IRCoT: lists of objects


def object_passages(row: Row, field: str, identifiers: tuple[str, ...]) -> list[Passage]:
    """Passages that say themselves whether they support; the first of `identifiers` that is there names one."""
    passages = []
    for paragraph in row.children(field):
        key = next((key for key in identifiers if key in paragraph.values), identifiers[0])
        passages.append(
            Passage(
                title=paragraph.need("title", str),
                text=paragraph.need("paragraph_text", str),
                is_supporting=paragraph.need("is_supporting", bool),
                identifier=str(paragraph.need(key, int if len(identifiers) == 1 else (int, str))),
            )
        )
    return passages


def musique_answers(row: Row) -> list[str]:
    """The answer and its aliases; none where the question says that it cannot be answered."""
    return [row.need("answer", str), *row.texts("answer_aliases")] if row.values.get("answerable", True) else []


def decomposition_steps(row: Row, record: QuestionRecord) -> list[Step]:
    """A step's `supporting` is the identifier of its passage, for titles repeat; `musique_full` has null for some."""
    known = {passage.identifier for passage in record.passages}
    steps = []
    for step in row.children("question_decomposition"):
        index = step.need("paragraph_support_idx", (int, type(None)))
        if index is not None and str(index) not in known:
            raise step.error(f"got {index}, no paragraph has this idx", field="paragraph_support_idx")
        supporting = "" if index is None else str(index)
        steps.append(Step(question=step.need("question", str), answer=step.need("answer", str), supporting=supporting))
    return steps


def ircot_answers(row: Row) -> list[str]:
    """One answer an object. Several spans would be one answer of several parts, which these data sets do not have."""
    answers: list[str] = []
    for answer in row.children("answers_objects"):
        spans = answer.texts("spans")
        if len(spans) != 1:
            raise answer.error(f"got {len(spans)} spans, expected 1", field="spans")
        answers += spans
    return _some(answers, row, field="answers_objects")


def marked_steps(row: Row, record: QuestionRecord) -> list[Step]:
    """Steps of MuSiQue's `reasoning_steps`, where earlier answers are already filled in for `#1`.

    Those of 2WikiMultihopQA are triples run together, which cannot be taken apart: they stay in `meta`.
    """
    reasoning = row.texts("reasoning_steps") if "reasoning_steps" in row.values else []
    if not all(STEP_MARK in text for text in reasoning):
        record.meta["reasoning_steps"] = reasoning
        return []
    parts = [text.rpartition(STEP_MARK) for text in reasoning]
    return [Step(question=question, answer=answer) for question, _, answer in parts]


# PopQA and NQ-Open: no passages


def popqa_answers(row: Row) -> list[str]:
    """The JSON list in `possible_answers`."""
    text = row.need("possible_answers", str)
    try:
        listed = json.loads(text)
    except json.JSONDecodeError as error:
        raise row.error(f"not JSON: {error.msg} in '{text}'", field="possible_answers") from error
    answers = replace(row, values={"possible_answers": listed}).texts("possible_answers")
    return _some(answers, row, field="possible_answers")


def popqa_meta(row: Row) -> dict[str, Any]:
    """`s_pop` is the number of page views of the subject."""
    popularity = str(row.need("s_pop", (str, int)))
    if not popularity.isascii() or not popularity.isdigit():
        raise row.error(f"got '{popularity}', expected a whole number", field="s_pop")
    return {**{key: row.need(key, str) for key in ("subj", "prop", "obj")}, "s_pop": int(popularity)}


def _some(answers: list[str], row: Row, *, field: str) -> list[str]:
    if not answers:
        raise row.error("empty", field=field)
    return answers


def _present(row: Row, *keys: str) -> dict[str, Any]:
    return {key: row.values[key] for key in keys if key in row.values}


LAYOUTS = {
    "hotpotqa": Layout(
        identifier="_id",
        answers=lambda row: [row.need("answer", str)],
        supporting_facts=supporting_facts,
        passages=lambda row: context_passages(row, joiner=""),  # sentences carry their own spaces
        meta=lambda row: _present(row, "type", "level"),
        hub="hotpotqa/hotpot_qa",
        hub_config="distractor",
        from_hub=from_parallel_lists,
    ),
    "two_wiki": Layout(
        identifier="_id",
        answers=lambda row: [row.need("answer", str)],
        supporting_facts=supporting_facts,
        passages=two_wiki_passages,
        steps=evidence_steps,
        meta=lambda row: {"type": row.need("type", str), "has_context": "context" in row.values},
        hub="framolfese/2WikiMultihopQA",
        from_hub=from_parallel_lists,
    ),
    "musique": Layout(
        answers=musique_answers,
        passages=lambda row: object_passages(row, "paragraphs", ("idx",)),
        steps=decomposition_steps,
        # The kind of composition that the id begins with: 2hop, 3hop1, ...
        meta=lambda row: {"hops": row.need("id", str).partition("__")[0]},
        hub="dgslibisey/MuSiQue",
    ),
    "ircot": Layout(
        identifier="question_id",
        question="question_text",
        answers=ircot_answers,
        # The `idx` of a passage is called `id` in the files of HotpotQA and may be a text.
        passages=lambda row: object_passages(row, "contexts", ("idx", "id")),
        steps=marked_steps,
        meta=lambda row: _present(row, "dataset", "type", "level"),
    ),
    "popqa": Layout(
        identifier_kind=(str, int), answers=popqa_answers, meta=popqa_meta, rows=tsv_rows, hub="akariasai/PopQA"
    ),
    "nq_open": Layout(
        identifier="",
        answers=lambda row: _some(row.texts("answer"), row, field="answer"),
        hub="google-research-datasets/nq_open",
    ),
}


def _errors(data: QuestionsConfig, config: "RunConfig") -> Iterable[str]:
    if data.layout not in LAYOUTS:
        near, accepted = did_you_mean(data.layout, list(LAYOUTS)), ", ".join(LAYOUTS)
        yield f"data.layout: got '{data.layout}', expected one of {accepted}{near}"


PARTS = [
    data_part(
        "questions", QuestionsConfig, QuestionSource, "questions with short answers, official files", check=_errors
    )
]
