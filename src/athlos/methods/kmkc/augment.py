"""CGKE: what is written to teach a question, by its region.

`expansion` (mastered): a harder question with the same answer. `disambiguation` (confused): the right answer beside the
model's own rival, which is denied. `foundation` (missing): what else is known of the subject, then the fact. Without
regions, `plain`: the question and its answer, and the fact. A variant is a prompt and what should follow it; it is
kept if that covers a gold answer. One that repeats a test question or states a test fact stops the run.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from athlos.data.fact_variants import BACKGROUND, DENIAL, EXPANSIONS, FACT, STATEMENTS
from athlos.data.records import QuestionRecord
from athlos.data.regions import Region
from athlos.errors import DataError
from athlos.generation.interface import Engine, Prompt, SamplingRule
from athlos.methods.kmkc.answers import is_right
from athlos.methods.kmkc.regions import Profile
from athlos.text.prompts import build_prompt, completion

STRATEGY_OF = {Region.mastered: "expansion", Region.confused: "disambiguation", Region.missing: "foundation"}
PLAIN = "plain"
NUM_VARIANTS = {"expansion": 1, "disambiguation": 2, "foundation": 2, PLAIN: 2}
ANY_LENGTH = 10**6
"""Words that a variant's completion may have: it may be several sentences."""
MODEL_TOKENS = 96
"""Longest reply of a model that writes a variant."""
INSTRUCTIONS = {
    "expansion": "a harder question, of several steps or reversed, that builds on this fact and has the same answer",
    "disambiguation": "a question that sets the right answer apart from the wrong answer '{rival}', and its answer",
    "foundation": "a first simple sentence of background and then the question, and its answer",
    PLAIN: "another wording of the question, and its answer",
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A text to train on. Loss is on the completion alone."""

    seed: str
    """Id of the question that it was made of."""
    strategy: str
    prompt: str
    completion: str
    result: str = "kept"
    """`kept`, or why not."""


def rival(profile: Profile) -> str | None:
    """The commonest wrong answer, as it was first written; None where all are right or empty."""
    wrong = Counter(
        answer for answer, is_right in zip(profile.answers, profile.right, strict=True) if answer and not is_right
    )
    if not wrong:
        return None
    [(commonest, _)] = wrong.most_common(1)
    return profile.texts[profile.answers.index(commonest)]


def template_variants(record: QuestionRecord, strategy: str, *, wrong: str | None, style: str) -> list[Variant]:
    """The variants of one question from what the data tell of its fact.

    Raises `DataError` for a question whose source tells nothing (`data/fact_variants.py`).
    """
    if STATEMENTS not in record.meta:
        raise DataError(
            f"augmenter=template: question '{record.identifier}' brings no statement of its fact; use "
            "construct.augmenter=model"
        )
    question, answer = build_prompt(record, shots=(), style=style), completion(record, style)
    gap = answer[: len(answer) - len(answer.lstrip())]
    told: list[str] = record.meta[STATEMENTS]
    background: list[str] = record.meta[BACKGROUND]
    harder: list[str] = record.meta[EXPANSIONS]
    plain_pair, plain_fact = (question, answer), ("", told[0])
    made: list[tuple[str, str]]
    if strategy == "expansion":
        made = [(_asked(record, harder[0], style), answer)] if harder else [("", told[-1])]
    elif strategy == "disambiguation" and wrong is not None:
        denial = record.meta[DENIAL].format(wrong)
        made = [(f"{denial}{gap}{question}", answer), ("", f"{told[0]}{gap}{denial}")]
    elif strategy == "foundation":
        first = gap.join(background) or told[-1]
        made = [("", f"{first}{gap}{told[0]}"), plain_pair]
    else:
        made = [plain_pair, plain_fact]
    return [Variant(seed=record.identifier, strategy=strategy, prompt=p, completion=c) for p, c in made]


def _asked(record: QuestionRecord, question: str, style: str) -> str:
    return build_prompt(
        QuestionRecord(
            identifier=record.identifier, language=record.language, question=question, answers=record.answers
        ),
        shots=(),
        style=style,
    )


def model_variants(
    engine: Engine, seeds: Sequence[tuple[QuestionRecord, str, str | None]], *, style: str, seed: int
) -> list[Variant]:
    """Variants that an instruction-following model writes; (record, strategy, rival) of each question.

    A reply that holds no JSON object with `question` and `answer` is kept as `unparsed`, and trained on by nobody.
    """
    asked = [
        (record, strategy, wrong)
        for record, strategy, wrong in seeds
        for _ in range(NUM_VARIANTS[strategy] if strategy != "disambiguation" or wrong else 1)
    ]
    prompts = [
        Prompt(text=_instruction(record, strategy, wrong), max_new_tokens=MODEL_TOKENS, seed=seed + number)
        for number, (record, strategy, wrong) in enumerate(asked)
    ]
    replies = engine.generate(prompts, rule=SamplingRule(temperature=1.0))
    return [
        _read(record, strategy, reply.text, style=style)
        for (record, strategy, _), [reply] in zip(asked, replies, strict=True)
    ]


def _instruction(record: QuestionRecord, strategy: str, wrong: str | None) -> str:
    return (
        f"Question: {record.question}\nAnswer: {record.answers[0]}\n"
        f"Write {INSTRUCTIONS[strategy].format(rival=wrong or 'none')}. "
        'Reply with one JSON object: {"question": ..., "answer": ...}'
    )


def _read(record: QuestionRecord, strategy: str, reply: str, *, style: str) -> Variant:
    fields = json_object(reply)
    question, answer = fields.get("question"), fields.get("answer")
    if not (isinstance(question, str) and isinstance(answer, str) and question.strip() and answer.strip()):
        return Variant(seed=record.identifier, strategy=strategy, prompt="", completion=reply, result="unparsed")
    written = QuestionRecord(
        identifier=record.identifier, language=record.language, question=question.strip(), answers=[answer.strip()]
    )
    prompt = build_prompt(written, shots=(), style=style)
    return Variant(seed=record.identifier, strategy=strategy, prompt=prompt, completion=completion(written, style))


def json_object(text: str) -> dict[str, object]:
    """The JSON object from the first brace to the last one of a reply; empty where there is none."""
    start, end = text.find("{"), text.rfind("}")
    try:
        parsed = json.loads(text[start : end + 1])
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def filtered(
    variants: Iterable[Variant], *, seeds: dict[str, QuestionRecord], tests: Sequence[QuestionRecord]
) -> Iterator[Variant]:
    """The variants with the result of the filter, in order.

    Raises `DataError` with both ids for one that repeats a test question or states a test fact.
    """
    known = {
        text: test.identifier for test in tests for text in (test.question, *test.meta.get(STATEMENTS, ())) if text
    }
    for variant in variants:
        text = f"{variant.prompt}\n{variant.completion}"
        repeated = next((identifier for phrase, identifier in known.items() if phrase in text), None)
        if repeated is not None:
            raise DataError(f"augmentation of question '{variant.seed}' repeats test item '{repeated}'")
        covers = is_right(variant.completion, seeds[variant.seed], max_tokens=ANY_LENGTH)
        if variant.result == "kept" and not covers:
            variant = Variant(**{**vars(variant), "result": "not covered"})
        yield variant


def check_seeds(seeds: Iterable[QuestionRecord], tests: Iterable[QuestionRecord]) -> None:
    """Raises `DataError` with both ids for a question that is a test question, or asks for the fact of one."""
    by_text: dict[str, str] = {}
    by_fact: dict[str, str] = {}
    for test in tests:
        by_text[test.question] = test.identifier
        if FACT in test.meta:
            by_fact[test.meta[FACT]] = test.identifier
    for seed in seeds:
        repeated = by_text.get(seed.question) or by_fact.get(seed.meta.get(FACT, ""))
        if repeated is not None:
            raise DataError(f"training question '{seed.identifier}' asks what test item '{repeated}' asks")
