"""The forms that rows of one's own data may have, told by their columns, and the typed record of each.

They are those of TRL (text, prompt and completion, messages, preference pairs; texts or conversations), of
LLaMA-Factory (`instruction`, `input`, `output`, and `conversations` of `from` and `value`), questions with answers, and
pairs of segments in two languages.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from athlos.data.records import (
    ChatRecord,
    InstructionRecord,
    Messages,
    ParallelRecord,
    Passage,
    PreferenceRecord,
    QuestionRecord,
    Record,
    TextRecord,
)
from athlos.data.rows import Row
from athlos.errors import DataError, did_you_mean

ROLES = ("system", "user", "assistant", "tool")
ROLE_OF = {"human": "user", "gpt": "assistant", "observation": "tool"} | {role: role for role in ROLES}
"""The roles of chat templates, by themselves and by their names in ShareGPT's files."""
LANGUAGE_CODE = re.compile(r"[a-z]{2,3}(?:[-_][A-Za-z]{2,4})?")


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A row whose cells are asked for by the names of our fields; errors name the row's own columns."""

    row: Row
    columns: Mapping[str, str]
    """Field -> column, where the two have different names."""

    def column(self, field: str) -> str:
        return self.columns.get(field, field)

    def has(self, field: str) -> bool:
        """Whether there is such a cell with anything in it."""
        return self.row.values.get(self.column(field)) not in (None, "", [])

    def value(self, field: str, kind: type | tuple[type, ...]) -> Any:
        return self.row.need(self.column(field), kind)

    def text(self, field: str) -> str:
        """A text with more than white space in it."""
        text: str = self.value(field, str)
        if not text.strip():
            raise self.error("empty; data.on_bad=skip leaves such records out", field=field)
        return text

    def below(self, field: str) -> "Cells":
        """The cells of an object that stands in a cell."""
        return Cells(row=self.row.below(self.column(field)), columns={})

    def messages(self, field: str) -> Messages:
        """A list of turns, each with a role and a content."""
        turns: list[Any] = self.value(field, list)
        if not turns:
            raise self.error("no messages in the list", field=field)
        return [self.message(turn, f"{self.column(field)}[{place}]") for place, turn in enumerate(turns)]

    def message(self, turn: Any, place: str) -> dict[str, Any]:
        """The turn with `role` and `content`, of which ShareGPT says `from` and `value`; empty keys are left out."""
        if not isinstance(turn, dict):
            raise self.row.error(f"expected a message with role and content, got {type(turn).__name__}", field=place)
        message = {key: value for key, value in turn.items() if value is not None}
        role = message.pop("role", None) or message.pop("from", None)
        if not isinstance(role, str) or role not in ROLE_OF:
            got = repr(role) if role else f"none among the keys {', '.join(turn) or 'nothing'}"
            near = did_you_mean(str(role), ROLES)
            raise self.row.error(f"role: got {got}, expected one of {', '.join(ROLES)}{near}", field=place)
        content = message.pop("content", None)
        content = message.pop("value", None) if content is None else content
        if content is None and not message.get("tool_calls"):
            raise self.row.error("content: missing", field=place)
        if not isinstance(content, str | None):
            raise self.row.error(f"content: expected str, got {type(content).__name__}", field=place)
        return {"role": ROLE_OF[role], **({} if content is None else {"content": content}), **message}

    def error(self, message: str, *, field: str) -> DataError:
        return self.row.error(message, field=self.column(field))


Parse = Callable[[Cells, str, str], Record]
"""Cells, identifier and language -> record; raises `DataError`."""


@dataclass(frozen=True, kw_only=True)
class Form:
    needed: tuple[str, ...]
    optional: tuple[str, ...] = ()
    parse: Parse

    @property
    def fields(self) -> tuple[str, ...]:
        return (*self.needed, *self.optional)


def _preference(cells: Cells, identifier: str, language: str) -> PreferenceRecord:
    """Answers may begin with the prompt, which is then what both begin with, as in TRL; not a text's last space."""

    def side(field: str) -> str | Messages:
        value = cells.value(field, (str, list, dict))
        if isinstance(value, dict):
            return [cells.message(value, cells.column(field))]
        return cells.messages(field) if isinstance(value, list) else cells.text(field)

    chosen, rejected = side("chosen"), side("rejected")
    if isinstance(chosen, str) is not isinstance(rejected, str):
        raise cells.error("expected a text beside a text, or messages beside messages", field="rejected")
    prompt_field = next((field for field in ("prompt", "conversations") if cells.has(field)), None)
    prompt: str | Messages = "" if prompt_field is None else side(prompt_field)
    if isinstance(prompt, str) and (prompt_field is None or not isinstance(chosen, str)):
        pairs = zip(chosen, rejected, strict=False)
        same = next((place for place, (left, right) in enumerate(pairs) if left != right), 0)
        same -= same > 0 and chosen[same - 1] == " "
        prompt, chosen, rejected = chosen[:same], chosen[same:], rejected[same:]
    return PreferenceRecord(identifier=identifier, language=language, prompt=prompt, chosen=chosen, rejected=rejected)


def _chat(
    cells: Cells, field: str, messages: Messages, *, num_given: int, identifier: str, language: str
) -> ChatRecord:
    """The conversation with what the columns `system` and `tools` add to it; `field` holds its last turns."""
    if not any(message["role"] == "assistant" for message in messages[num_given:]):
        raise cells.error("no turn of the assistant to train on", field=field)
    if cells.has("system") and messages[0]["role"] != "system":
        messages, num_given = [{"role": "system", "content": cells.text("system")}, *messages], num_given + 1
    tools = None
    if cells.has("tools"):
        tools = cells.value("tools", (list, str))
        try:
            tools = json.loads(tools) if isinstance(tools, str) else tools
        except ValueError as error:
            raise cells.error(f"not JSON: {error}", field="tools") from error
    return ChatRecord(identifier=identifier, language=language, messages=messages, num_given=num_given, tools=tools)


