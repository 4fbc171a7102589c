"""Word problems with step-by-step traces, the same in every language.

    Yeka has 7 apples. Mawi gives-away 5 apples to Yeka. Yeka loses 2 apples. Yeka has how-many of apples?
    7 + 5 = 12 apples. 12 - 2 = 10 apples. Yeka has 10 apples.

A step begins with the running total, so that each is a local look-up; the thing stands in it, so that its language
shows. A trace of the hardest default has 34 words, numbers, signs and marks, 43 when each digit counts.

Splits go by the canonical sum (start, signs and operands): whatever the names and things, no sum is in two splits. The
split of a sum depends on no seed, so that worlds of different seeds do not leak into each other.
"""

import hashlib
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

from athlos.config.fields import at_least, bounded, wrong_values
from athlos.errors import ConfigError, ConfigErrors, DataError
from athlos.lab.grammar import Clause, NounPhrase, gloss
from athlos.lab.languages import Language, Languages
from athlos.lab.lexicon import NUM_NAMES, THING_NOUNS, name
from athlos.lab.scripts import SCRIPTS

SPLITS = ("train", "val", "test")
MAX_NUMBER = 99
"""No start, operand or total is larger, and none is negative."""
GAINS = ("finds", "buys", "makes")
LOSSES = ("loses", "sells", "breaks")
TRANSFER = "gives-away"
"""Adds or takes away, by who gives: only word order and adposition tell."""
MAX_DRAWS = 10_000
"""Draws until a sum falls into the wanted split; a split has one sum in ten or more, unless numbers are very few."""

_EQUATION = re.compile(r"(?<![0-9])([0-9]{1,6}) ?([-+]) ?([0-9]{1,6}) ?= ?([0-9]{1,6})(?![0-9])")
_NUMBER = re.compile(r"[0-9]+")
_STOPS = "".join(script.full_stop for script in SCRIPTS.values())
_MARKS = "".join(script.full_stop + script.question_mark for script in SCRIPTS.values())
_SENTENCE = re.compile(rf"[^{re.escape(_MARKS)}]*[{re.escape(_MARKS)}]\s*|[^{re.escape(_MARKS)}]+")


@dataclass(kw_only=True)
class SumsConfig:
    """What sums are made; the difficulty of a sum is its number of steps."""

    seed: int = 0
    """Seed of the draws; splits do not depend on it."""
    min_steps: int = at_least(1, default=1)
    """Fewest steps of a sum, at most `max_steps`."""
    max_steps: int = bounded("[1, 9]", default=4)
    """Most steps of a sum."""
    max_start: int = bounded(f"[1, {MAX_NUMBER}]", default=20)
    """Largest number to begin with."""
    max_operand: int = bounded(f"[1, {MAX_NUMBER}]", default=9)
    """Largest number added or taken away."""
    num_names: int = bounded(f"[2, {NUM_NAMES}]", default=24)
    """Number of persons."""
    num_things: int = bounded(f"[1, {len(THING_NOUNS)}]", default=12)
    """Number of things counted."""
    noise: float = bounded("[0, 1]", default=0.0)
    """Share of training traces with a wrong step."""
    val_share: float = bounded("(0, 1)", default=0.1)
    """Share of the canonical sums kept for validation; with `test_share` below 1."""
    test_share: float = bounded("(0, 1)", default=0.1)
    """Share of the canonical sums kept for test."""


class Step(NamedTuple):
    """`left sign right = result`."""

    left: int
    sign: str
    right: int
    result: int

    @property
    def equation(self) -> str:
        return f"{self.left} {self.sign} {self.right} = {self.result}"


class Sum(NamedTuple):
    """A word problem, in no language."""

    id: str
    """`<split>-<index>`, unique in a world."""
    question: tuple[Clause, ...]
    """Statements, and the question as the last."""
    steps: tuple[Step, ...]
    answer: int
    holder: str
    """Concept of the person asked about."""
    thing: str

    @property
    def difficulty(self) -> int:
        """Number of steps."""
        return len(self.steps)

    @property
    def canonical(self) -> str:
        """The sum without names and things, such as `7+5-2`."""
        return str(self.steps[0].left) + "".join(f"{step.sign}{step.right}" for step in self.steps)

    @property
    def answer_clause(self) -> Clause:
        return Clause("has", NounPhrase(self.holder), NounPhrase(self.thing, count=self.answer))


class Checked(TypedDict):
    """What a text holds: the answer it gives, if any; for each of its equations, whether it is the step due there."""

    answer: int | None
    steps_valid: list[bool]


