"""Records -> prompts, and what a model should answer to them. One style a task and way of asking.

A prompt is the worked examples, each a question with its answer, then the question of the record; all end where the
answer begins. So `build_prompt(record) + completion(record)` reads like one more worked example, and training on these
pairs fits what evaluation asks for. Running text is a completion with an empty prompt.
"""

import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import Any

from athlos.config.prompt_style import PromptStyle
from athlos.config.registry import registry
from athlos.config.schema import DEFAULT_STYLE
from athlos.data.records import Record
from athlos.errors import ConfigError, did_you_mean
from athlos.text.consistency import CLOSING_THINK_TAG, OPENING_THINK_TAG

SEPARATOR = "\n\n"
"""Between worked examples; a model that goes on with an example of its own is stopped there."""


def styles(record_type: type[Record]) -> tuple[str, ...]:
    """Names of the styles for a type of record, the default first; empty for a type without prompts."""
    return tuple(registry().styles.get(record_type, {}))


def style_name(record_type: type[Record], style: str) -> str:
    """`default` resolved; raises `ConfigError` for a style that the type of record does not have."""
    known = styles(record_type)
    if not known:
        raise ConfigError(f"prompt_style: {record_type.__name__} has no prompt style")
    if style == DEFAULT_STYLE:
        return known[0]
    if style not in known:
        raise ConfigError(
            f"prompt_style: got '{style}' for {record_type.__name__}{did_you_mean(style, known)}; "
            f"accepted: {', '.join((DEFAULT_STYLE, *known))}"
        )
    return style


def _style(record_type: type[Record], style: str) -> PromptStyle[Any]:
    name = style_name(record_type, style)
    return registry().styles[record_type][name]


def build_prompt(record: Record, *, shots: Sequence[Record], style: str) -> str:
    """The prompt of a record: worked examples, each closed by an empty line, then the question."""
    chosen = _style(type(record), style)
    worked = (chosen.question(shot) + chosen.answer(shot) + SEPARATOR for shot in map(chosen.shot, shots))
    return "".join(worked) + chosen.question(record)


def completion(record: Record, style: str) -> str:
    """What a trained model should write after the prompt, its leading space included."""
    return str(_style(type(record), style).answer(record))


def stop_strings(record: Record, style: str, *, is_chat: bool = False) -> tuple[str, ...]:
    """Strings that end the answer to a record.

    `is_chat`: a chat model writes paragraphs, and no further example behind the separator.
    """
    stops = _style(type(record), style).stops(record)
    return tuple(stop for stop in stops if not (is_chat and stop == SEPARATOR))


def answer_end(text: str, stops: Iterable[str]) -> int | None:
    """Where the first stop string behind the thought begins; None without any. A thought that is open has no stop."""
    start = len(text) if OPENING_THINK_TAG in text else 0
    if CLOSING_THINK_TAG in text:
        start = text.rindex(CLOSING_THINK_TAG) + len(CLOSING_THINK_TAG)
        start += len(text[start:]) - len(text[start:].lstrip())  # the line ends between a thought and its answer
    return min((place for stop in stops if (place := text.find(stop, start)) >= 0), default=None)


def read_answer(text: str, record: Record, *, style: str, is_chat: bool = False) -> str:
    """The answer in a generated text: cut at its end, without the style's writing conventions."""
    end = answer_end(text, stop_strings(record, style, is_chat=is_chat))
    return str(_style(type(record), style).read(text[:end]))


def has_built_in_shots(record_type: type[Record], style: str) -> bool:
    """Whether a style comes with worked examples of its own."""
    return _style(record_type, style).built_in is not None


def built_in_shots(record_type: type[Record], style: str, *, language: str, num_shots: int) -> list[Record]:
    """The first `num_shots` worked examples of a style in a language; raises `ConfigError` if it has fewer."""
    build = _style(record_type, style).built_in
    examples: list[Record] = build(language) if build else []
    if num_shots > len(examples):
        raise ConfigError(f"eval.shots: got {num_shots}, prompt style '{style}' has {len(examples)} worked examples")
    return examples[:num_shots]


def split_shots(records: Sequence[Record], num_shots: int) -> tuple[list[Record], list[Record]]:
    """(shots, rest): the first `num_shots` records of each language, and the others; both in order."""
    shots: list[Record] = []
    rest: list[Record] = []
    taken: dict[str, int] = {}
    for record in records:
        count = taken.get(record.language, 0)
        taken[record.language] = count + 1
        (shots if count < num_shots else rest).append(record)
    return shots, rest


def drawn_shots(
    pool: Sequence[Record], *, language: str, style: str, num_shots: int, seed: int, exclude: Iterable[str] = ()
) -> list[Record]:
    """`num_shots` records of a language, drawn from the pool by seed, the same for every test item.

    A record whose question is among `exclude` (the questions of the test items, from `build_prompt` without shots) is
    never drawn. Raises `ConfigError` when too few are left.
    """
    forbidden = set(exclude)
    eligible = [
        record
        for record in pool
        if record.language == language and build_prompt(record, shots=(), style=style) not in forbidden
    ]
    if len(eligible) < num_shots:
        raise ConfigError(
            f"eval.shots: got {num_shots}, the data has {len(eligible)} records in '{language}' to take "
            "worked examples from; set data.train_split, or lower eval.shots"
        )
    return random.Random(seed).sample(eligible, num_shots)


def prompt_hash(prompts: Iterable[str]) -> str:
    """16 hex digits over all prompts of an evaluation, in order: equal for equal items, shots and style."""
    digest = hashlib.sha256()
    for prompt in prompts:
        data = prompt.encode()
        digest.update(len(data).to_bytes(8, "big"))  # so that text cannot move between neighbours unnoticed
        digest.update(data)
    return digest.hexdigest()[:16]
