"""Conversations -> token ids, and which of them the assistant writes.

The ids are those of the whole conversation behind the model's chat template, in one piece, as the model will meet it.
Where the template marks what the assistant generates (`{% generation %}`), the marks are the targets, as for TRL's
`assistant_only_loss`. Where it does not, a turn's targets begin where the prompt for it ends and go on to the end of
the turn, its end-of-turn token and the white space behind that included.
"""

import re
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import TemplateError

from athlos.data.records import ChatRecord
from athlos.errors import DataError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
PLACEHOLDERS = ("\u2021", "\u2020")
"""Two contents of a turn that end in different characters: what texts with one and the other have in common at their
ends is what stands behind the turn's content."""


def encode_conversation(tokenizer: "PreTrainedTokenizerBase", record: ChatRecord) -> tuple[list[int], list[bool]]:
    """Ids of a conversation, and for each whether it is a target.

    Raises `ModelError` where the tokenizer has no chat template, `DataError` where the template refuses the
    conversation, or does not tell where a turn of the assistant stands.
    """
    if not tokenizer.chat_template:
        raise ModelError(
            "the data are conversations, and the tokenizer of this model has no chat template: choose a chat model, "
            "put chat_template.jinja into the model's folder, or give the data as columns prompt and completion"
        )
    chat = _Rendering(tokenizer, record)
    text = chat.render(len(record.messages))
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids: list[int] = encoding["input_ids"]
    begins = [begin for begin, _ in encoding["offset_mapping"]]
    first = len(chat.prompt_for(record.num_given, text)) if record.num_given else 0
    if MARKS.search(tokenizer.get_chat_template(tools=record.tools)):
        marked: Any = tokenizer.apply_chat_template(
            record.messages,
            tools=record.tools,  # type: ignore[arg-type]  # the list is only read
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        is_target = [
            bool(mark) and begin >= first for mark, begin in zip(marked["assistant_masks"], begins, strict=True)
        ]
    else:
        spans = [
            chat.span(place, text)
            for place, message in enumerate(record.messages)
            if message["role"] == "assistant" and place >= record.num_given
        ]
        is_target = [any(start <= begin < end for start, end in spans) for begin in begins]
    if not any(is_target):
        raise chat.error("it shows nothing of what the assistant writes")
    return ids, is_target


class _Rendering:
    """A conversation as the chat template writes it, whole and up to one of its messages."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", record: ChatRecord) -> None:
        self.tokenizer, self.record = tokenizer, record

    def error(self, reason: str) -> DataError:
        return DataError(f"record '{self.record.identifier}': the model's chat template: {reason}")

    def render(self, num_messages: int, *, prompts: bool = False, content: tuple[int, str] | None = None) -> str:
        """The first messages as text, with the opening of an answer where it `prompts`; one content may be another."""
        messages = list(self.record.messages[:num_messages])
        if content is not None:
            place, text = content
            messages[place] = {**messages[place], "content": text}
        try:
            rendered: Any = self.tokenizer.apply_chat_template(
                messages,
                tools=self.record.tools,  # type: ignore[arg-type]  # the list is only read
                tokenize=False,
                add_generation_prompt=prompts,
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise self.error(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from error
        return str(rendered)

    def prompt_for(self, place: int, text: str) -> str:
        """What stands before the assistant's turn at this place in the text of the whole conversation."""
        if place:
            prompt = self.render(place, prompts=True)
        else:  # no template renders nothing: the opening of an answer, which the conversation begins with
            opening = self.render(1, prompts=True).removeprefix(self.render(1))
            prompt = text[: text.find(opening) + len(opening)]
        if not text.startswith(prompt):
            raise self.error(
                f"it writes what stands before message {place + 1} in another way when more follows, so that its "
                "targets are unknown; mark them by {% generation %} in chat_template.jinja"
            )
        return prompt

    def span(self, place: int, text: str) -> tuple[int, int]:
        """Where the assistant's turn begins and ends in the text of the whole conversation.

        Some templates write a turn with more follow-up in another way than the last one (Qwen3 leaves out the
        reasoning): then it ends behind the first special token after its content.
        """
        start = len(self.prompt_for(place, text))
        alone = self.render(place + 1)
        if text.startswith(alone):
            return start, len(alone)
        tails = [
            _common_end(text, self.render(len(self.record.messages), content=(place, other))) for other in PLACEHOLDERS
        ]
        tail = text[len(text) - min(tails) :]
        specials = "|".join(map(re.escape, self.tokenizer.all_special_tokens))
        closing = re.match(rf".*?(?:{specials})\s*", tail, re.DOTALL)
        if closing is None:
            raise self.error(f"it shows no end of message {place + 1}; mark it by {{% generation %}}")
        return start, len(text) - len(tail) + closing.end()


def _common_end(text: str, other: str) -> int:
    """Number of characters that two texts have in common at their ends."""
    pairs = zip(reversed(text), reversed(other), strict=False)
    return next((place for place, (left, right) in enumerate(pairs) if left != right), min(len(text), len(other)))