class Sums:
    """All sums of a config: `item(split, index)` is the same in every process and order of calls."""

    def __init__(self, config: SumsConfig) -> None:
        """Raises `ConfigError` for values out of range."""
        _check(config)
        self.config = config
        self._names = [name(number) for number in range(config.num_names)]
        self._things = THING_NOUNS[: config.num_things]

    def item(self, split: str, index: int) -> Sum:
        config = self.config
        rng = random.Random(f"sums:{config.seed}:{split}:{index}")
        for _ in range(MAX_DRAWS):
            steps = self._steps(rng)
            if split_of(steps, val_share=config.val_share, test_share=config.test_share) == split:
                return self._worded(steps, rng=rng, identifier=f"{split}-{index}")
        raise ConfigError(
            f"lab.sums.max_operand: got {config.max_operand} with lab.sums.max_start {config.max_start}; these make so "
            f"few sums that none falls into '{split}', expected larger ones"
        )

    def items(self, split: str, count: int, *, start: int = 0) -> Iterator[Sum]:
        """`count` sums of a split, from number `start` on."""
        return (self.item(split, index) for index in range(start, start + count))

    def training_trace(self, item: Sum, language: Language) -> str:
        """The trace, corrupt in a share `noise` of the sums; which ones, and how, is the same in all languages."""
        trace = render_trace(item, language)
        rng = random.Random(f"noise:{self.config.seed}:{item.id}")
        return corrupt(trace, rng=rng) if rng.random() < self.config.noise else trace

    def _steps(self, rng: random.Random) -> tuple[Step, ...]:
        config = self.config
        total = _up_to(config.max_start, rng)
        steps = []
        for _ in range(config.min_steps + int(rng.random() * (config.max_steps - config.min_steps + 1))):
            most_less, most_more = min(config.max_operand, total), min(config.max_operand, MAX_NUMBER - total)
            is_gain = most_less == 0 or (most_more > 0 and rng.random() < 0.5)
            right = _up_to(most_more if is_gain else most_less, rng)
            result = total + right if is_gain else total - right
            steps.append(Step(total, "+" if is_gain else "-", right, result))
            total = result
        return tuple(steps)

    def _worded(self, steps: tuple[Step, ...], *, rng: random.Random, identifier: str) -> Sum:
        holder, giver = (NounPhrase(concept) for concept in rng.sample(self._names, 2))
        thing = self._things[int(rng.random() * len(self._things))]
        clauses = [Clause("has", holder, NounPhrase(thing, count=steps[0].left))]
        for step in steps:
            moved = NounPhrase(thing, count=step.right)
            is_gain = step.sign == "+"
            verbs = GAINS if is_gain else LOSSES
            choice = int(rng.random() * (len(verbs) + 1))
            if choice < len(verbs):
                clauses.append(Clause(verbs[choice], holder, moved))
            else:
                who, whom = (giver, holder) if is_gain else (holder, giver)
                clauses.append(Clause(TRANSFER, who, moved, (("to", whom),)))
        wanted = NounPhrase("how-many", owner=NounPhrase(thing))
        clauses.append(Clause("has", holder, wanted, is_question=True))
        return Sum(identifier, tuple(clauses), steps, steps[-1].result, holder.head, thing)


def split_of(steps: Iterable[Step], *, val_share: float, test_share: float) -> str:
    """The split of a sum, by a hash of its canonical form."""
    steps = tuple(steps)
    text = str(steps[0].left) + "".join(f"{step.sign}{step.right}" for step in steps)
    place = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64
    if place < test_share:
        return "test"
    return "val" if place < test_share + val_share else "train"


def render(item: Sum, language: Language) -> tuple[str, str]:
    """The question and the trace, which ends in the answer, in a language."""
    return language.join(language.render(clause) for clause in item.question), render_trace(item, language)


def render_trace(item: Sum, language: Language) -> str:
    """A sentence a step, and the answer."""
    stop = language.script.full_stop
    steps = [
        language.phrase(NounPhrase(item.thing, count=step.result)).replace(str(step.result), step.equation) + stop
        for step in item.steps
    ]
    return language.join([*steps, language.render(item.answer_clause)])


def translate(text: str, languages: Languages, *, source: str, target: str) -> str:
    """The oracle translation of questions and traces: `Languages.translate` with equations as the number they give.

    Raises `DataError` for text that the source language cannot parse.
    """
    origin, goal = languages[source], languages[target]
    done = []
    for sentence in origin.sentences(text):
        equation = _EQUATION.search(sentence)
        if equation is None:
            done.append(languages.translate(sentence, source=source, target=target))
            continue
        result = equation[4]
        bare = sentence[: equation.start()] + result + sentence[equation.end() :]
        if not bare.endswith(origin.script.full_stop) or len(_NUMBER.findall(bare)) != 1:
            raise DataError(f"lab sum '{sentence[:60]}': expected one equation and a full stop in a step")
        phrase = goal.phrase(origin.parse_phrase(bare[:-1]))
        done.append(_NUMBER.sub(equation[0], phrase) + goal.script.full_stop)
    if not done:
        raise DataError("lab translation: got an empty text")
    return goal.join(done)


