"""The prompt styles that come with Athlos: how problems, segments, questions and texts are asked and answered.

The first style of a type of record is its default. A method brings styles of its own as `PROMPT_STYLES` in
`methods/<slug>/prompt_styles.py`.
"""

import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from athlos.config.prompt_style import PromptStyle
from athlos.data.records import (
    ContinuationRecord,
    InstructionRecord,
    LongAnswerRecord,
    MathRecord,
    ParallelRecord,
    QuestionRecord,
    Record,
    TextRecord,
)
from athlos.errors import ConfigError, did_you_mean
from athlos.text.citations import BY_LANGUAGE, MAX_CITATIONS, read_citations, with_citations
from athlos.text.language import base_language
from athlos.text.maths import states
from athlos.text.prompts import SEPARATOR

NO_ANSWER = "noanswer"
"""What stands for the answer of an unanswerable question, in prompts and as gold."""
_BEFORE_LINE_END = re.compile(r"(\\+)(?=n|\n)")
_WRITTEN_LINE_END = re.compile(r"(\\+)n")
_DATA = Path(__file__).resolve().parent / "prompt_data"


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


def _readable(record: MathRecord, write: Callable[[str], str]) -> str:
    """What `write` makes of the answer; of the answer in a box where it would not be read back from the text.

    Such are most answers that are no number, and any answer behind a solution with another box.
    """
    plain = write(record.answer)
    return plain if states(plain, record.answer) else write(rf"\boxed{{{record.answer}}}")


def _worked(record: MathRecord, labels: _Labels) -> str:
    def write(answer: str) -> str:
        parts = [record.solution.strip(), labels.the_answer_is.format(answer=answer)]
        # Without a space after the full stop where the language writes none.
        return labels.space + labels.space.join(part for part in parts if part)

    return _readable(record, write)


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
    """A text on one line: its line ends are written out, since a line end ends the answer."""
    return text.strip().replace("\n", "\\n")


def one_line_segment(text: str) -> str:
    """`_one_line` of a text that will be read back by `_read_segment`.

    So backslashes that stand before an n or a line end are doubled.
    """
    return _one_line(_BEFORE_LINE_END.sub(r"\1\1", text.strip()))


def _translation_question(record: ParallelRecord) -> str:
    source, target = language_name(record.source_language), language_name(record.language)
    return f"{source}: {one_line_segment(record.source)}\n{target}:"


