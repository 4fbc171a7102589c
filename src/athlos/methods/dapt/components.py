"""The components of DaPT: translator, decomposer and reader, each as a model and as one that knows the truth.

Each is a part of a pipeline (`generation.pipeline.Steps`): a model's yields a call, the others return at once. A local
model and a server are the same component, by `generator`. Damage is drawn from the question's own seed, so that it does
not depend on other questions; with `noise.correlated` both graphs of a question are damaged alike.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from athlos.data.records import PARALLEL, QuestionRecord
from athlos.data.rows import json_rows
from athlos.errors import DataError
from athlos.generation.pipeline import Ask, Steps
from athlos.methods.dapt import prompts
from athlos.methods.dapt.config import DaptConfig
from athlos.methods.dapt.exact import Exact
from athlos.methods.dapt.graph import REFERENCE, filled, json_in, parse_graph
from athlos.retrieval.interface import Passage
from athlos.text.language import base_language

_CUT_OFF = re.compile(r'"(answer|english)"\s*:\s*"((?:[^"\\]|\\.)*)')
MAX_LINE = 80
"""Characters of a reply's first line that can be an answer."""
MAX_ANSWER = 200
"""Characters of an answer that are kept."""
LOST_SHARE = 1 / 3
"""Words that a damaged node loses."""
Answer = tuple[str | None, str | None]
"""A node's answer in the language of the question and in English; None for unknown."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the pipeline is asked, and the truth that components other than models read."""

    identifier: str
    text: str
    language: str
    pivot: str
    """The language that stands for English: `en`, in the lab the first one."""
    english: str | None
    steps: tuple[tuple[str, str], ...]
    """Gold sub-questions and their answers, in the language of the question."""
    english_steps: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, record: QuestionRecord, *, pivot: str) -> "Question":
        steps = tuple((step.question, step.answer) for step in record.steps)
        parallel = record.meta.get(PARALLEL)
        if parallel is None and base_language(record.language) == pivot:
            parallel = {"question": record.question, "steps": steps}
        parallel = parallel or {}
        return cls(
            identifier=record.identifier,
            text=record.question,
            language=record.language,
            pivot=pivot,
            english=parallel.get("question"),
            steps=steps,
            english_steps=tuple((str(text), str(answer)) for text, answer in parallel.get("steps", ())),
        )

    @property
    def is_english(self) -> bool:
        return base_language(self.language) == self.pivot

    def gold(self, language: str) -> tuple[tuple[str, str], ...]:
        steps = self.english_steps if language == self.pivot else self.steps
        if not steps:
            raise DataError(f"question '{self.identifier}': the data have no steps in '{language}'")
        return steps


