"""Prompts with hints: the question as it is asked in evaluation, and the first part of a teacher's trace behind it.

The hint stands where the answer begins, so a prompt without one is the prompt of the evaluation, with no slot left in.
"""

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from athlos.data.records import MathRecord
from athlos.errors import DataError
from athlos.generation.rollouts import PolicyPrompt
from athlos.methods.lang.config import HintConfig, HintLanguage, HintSchedule, HintSelect, HintUnit, LangConfig
from athlos.text.consistency import language_consistent
from athlos.text.language import Detector, base_language
from athlos.text.maths import ascii_digits, number_values
from athlos.text.number_words import number_word_places
from athlos.text.prompts import build_prompt, completion
from athlos.text.sentences import LATEX, Units, sentences

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROUNDING = 1e-9
"""A share such as 1/2 that is computed a little too small must not lose a unit."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
"""A sign may be a minus between terms here, so that -12 also hides 12."""
_BOX = re.compile(r"\\(?:boxed|fbox)\b")
PROBE_EVERY = 8
"""With `switch.measure=probe` every eighth prompt of a language gets no hint."""


@dataclass(frozen=True, kw_only=True)
class HintedPrompt(PolicyPrompt):
    record: MathRecord
    num_units: int
    """Units of the hint in it."""
    is_probe: bool


def native_or_english(record: MathRecord, config: HintConfig) -> tuple[str, str]:
    """(trace, its language) that hints of a record come from."""
    if config.language is HintLanguage.english:
        return record.english_solution, "en"
    return record.solution, record.language


def without_answer(pieces: Sequence[str], answer: str, *, question: str, language: str) -> list[str]:
    """Units up to the first place that states the final answer, in any script or in words of the trace's language.

    A formula that does goes as a whole, and a box always goes. A number that the question gives is no result where it
    comes back in the trace: then only the trailing units that state it go.
    """
    text = "".join(pieces)
    places = _statements(text, answer, language)
    if _statements(question, answer, language):
        end = len(text)
        for piece in reversed(pieces):
            if not _statements(piece, answer, language):
                break
            end -= len(piece)
        places = [place for place in places if place >= end]
    places += [box.start() for box in _BOX.finditer(text)]
    if not places:
        return list(pieces)
    place = min(places)
    for span in LATEX.finditer(text):
        if span.start() < place < span.end():
            place = span.start()
    kept = []
    for piece in pieces:
        if piece[:place].strip():
            kept.append(piece[:place])
        place = max(0, place - len(piece))
    return kept


def _statements(text: str, answer: str, language: str) -> list[int]:
    """Where a text holds the answer: a number of the same value in any script or in words, or the same expression."""
    # Character by character, since direction marks, which ASCII has none of, must not move the places.
    text = "".join(ascii_digits(character) or character for character in text)
    values = set(number_values(answer)[:1])
    places = [number.start() for number in _NUMBER.finditer(text) if values & set(number_values(number.group()))]
    places += [
        place
        for value in values
        if value.denominator == 1
        for place in number_word_places(text, value.numerator, language)
    ]
    expression = "".join(ascii_digits(answer).split())
    if expression and not _NUMBER.fullmatch(expression.lstrip("-+")):
        spaced = r"\s*".join(map(re.escape, expression))
        places += [match.start() for match in re.finditer(rf"(?<![A-Za-z0-9]){spaced}(?![A-Za-z0-9])", text)]
    return places


def hint_units(record: MathRecord, config: HintConfig, *, tokenizer: "PreTrainedTokenizerBase", style: str) -> Units:
    """The units of a record's trace that hints are made of."""
    trace, language = native_or_english(record, config)
    trace = trace.strip()
    units = sentences(trace, language)
    if config.strip_answer:
        # By sentences for tokens too: behind the answer stand the words of its sentence, which do not state it.
        pieces = without_answer(units.pieces, record.answer, question=record.question, language=language)
        units = Units(pieces=pieces, kind=units.kind)
    if config.unit is HintUnit.sentence or not trace:
        return units
    before = hinted_prompt(record, trace, style=style).removesuffix(trace)
    length = sum(map(len, units.pieces))
    return Units(pieces=token_pieces(trace, tokenizer=tokenizer, before=before, length=length), kind="tokens")


