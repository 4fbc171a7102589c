"""Overrides as users type them -> overrides that Hydra's grammar reads.

The grammar takes an unquoted value of Latin letters, digits and a few signs alone, so that a path with `=`, a bracket
or Japanese letters is refused, without its key. Such a value is put in quotes here; each choice of a sweep by
itself, so that the others keep their types.
"""

import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from athlos.errors import ConfigError

STRUCTURED = ("[", "{", "'", '"')
"""What begins a list, a mapping or a quoted text: where one of these is broken, quotes would only hide it."""


def readable(overrides: Sequence[str]) -> list[str]:
    """The overrides with quotes where Hydra needs them; `ConfigError` names the key of one that stays unreadable."""
    parser = OverridesParser.create()
    return [item if _is_readable(parser, item) else _quoted(parser, item) for item in overrides]


def quoted(text: str) -> str:
    """A text in quotes, as Hydra reads it back: it halves the backslashes before a quote and takes others as such."""
    doubled = re.sub(r"(\\+)('|$)", r"\1\1\2", text)
    return "'" + doubled.replace("'", "\\'") + "'"


def _is_readable(parser: OverridesParser, item: str) -> bool:
    try:
        parser.parse_override(item)
    except HydraException:
        return False
    return True


def _quoted(parser: OverridesParser, item: str) -> str:
    key, equals, value = item.partition("=")
    choices = (part if _is_readable(parser, f"{key}={part}") else quoted(part) for part in value.split(","))
    with_quotes = f"{key}={','.join(choices)}"
    if not equals or value.startswith(STRUCTURED) or not _is_readable(parser, with_quotes):
        if not equals or not _is_readable(parser, f"{key}=1"):
            raise ConfigError(f"override '{item}': cannot be read, expected <key>=<value>")
        raise ConfigError(
            f"{key}: cannot read {value}; quote texts inside it, and it as a whole for the shell: "
            f"""'{key}=["a=b",...]' or '{key}={{name:"a=b"}}'"""
        )
    return with_quotes
