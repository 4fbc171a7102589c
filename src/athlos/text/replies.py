"""The forms in which pipelines ask a model to write, and how its replies are read: sub-questions, steps, answers.

`#1` in a sub-question stands for the answer to the first one, as in MuSiQue.
"""

import re
from collections.abc import Sequence

UNKNOWN = "unknown"
"""What a model is asked to say where the passages do not tell, in every language."""
NEXT, FINAL = "Next question:", "Final answer:"
"""What a step begins with: one more sub-question, or the answer."""
_REFERENCE = re.compile(r"#(\d+)")
_NUMBERED = re.compile(r"\s*(?:\d+\s*[.):]|[-*])\s*(.+?)\s*\Z")
_QUOTES = "\"'`\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb\u300c\u300d*"
_FULL_STOPS = ".\u3002\uff0e"


def numbered(questions: Sequence[str]) -> str:
    """One question a line, behind its number."""
    return "\n".join(f"{number}. {question}" for number, question in enumerate(questions, start=1))


def read_numbered(reply: str) -> list[str]:
    """The questions of a numbered or dashed list; other lines are passed over."""
    return [match[1] for line in reply.splitlines() if (match := _NUMBERED.match(line))]


def references(question: str) -> list[int]:
    """The numbers of the sub-questions whose answers a sub-question takes."""
    return [int(number) for number in _REFERENCE.findall(question)]


def filled(question: str, answers: Sequence[str]) -> str:
    """A sub-question with the answers it takes in place of `#1`, `#2`; raises `IndexError` for one not there yet.

    A whole number is read at once, so that `#12` is never `#1` and a 2.
    """
    return _REFERENCE.sub(lambda match: answers[int(match[1]) - 1], question)


def short_answer(reply: str) -> str:
    """The first line of a reply, without quotes around it and full stop behind; `unknown` in one form."""
    lines = reply.strip().splitlines() or [""]
    text = lines[0].strip().strip(_QUOTES).rstrip(_FULL_STOPS).strip(_QUOTES).strip()
    return UNKNOWN if not text or text.lower() == UNKNOWN else text


def final_answer(reply: str) -> str | None:
    """What stands behind `FINAL` in a reply; None where it gives no answer."""
    _, mark, rest = reply.partition(FINAL)
    return short_answer(rest) if mark else None


def next_question(reply: str) -> str | None:
    """The question that a reply asks next; None where it asks none."""
    _, mark, rest = reply.partition(NEXT)
    lines = rest.strip().splitlines()
    return lines[0].strip() if mark and lines else None