class Components:
    def __init__(
        self, config: DaptConfig, *, seed: int, exact: Exact | None, translations: Mapping[str, str] | None = None
    ) -> None:
        self.config, self.seed, self._exact = config, seed, exact
        self._translations = translations or {}

    @property
    def exact(self) -> Exact:
        if self._exact is None:
            raise DataError("method.reader: got exact, but the data are of no world that could be read exactly")
        return self._exact

    # -- translator ----------------------------------------------------------------------------------------------------

    def translated_question(self, question: Question) -> Steps[str | None]:
        """The whole question in English."""
        if self.config.translator == "model":
            return (yield from self._asked_translation(question.text, source=question.language, target=question.pivot))
        if self.config.translator == "file":
            for key in (question.text, question.identifier):
                if key in self._translations:
                    return self._translations[key] or None
            raise DataError(f"method.translations: no row translates question '{question.identifier}'")
        if question.english is None:
            raise DataError(f"question '{question.identifier}': the data have no parallel question in English")
        return with_lost_words(question.english, self.config.noise.translate, self._rng(question, "translate"))

    def translated_node(self, question: Question, text: str, *, source: str, target: str) -> Steps[str | None]:
        """A sub-question in the other language; None where it cannot be read."""
        if self.config.translator == "model":
            return (yield from self._asked_translation(text, source=source, target=target))
        if self.config.translator == "file":
            return self._translations.get(text)
        try:
            translation = self.exact.translation(text, language=target)
        except DataError:
            return None
        return with_lost_words(translation, self.config.noise.translate, self._rng(question, "translate", text))

    def _asked_translation(self, text: str, *, source: str, target: str) -> Steps[str | None]:
        (reply,) = yield [
            Ask(
                purpose="translate",
                prompt=prompts.translate(text, source=source, target=target),
                max_new_tokens=self.config.max_new_tokens,
                stop=("\n",),
            )
        ]
        return reply.strip().strip('"') or None

    # -- decomposer ----------------------------------------------------------------------------------------------------

    def decomposed(self, question: Question, text: str | None, *, language: str) -> Steps[list[str] | None]:
        """Texts of the nodes as they were written, not yet repaired; None where there are none."""
        if self.config.decomposer == "gold":
            return self._damaged([node for node, _ in question.gold(language)], question, language)
        if text is None:
            return None
        (reply,) = yield [
            Ask(
                purpose=f"decompose_{'en' if language == question.pivot else 's'}",
                prompt=prompts.decompose(
                    text,
                    language=language,
                    num_demonstrations=self.config.num_demonstrations,
                    max_nodes=self.config.max_nodes,
                ),
                max_new_tokens=self.config.max_new_tokens,
            )
        ]
        return parse_graph(reply, question=text)

    def _damaged(self, texts: Sequence[str], question: Question, language: str) -> list[str] | None:
        noise = self.config.noise
        is_pivot = language == question.pivot
        share = noise.decompose_en if is_pivot else noise.decompose_s
        if is_pivot and not question.is_english:
            share = 1 - (1 - share) * (1 - noise.translate)
        rng = self._rng(question, "decompose", "" if noise.correlated else language)
        return damaged(texts, share, rng)

    # -- reader --------------------------------------------------------------------------------------------------------

    def read(
        self, question: Question, source: str | None, english: str | None, passages: Sequence[Passage]
    ) -> Steps[Answer]:
        """A short answer in both languages from the passages alone."""
        if self.config.reader == "model":
            return (yield from self._asked_reading(question, source, english, passages))
        if self.config.reader == "gold":
            return _gold_answer(question, source, english)
        texts = [passage.text for passage in passages]
        wordings = [wording for wording in (english, source) if wording is not None]
        in_source = [self._exact_answer(wording, texts, question.language) for wording in wordings]
        in_english = [self._exact_answer(wording, texts, question.pivot) for wording in wordings]
        return next(filter(None, in_source), None), next(filter(None, in_english), None)

    def _exact_answer(self, wording: str, texts: Sequence[str], language: str) -> str | None:
        try:
            return self.exact.answer(wording, texts, language=language)
        except DataError:  # a wording that lost words is no sentence of the world
            return None

    def _asked_reading(
        self, question: Question, source: str | None, english: str | None, passages: Sequence[Passage]
    ) -> Steps[Answer]:
        wordings = [wording for wording in dict.fromkeys((source, english)) if wording]
        (reply,) = yield [
            Ask(
                purpose="read",
                prompt=prompts.read(wordings, passages, language=question.language),
                max_new_tokens=max(1, self.config.max_new_tokens // 4),
                reply_schema=prompts.answer_schema(question.language),
            )
        ]
        return read_reply(reply).answer

    def composed(self, question: Question, chain: Sequence[tuple[str, str]], passages: Sequence[Passage]) -> Steps[str]:
        """The short answer in the language of the question from the solved chain."""
        (reply,) = yield [
            Ask(
                purpose="compose",
                prompt=prompts.compose(question.text, chain, passages, language=question.language),
                max_new_tokens=max(1, self.config.max_new_tokens // 4),
            )
        ]
        return read_reply(reply).answer[0] or ""

    def _rng(self, question: Question, *purpose: str) -> random.Random:
        return random.Random("/".join([str(self.seed), question.identifier, *purpose]))


def read_translations(path: Path) -> dict[str, str]:
    """Id, and source text where a row has one -> translation; `DataError` names the row that lacks its fields."""

    def refuse(error: DataError) -> None:
        raise error

    known: dict[str, str] = {}
    for row in json_rows(path, refuse):
        translation = row.need("prediction", str)
        known[row.need("id", str)] = translation
        if "source" in row.values:
            known[row.need("source", str)] = translation
    return known


def _gold_answer(question: Question, source: str | None, english: str | None) -> Answer:
    for wording, steps in ((source, question.steps), (english, question.english_steps)):
        answers = {number: answer for number, (_, answer) in enumerate(steps, start=1)}
        for place, (text, _) in enumerate(steps):
            if wording is not None and filled(text, answers) == wording:
                there = [of[place][1] if place < len(of) else None for of in (question.steps, question.english_steps)]
                return there[0], there[1]
    return None, None


def damaged(texts: Sequence[str], share: float, rng: random.Random) -> list[str] | None:
    """Each node with probability `share` left out or robbed of words; references to one that is out dangle, as #0.

    One draw decides a node, so a greater share damages the same nodes and more. Nothing where no node is left.
    """
    fates = [(rng.random(), rng.random(), rng.getrandbits(32)) for _ in texts]
    kept = [index for index, (chance, kind, _) in enumerate(fates) if chance >= share or kind >= 0.5]
    numbers = {index + 1: number for number, index in enumerate(kept, start=1)}
    nodes = []
    for index in kept:
        chance, _, seed = fates[index]
        text = REFERENCE.sub(lambda match: f"#{numbers.get(int(match[1]), 0)}", texts[index])
        nodes.append(with_lost_words(text, LOST_SHARE, random.Random(seed), least=1) if chance < share else text)
    return nodes or None


def with_lost_words(text: str, share: float, rng: random.Random, *, least: int = 0) -> str:
    """The text without a share of its words, at least so many; without characters where it has one word."""
    words = text.split()
    joiner = " " if len(words) > 1 else ""
    units = words if len(words) > 1 else list(text)
    lost = {index for index in range(len(units)) if rng.random() < share}
    while len(lost) < min(least, len(units)):
        lost.add(rng.randrange(len(units)))
    return joiner.join(unit for index, unit in enumerate(units) if index not in lost)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What could be taken of a reader's reply."""

    answer: Answer
    is_valid: bool
    """Whether the reply is, or holds, the JSON object that was asked for."""
    is_lost: bool
    """Whether the reply neither answers in a form that can be read nor says that the answer is unknown."""


def read_reply(reply: str) -> Reading:
    """Both answers of a reply: of its JSON object, of one that was cut off, or its first line where that is short.

    One answer stands for both where the other is missing. Of prose nothing is taken: its first line is no answer.
    """
    value = json_in(reply)
    is_valid = isinstance(value, dict) and isinstance(value.get("answer"), str | int | float)
    texts = value if isinstance(value, dict) else dict(_CUT_OFF.findall(reply))
    if not texts:
        first = next((line.strip() for line in reply.splitlines() if line.strip()), "")
        texts = {} if len(first) > MAX_LINE or first.endswith((":", "：", "{")) else {"answer": first}
    answers = [texts[name] for name in ("answer", "english") if name in texts]
    source, english = (_known(answers[place]) if answers else None for place in (0, -1))
    says_unknown = any(is_unknown(text) for text in answers)
    return Reading(
        answer=(source or english, english or source),
        is_valid=is_valid,
        is_lost=source is None and english is None and not says_unknown,
    )


def is_unknown(text: object) -> bool:
    return isinstance(text, str) and _bare(text).casefold().rstrip(".。") in prompts.UNKNOWN


def _bare(text: object) -> str:
    return " ".join(str(text).split()).strip("\"'`")[:MAX_ANSWER]


def _known(text: object) -> str | None:
    if not isinstance(text, str | int | float) or isinstance(text, bool) or is_unknown(text):
        return None
    return _bare(text) or None
