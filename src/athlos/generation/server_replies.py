"""What a server of OpenAI's API answers, read field by field, and the samples made of it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from athlos.errors import ModelError
from athlos.generation.http_config import Api
from athlos.generation.interface import Sample

LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(kw_only=True)
class Choice:
    """One answer as a server gave it. Lists are empty where the server does not tell."""

    text: str
    reason: str
    """Why it ended: `length` when it was cut, else `stop` or a server's own word."""
    tokens: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    first_tokens: list[tuple[str, float]] = field(default_factory=list)
    """The likeliest tokens of the first place, with their log-probabilities."""


@dataclass(kw_only=True)
class Reply:
    """What is kept of an answer: its choices, and the tokens of the prompt and of all choices together."""

    choices: list[Choice]
    num_prompt_tokens: int
    num_tokens: int

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Reply":
        return cls(**{**values, "choices": [Choice(**choice) for choice in values["choices"]]})


def read_reply(answer: Mapping[str, Any], *, api: Api, num_choices: int, place: str) -> Reply:
    """The fields of a server's answer that matter, checked. Raises `ModelError` that names the missing field."""
    choices, usage = answer.get("choices"), answer.get("usage")
    if not isinstance(choices, list) or len(choices) != num_choices:
        got = len(choices) if isinstance(choices, list) else "no"
        advice = "; set engine.one_request_for_samples=false" if num_choices > 1 else ""
        raise ModelError(f"{place}: the answer holds {got} choices, expected {num_choices}{advice}")
    usage = usage if isinstance(usage, dict) else {}
    num_prompt_tokens, num_tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not isinstance(num_prompt_tokens, int) or not isinstance(num_tokens, int):
        raise ModelError(f"{place}: the answer does not count its tokens (usage.prompt_tokens, .completion_tokens)")
    read = _chat_choice if api is Api.chat else _text_choice
    try:
        read_choices = [read(choice) for choice in sorted(choices, key=lambda choice: choice.get("index") or 0)]
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        raise ModelError(f"{place}: a choice of the answer lacks a field or has it in another form") from error
    if num_choices > 1 and not all(choice.tokens for choice in read_choices):
        raise ModelError(
            f"{place}: the answer tells no tokens of its single choices; set engine.one_request_for_samples=false"
        )
    return Reply(choices=read_choices, num_prompt_tokens=num_prompt_tokens, num_tokens=num_tokens)


def _text_choice(choice: Mapping[str, Any]) -> Choice:
    logs = choice.get("logprobs") or {}
    if "content" in logs:  # llama.cpp tells them in the form of a chat
        return _told_by_token(choice, text=choice["text"])
    first = next(iter(logs.get("top_logprobs") or []), None) or {}
    return Choice(
        text=_text(choice["text"]),
        reason=str(choice.get("finish_reason")),
        tokens=[_text(token) for token in logs.get("tokens") or []],
        token_ids=[int(token) for token in choice.get("token_ids") or []],
        log_probs=_numbers(logs.get("token_logprobs") or []),
        first_tokens=[(_text(token), float(log_prob)) for token, log_prob in first.items()],
    )


def _chat_choice(choice: Mapping[str, Any]) -> Choice:
    # No content: all tokens went into reasoning, or the model declined.
    return _told_by_token(choice, text=choice["message"].get("content") or "")


def _told_by_token(choice: Mapping[str, Any], *, text: Any) -> Choice:
    logs = (choice.get("logprobs") or {}).get("content") or []
    ids = choice.get("token_ids") or [entry["id"] for entry in logs if "id" in entry]
    first = (logs[0].get("top_logprobs") or []) if logs else []
    return Choice(
        text=_text(text),
        reason=str(choice.get("finish_reason")),
        tokens=[_text(entry["token"]) for entry in logs],
        token_ids=[int(token) for token in ids],
        log_probs=_numbers([entry["logprob"] for entry in logs]),
        first_tokens=[(_text(entry["token"]), float(entry["logprob"])) for entry in first],
    )


def _text(value: Any) -> str:
    """The text, with U+FFFD for each half of a surrogate pair: JSON can write one, and no file takes it."""
    if not isinstance(value, str):
        raise TypeError("not a text")
    return LONE_SURROGATE.sub("\ufffd", value)


def _numbers(values: Sequence[Any]) -> list[float]:
    """Log-probabilities; nothing at all when one of them is unknown, since a sum would be wrong."""
    if not all(isinstance(value, int | float) and float("-inf") < value < float("inf") for value in values):
        return []
    return [float(value) for value in values]


def as_sample(choice: Choice, *, stop: Sequence[str], num_prompt_tokens: int, num_tokens: int) -> Sample:
    """A choice as the interface wants it: cut at the stop string that is complete first, tokens cut with it.

    Where the tokens do not spell the text (bytes of one letter in several tokens), it is unknown which to drop: then
    ids and log-probabilities are empty, and the count stays the server's.
    """
    ends = [place + len(string) for string in stop if string and (place := choice.text.find(string)) >= 0]
    first_tokens = [(token, log_prob) for token, log_prob in choice.first_tokens]  # kept ones are lists
    is_whole = choice.reason not in ("length", "content_filter")
    if not ends:
        return Sample(
            text=choice.text,
            token_ids=list(choice.token_ids),
            log_probs=list(choice.log_probs),
            num_tokens=num_tokens,
            num_prompt_tokens=num_prompt_tokens,
            finished=is_whole,
            first_tokens=first_tokens,
        )
    until = choice.text[: min(ends)]
    text = until[: min(place for string in stop if string and (place := until.find(string)) >= 0)]
    kept = _num_tokens_until(choice.tokens, length=len(until), text=choice.text)
    return Sample(
        text=text,
        token_ids=[] if kept is None else choice.token_ids[:kept],
        log_probs=[] if kept is None else choice.log_probs[:kept],
        num_tokens=num_tokens if kept is None else kept,
        num_prompt_tokens=num_prompt_tokens,
        finished=True,
        first_tokens=first_tokens,
    )


def _num_tokens_until(tokens: Sequence[str], *, length: int, text: str) -> int | None:
    """How many tokens spell the first `length` characters of a text; none when they spell another text."""
    if not "".join(tokens).startswith(text):
        return None
    spelled = 0
    for number, token in enumerate(tokens, start=1):
        spelled += len(token)
        if spelled >= length:
            return number
    return None
