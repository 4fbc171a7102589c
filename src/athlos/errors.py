"""Errors a user can act on. Each carries its exit code; the command line prints the message as one line."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

INTERRUPTED = 130
"""Exit code after ctrl-C or SIGTERM: the shell's own for a program that a signal ended."""


class AthlosError(Exception):
    """Base of all errors that end a run with a clear line. `exit_code` is the process exit code."""

    exit_code = 1


class ConfigError(AthlosError):
    """A wrong key or value in the configuration (exit code 2)."""

    exit_code = 2


class ConfigErrors(ConfigError):
    """Several configuration errors found in one pass; `errors` holds one line each."""

    def __init__(self, errors: Sequence[str]) -> None:
        self.errors = list(errors)
        super().__init__("\n".join(self.errors))


class DataError(AthlosError):
    """Unreadable data: names the file, the 1-based line and the field where known (exit code 3)."""

    exit_code = 3

    def __init__(
        self, message: str, *, file: Path | str | None = None, line: int | None = None, field: str | None = None
    ) -> None:
        self.file, self.line, self.field, self.reason = file, line, field, message
        place = ":".join(str(part) for part in (file, line) if part is not None)
        if field is not None:
            place = f"{place} field '{field}'" if place else f"field '{field}'"
        super().__init__(f"{place}: {message}" if place else message)


class ModelError(AthlosError):
    """A model that cannot be found, loaded or trusted (exit code 4)."""

    exit_code = 4


class SurgeryError(ModelError):
    """A surgery or selection that did not find the sites it asked for (exit code 4)."""


class TrainingError(AthlosError):
    """Training stopped: not-a-number, out of memory, disk full (exit code 5)."""

    exit_code = 5


class NumericalError(TrainingError):
    """A loss or a gradient that is no finite number (exit code 5)."""


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The suffix "; did you mean 'x'?" for the nearest of `known`, or an empty string when none is near."""
    near = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def choices(word: str, known: Sequence[str], *, label: str = "available") -> str:
    """The suffix "; did you mean 'x'? Available: ..." or, when none is near, "; available: ..."."""
    near = did_you_mean(word, known)
    listing = f"{label}: {', '.join(known) or 'none'}"
    return f"{near} {listing[0].upper()}{listing[1:]}" if near else f"; {listing}"
