"""Pipelines: a question that is answered by several calls of a model and several searches of an index.

A pipeline is written for one question, as a generator function that reads like its algorithm: it yields the calls that
can be made by now, is sent their results in the same order, and returns the answer. `solve_together` drives the
pipelines of many questions side by side, so that the calls of all that wait share one batch and one search.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

from athlos.errors import ConfigError
from athlos.generation.decoding import encoded
from athlos.generation.interface import Engine, Prediction, Prompt, Request, Sample, SamplingRule
from athlos.generation.local import LocalEngine
from athlos.retrieval.interface import Index, Passage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A prompt for the model behind `generator`, answered greedily unless it says otherwise; the result is text."""

    purpose: str
    """What the reply is for, such as `decompose`: the trace and the counts are read by it."""
    prompt: str
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    reply_schema: str = ""
    """JSON schema of the reply, as JSON, which servers are held to."""
    language: str = ""
    """Language of the reply that is wanted; prompts without instructions do not tell."""
    temperature: float = 0.0
    """0 = the most probable reply, as `SamplingRule` has it; so for the next two."""
    top_p: float = 1.0
    presence_penalty: float = 0.0
    seed: int = 0
    """Draws with seeds of their own are calls of their own."""
    reply_start: str = ""
    """What the reply begins with, which the result leaves out; only for a model that computes here."""
    # What the prompt was written from, for the trace and for generators that answer by rule.
    question: str = field(default="", compare=False)
    prompt_language: str = field(default="", compare=False)
    """Language of the instructions; empty where there are none."""
    passages: tuple[Passage, ...] = field(default=(), compare=False)
    """Passages that stand in the prompt."""
    said: tuple[str, ...] = field(default=(), compare=False)
    """Earlier replies that stand in it: sentences of a chain of thought, answers to sub-questions."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A query for the run's index; the result is a list of passages, best first."""

    purpose: str
    query: str
    k: int
    """Passages wanted, >= 1."""
    language: str | None = None
    """Language of the passages; not needed where the corpus has one."""


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something for the trace alone, such as a graph; the result is None."""

    purpose: str
    values: Mapping[str, Any]
    """JSON-able."""


Call = Ask | Search | Note
ResultT = TypeVar("ResultT")
Steps = Generator[Sequence[Call], list[Any], ResultT]
"""A part of a pipeline: yields calls, is sent their results, returns what it found out."""
Solver = Steps[str]
"""The pipeline of one question: yields calls, is sent their results, returns the answer."""


def together(parts: Sequence[Steps[ResultT]]) -> Steps[list[ResultT]]:
    """Parts that do not wait for each other, side by side: in each round the calls of all. Results in their order."""
    done: dict[int, ResultT] = {}
    results: dict[int, list[Any] | None] = dict.fromkeys(range(len(parts)))
    while True:
        calls: dict[int, Sequence[Call]] = {}
        for number, sent in results.items():
            try:
                calls[number] = next(parts[number]) if sent is None else parts[number].send(sent)
            except StopIteration as returned:
                done[number] = returned.value
        if not calls:
            return [done[number] for number in range(len(parts))]
        answers = iter((yield [call for of_part in calls.values() for call in of_part]))
        results = {number: [next(answers) for _ in of_part] for number, of_part in calls.items()}


class SymbolicGenerator(ABC):
    """A generator that answers by rule from what a prompt was written from: for studies whose truth is known."""

    @abstractmethod
    def reply(self, ask: Ask) -> str:
        """What a model that makes no mistake would write. Raises `ConfigError` for a purpose that it does not know."""

    def generate(self, *_: Any, **__: Any) -> Any:
        raise ConfigError("generator: one that answers by rule serves pipelines only; choose a model or a server")


@dataclass(kw_only=True)
class _Question:
    """A question under way."""

    place: int
    solver: Solver
    calls: Sequence[Call]
    trace: list[dict[str, Any]] = field(default_factory=list)


def solve_together(
    requests: Sequence[Request],
    solver_of: Callable[[Request], Solver],
    *,
    generator: Engine,
    index: Index,
    in_flight: int,
) -> Iterator[tuple[int, Prediction]]:
    """The place of each request and its prediction, in the order in which they are finished.

    `in_flight` questions are under way at once. Each round makes the calls of all of them together; a question that is
    finished makes room for the next one before the next round. A model that computes here must stay as it is: what it
    has read in one round it need not read in the next.
    """
    waiting = iter(enumerate(requests))
    under_way: list[_Question] = []
    with generator.keeping_prompts() if isinstance(generator, LocalEngine) else nullcontext():
        while True:
            while len(under_way) < in_flight and (following := next(waiting, None)) is not None:
                question, prediction = _advanced(
                    _Question(place=following[0], solver=solver_of(following[1]), calls=()), None, requests
                )
                if prediction is not None:
                    yield question.place, prediction
                else:
                    under_way.append(question)
            if not under_way:
                return
            results = _results([call for question in under_way for call in question.calls], generator, index)
            still_under_way = []
            for question in under_way:
                of_question = [next(results) for _ in question.calls]
                for call, (_, row) in zip(question.calls, of_question, strict=True):
                    question.trace.append({"purpose": call.purpose, **row})
                question, prediction = _advanced(question, [result for result, _ in of_question], requests)
                if prediction is not None:
                    yield question.place, prediction
                else:
                    still_under_way.append(question)
            under_way = still_under_way


def _advanced(
    question: _Question, results: list[Any] | None, requests: Sequence[Request]
) -> tuple[_Question, Prediction | None]:
    """The question with its next calls, or with its prediction where the pipeline has returned."""
    try:
        question.calls = next(question.solver) if results is None else question.solver.send(results)
    except StopIteration as returned:
        return question, _prediction(requests[question.place], str(returned.value), question.trace)
    return question, None


def _prediction(request: Request, text: str, trace: list[dict[str, Any]]) -> Prediction:
    """Tokens are those of all calls; the answer is finished unless length cut the last reply."""
    replies = [row for row in trace if "reply" in row]
    return Prediction(
        identifier=request.identifier,
        text=text,
        num_prompt_tokens=sum(row["num_prompt_tokens"] for row in replies),
        num_tokens=sum(row["num_tokens"] for row in replies),
        log_prob=math.nan,
        finished=not replies or replies[-1]["finished"],
        trace=trace,
    )


def _results(calls: Sequence[Call], generator: Engine, index: Index) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The result of each call in order, and what the trace says of it. Equal calls are made once."""
    asks = list(dict.fromkeys(call for call in calls if isinstance(call, Ask)))
    searches = list(dict.fromkeys(call for call in calls if isinstance(call, Search)))
    answers: Mapping[Call, Any] = _replies(asks, generator) | _passages(searches, index)
    for call in calls:
        if isinstance(call, Note):
            yield None, dict(call.values)
        elif isinstance(call, Ask):
            sample: Sample = answers[call]
            text = sample.text.strip()
            yield text, {**_asked(call), "reply": text, **_counts(sample)}
        else:
            hits: list[Passage] = answers[call]
            passages = [
                {"id": passage.identifier, "rank": rank, "score": passage.score}
                | ({"title": passage.title} if passage.title else {})
                for rank, passage in enumerate(hits, start=1)
            ]
            yield hits, {"query": call.query, "language": call.language, "k": call.k, "passages": passages}


