"""Templated word problems of one or two steps in five real languages, with a worked solution in each.

The templates were written by hand for Athlos (`data/shipped/templated_sums/templates.json`, Apache-2.0, versioned).
A problem is the same in all languages; which sums are test sums is decided by a hash of the numbers alone, as in
`lab/sums.py`, so that no test sum is a training sum in any language.
"""

import hashlib
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from athlos.config.fields import at_least, bounded
from athlos.config.schema import DataConfig, RunConfig
from athlos.data.records import MathRecord
from athlos.data.source import GeneratedSource, data_part, shipped_dir
from athlos.errors import choices
from athlos.stages import file_hash

LANGUAGES = ("en", "ru", "zh", "th", "sw")
MAX_START = 20
MAX_OPERAND = 9
LEAST = 2
"""Smallest number: 1 would need a singular, and an accusative in Russian."""
VAL_SHARE = TEST_SHARE = 0.15


@dataclass(kw_only=True)
class TemplatedSumsConfig(DataConfig):
    languages: list[str] = field(default_factory=lambda: list(LANGUAGES))
    seed: int = 0
    """Seed of the draws; splits do not depend on it."""
    min_steps: int = at_least(1, default=1)
    """Fewest steps, at most `max_steps`."""
    max_steps: int = bounded("[1, 4]", default=2)
    """Most steps."""
    first: int = at_least(0, default=0)
    """Number of the first training problem: a later stage of training takes other problems."""
    num_train: int = at_least(1, default=300)
    """Training problems of each language; languages have different ones."""
    num_val: int = at_least(1, default=20)
    """Problems of the validation split, each in every language."""
    num_test: int = at_least(1, default=100)
    """Problems of the test split, each in every language."""


class Problem(NamedTuple):
    numbers: tuple[int, ...]
    """The start, then what is added (> 0) or taken away (< 0)."""
    name: int
    thing: int
    wordings: tuple[int, ...]
    """Which template of each step."""

    @property
    def totals(self) -> list[int]:
        return [sum(self.numbers[: index + 1]) for index in range(len(self.numbers))]


