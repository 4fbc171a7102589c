"""What each judge is worth against people: the recorded table, and what must stand beside a judge's figures."""

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("expertqa.json")
"""Written by `athlos judge data=expertqa ... --table`, see experiments/judging."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value and the central 95 % of its resamples; nan where it is undefined."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """A judge's scores against human labels, n of them."""

    n: int
    auroc: Interval
    overlap: Interval
    """AUROC of plain word overlap on the same pairs."""
    gain: Interval
    """The difference of the two, by paired resamples."""

    @property
    def verdict(self) -> str:
        """What a figure of this judge must be read with."""
        return "better than word overlap" if self.gain.low > 0 else "not shown to be better than word overlap"

    def __str__(self) -> str:
        return f"{self.verdict}: AUROC {self.auroc} against {self.overlap}, n {self.n}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Agreement":
        intervals = {name: Interval(**values[name]) for name in ("auroc", "overlap", "gain")}
        return cls(n=values["n"], **intervals)


def markdown() -> str:
    """The recorded table, a line a judge, as the study shows it."""
    lines = [
        "| judge | n | AUROC | word overlap, same pairs | difference | so it is |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for judge_id, row in _judges().items():
        agreement = Agreement.of(row["agreement"])
        cells = (f"`{judge_id}`", agreement.n, agreement.auroc, agreement.overlap, agreement.gain, agreement.verdict)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def agreement_of(judge_id: str) -> Agreement | None:
    """What the recorded table says of a judge; None for one that it does not hold."""
    row = _judges().get(judge_id)
    return None if row is None else Agreement.of(row["agreement"])


def caveat(judge_id: str) -> str:
    """What stands beside each figure of a judge, in a few words."""
    agreement = agreement_of(judge_id)
    return "not measured on ExpertQA's human labels" if agreement is None else f"on ExpertQA's human labels {agreement}"


@cache
def _judges() -> dict[str, Any]:
    judges: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))["judges"]
    return judges
