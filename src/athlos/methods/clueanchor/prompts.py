"""What is asked on each path, and how replies are written and read.

The external prompt is the one that is trained on and tested; it is built from a record alone and refuses one whose text
has seen the gold answer. The other four stand in the exploration only.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from athlos.data.records import Passage, QuestionRecord
from athlos.errors import ConfigError, DataError

OPEN_THINK, CLOSE_THINK = "<think>", "</think>"
OPEN_ANSWER, CLOSE_ANSWER = "<answer>", "</answer>"
OPEN_CLUE, CLOSE_CLUE = "<clue>", "</clue>"
SAW_GOLD = "saw_gold"
"""Key of `meta`: true where a record holds text that was written with the gold answer in view."""
_ANSWER = re.compile(rf"{OPEN_ANSWER}(.*?){CLOSE_ANSWER}", re.DOTALL)
_STRAY = re.compile("|".join((OPEN_ANSWER, CLOSE_ANSWER)))


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A reply read into its parts."""

    think: str
    """Empty where no tag closes a thought."""
    answer: str
    is_formatted: bool
    """Whether a thought that is not empty is closed and an answer in tags follows it."""


def parse(text: str) -> Reply:
    """The thought ends at the first closing tag; the answer is the first one in tags behind it, else what is left.

    Source: ClueAnchor's code, but the text of a thought is stripped with and without its opening tag.
    """
    before, mark, rest = text.partition(CLOSE_THINK)
    think = before.replace(OPEN_THINK, "").strip() if mark else ""
    match = _ANSWER.search(rest if mark else text)
    answer = match[1] if match else _STRAY.sub("", rest if mark else text)
    return Reply(think=think, answer=answer.strip(), is_formatted=bool(think and match))


def thought(text: str) -> str:
    """The thought at the front of a reply that begins within it: engines stop at no string before its closing tag."""
    return text.partition(CLOSE_THINK)[0].partition(OPEN_ANSWER)[0].strip()


def written(think: str, answer: str) -> str:
    """The reply with these parts: what is trained on."""
    return f"{OPEN_THINK} {think} {CLOSE_THINK} {OPEN_ANSWER} {answer} {CLOSE_ANSWER}"


class Layout(ABC):
    """The five prompts of one prompt style."""

    def internal(self, record: QuestionRecord) -> str:
        """The question alone."""
        return self._thought(record, background=(), clue="")

    def external(self, record: QuestionRecord) -> str:
        """Passages and question. Raises `DataError` for a record that holds text that has seen the gold answer."""
        if record.meta.get(SAW_GOLD):
            raise DataError(
                f"record '{record.identifier}' has text that has seen the gold answer: it makes no prompt of a test"
            )
        return self._thought(record, background=record.passages, clue="")

    def clue(self, record: QuestionRecord, clue: str) -> str:
        """Passages, the clue and the question; an exploration's alone."""
        return self._thought(record, background=record.passages, clue=clue)

    @abstractmethod
    def extract(self, record: QuestionRecord, gold: str) -> str:
        """Asks for the sentences that support an answer, or for those that the question needs where `gold` is empty."""

    @abstractmethod
    def verify(self, record: QuestionRecord, clue: str) -> str:
        """The question over the clue alone, without a word about thinking."""

    @abstractmethod
    def _thought(self, record: QuestionRecord, *, background: Sequence[Passage], clue: str) -> str: ...


class EnglishLayout(Layout):
    """Instructions in English, in our own words. Passages come first, so that the prompts of a question share them."""

    def extract(self, record: QuestionRecord, gold: str) -> str:
        about = f"\nAnswer: {gold}" if gold else ""
        goal = "from which the answer follows" if gold else "that are needed to answer the question"
        return (
            f"{_background(record.passages)}Copy the sentences of the background {goal}, word for word and with "
            f"nothing added.\n\nQuestion: {record.question}{about}"
        )

    def verify(self, record: QuestionRecord, clue: str) -> str:
        return f"Background:\n{clue}\n\nAnswer in a few words.\n\nQuestion: {record.question}"

    def _thought(self, record: QuestionRecord, *, background: Sequence[Passage], clue: str) -> str:
        form = (
            f"First think in one or two sentences between {OPEN_THINK} and {CLOSE_THINK}, then write the shortest "
            f"answer between {OPEN_ANSWER} and {CLOSE_ANSWER}."
        )
        anchored = f"Key clue, beside which the whole background still counts: {clue}\n\n" if clue else ""
        about = (
            " See first whether the background is about it; where it is not, use what you know." if background else ""
        )
        return f"{_background(background)}{anchored}Answer the question.{about} {form}\n\nQuestion: {record.question}"


class BareLayout(Layout):
    """No words: for languages that have none for instructions. Tags alone tell the tasks apart."""

    def extract(self, record: QuestionRecord, gold: str) -> str:
        about = [f"{OPEN_ANSWER} {gold} {CLOSE_ANSWER}"] if gold else []
        return " ".join([*_texts(record.passages), record.question, *about, OPEN_CLUE])

    def verify(self, record: QuestionRecord, clue: str) -> str:
        return " ".join([clue, record.question, OPEN_ANSWER])

    def _thought(self, record: QuestionRecord, *, background: Sequence[Passage], clue: str) -> str:
        anchored = [f"{OPEN_CLUE} {clue} {CLOSE_CLUE}"] if clue else []
        return " ".join([*_texts(background), *anchored, record.question])


def _background(passages: Sequence[Passage]) -> str:
    lines = [f"{passage.title}: {text}" if passage.title else text for passage, text in _lines(passages)]
    return "\n".join(["Background:", *lines]) + "\n\n" if lines else ""


def _lines(passages: Sequence[Passage]) -> list[tuple[Passage, str]]:
    return [(passage, " ".join(passage.text.split())) for passage in passages]


def _texts(passages: Sequence[Passage]) -> list[str]:
    return [text for _, text in _lines(passages) if text]


LAYOUTS: dict[str, Layout] = {"clueanchor": EnglishLayout(), "clueanchor_bare": BareLayout()}
"""By the name of the prompt style."""


def layout_of(prompt_style: str) -> Layout:
    """Raises `ConfigError` for a prompt style that has no layouts for an exploration."""
    if prompt_style not in LAYOUTS:
        raise ConfigError(f"prompt_style: got '{prompt_style}', expected one of {', '.join(LAYOUTS)}")
    return LAYOUTS[prompt_style]
