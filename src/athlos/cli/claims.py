"""`athlos claims`: the papers' numbers beside ours, as a table, as JSON or as Markdown."""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from athlos.cli.panels import visible
from athlos.config.catalogue import METHODS
from athlos.config.claims import Claim, Tag, all_claims
from athlos.config.registry import conf_dir
from athlos.errors import ConfigError, choices
from athlos.report.ledger import Entry, Verdict, ledger, read_records
from athlos.report.ledger_text import claim_verdict_of, ours_of, paper_of, shown_rows, verdict_of
from athlos.runs.records import RECORDS

log = logging.getLogger(__name__)

LOG_WIDTH = 160
"""Columns where the output is no terminal."""
STYLES = {
    Verdict.REPRODUCED: "green",
    Verdict.PARTLY: "yellow",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.NOT_REPRODUCED: "red",
    Verdict.BY_CONSTRUCTION: "dim",
    Verdict.NOT_MEASURED: "dim",
}


def print_claims(methods: Sequence[str], *, runs: Sequence[Path] = (), form: str = "table") -> None:
    """Print the ledger of the named methods, or of all, as `table`, `json`, `markdown` or `summary`.

    Raises `ConfigError` for a method without claims, `DataError` for a folder without runs. Damaged runs are named on
    the error stream and left out.
    """
    entries = computed(methods, runs=runs)
    if form == "json":
        print(json.dumps([_plain(entry) for entry in entries], indent=1, ensure_ascii=False))
    elif form == "markdown":
        print(markdown(entries))
    elif form == "summary":
        print(summary(entries))
    else:
        _print_table(entries)


def computed(methods: Sequence[str], *, runs: Sequence[Path] = ()) -> list[Entry]:
    """The ledger of the committed records and of `runs`: folders with runs, or records files."""
    claims = _chosen(methods)
    places = [*committed(), *runs]
    records = read_records(places) if places else None
    for line in records.skipped if records else ():
        log.warning("skipped %s", line)
    return ledger(claims, records.usable if records else ())


def committed() -> list[Path]:
    """`experiments/*/records.jsonl.gz` below the current folder, or of the checkout that this is."""
    files = (sorted(root.glob(f"experiments/*/{RECORDS}")) for root in (Path(), conf_dir().parent))
    return next(filter(None, files), [])


def _chosen(methods: Sequence[str]) -> Mapping[str, Sequence[Claim]]:
    known = all_claims()
    planned = [method.slug for method in METHODS if method.slug not in known]
    for name in methods:
        if name in planned:
            raise ConfigError(f"claims: '{name}' lists none yet; methods with claims: {', '.join(known)}")
        if name not in known:
            raise ConfigError(f"claims: got '{name}'{choices(name, list(known))}")
    in_order = [method.slug for method in METHODS if method.slug in known]
    wanted = methods or [*in_order, *(name for name in known if name not in in_order)]
    return {name: known[name] for name in wanted}


def _plain(entry: Entry) -> dict[str, Any]:
    claim = entry.claim
    return {
        "method": entry.method,
        "id": claim.id,
        "text": claim.text,
        "paper": claim.paper,
        "unit": claim.unit,
        "source": claim.source,
        "tag": claim.tag,
        "verdict": entry.verdict,
        "rows": [
            {
                "label": row.label,
                "verdict": row.verdict,
                "reason": row.reason,
                "quantity": row.quantity,
                "expected": row.expected,
                "value": row.value,
                "low": row.low,
                "high": row.high,
                "method": row.method,
                "num_seeds": row.num_seeds,
                "arms": row.arms,
                "notes": row.notes,
                "setting": row.setting,
                "hardware": row.hardware,
                "commits": row.commits,
                "runs": row.runs,
                "command": row.command,
            }
            for row in entry.rows
        ],
    }


def summary(entries: Sequence[Entry]) -> str:
    """How many of each method's published claims have which verdict, as a Markdown table of all methods.

    Bars that we set ourselves are no claims of a paper and are left out.
    """
    lines = [f"| method | {' | '.join(Verdict)} |", f"| --- |{' --- |' * len(Verdict)}"]
    for method in METHODS:
        if not method.title:
            continue
        verdicts = Counter(
            entry.verdict for entry in entries if entry.method == method.slug and entry.claim.tag is not Tag.OURS
        )
        cells = [str(verdicts[verdict]) for verdict in Verdict] if verdicts else ["-"] * len(Verdict)
        lines.append(f"| `{method.slug}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def markdown(entries: Sequence[Entry]) -> str:
    """A heading and a table a method; below it where each claim's runs come from."""
    lines: list[str] = []
    for method in dict.fromkeys(entry.method for entry in entries):
        mine = [entry for entry in entries if entry.method == method]
        lines += [
            f"## {method}",
            "",
            "| claim | paper | source | compared | ours, 95 % interval | method | verdict |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for entry in mine:
            claim = entry.claim
            head = (f"`{claim.id}` {claim.text}", paper_of(claim), f"{claim.source} ({claim.tag})")
            for position, row in enumerate(shown_rows(entry)):
                first = head if position == 0 else ("", "", "")
                cells = (*first, row.label, ours_of(row), row.method, verdict_of(row))
                lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
        lines += ["", *(f"- {line}" for line in origins(mine)), ""]
    return "\n".join(lines).rstrip()


def origins(entries: Sequence[Entry]) -> list[str]:
    """Where the numbers come from: setting, hardware, commit and command, a line for all claims that share them."""
    claims_of_line: dict[str, list[str]] = {}
    for entry in entries:
        rows = [row for row in entry.rows if row.runs]
        if not rows:
            continue
        parts = [
            "; ".join(dict.fromkeys(row.setting for row in rows)),
            "; ".join(dict.fromkeys(machine for row in rows for machine in row.hardware)),
            f"commit {', '.join(dict.fromkeys(commit for row in rows for commit in row.commits))}",
            *dict.fromkeys(f"`{row.command}`" for row in rows if row.command),
        ]
        claims_of_line.setdefault("; ".join(parts), []).append(f"`{entry.claim.id}`")
    return [f"{', '.join(claims)}: {line}" for line, claims in claims_of_line.items()]


def _print_table(entries: Sequence[Entry]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = Console()
    if not out.is_terminal:
        out = Console(width=LOG_WIDTH)
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for name in ("claim", "paper", "ours, 95 % interval", "n", "verdict"):
        table.add_column(name, overflow="fold")
    for entry in entries:
        rows = shown_rows(entry)
        is_one = len(rows) == 1 and rows[0].verdict is Verdict.NOT_MEASURED
        table.add_row(
            Text(f"{entry.claim.id}: {entry.claim.text}", style="bold"),
            f"{paper_of(entry.claim)} ({entry.claim.tag})",
            "",
            "",
            Text(visible(verdict_of(rows[0]) if is_one else claim_verdict_of(entry)), style=STYLES[entry.verdict]),
        )
        for row in () if is_one else rows:
            method = f" ({row.method})" if row.method else ""
            table.add_row(
                Text(visible(f"  {row.label}")),
                "",
                Text(f"{ours_of(row)}{method}"),
                str(row.num_seeds or ""),
                Text(visible(verdict_of(row)), style=STYLES[row.verdict]),
            )
    out.print(table)
    for line in origins(entries):
        out.print(Text(visible(line.replace("`", ""))), soft_wrap=True)
