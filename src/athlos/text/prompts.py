"""Records -> prompts, and what a model should answer to them. One style a task and way of asking.

A prompt is the worked examples, each a question with its answer, then the question of the record; all end where the
answer begins. So `build_prompt(record) + completion(record)` reads like one more worked example, and training on these
pairs fits what evaluation asks for. Running text is a completion with an empty prompt.
"""

import dataclasses
import hashlib
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from athlos.data.records import (
    ContinuationRecord,
    InstructionRecord,
    MathRecord,
    ParallelRecord,
    QuestionRecord,
    Record,
    TextRecord,
)  # fmt: skip
from athlos.errors import ConfigError, did_you_mean
from athlos.text.language import base_language

RecordT = TypeVar("RecordT", bound=Record)

DEFAULT = "default"
SEPARATOR = "\n\n"
"""Between worked examples; a model that goes on with an example of its own is stopped there."""
NO_ANSWER = "noanswer"
"""What stands for the answer of an unanswerable question, in prompts and as gold."""
_DATA = Path(__file__).resolve().parent / "prompt_data"


@dataclass(frozen=True, kw_only=True)
class _Style(Generic[RecordT]):
    """`question` ends where the answer begins; `answer` starts with the space that belongs between the two."""

    question: Callable[[RecordT], str]
    answer: Callable[[RecordT], str]
    stops: Callable[[RecordT], tuple[str, ...]] = lambda record: ()
    shot: Callable[[RecordT], RecordT] = lambda record: record
    """What of a record is shown when it is a worked example."""
    read: Callable[[str], str] = str.strip
    """Generated text, cut at its stop -> the answer."""
    built_in: Callable[[str], list[RecordT]] | None = None
    """Worked examples in a language that come with the style, where it has any."""


@dataclass(frozen=True, kw_only=True)
class _Labels:
    """Words of one language around a worked problem."""

    question: str
    answer: str
    step_by_step: str
    the_answer_is: str
    """With `{answer}` in it."""
    colon: str
    space: str
    """Between a label and what follows; empty where the colon is a wide one."""
    examples: list[dict[str, str]]


@cache
def _json(name: str) -> Any:
    return json.loads((_DATA / name).read_text(encoding="utf-8"))


def _labels(language: str) -> _Labels:
    known = _json("math_exemplars.json")["languages"]
    if base_language(language) not in known:
        raise ConfigError(
            f"prompt_style: no worked problems in the language '{language}'; there are {', '.join(known)}. "
            "Use prompt_style=english_cot or prompt_style=direct"
        )
    return _Labels(**known[base_language(language)])


def _problems(language: str, *, solution_language: str) -> list[MathRecord]:
    """The worked problems in one language with solutions in another; they are parallel."""
    questions, solutions = _labels(language).examples, _labels(solution_language).examples
    return [
        MathRecord(
            identifier=f"exemplar-{number}",
            language=language,
            question=question["question"],
            answer=answer,
            solution=solution["solution"],
        )
        for number, (question, solution, answer) in enumerate(
            zip(questions, solutions, _json("math_exemplars.json")["answers"], strict=True)
        )
    ]


def _worked(record: MathRecord, labels: _Labels) -> str:
    parts = [record.solution.strip(), labels.the_answer_is.format(answer=record.answer)]
    # Without a space after the full stop where the language writes none.
    return labels.space + (labels.space or "").join(part for part in parts if part)


def _asked(record: MathRecord, labels: _Labels, *, answer_label: str) -> str:
    colon, space = labels.colon, labels.space
    return f"{labels.question}{colon}{space}{record.question}\n{answer_label}{colon}"


def _native_question(record: MathRecord) -> str:
    labels = _labels(record.language)
    return _asked(record, labels, answer_label=labels.step_by_step)


def _english_question(record: MathRecord) -> str:
    labels = _labels("en")
    return _asked(record, labels, answer_label=labels.step_by_step)


def _direct_labels(language: str) -> _Labels:
    """The labels of a language, English ones where we have none: a direct answer is a number in any case."""
    known = _json("math_exemplars.json")["languages"]
    return _labels(language if base_language(language) in known else "en")


def _direct_question(record: MathRecord) -> str:
    labels = _direct_labels(record.language)
    return _asked(record, labels, answer_label=labels.answer)


def _math_stops(labels: _Labels) -> tuple[str, ...]:
    return (SEPARATOR, f"\n{labels.question}{labels.colon}")


def language_name(code: str) -> str:
    """English name of a language code: `de`, `pt_BR`, `zh-Hans`; raises `ConfigError` for an unknown one."""
    names: dict[str, str] = _json("language_names.json")
    for key in (code.replace("-", "_"), base_language(code)):
        if key in names:
            return names[key]
    raise ConfigError(f"no English name for the language code '{code}'{did_you_mean(code, list(names))}")


def _one_line(text: str) -> str:
    """A segment on one line: its line ends are written out, since a line end ends the answer."""
    return text.strip().replace("\n", "\\n")


def _translation_question(record: ParallelRecord) -> str:
    source, target = language_name(record.source_language), language_name(record.language)
    return f"{source}: {_one_line(record.source)}\n{target}:"


def _read_segment(text: str) -> str:
    return text.strip().replace("\\n", "\n")


def _closed_question(record: QuestionRecord) -> str:
    return f"Question: {_one_line(record.question)}\nAnswer:"


def _passage_question(record: QuestionRecord) -> str:
    passages = [
        f"Passage {number}{f' ({passage.title})' if passage.title else ''}: {_one_line(passage.text)}\n"
        for number, passage in enumerate(record.passages, start=1)
    ]
    return "".join(passages) + _closed_question(record)


