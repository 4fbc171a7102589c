"""What a model knows of each question, as a file: mastered, confused or missing.

One JSON object a line: `id` of the question, `region`, `assigner` (who decided), `acc` (share of right answers), `nats`
(mean uncertainty of an answer, nats a token), `kappa` (share of the commonest answer), `omega` (share of the commonest
wrong answer) and `votes` (of a model that was asked; empty else). Other parts read it: an answer from memory is worth
a try where the region is not missing.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from athlos.data.json_lines import write_rows
from athlos.data.source import read_lines
from athlos.errors import DataError, choices


class Region(StrEnum):
    """From what is known to what is not."""

    mastered = "mastered"
    confused = "confused"
    missing = "missing"


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """One question with its region."""

    id: str
    region: Region
    assigner: str
    acc: float
    nats: float
    kappa: float
    omega: float
    votes: list[str] = field(default_factory=list)


def write_regions(path: Path, assigned: Iterable[Assigned]) -> None:
    write_rows(path, map(asdict, assigned))


def read_regions(path: Path) -> dict[str, Assigned]:
    """Question id -> what is known of it, in the order of the file.

    Raises `DataError` with file and line for a line that is no such object, another region, or an id that comes twice.
    """
    by_seed: dict[str, Assigned] = {}
    for number, line in read_lines(path):
        try:
            values: Any = json.loads(line)
            question = Assigned(**values)
        except (ValueError, TypeError) as error:
            raise DataError(f"no line of a file of regions: {error}", file=path, line=number) from error
        if question.region not in list(Region):
            wrong = f"got '{question.region}'{choices(str(question.region), list(Region))}"
            raise DataError(wrong, file=path, line=number, field="region")
        if question.id in by_seed:
            raise DataError(f"'{question.id}' comes twice", file=path, line=number, field="id")
        by_seed[question.id] = Assigned(**{**values, "region": Region(question.region)})
    return by_seed


def may_know(regions: Mapping[str, Assigned], question: str) -> bool:
    """Whether the model may know the answer: its region is not missing. Raises `DataError` for an unknown question."""
    if question not in regions:
        raise DataError(f"question '{question}' has no region: profile it first")
    return regions[question].region is not Region.missing
