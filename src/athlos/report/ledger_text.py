"""The ledger in words: the same texts on the terminal, in Markdown and on the page of the report."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from athlos.config.claims import Claim, all_claims
from athlos.report.ledger import Entry, Row, Verdict, damage_of, ledger
from athlos.runs.records import RunRecord

DIGITS = 4


def number(value: float | None) -> str:
    """Four significant digits; whole numbers below a million in full."""
    if value is None or math.isnan(value):
        return ""
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e6 else f"{value:.{DIGITS}g}"


def paper_of(claim: Claim) -> str:
    """The paper's number with its unit, a dash where it names none."""
    if claim.paper is None:
        return "-"
    ends = claim.paper if isinstance(claim.paper, tuple) else (claim.paper,)
    return f"{' to '.join(number(end) for end in ends)} {claim.unit}".strip()


def ours_of(row: Row) -> str:
    """Our number with its interval."""
    interval = f" [{number(row.low)}, {number(row.high)}]" if row.low is not None else ""
    return f"{number(row.value)}{interval}"


def verdict_of(row: Row) -> str:
    why = "; ".join(part for part in (row.reason, *row.notes) if part)
    return f"{row.verdict}: {why}" if why else str(row.verdict)


def claim_verdict_of(entry: Entry) -> str:
    """The verdict of a claim; of a mixture, how many of the measured comparisons are on the claimed side."""
    measured = [row.verdict for row in entry.rows if row.verdict is not Verdict.NOT_MEASURED]
    if len(set(measured)) < 2:
        return str(entry.verdict)
    return f"{entry.verdict}: {measured.count(Verdict.REPRODUCED)} of {len(measured)} comparisons hold"


def shown_rows(entry: Entry) -> list[Row]:
    """The rows to show: those that were not measured for one and the same reason as a single row."""
    groups: dict[str, list[Row]] = {}
    for row in entry.rows:
        is_open = row.verdict is Verdict.NOT_MEASURED
        groups.setdefault(f"\0{row.reason}" if is_open else row.label, []).append(row)
    labels = [", ".join(row.label for row in group) if len(groups) > 1 else group[0].label for group in groups.values()]
    if len(groups) == 1 and len(entry.rows) > 1:
        labels = [""]
    return [replace(group[0], label=label) for group, label in zip(groups.values(), labels, strict=True)]


def page_claims(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """What the page shows: the claims on which its own runs say something, with the rows that were measured."""
    usable = [record for record in records if not record.is_imported and damage_of(record) is None]
    lines = []
    for entry in ledger(all_claims(), usable):
        rows = [row for row in entry.rows if row.verdict is not Verdict.NOT_MEASURED]
        if rows:
            lines.append(
                {
                    "id": entry.claim.id,
                    "text": entry.claim.text,
                    "paper": paper_of(entry.claim),
                    "tag": str(entry.claim.tag),
                    "verdict": str(entry.verdict),
                    "rows": [[row.label, ours_of(row), row.method, verdict_of(row)] for row in rows],
                }
            )
    return lines