def _supported(record: QuestionRecord) -> QuestionRecord:
    """A worked example shows the passages that support its answer, all of them if none is marked."""
    supporting = [passage for passage in record.passages if passage.is_supporting]
    return dataclasses.replace(record, passages=supporting or record.passages)


def gold_answers(record: QuestionRecord) -> list[str]:
    """All accepted answers; `noanswer` for an unanswerable question."""
    return record.answers or [NO_ANSWER]


def _short_answer(record: QuestionRecord) -> str:
    return f" {gold_answers(record)[0].strip()}"


UNSPACED_SENTENCES = ("zh", "ja", "hani")
"""Languages that write no space between sentences; `hani` is one of the lab world."""


def _gap(record: Record) -> str:
    return "" if base_language(record.language) in UNSPACED_SENTENCES else " "


def _bare_solution(record: MathRecord) -> str:
    return record.solution.strip() or record.answer


def _bare_question(record: QuestionRecord) -> str:
    parts = [*(passage.text for passage in record.passages), record.question]
    return _gap(record).join(part for part in parts if part)


_STYLES: dict[type[Record], dict[str, _Style[Any]]] = {
    MathRecord: {
        "native_cot": _Style[MathRecord](
            question=_native_question,
            answer=lambda record: _worked(record, _labels(record.language)),
            stops=lambda record: _math_stops(_labels(record.language)),
            built_in=lambda language: _problems(language, solution_language=language),
        ),
        "english_cot": _Style[MathRecord](
            question=_english_question,
            answer=lambda record: _worked(record, _labels("en")),
            stops=lambda record: _math_stops(_labels("en")),
            built_in=lambda language: _problems(language, solution_language="en"),
        ),
        "direct": _Style[MathRecord](
            question=_direct_question,
            answer=lambda record: f"{_direct_labels(record.language).space}{record.answer}",
            stops=lambda record: ("\n",),
        ),
        # No label in any language: the question, then its worked solution, ended by the end of text or line.
        "bare": _Style[MathRecord](
            question=lambda record: record.question, answer=lambda record: _gap(record) + _bare_solution(record),
            stops=lambda record: ("\n",),
        ),
    },
    ParallelRecord: {
        "labelled": _Style[ParallelRecord](
            question=_translation_question,
            answer=lambda record: f" {_one_line(record.target)}",
            stops=lambda record: ("\n",),
            read=_read_segment,
        ),
        # No label in any language: a sign that means "the same" in all of them stands between the segments.
        "bare": _Style[ParallelRecord](
            question=lambda record: f"{_one_line(record.source)} =",
            answer=lambda record: _gap(record) + _one_line(record.target),
            stops=lambda record: ("\n",),
            read=_read_segment,
        ),
    },
    QuestionRecord: {
        "passages": _Style[QuestionRecord](
            question=_passage_question,
            answer=_short_answer,
            stops=lambda record: ("\n",),
            shot=_supported,
        ),
        "closed_book": _Style[QuestionRecord](
            question=_closed_question, answer=_short_answer, stops=lambda record: ("\n",)
        ),
        # No label in any language: passages, question and answer as running text, ended by the end of text or line.
        "bare": _Style[QuestionRecord](
            question=_bare_question, answer=lambda record: _gap(record) + gold_answers(record)[0],
            stops=lambda record: ("\n",),
        ),
    },
    InstructionRecord: {
        "written": _Style[InstructionRecord](
            question=lambda record: record.prompt, answer=lambda record: record.completion,
            stops=lambda record: ("\n",),
        ),
    },
    ContinuationRecord: {
        "continuation": _Style[ContinuationRecord](
            question=lambda record: record.context, answer=lambda record: record.text,
            stops=lambda record: ("\n",), read=str,
        ),
    },
    TextRecord: {
        "text": _Style[TextRecord](question=lambda record: "", answer=lambda record: record.text, read=str),
        "bare": _Style[TextRecord](question=lambda record: "", answer=lambda record: record.text, read=str),
    },
}  # fmt: skip


def styles(record_type: type[Record]) -> tuple[str, ...]:
    """Names of the styles for a type of record, the default first; empty for a type without prompts."""
    return tuple(_STYLES.get(record_type, {}))


def style_name(record_type: type[Record], style: str) -> str:
    """`default` resolved; raises `ConfigError` for a style that the type of record does not have."""
    known = styles(record_type)
    if not known:
        raise ConfigError(f"prompt_style: {record_type.__name__} has no prompt style")
    if style == DEFAULT:
        return known[0]
    if style not in known:
        raise ConfigError(
            f"prompt_style: got '{style}' for {record_type.__name__}{did_you_mean(style, known)}; "
            f"accepted: {', '.join((DEFAULT, *known))}"
        )
    return style


def _style(record_type: type[Record], style: str) -> _Style[Any]:
    name = style_name(record_type, style)
    return _STYLES[record_type][name]


def build_prompt(record: Record, *, shots: Sequence[Record], style: str) -> str:
    """The prompt of a record: worked examples, each closed by an empty line, then the question."""
    chosen = _style(type(record), style)
    worked = (chosen.question(shot) + chosen.answer(shot) + SEPARATOR for shot in map(chosen.shot, shots))
    return "".join(worked) + chosen.question(record)


def completion(record: Record, style: str) -> str:
    """What a trained model should write after the prompt, its leading space included."""
    return str(_style(type(record), style).answer(record))


def stop_strings(record: Record, style: str) -> tuple[str, ...]:
    """Strings that end the answer to a record."""
    return tuple(_style(type(record), style).stops(record))


def read_answer(text: str, record: Record, *, style: str) -> str:
    """The answer in a generated text: cut at the first stop string, without the style's writing conventions."""
    places = [place for stop in stop_strings(record, style) if (place := text.find(stop)) >= 0]
    return str(_style(type(record), style).read(text[: min(places)] if places else text))


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
