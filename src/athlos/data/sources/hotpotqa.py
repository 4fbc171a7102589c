"""HotpotQA: two-hop questions over ten Wikipedia paragraphs. A JSON array (official) or JSON lines."""

from dataclasses import dataclass, replace

from athlos.config.registry import Part
from athlos.data.records import Passage, QuestionRecord
from athlos.data.rows import Row, RowSource, SplitFilesConfig


@dataclass(kw_only=True)
class HotpotQAConfig(SplitFilesConfig):
    """Nothing beyond the files: the distractor and the full-wiki setting have one format."""


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


def context_passages(row: Row, *, supporting_titles: set[str], joiner: str) -> list[Passage]:
    """The paragraphs of `context`, numbered from 0. Support is known by title, so paragraphs of one title share it."""
    passages: list[Passage] = []
    for position, pair in enumerate(row.need("context", list)):
        match pair:
            case [str() as title, list() as sentences] if all(isinstance(item, str) for item in sentences):
                passage = Passage(
                    title=title, text=joiner.join(sentences), sentences=sentences, identifier=str(position)
                )
                passage.is_supporting = title in supporting_titles
                passages.append(passage)
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


class HotpotQASource(RowSource[HotpotQAConfig]):
    """The sentences of a paragraph carry their own spaces and are joined as they are. `meta` holds type and level."""

    record_type = QuestionRecord
    hub = "hotpotqa/hotpot_qa"
    hub_config = "distractor"

    def from_hub(self, row: Row) -> Row:
        return from_parallel_lists(row)

    def parse(self, row: Row, split: str) -> QuestionRecord:
        facts = supporting_facts(row)
        return QuestionRecord(
            identifier=row.need("_id", str), language=self.config.language, question=row.need("question", str),
            answers=[row.need("answer", str)], supporting_facts=facts,
            passages=context_passages(row, supporting_titles={title for title, _ in facts}, joiner=""),
            meta={key: row.values[key] for key in ("type", "level") if key in row.values},
        )  # fmt: skip


PARTS = [
    Part(
        group="data", name="hotpotqa", schema=HotpotQAConfig, target=f"{__name__}.HotpotQASource",
        summary="two-hop questions over ten paragraphs, official files",
    )
]  # fmt: skip
