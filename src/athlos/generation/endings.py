"""What ends an answer: end tokens and stop strings; and the text that is left of it."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from athlos.generation.interface import Prompt, Sample
from athlos.text.prompts import answer_end

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def end_tokens(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    """Tokens that end an answer: those of the model's generation config, and the tokenizer's end of sequence."""
    named = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = [named] if isinstance(named, int) else list(named or [])
    if tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
    return tuple(dict.fromkeys(ids))


class StopStrings:
    """Tells whether an answer has come to a stop string, across the borders of tokens; none ends an open thought."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", stop: Sequence[str]) -> None:
        self.tokenizer, self.stop = tokenizer, tuple(text for text in stop if text)
        # A token is at least one byte of text; the rest is room for a character cut at the left edge of the tail.
        self.num_tokens = max((len(text.encode()) for text in self.stop), default=0) + 4

    def __bool__(self) -> bool:
        return bool(self.stop)

    def ends(self, tail: Sequence[int], *, answer: Callable[[], Sequence[int]]) -> bool:
        """`tail` holds the last `num_tokens` tokens of the answer, or all; `answer` gives all, and is rarely asked."""
        text = decode(self.tokenizer, tail)
        if not any(stop in text for stop in self.stop):
            return False
        return answer_end(decode(self.tokenizer, answer()), self.stop) is not None


def decode(tokenizer: "PreTrainedTokenizerBase", token_ids: Sequence[int]) -> str:
    text = tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return text


def cut(text: str, stop: Sequence[str]) -> str:
    """The text up to the first stop string behind its thought, if it has one."""
    return text[: answer_end(text, [string for string in stop if string])]


def sample_of(
    tokenizer: "PreTrainedTokenizerBase",
    prompt: Prompt,
    token_ids: list[int],
    log_probs: list[float],
    *,
    ends: Sequence[int],
    stop: Sequence[str],
    finished: bool,
) -> Sample:
    """What was generated after a prompt, with its text: without end token, cut at the first stop string."""
    shown = token_ids[:-1] if token_ids[-1] in ends else token_ids
    return Sample(
        text=cut(decode(tokenizer, shown), stop),
        token_ids=token_ids,
        log_probs=log_probs,
        num_tokens=len(token_ids),
        num_prompt_tokens=len(prompt.token_ids),
        finished=finished,
    )
