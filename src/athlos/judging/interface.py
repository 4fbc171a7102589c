"""The interface of judges: how far a premise supports a hypothesis. No torch here."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from athlos.stages import content_hash

NUM_DIGITS = 12
"""Hexadecimal digits of the hash in a judge's id, and of a prompt's in its identity."""


class Pair(NamedTuple):
    """What is judged: a reference, evidence or a document, and what it should support."""

    premise: str
    hypothesis: str


class Judge(Protocol):
    """Scores pairs. Two judges of one `id` give the same scores."""

    @property
    def identity(self) -> Mapping[str, str]:
        """All that a score depends on: the name of the judge, weights, prompt, windows. Goes into every record."""
        ...

    @property
    def id(self) -> str:
        """Name and hash of the identity: see `judge_id`."""
        ...

    @property
    def counters(self) -> Mapping[str, int]:
        """What it met so far, by name: pairs, those that it could not read, replies that it had to fall back on."""
        ...

    def scores(self, pairs: Sequence[Pair]) -> list[float]:
        """One score in [0, 1] a pair, in their order: 1 where the premise supports the hypothesis."""
        ...


def judge_id(identity: Mapping[str, str]) -> str:
    """`<name>:<hash of the whole identity>`."""
    return f"{identity['judge']}:{content_hash(dict(identity))[:NUM_DIGITS]}"