def _asked(ask: Ask) -> dict[str, Any]:
    """What the trace says of a call beside its reply; `read` lists the passages that stand in the prompt."""
    row: dict[str, Any] = {"prompt": ask.prompt}
    if ask.question:
        row["question"] = ask.question
    if ask.prompt_language:
        row["prompt_language"] = ask.prompt_language
    if ask.passages:
        row["read"] = [passage.identifier for passage in ask.passages]
    return row


def _counts(sample: Sample) -> dict[str, Any]:
    return {
        "num_prompt_tokens": sample.num_prompt_tokens,
        "num_tokens": sample.num_tokens,
        "finished": sample.finished,
    }


def _replies(asks: Sequence[Ask], generator: Engine) -> dict[Call, Sample]:
    """Calls with the same stop strings, drawn alike, go to the engine as one batch."""
    replies: dict[Call, Sample] = {}
    if isinstance(generator, SymbolicGenerator):
        return {ask: _by_rule(generator.reply(ask)) for ask in asks}

    def shared(ask: Ask) -> tuple[tuple[str, ...], float, float, float]:
        return ask.stop, ask.temperature, ask.top_p, ask.presence_penalty

    for (stop, temperature, top_p, presence_penalty), group in groupby(sorted(asks, key=shared), key=shared):
        batch = list(group)
        prompts = [_encoded(generator, ask) for ask in batch]
        rule = SamplingRule(temperature=temperature, top_p=top_p, presence_penalty=presence_penalty)
        samples = generator.generate(prompts, rule=rule, stop=stop)
        replies |= {ask: sample for ask, [sample] in zip(batch, samples, strict=True)}
    return replies


def _encoded(generator: Engine, ask: Ask) -> Prompt:
    request = Request(identifier=ask.purpose, prompt=_opened(generator, ask), record=None, seed=ask.seed)
    prompt = encoded(generator, request, max_new_tokens=ask.max_new_tokens)
    return replace(prompt, reply_schema=ask.reply_schema)


def _opened(generator: Engine, ask: Ask) -> str:
    """The prompt with what its reply begins with."""
    prompt = in_chat_form(generator, ask.prompt)
    if not ask.reply_start:
        return prompt
    if not isinstance(generator, LocalEngine):
        raise ConfigError(f"generator: a server writes the reply to '{ask.purpose}' from its first word on; use self")
    return prompt + reply_gap(generator.tokenizer) + ask.reply_start


def _by_rule(reply: str) -> Sample:
    """A reply that no model wrote, token by token."""
    return Sample(text=reply, token_ids=[], log_probs=[], num_tokens=0, num_prompt_tokens=0, finished=True)


def in_chat_form(engine: Engine, prompt: str) -> str:
    """The prompt as one turn of the user, where a model that computes here has a chat template; servers have theirs."""
    return as_turn(engine.tokenizer, prompt) if isinstance(engine, LocalEngine) else prompt


def as_turn(tokenizer: "PreTrainedTokenizerBase", prompt: str) -> str:
    """The prompt as one turn of the user behind the chat template, where there is one, up to where the reply begins."""
    if not tokenizer.chat_template:
        return prompt
    turns = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def reply_gap(tokenizer: "PreTrainedTokenizerBase") -> str:
    """What stands between a prompt in chat form and its reply: the template ends with it, running text with none."""
    return "" if tokenizer.chat_template else " "


def _passages(searches: Sequence[Search], index: Index) -> dict[Call, list[Passage]]:
    """Searches of one language for as many passages go to the index together."""
    passages_of_call: dict[Call, list[Passage]] = {}

    def shared(search: Search) -> tuple[str, int]:
        return search.language or "", search.k

    for _, group in groupby(sorted(searches, key=shared), key=shared):
        batch = list(group)
        lists = index.search([search.query for search in batch], k=batch[0].k, language=batch[0].language)
        passages_of_call |= dict(zip(batch, lists, strict=True))
    return passages_of_call