def _messages(field: str) -> Parse:
    def parse(cells: Cells, identifier: str, language: str) -> ChatRecord:
        messages = cells.messages(field)
        return _chat(cells, field, messages, num_given=0, identifier=identifier, language=language)

    return parse


def _completion(cells: Cells, identifier: str, language: str) -> Record:
    if isinstance(cells.value("prompt", (str, list)), str):
        prompt, completion = cells.value("prompt", str), cells.text("completion")
        return InstructionRecord(identifier=identifier, language=language, prompt=prompt, completion=completion)
    prompt = cells.messages("prompt")
    messages = [*prompt, *cells.messages("completion")]
    return _chat(cells, "completion", messages, num_given=len(prompt), identifier=identifier, language=language)


def _instruction(cells: Cells, identifier: str, language: str) -> ChatRecord:
    """LLaMA-Factory's turns: `history` is pairs of earlier ones, `input` stands on a line below `instruction`."""
    messages: Messages = []
    for place, pair in enumerate(cells.value("history", list) if cells.has("history") else []):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            field = f"{cells.column('history')}[{place}]"
            raise cells.row.error("expected a pair of texts: what was asked and what was answered", field=field)
        messages += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    asked = [cells.text(field) for field in ("instruction", "input") if field == "instruction" or cells.has(field)]
    messages += [{"role": "user", "content": "\n".join(asked)}, {"role": "assistant", "content": cells.text("output")}]
    return _chat(cells, "output", messages, num_given=0, identifier=identifier, language=language)


def _question(cells: Cells, identifier: str, language: str) -> QuestionRecord:
    """`answers` is one text or a list of them, also below `text` as in SQuAD; an empty list means unanswerable."""
    answers = cells.value("answers", (str, list, dict))
    if isinstance(answers, dict):
        answers = cells.below("answers").row.texts("text")
    elif isinstance(answers, list):
        answers = cells.row.texts(cells.column("answers"))
    else:
        answers = [answers]
    passages = []
    for place, passage in enumerate(cells.value("passages", list) if cells.has("passages") else []):
        if isinstance(passage, str):
            passages.append(Passage(title="", text=passage))
            continue
        field = f"{cells.column('passages')}[{place}]"
        if not isinstance(passage, dict) or not isinstance(passage.get("text"), str):
            raise cells.row.error("expected a text, or title and text", field=field)
        passages.append(Passage(title=str(passage.get("title") or ""), text=passage["text"]))
    if cells.has("context"):
        passages.append(Passage(title="", text=cells.text("context")))
    return QuestionRecord(
        identifier=identifier, language=language, question=cells.text("question"), answers=answers, passages=passages
    )


def _text(cells: Cells, identifier: str, language: str) -> TextRecord:
    return TextRecord(identifier=identifier, language=language, text=cells.text("text"))


def parallel_forms(source: str, target: str) -> tuple[Form, ...]:
    """Two columns named by the codes of the languages, or both below `translation`, as on the hub."""

    def pair(cells: Cells, identifier: str) -> ParallelRecord:
        return ParallelRecord(
            identifier=identifier,
            language=target,
            source_language=source,
            source=cells.text(source),
            target=cells.text(target),
        )

    return (
        Form(needed=(source, target), parse=lambda cells, identifier, _: pair(cells, identifier)),
        Form(
            needed=("translation",),
            parse=lambda cells, identifier, _: pair(cells.below("translation"), identifier),
        ),
    )


CHAT_OPTIONS = ("system", "tools")
FORMS = (
    Form(needed=("chosen", "rejected"), optional=("prompt", "conversations"), parse=_preference),
    Form(needed=("messages",), optional=CHAT_OPTIONS, parse=_messages("messages")),
    Form(needed=("conversations",), optional=CHAT_OPTIONS, parse=_messages("conversations")),
    Form(needed=("prompt", "completion"), optional=CHAT_OPTIONS, parse=_completion),
    Form(needed=("question", "answers"), optional=("passages", "context"), parse=_question),
    Form(needed=("instruction", "output"), optional=("input", "history", *CHAT_OPTIONS), parse=_instruction),
    Form(needed=("text",), parse=_text),
)
"""The forms that columns tell; where several fit, the first one does."""


def recognised(row: Row, *, columns: Mapping[str, str], languages: tuple[str, str] | None) -> Form:
    """The form of the data whose first row this is; `DataError` that lists its columns and the forms there are.

    `columns` says which column holds a field, and so which forms are meant; `languages` asks for pairs of segments.
    """
    present = list(row.values)
    for field, column in columns.items():
        if column not in present:
            near = did_you_mean(column, present)
            raise DataError(
                f"data.fields.{field}: no column '{column}'{near}; there are: {', '.join(present)}",
                file=row.file,
                line=row.line,
            )
    forms = parallel_forms(*languages) if languages else FORMS
    meant = [form for form in forms if set(columns) <= set(form.fields)]
    for form in meant:
        if all(columns.get(field, field) in present for field in form.needed):
            return form
    wanted = "; ".join(" + ".join(form.needed) for form in meant)
    cure = "name the columns, such as data.fields={prompt: question, completion: answer}"
    codes = [name for name in present if LANGUAGE_CODE.fullmatch(name)]
    if not languages and len(codes) > 1:
        cure += f", or say the languages: data.source_language={codes[0]} data.target_language={codes[1]}"
    raise DataError(
        f"no form fits the columns {', '.join(present) or 'nothing'}; expected {wanted}: {cure}",
        file=row.file,
        line=row.line,
    )