def token_pieces(text: str, *, tokenizer: "PreTrainedTokenizerBase", before: str, length: int) -> list[str]:
    """The first `length` characters of a text, or a little fewer, cut where its tokens behind `before` end.

    So a prompt with the first pieces has the ids that the joint text begins with. No cut falls inside a character of
    several tokens, nor inside a formula.
    """
    encoded = tokenizer(before + text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    spans = [*encoded["offset_mapping"], (len(before + text), 0)]
    # A character of several tokens is in the spans of all of them: it ends where the next token does not begin in it.
    ends = sorted({end - len(before) for (_, end), (start, _) in pairwise(spans) if start >= end})
    formulas = [match.span() for match in LATEX.finditer(text)]
    borders = [end for end in ends if 0 < end <= length and not any(first < end < last for first, last in formulas)]
    return [text[start:end] for start, end in pairwise([0, *borders])]


def shown_units(pieces: Sequence[str], *, share: float, select: HintSelect, rng: random.Random) -> list[str]:
    """floor(share x number) of the units: the first ones, or random ones in their order."""
    count = min(len(pieces), math.floor(share * len(pieces) + ROUNDING))
    if select is HintSelect.prefix:
        return list(pieces[:count])
    return [pieces[index] for index in sorted(rng.sample(range(len(pieces)), count))]


def hinted_prompt(record: MathRecord, hint: str, *, style: str) -> str:
    """The evaluation's prompt, and behind it the hint with the space that an answer begins with."""
    prompt = build_prompt(record, shots=(), style=style)
    if not hint.strip():
        return prompt
    answer = completion(record, style)
    return prompt + answer[: len(answer) - len(answer.lstrip())] + hint.strip()


class PromptPlan:
    """Which records are asked at which step: a function of seed and step alone, balanced over languages.

    Slots go round the languages; each language has its own random order, a new one each epoch.
    """

    def __init__(self, records: Sequence[MathRecord], *, prompts_per_step: int, seed: int) -> None:
        self.by_language: dict[str, list[MathRecord]] = {}
        for record in records:
            self.by_language.setdefault(record.language, []).append(record)
        self.languages = sorted(self.by_language)
        self.prompts_per_step, self.seed = prompts_per_step, seed
        self._orders: dict[tuple[str, int], list[int]] = {}

    def slots(self, step: int) -> list[tuple[MathRecord, int]]:
        """(record, how many prompts of its language came before it) of each prompt of a step."""
        chosen = []
        for slot in range(step * self.prompts_per_step, (step + 1) * self.prompts_per_step):
            language = self.languages[slot % len(self.languages)]
            number = slot // len(self.languages)
            records = self.by_language[language]
            epoch, place = divmod(number, len(records))
            chosen.append((records[self._order(language, epoch)[place]], number))
        return chosen

    def _order(self, language: str, epoch: int) -> list[int]:
        key = (language, epoch)
        if key not in self._orders:
            num_records = len(self.by_language[language])
            rng = random.Random(f"{self.seed}:{language}:{epoch}")
            self._orders[key] = rng.sample(range(num_records), num_records)
        return self._orders[key]


def check_records(
    records: Sequence[MathRecord],
    tests: Sequence[MathRecord],
    *,
    config: LangConfig,
    detector: Detector,
    bad: Callable[[DataError], None],
) -> list[MathRecord]:
    """The records that can be trained on; what is wrong with one goes to `bad`, which raises unless told otherwise.

    Wrong are: a language in no group, an empty trace, a trace in another language, a question of the test split.
    """
    groups = {base_language(language) for languages in config.groups.values() for language in languages}
    asked = {(record.language, record.question) for record in tests}
    needs_trace = config.hint.schedule is not HintSchedule["none"]
    kept = []
    for record in records:
        if config.teacher and record.meta.get("teacher") != config.teacher:
            continue
        reason = _reason(record, config=config, detector=detector, groups=groups, asked=asked, needs_trace=needs_trace)
        if reason:
            bad(DataError(f"record '{record.identifier}': {reason}"))
        else:
            kept.append(record)
    if not kept:
        raise DataError(f"no training prompts are left; method.teacher is '{config.teacher}'")
    return kept


def _reason(
    record: MathRecord,
    *,
    config: LangConfig,
    detector: Detector,
    groups: set[str],
    asked: set[tuple[str, str]],
    needs_trace: bool,
) -> str:
    if base_language(record.language) not in groups:
        return f"its language '{record.language}' is in none of method.groups"
    if (record.language, record.question) in asked:
        return "its question is a test item"
    if not needs_trace:
        return ""
    trace, language = native_or_english(record, config.hint)
    if not trace.strip():
        return "its trace is empty, and hints need one; method.hint.schedule=none does not"
    is_native = config.hint.language is HintLanguage.native
    if is_native and record.solution_language and base_language(record.solution_language) != base_language(language):
        return f"its trace is in '{record.solution_language}', its question in '{language}'"
    if is_native and not language_consistent(trace, language, detector):
        return f"its trace is not in '{language}', by the detector {detector.id}"
    return ""
