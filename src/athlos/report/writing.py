"""The page: one HTML file that holds its style, its program and its data, and asks the network for nothing.

The content security policy admits exactly the shipped style and program, by their hashes. Data is JSON in a script
element of a type that browsers do not run, with `<` escaped, and reaches the page as text alone.
"""

import base64
import hashlib
import html
import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from athlos.errors import ConfigError
from athlos.runs.values import printable

LIBRARY = ("uplot/uPlot.iife.min.js", "uplot/uPlot.min.css", "uplot/LICENSE")
"""What draws the curves: program, style, and the licence that each page carries."""
PROGRAM = ("format.js", "data.js", "table.js", "charts.js", "sections.js", "predictions.js", "main.js")
"""Files of the program, in the order in which they need each other."""


def page(data: Mapping[str, Any]) -> str:
    """The HTML of a report; `data` is what `payload` returns."""
    library, library_style, licence = map(_shipped, LIBRARY)
    style = library_style + _shipped("page.css")
    files = "\n".join([library, *map(_shipped, PROGRAM)])
    program = f"/* uPlot:\n{licence}\n*/\n(() => {{\n'use strict';\n{files}}})();\n"
    policy = (
        f"default-src 'none'; script-src '{_source_hash(program)}'; style-src '{_source_hash(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "policy": policy,
        "title": html.escape(str(data["title"])),
        "style": style,
        "program": program,
        "data": embedded_json(data),
    }
    pieces = _shipped("page.html").split("@@")  # text, name, text, name, ..., text: nothing inserted is read again
    return "".join(parts[piece] if index % 2 else piece for index, piece in enumerate(pieces))


def embedded_json(data: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return printable(text.replace("<", "\\u003c"))


def write_page(data: Mapping[str, Any], out: Path) -> Path:
    """Write the report beside its place and rename it; raises `ConfigError` where that cannot be done."""
    if out.is_dir():
        raise ConfigError(f"--out: {out} is a folder, expected a file name such as {out / 'report.html'}")
    scratch = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(page(data), encoding="utf-8")
        scratch.replace(out)
    except OSError as error:
        raise ConfigError(f"--out: cannot write {out}: {error.strerror or error}") from error
    finally:
        if scratch.is_file():
            scratch.unlink()
    return out


def _shipped(name: str) -> str:
    return resources.files("athlos.report").joinpath("page", name).read_text(encoding="utf-8")


def _source_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