def check(text: str, item: Sum) -> Checked:
    """What any text, of a model that may have failed, says to a sum; never raises.

    The answer is the number of the last complete sentence that has one number and no sign, after the last equation.
    Equation i is valid if it is step i of the sum; further ones are not. Languages do not matter here.
    """
    answer: int | None = None
    steps_valid: list[bool] = []
    for sentence in _SENTENCE.findall(text):
        equations = _EQUATION.findall(sentence)
        for left, sign, right, result in equations:
            index = len(steps_valid)
            step = Step(int(left), sign, int(right), int(result))
            steps_valid.append(index < len(item.steps) and step == item.steps[index])
        numbers = _NUMBER.findall(sentence)
        if equations:
            answer = None
        elif len(numbers) == 1 and len(numbers[0]) <= 6 and not re.search("[-+=]", sentence):
            is_complete = sentence.rstrip()[-1] in _STOPS
            answer = int(numbers[0]) if is_complete else answer
    return {"answer": answer, "steps_valid": steps_valid}


def corrupt(trace: str, *, rng: random.Random) -> str:
    """The trace with one wrong result, from which it goes on consistently to a wrong answer.

    A trace without equations comes back as it is.
    """
    equations = list(_EQUATION.finditer(trace))
    if not equations:
        return trace
    results = [int(equation[4]) for equation in equations]
    wrongs = [
        (first, shift)
        for first in range(len(results))
        for shift in range(-9, 10)
        if shift and min(results[first:]) >= -shift and max(results[first:]) <= MAX_NUMBER - shift
    ]
    wrong_index, shift = wrongs[int(rng.random() * len(wrongs))]
    parts, at = [], 0
    for index, equation in enumerate(equations):
        left, sign, right, result = int(equation[1]), equation[2], int(equation[3]), int(equation[4])
        left, result = left + shift * (index > wrong_index), result + shift * (index >= wrong_index)
        parts += [trace[at : equation.start()], Step(left, sign, right, result).equation]
        at = equation.end()
    answer = _NUMBER.sub(lambda match: str(int(match[0]) + shift), trace[at:])
    return "".join([*parts, answer])


def hint_units(trace: str, language: Language, *, unit: str) -> list[str]:
    """A trace cut into pieces that join to it: `step` gives sentences, `token` words, numbers, signs and marks."""
    if unit == "step":
        return _SENTENCE.findall(trace)
    if unit != "token":
        raise ConfigError(f"hint unit: got '{unit}', expected 'step' or 'token'")
    pieces, at = [], 0
    for word in language.grammar.units(trace):
        end = trace.index(word, at) + len(word)
        pieces.append(trace[at:end])
        at = end
    return pieces


def hint(trace: str, language: Language, *, ratio: float, unit: str = "step", strip_answer: bool = False) -> str:
    """The first floor(ratio * number of units) units of a trace.

    `strip_answer` takes the trace to end at its last `=`: the answer stands behind it.
    """
    if strip_answer and "=" in trace:
        trace = trace[: trace.rindex("=") + 1]
    units = hint_units(trace, language, unit=unit)
    return "".join(units[: int(ratio * len(units))]).rstrip()


def sample_lines(languages: Languages, config: SumsConfig, *, count: int = 2) -> list[tuple[str, str, str]]:
    """(kind, text, English gloss) of a few test sums in every language."""
    lines = []
    for item in Sums(config).items("test", count):
        steps = " ".join(f"{step.equation} {item.thing}." for step in item.steps)
        meaning = " ".join([*(gloss(clause) for clause in item.question), "->", steps, gloss(item.answer_clause)])
        for code, language in languages.items():
            question, trace = render(item, language)
            lines.append((f"sum, {item.difficulty} steps, {code}", f"{question} -> {trace}", meaning))
    return lines


def _up_to(largest: int, rng: random.Random) -> int:
    """1 .. largest; quicker than `randint`."""
    return 1 + int(rng.random() * largest)


def _check(config: SumsConfig) -> None:
    if errors := list(wrong_values(config, path="lab.sums")):
        raise ConfigErrors(errors)
    if config.min_steps > config.max_steps:
        raise ConfigError(f"lab.sums.min_steps: got {config.min_steps}, expected at most max_steps={config.max_steps}")
    if config.val_share + config.test_share >= 1:
        raise ConfigError(
            f"lab.sums.val_share, test_share: got {config.val_share}, {config.test_share}, expected a sum below 1"
        )