class TemplatedSumsSource(GeneratedSource[TemplatedSumsConfig]):
    """`solution` is a sentence a step and a last one with the answer; `english` is the same problem in English."""

    record_type = MathRecord

    @cached_property
    def templates(self) -> dict[str, Any]:
        templates: dict[str, Any] = json.loads(_path().read_text(encoding="utf-8"))["languages"]
        return templates

    def files(self, split: str) -> list[Path]:
        return [*super().files(split), _path()]

    def decides(self, split: str) -> dict[str, Any]:
        config = self.config
        return {
            "templates": file_hash(_path()),
            "languages": config.languages,
            "seed": config.seed,
            "steps": [config.min_steps, config.max_steps],
            "num": {"train": config.num_train, "val": config.num_val, "test": config.num_test}[split],
            "first": config.first if split == "train" else 0,
        }

    def words(self) -> Iterator[str]:
        """Texts that hold every wording with every thing and name, for a trimmed vocabulary."""
        templates = self.templates
        for code in self.config.languages:
            for place in range(len(templates[code]["things"]) * len(templates[code]["names"])):
                name, thing = place % len(templates[code]["names"]), place // len(templates[code]["names"])
                for wording in range(3):
                    numbers = self.problem("train", 3 * place + wording).numbers
                    wordings = (wording,) * (len(numbers) - 1)
                    yield " ".join(self.render(Problem(numbers, name, thing, wordings), code))

    def read(self, split: str) -> Iterator[MathRecord]:
        self.files(split)
        config = self.config
        if split == "train":
            for index in range(config.num_train):
                for place, code in enumerate(config.languages):
                    number = config.first + index * len(config.languages) + place
                    yield self._record(split, number, code)
            return
        for index in range(config.num_val if split == "val" else config.num_test):
            for code in config.languages:
                yield self._record(split, index, code)

    def problem(self, split: str, index: int) -> Problem:
        """The same in every process and order of calls."""
        config = self.config
        rng = random.Random(f"templated_sums:{config.seed}:{split}:{index}")
        while True:
            numbers = [rng.randint(LEAST, MAX_START)]
            for _ in range(rng.randint(config.min_steps, config.max_steps)):
                left, operand = sum(numbers), rng.randint(LEAST, MAX_OPERAND)
                is_loss = left - operand >= LEAST and rng.random() < 0.5
                numbers.append(-operand if is_loss else operand)
            if split_of(numbers) == split:
                names, things = (len(self.templates["en"][key]) for key in ("names", "things"))
                wordings = tuple(rng.randrange(3) for _ in numbers[1:])
                return Problem(tuple(numbers), rng.randrange(names), rng.randrange(things), wordings)

    def render(self, problem: Problem, code: str) -> tuple[str, str]:
        """Question and solution of a problem in a language."""
        words = self.templates[code]
        thing, name = words["things"][problem.thing], words["names"][problem.name]
        forms = {"many": thing.get("many", thing["one"]), **thing}

        def counted(number: int) -> str:
            form = plural(number, thing, code)
            return str(words["count"].format(number=number, **{**forms, "form": form}))

        told = [words["start"].format(name=name, count=counted(problem.numbers[0]))]
        solved = []
        totals = problem.totals
        for change, wording, left, right in zip(
            problem.numbers[1:], problem.wordings, totals[:-1], totals[1:], strict=True
        ):
            told.append(words["gain" if change > 0 else "loss"][wording].format(name=name, count=counted(abs(change))))
            step = words["add" if change > 0 else "take"]
            form = plural(right, thing, code)
            solved.append(step.format(left=left, right=abs(change), number=right, form=form, count=counted(right)))
        asked = words["ask"].format(name=name, **{**forms, "form": thing["one"]})
        solved.append(words["final"].format(name=name, count=counted(totals[-1])))
        return words["gap"].join([*told, asked]), words["gap"].join(solved)

    def _record(self, split: str, index: int, code: str) -> MathRecord:
        problem = self.problem(split, index)
        meta = {"difficulty": len(problem.wordings), "canonical": canonical(problem.numbers), "teacher": "lab_oracle"}
        question, solution = self.render(problem, code)
        english, english_solution = self.render(problem, "en")
        return MathRecord(
            identifier=f"{split}-{index}-{code}",
            language=code,
            question=question,
            answer=str(problem.totals[-1]),
            solution=solution,
            english=english,
            english_solution=english_solution,
            meta=meta,
        )

    def languages_of(self, split: str) -> list[str]:
        return self.config.languages


def canonical(numbers: Iterable[int]) -> str:
    """The sum without words, such as `7+5-2`."""
    first, *rest = numbers
    return str(first) + "".join(f"{number:+d}" for number in rest)


def split_of(numbers: Iterable[int]) -> str:
    """The split of a sum, by a hash of its numbers."""
    digest = hashlib.blake2b(canonical(numbers).encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    if place < TEST_SHARE:
        return "test"
    return "val" if place < TEST_SHARE + VAL_SHARE else "train"


def plural(number: int, thing: dict[str, str], code: str) -> str:
    """The form of a thing that a number asks for, by the CLDR rules of the language."""
    if code == "ru":
        if number % 10 == 1 and number % 100 != 11:
            return thing["one"]
        return thing["few" if 2 <= number % 10 <= 4 and not 12 <= number % 100 <= 14 else "many"]
    return thing["one"] if number == 1 else thing.get("many", thing["one"])


def _path() -> Path:
    return shipped_dir() / "templated_sums" / "templates.json"


def _errors(data: TemplatedSumsConfig, config: RunConfig) -> Iterable[str]:
    for code in data.languages:
        if code not in LANGUAGES:
            yield f"data.languages: got '{code}'{choices(code, LANGUAGES)}"
    if not data.languages or len(set(data.languages)) < len(data.languages):
        yield f"data.languages: got {data.languages}, expected different languages, at least one"
    if data.min_steps > data.max_steps:
        yield f"data.min_steps: got {data.min_steps}, expected at most data.max_steps = {data.max_steps}"


PARTS = [
    data_part(
        "templated_sums",
        TemplatedSumsConfig,
        TemplatedSumsSource,
        "templated word problems with worked solutions in en, ru, zh, th, sw",
        check=_errors,
    )
]