def _read_segment(text: str) -> str:
    def read(written: re.Match[str]) -> str:
        num_backslashes = len(written.group(1))
        return "\\" * (num_backslashes // 2) + ("\n" if num_backslashes % 2 else "n")

    return _WRITTEN_LINE_END.sub(read, text.strip())


def _closed_question(record: QuestionRecord | LongAnswerRecord) -> str:
    return f"Question: {_one_line(record.question)}\nAnswer:"


def _passage_question(record: QuestionRecord | LongAnswerRecord) -> str:
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


CITED = "cited"
"""The style that shows numbered documents and wants to see them cited."""
_CITE = (
    "Answer the question in whole sentences on one line, from the documents alone. Before the full stop of each "
    "sentence, cite the documents that it rests on by their numbers, such as [2] or [1][3]: one at least, three at "
    "most, and none that it does not need."
)


def _cited_question(record: QuestionRecord | LongAnswerRecord) -> str:
    """Source of the form of documents: the prompts of ALCE's few-shot sets."""
    documents = [
        f"Document [{number}]{f'(Title: {passage.title})' if passage.title else ''}: {_one_line(passage.text)}\n"
        for number, passage in enumerate(record.passages, start=1)
    ]
    return f"{_CITE}\n\nQuestion: {_one_line(record.question)}\n\n{''.join(documents)}Answer:"


def _long_answer(record: LongAnswerRecord) -> str:
    return f" {' '.join(record.answer.split()) or NO_ANSWER}"


def cited_answer(record: LongAnswerRecord) -> str:
    """The reference answer on one line, with its citations.

    One without any cites, in each sentence, the only document that supports the answer, where there is just one.
    """
    answer = _long_answer(record).strip()
    supporting = _supporting_numbers(record)
    read = read_citations(answer, num_documents=len(record.passages), language=record.language)
    if not record.answer or len(supporting) != 1 or any(sentence.cited for sentence in read.sentences):
        return answer
    return "".join(with_citations(piece, supporting) for piece in BY_LANGUAGE.split(answer, record.language))


def _cited_short_answer(record: QuestionRecord) -> str:
    return f" {with_citations(gold_answers(record)[0].strip(), _supporting_numbers(record)[:MAX_CITATIONS])}"


def _supporting_numbers(record: QuestionRecord | LongAnswerRecord) -> list[int]:
    return [number for number, passage in enumerate(record.passages, start=1) if passage.is_supporting]


UNSPACED_SENTENCES = ("zh", "ja", "hani")
"""Languages that write no space between sentences; `hani` is one of the lab world."""


def _gap(record: Record) -> str:
    return "" if base_language(record.language) in UNSPACED_SENTENCES else " "


def _bare_solution(record: MathRecord) -> str:
    return record.solution.strip() or _readable(record, str)


def _bare_question(record: QuestionRecord | LongAnswerRecord) -> str:
    parts = [*(passage.text for passage in record.passages), record.question]
    return _gap(record).join(part for part in parts if part)


PROMPT_STYLES: list[PromptStyle[Any]] = [
    PromptStyle[MathRecord](
        record_type=MathRecord,
        name="native_cot",
        question=_native_question,
        answer=lambda record: _worked(record, _labels(record.language)),
        stops=lambda record: _math_stops(_labels(record.language)),
        built_in=lambda language: _problems(language, solution_language=language),
    ),
    PromptStyle[MathRecord](
        record_type=MathRecord,
        name="english_cot",
        question=_english_question,
        answer=lambda record: _worked(record, _labels("en")),
        stops=lambda record: _math_stops(_labels("en")),
        built_in=lambda language: _problems(language, solution_language="en"),
    ),
    PromptStyle[MathRecord](
        record_type=MathRecord,
        name="direct",
        question=_direct_question,
        answer=lambda record: _direct_labels(record.language).space + _readable(record, str),
        stops=lambda record: ("\n",),
    ),
    # No label in any language: the question, then its worked solution, ended by the end of text or line.
    PromptStyle[MathRecord](
        record_type=MathRecord,
        name="bare",
        question=lambda record: record.question,
        answer=lambda record: _gap(record) + _bare_solution(record),
        stops=lambda record: ("\n",),
    ),
    PromptStyle[ParallelRecord](
        record_type=ParallelRecord,
        name="labelled",
        question=_translation_question,
        answer=lambda record: f" {one_line_segment(record.target)}",
        stops=lambda record: ("\n",),
        read=_read_segment,
    ),
    # No label in any language: a sign that means "the same" in all of them stands between the segments.
    PromptStyle[ParallelRecord](
        record_type=ParallelRecord,
        name="bare",
        question=lambda record: f"{one_line_segment(record.source)} =",
        answer=lambda record: _gap(record) + one_line_segment(record.target),
        stops=lambda record: ("\n",),
        read=_read_segment,
    ),
    PromptStyle[QuestionRecord](
        record_type=QuestionRecord,
        name="passages",
        question=_passage_question,
        answer=_short_answer,
        stops=lambda record: ("\n",),
        shot=_supported,
    ),
    PromptStyle[QuestionRecord](
        record_type=QuestionRecord,
        name="closed_book",
        question=_closed_question,
        answer=_short_answer,
        stops=lambda record: ("\n",),
    ),
    # No label in any language: passages, question and answer as running text, ended by the end of text or line.
    PromptStyle[QuestionRecord](
        record_type=QuestionRecord,
        name="bare",
        question=_bare_question,
        answer=lambda record: _gap(record) + gold_answers(record)[0],
        stops=lambda record: ("\n",),
    ),
    PromptStyle[QuestionRecord](
        record_type=QuestionRecord,
        name=CITED,
        question=_cited_question,
        answer=_cited_short_answer,
        stops=lambda record: ("\n",),
    ),
    PromptStyle[LongAnswerRecord](
        record_type=LongAnswerRecord,
        name=CITED,
        question=_cited_question,
        answer=lambda record: f" {cited_answer(record)}",
        stops=lambda record: ("\n",),
    ),
    PromptStyle[LongAnswerRecord](
        record_type=LongAnswerRecord,
        name="passages",
        question=_passage_question,
        answer=_long_answer,
        stops=lambda record: ("\n",),
    ),
    PromptStyle[LongAnswerRecord](
        record_type=LongAnswerRecord,
        name="bare",
        question=_bare_question,
        answer=lambda record: _gap(record) + _long_answer(record).strip(),
        stops=lambda record: ("\n",),
    ),
    # The same in all: what was written of questions in a style is trained on in a run of that style.
    *(
        PromptStyle[InstructionRecord](
            record_type=InstructionRecord,
            name=name,
            question=lambda record: record.prompt,
            answer=lambda record: record.completion,
            stops=lambda record: ("\n",),
        )
        for name in ("written", "bare", "closed_book", "passages")
    ),
    PromptStyle[ContinuationRecord](
        record_type=ContinuationRecord,
        name="continuation",
        question=lambda record: record.context,
        answer=lambda record: record.text,
        stops=lambda record: ("\n",),
        read=str,
    ),
    PromptStyle[TextRecord](
        record_type=TextRecord,
        name="text",
        question=lambda record: "",
        answer=lambda record: record.text,
        read=str,
    ),
    PromptStyle[TextRecord](
        record_type=TextRecord,
        name="bare",
        question=lambda record: "",
        answer=lambda record: record.text,
        read=str,
    ),
]
