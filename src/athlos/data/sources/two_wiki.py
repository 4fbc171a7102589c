"""2WikiMultihopQA: two- to five-hop questions made from Wikidata paths. A JSON array (official) or JSON lines."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from athlos.config.registry import Part
from athlos.data.records import QuestionRecord, Record, Step
from athlos.data.rows import Row, RowSource, SplitFilesConfig
from athlos.data.sources.hotpotqa import context_passages, from_parallel_lists, supporting_facts

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class TwoWikiConfig(SplitFilesConfig):
    """Nothing beyond the files."""


class TwoWikiSource(RowSource[TwoWikiConfig]):
    """Steps are the gold evidence triples, as `subject >> relation` with the object as answer (MuSiQue's notation).

    A step names its subject as the file does, not as `#1`: the names of a bridge entity differ between triples.
    Sentences are joined with a space. A record without `context`, as some copies of the data have, is a legal question
    over no passages: `meta["has_context"]` is false, `num_without_context` counts them, and a warning gives the count.
    """

    record_type = QuestionRecord
    hub = "framolfese/2WikiMultihopQA"

    def __init__(self, config: TwoWikiConfig) -> None:
        super().__init__(config)
        self.num_without_context = 0

    def read(self, split: str) -> Iterator[Record]:
        before = self.num_without_context
        yield from super().read(split)
        if missing := self.num_without_context - before:
            log.warning("%s: %d records of %s have no context", self.config.name, missing, self.config.files[split])

    def from_hub(self, row: Row) -> Row:
        return from_parallel_lists(row)

    def parse(self, row: Row, split: str) -> QuestionRecord:
        facts = supporting_facts(row)
        titles = {title for title, _ in facts}
        has_context = "context" in row.values
        record = QuestionRecord(
            identifier=row.need("_id", str), language=self.config.language, question=row.need("question", str),
            answers=[row.need("answer", str)], supporting_facts=facts,
            passages=context_passages(row, supporting_titles=titles, joiner=" ") if has_context else [],
            steps=_steps(row, titles),
            meta={"type": row.need("type", str), "has_context": has_context},
        )  # fmt: skip
        self.num_without_context += not has_context
        return record


def _steps(row: Row, titles: set[str]) -> list[Step]:
    steps: list[Step] = []
    for position, triple in enumerate(row.need("evidences", list)):
        match triple:
            case [str() as subject, str() as relation, str() as answer]:
                supporting = subject if subject in titles else ""
                steps.append(Step(question=f"{subject} >> {relation}", answer=answer, supporting=supporting))
            case _:
                raise row.error("expected [subject, relation, object]", field=f"evidences[{position}]")
    return steps


PARTS = [
    Part(
        group="data", name="two_wiki", schema=TwoWikiConfig, target=f"{__name__}.TwoWikiSource",
        summary="2WikiMultihopQA: multi-hop questions with evidence triples",
    )
]  # fmt: skip
