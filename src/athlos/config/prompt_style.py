"""The interface of prompt styles."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

RecordT = TypeVar("RecordT")


@dataclass(frozen=True, kw_only=True)
class PromptStyle(Generic[RecordT]):
    """One way to ask for the answer to records of one type; `text/prompts.py` makes prompts of it.

    Styles stand as `PROMPT_STYLES` in `text/prompt_styles.py` and in a method's own `prompt_styles.py`, both free of
    torch. Several types of record may have a style of one name, which `prompt_style` then chooses for all of them.
    """

    record_type: "type[RecordT]"
    name: str
    question: Callable[[RecordT], str]
    """Ends where the answer begins."""
    answer: Callable[[RecordT], str]
    """Starts with the space that belongs between question and answer."""
    stops: Callable[[RecordT], tuple[str, ...]] = lambda record: ()
    """Strings that end an answer."""
    shot: Callable[[RecordT], RecordT] = lambda record: record
    """What of a record is shown when it is a worked example."""
    read: Callable[[str], str] = str.strip
    """Generated text, cut at its stop -> the answer."""
    built_in: Callable[[str], list[RecordT]] | None = None
    """Worked examples in a language that come with the style, where it has any."""
