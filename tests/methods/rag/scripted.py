"""A generator and an index that answer from a script and remember what they were asked."""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from athlos.config.compose import run_config
from athlos.data.records import QuestionRecord, Step
from athlos.generation.interface import Prediction, Request
from athlos.generation.pipeline import Ask, SymbolicGenerator, solve_together
from athlos.methods.rag.config import RagConfig
from athlos.methods.rag.pipeline import Rag
from athlos.retrieval.interface import Passage


class Script(SymbolicGenerator):
    """Gives its replies one after the other."""

    def __init__(self, replies: Iterable[str]) -> None:
        self.replies = deque(replies)
        self.asks: list[Ask] = []

    def reply(self, ask: Ask) -> str:
        self.asks.append(ask)
        return self.replies.popleft()


class Shelf:
    """Finds passages `<word>-1`, `<word>-2` ... of the last word of a query; `where` renames those of a language."""

    key = "shelf"
    languages = ("de", "en")

    def __init__(self) -> None:
        self.searches: list[tuple[str, int, str | None]] = []

    def search(self, queries: Sequence[str], *, k: int, language: str | None = None) -> list[list[Passage]]:
        self.searches += [(query, k, language) for query in queries]
        return [self._found(query, k, language) for query in queries]

    def make_ready(self) -> dict[str, int]:
        raise AssertionError("nothing here is built")

    @staticmethod
    def _found(query: str, k: int, language: str | None) -> list[Passage]:
        word = query.split()[-1].strip("?.")
        return [
            Passage(
                identifier=f"{word}-{rank}",
                text=f"{language} about {word} {rank}",
                language=language or "en",
                score=1 / rank,
            )
            for rank in range(1, k + 1)
        ]


def method(*overrides: str) -> RagConfig:
    config = run_config(["method=rag", "train.max_steps=0", *(f"method.{override}" for override in overrides)]).method
    assert isinstance(config, RagConfig)
    return config


def question(text: str = "Who ruled Ulm?", *, language: str = "de", steps: Sequence[str] = ()) -> QuestionRecord:
    return QuestionRecord(
        identifier="q",
        language=language,
        question=text,
        answers=[],
        steps=[Step(question=step, answer="") for step in steps],
    )


def solved(
    *overrides: str, replies: Iterable[str], record: QuestionRecord | None = None, **fields: Any
) -> tuple[Prediction, list[Ask], list[tuple[str, int, str | None]]]:
    """The prediction for a question, the calls and the searches in order."""
    script, shelf = Script(replies), Shelf()
    rag = Rag(config=method(*overrides), answer_tokens=9, **fields)
    request = Request(identifier="q", prompt="", record=record or question())
    [(_, prediction)] = solve_together(
        [request], lambda asked: rag.solver(asked.record), generator=script, index=shelf, in_flight=1
    )
    assert not script.replies, "replies that nobody asked for"
    return prediction, script.asks, shelf.searches


def read(prediction: Prediction) -> list[list[str]]:
    """The passages of each call that has some."""
    return [row["read"] for row in prediction.trace if "read" in row]
