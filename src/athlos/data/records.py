"""One typed record a task. Sources produce them; prompts, suites and pipelines read them.

`language` is a two-letter code where there is one (`en`, `zh`, ...), the code of the source elsewhere. `identifier` is
unique within a split and stable between runs.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True, slots=True)
class Record:
    identifier: str
    """Unique within its split; predictions are stored under it."""
    language: str = "en"
    meta: dict[str, Any] = field(default_factory=dict)
    """Fields of the official file that no task needs but a reader may want: domain, source, difficulty ..."""


@dataclass(kw_only=True, slots=True)
class TextRecord(Record):
    """Running text: language modelling."""

    text: str


@dataclass(kw_only=True, slots=True)
class ContinuationRecord(Record):
    """A text and what comes after it, without any label between the two."""

    context: str
    text: str


@dataclass(kw_only=True, slots=True)
class ParallelRecord(Record):
    """One segment in two languages. `language` is the target's."""

    source: str
    target: str
    source_language: str
    domain: str = ""


@dataclass(kw_only=True, slots=True)
class MathRecord(Record):
    """A word problem with a numeric or LaTeX answer; `solution` is the worked text where the data set has one."""

    question: str
    answer: str
    solution: str = ""
    english: str = ""
    """The same question in English where the data set is parallel."""
    solution_language: str = ""
    """Language of `solution`; empty = that of the question."""
    english_solution: str = ""
    """The same worked text in English, for hints in a language that the model knows well."""


@dataclass(kw_only=True, slots=True)
class Passage:
    title: str
    text: str
    sentences: list[str] = field(default_factory=list)
    is_supporting: bool = False
    identifier: str = ""


PARAGRAPH = "paragraph"
"""Key of `meta`: what names the one paragraph of a question in all languages of a parallel data set."""

NAMED_PASSAGES = "named_passages"
"""Key of `meta`: true where the identifiers of passages are those of a whole corpus, the same in all languages."""
PARALLEL = "parallel"
"""Key of `meta`: the same question in the language that stands for English: `question`, `answers`, and `steps` as
(question, answer) pairs."""


@dataclass(kw_only=True, slots=True)
class Step:
    """One sub-question of a multi-hop question; `#1` in the text stands for the answer of step 1."""

    question: str
    answer: str
    supporting: str = ""
    """Identifier or title of the passage that answers it."""


@dataclass(kw_only=True, slots=True)
class QuestionRecord(Record):
    """A question with short gold answers, and passages where the data set gives them."""

    question: str
    answers: list[str]
    """All accepted answers; empty = unanswerable."""
    passages: list[Passage] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    supporting_facts: list[tuple[str, int]] = field(default_factory=list)
    """(title, sentence index) pairs."""


@dataclass(kw_only=True, slots=True)
class Claim:
    """A statement of a long answer, its evidence and a human judgement of its support."""

    text: str
    evidence: list[str] = field(default_factory=list)
    support: str = ""
    """The data set's own label, e.g. `Complete`, `Partial`, `Incomplete`; empty = not judged."""
    is_supported: bool | None = None
    """Whether people saw the evidence support it; None where they saw it in between, or there is no evidence."""


@dataclass(kw_only=True, slots=True)
class LongAnswerRecord(Record):
    """A question with a long answer, the passages it rests on, and judged claims where there are any."""

    question: str
    answer: str
    """Reference or system answer; empty = unanswerable."""
    passages: list[Passage] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    short_answers: list[list[str]] = field(default_factory=list)
    """ALCE `qa_pairs`: accepted short answers of each sub-answer."""


@dataclass(kw_only=True, slots=True)
class ChoiceRecord(Record):
    """A multiple-choice question, with a picture where the data set has one."""

    question: str
    choices: list[str]
    answer_index: int
    hint: str = ""
    category: str = ""
    image: bytes | None = None
    """Encoded picture (JPEG, PNG) as in the file; decode with PIL."""
    pixels: Any = None
    """The picture as uint8 array [height, width, 3], where the source has it so."""
    item: str = ""
    """The same for one question in all its languages; empty where the data set does not say."""


@dataclass(kw_only=True, slots=True)
class InstructionRecord(Record):
    """What to train on, written out: a prompt with the place of the picture in it, and what should follow."""

    prompt: str
    completion: str
    pixels: Any = None
    """uint8 array [height, width, 3] of the picture, or nothing for text alone."""


Messages = list[dict[str, Any]]
"""Turns of a conversation, as chat templates take them: `role` and `content`, and what a tool call needs."""


@dataclass(kw_only=True, slots=True)
class ChatRecord(Record):
    """A conversation, whose turns of the assistant are trained on."""

    messages: Messages
    num_given: int = 0
    """Messages at its front that are a prompt alone: no turn of the assistant among them is trained on."""
    tools: list[dict[str, Any]] | None = None
    """JSON schemas of the functions that the assistant may call."""


@dataclass(kw_only=True, slots=True)
class PreferenceRecord(Record):
    """A prompt with a better and a worse answer: three texts, or three conversations."""

    prompt: str | Messages
    chosen: str | Messages
    rejected: str | Messages


@dataclass(kw_only=True, slots=True)
class CaptionRecord(Record):
    """A picture with a caption in each of several languages."""

    captions: dict[str, str]
    tags: dict[str, list[str]] = field(default_factory=dict)
    group: str = ""
    subgroup: str = ""
    pixels: Any = None
    """uint8 array [height, width, 3]."""


@dataclass(kw_only=True, slots=True)
class FactRecord(Record):
    """One entity of a table of facts: relation -> values, and its name by language."""

    subject: str
    names: dict[str, str]
    relations: dict[str, list[str]]
