"""`athlos list`: what there is to run, one line each. Reads the registry and the first lines of `conf/`; no torch."""

import json
import sys
from pathlib import Path

from athlos.config.catalogue import BASELINES, METHODS
from athlos.config.compose import group_options
from athlos.config.registry import conf_dir, registry
from athlos.errors import ConfigError, did_you_mean

PART_GROUPS = (
    "surgery",
    "construct",
    "objective",
    "reward",
    "selection",
    "tuning",
    "decoding",
    "engine",
    "corpus",
    "index",
    "eval",
    "suite",
    "tracking",
    "hardware",
    "scale",
    "sweep",
)
COMMAND = "athlos "
"""A comment that starts so is the command line of an experiment."""

Row = dict[str, str]


def list_table(kind: str) -> list[Row]:
    """The rows of `athlos list <kind>`; all rows of a kind have the same columns, in the order to show them.

    Raises `ConfigError` for an unknown kind.
    """
    kinds = {
        "methods": _methods,
        "parts": _parts,
        "models": lambda: _files("model"),
        "data": lambda: _files("data"),
        "experiments": _experiments,
    }
    if kind not in kinds:
        raise ConfigError(f"list: got '{kind}', expected one of {', '.join(kinds)}{did_you_mean(kind, list(kinds))}")
    return kinds[kind]()


def _methods() -> list[Row]:
    """The catalogue, each method `here` when it is registered; then registered methods that are not in it."""
    here = {name: registry().get("method", name).summary for name in registry().names("method")}
    rows = [
        {
            "name": method.slug,
            "state": "here" if method.slug in here else "planned",
            "summary": here.get(method.slug, method.idea),
            "paper": method.title,
            "authors": method.authors,
            "reference": method.reference,
        }
        for method in (*METHODS, *BASELINES)
    ]
    known = {row["name"] for row in rows}
    rows += [
        {"name": name, "state": "here", "summary": summary, "paper": "", "authors": "", "reference": ""}
        for name, summary in here.items()
        if name not in known
    ]
    return rows


def _parts() -> list[Row]:
    """Every choice of the groups that stack, and the prompt styles."""
    rows = []
    for group in PART_GROUPS:
        for name in group_options(group):
            part = registry().parts.get((group, name))
            summary = part.summary if part is not None else _comments(conf_dir() / group / f"{name}.yaml")[0]
            rows.append({"group": group, "name": name, "summary": summary})
    return rows + [{"group": "prompt_style", "name": name, "summary": summary} for name, summary in _prompt_styles()]


def _prompt_styles() -> list[tuple[str, str]]:
    """Name of each prompt style and the types of record that have it."""
    styles = registry().styles
    return [
        (name, ", ".join(record_type.__name__ for record_type, of_type in styles.items() if name in of_type))
        for name in registry().style_names()
    ]


def _files(group: str) -> list[Row]:
    options = group_options(group)
    return [{"name": name, "summary": _comments(conf_dir() / group / f"{name}.yaml")[0]} for name in options]


def _experiments() -> list[Row]:
    rows = []
    for name in group_options("experiment"):
        summary, command = _comments(conf_dir() / "experiment" / f"{name}.yaml")
        rows.append({"name": name, "summary": summary, "command": command or f"athlos run experiment={name}"})
    return rows


def _comments(path: Path) -> tuple[str, str]:
    """(sentence that tells what a YAML file is, command line it names); empty strings where there is none.

    Both stand in the comments at its top, below Hydra's `@package` line; a sentence may go over several lines.
    """
    summary = command = ""
    with path.open(encoding="utf-8") as handle:
        for line in handle:
            if not line.startswith("#"):
                break
            text = line.lstrip("# ").rstrip()
            if text.startswith(COMMAND):
                command = command or text
            elif not text.startswith("@package") and not summary.endswith((".", "?", "!")):
                summary = f"{summary} {text}".strip()
    return summary, command


def print_list(kind: str, *, as_json: bool) -> None:
    """Print the rows to stdout: JSON, a table on a terminal, plain aligned lines anywhere else."""
    rows = list_table(kind)
    if as_json:
        print(json.dumps(rows, indent=1))
    elif sys.stdout.isatty():
        _print_table(rows)
    else:
        for line in aligned(rows):
            print(line)


def aligned(rows: list[Row]) -> list[str]:
    """A header and one line a row, columns padded to their widest cell; columns without any content are left out."""
    columns = [column for column in (rows[0] if rows else {}) if any(row[column] for row in rows)]
    widths = {column: max(len(column), *(len(row[column]) for row in rows)) for column in columns}
    lines = [{column: column for column in columns}, *rows] if columns else []
    return ["  ".join(line[column].ljust(widths[column]) for column in columns).rstrip() for line in lines]


def _print_table(rows: list[Row]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from athlos.cli.panels import visible

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    columns = [column for column in (rows[0] if rows else {}) if any(row[column] for row in rows)]
    for column in columns:
        # Names are typed by the reader, so they never break over two lines.
        table.add_column(column, no_wrap=column in ("name", "group", "state"), overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(row[column])) for column in columns))
    Console().print(table)
