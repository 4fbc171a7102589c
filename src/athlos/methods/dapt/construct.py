"""The benchmark builder: English questions of several steps in another language, by the run's translator.

A question is kept when what makes it answerable survived: each answer comes back from the other language as it was,
each sub-question has the references it had, numbers are the same, and nothing was left untranslated. Source: the checks
are this project's own; the paper translated its benchmarks and does not say how they were checked.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from athlos.data.records import PARALLEL, QuestionRecord
from athlos.generation.interface import Request
from athlos.generation.pipeline import Ask, Solver, Steps, together
from athlos.methods.dapt import prompts
from athlos.methods.dapt.config import TranslateConfig
from athlos.methods.dapt.graph import REFERENCE
from athlos.methods.dapt.prompts import ENGLISH
from athlos.text.matching import exact_match
from athlos.training.pipeline_module import PipelineModule

NUMBER = re.compile(r"\d+")
RELATION = " >> "
"""Between an entity and a relation: MuSiQue writes steps that are no sentences, `Ada >> author`."""
REASONS = ("answer", "references", "numbers", "untranslated")
"""Why a question is left out; the first that applies."""


def translated(record: QuestionRecord, *, target: str, max_new_tokens: int) -> Solver:
    """The row of the translated question as JSON, or `{"rejected": reason}`. All translations are one round, the way
    back of the answers a second one."""

    def translation_of(text: str, source: str, goal: str) -> Steps[str]:
        if not any(letter.isalpha() for letter in text):  # a year, a date in digits
            return text
        if RELATION in text:  # what is no sentence is translated piece by piece, so that it stays what it is
            pieces = yield from together([translation_of(piece, source, goal) for piece in text.split(RELATION)])
            return RELATION.join(pieces)
        prompt = prompts.translate(text, source=source, target=goal)
        (reply,) = yield [Ask(purpose="translate", prompt=prompt, max_new_tokens=max_new_tokens, stop=("\n",))]
        return str(reply).strip()

    answers = list(dict.fromkeys([record.answers[0], *(step.answer for step in record.steps)]))
    texts = [record.question, *(step.question for step in record.steps), *answers]
    there = yield from together([translation_of(text, record.language, target) for text in texts])
    question, *rest = there
    steps, names = rest[: len(record.steps)], rest[len(record.steps) :]
    back = yield from together([translation_of(name, target, record.language) for name in names])
    reason = rejection(record, question, steps, dict(zip(answers, back, strict=True)))
    if reason:
        return json.dumps({"rejected": reason})
    name_of = dict(zip(answers, names, strict=True))
    row = {
        "id": f"{target}-{record.identifier}",
        "language": target,
        "question": question,
        "answers": [name_of[record.answers[0]]],
        "steps": [[text, name_of[step.answer]] for text, step in zip(steps, record.steps, strict=True)],
        PARALLEL: {
            "question": record.question,
            "answers": record.answers,
            "steps": [[step.question, step.answer] for step in record.steps],
        },
    }
    return json.dumps(row, ensure_ascii=False)


def rejection(record: QuestionRecord, question: str, steps: Sequence[str], back: dict[str, str]) -> str:
    """The first of `REASONS` for which a translation is no benchmark; empty for one that is kept."""
    for answer, returned in back.items():
        accepted = record.answers if answer == record.answers[0] else [answer]
        if not exact_match(returned, accepted, language=record.language, normaliser="mkqa_unicode"):
            return "answer"
    pairs = [(record.question, question), *((old.question, new) for old, new in zip(record.steps, steps, strict=True))]
    if any(sorted(REFERENCE.findall(old)) != sorted(REFERENCE.findall(new)) for old, new in pairs):
        return "references"
    if any(sorted(NUMBER.findall(old)) != sorted(NUMBER.findall(new)) for old, new in pairs):
        return "numbers"
    if not all(new for _, new in pairs) or question.casefold() == record.question.casefold():
        return "untranslated"
    return ""


class TranslateModule(PipelineModule[TranslateConfig]):
    """Answers each request by its translated row."""

    def solver(self, request: Request) -> Solver:
        record: Any = request.record
        return translated(record, target=self.method.target, max_new_tokens=self.method.max_new_tokens)


def english_row(record: QuestionRecord) -> dict[str, Any]:
    """The row of an English question, with its passages: the corpus that its translations are answered from."""
    return {
        "id": f"{ENGLISH}-{record.identifier}",
        "language": ENGLISH,
        "question": record.question,
        "answers": record.answers,
        "steps": [[step.question, step.answer] for step in record.steps],
        "passages": [
            {"title": passage.title, "text": passage.text, "is_supporting": passage.is_supporting}
            for passage in record.passages
        ],
    }
