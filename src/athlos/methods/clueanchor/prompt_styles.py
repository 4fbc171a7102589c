"""The prompt styles of ClueAnchor: the external prompt, and the reply in tags."""

from typing import Any

from athlos.config.prompt_style import PromptStyle
from athlos.data.records import InstructionRecord, QuestionRecord
from athlos.methods.clueanchor.prompts import LAYOUTS, Layout, parse, written
from athlos.text.prompt_styles import gold_answers


def _styles(name: str, layout: Layout) -> list[PromptStyle[Any]]:
    return [
        PromptStyle[QuestionRecord](
            record_type=QuestionRecord,
            name=name,
            question=layout.external,
            answer=lambda record: " " + written("", gold_answers(record)[0]),
            read=lambda text: parse(text).answer,
        ),
        PromptStyle[InstructionRecord](
            record_type=InstructionRecord,
            name=name,
            question=lambda record: record.prompt,
            answer=lambda record: record.completion,
        ),
    ]


PROMPT_STYLES: list[PromptStyle[Any]] = [style for name, layout in LAYOUTS.items() for style in _styles(name, layout)]
