"""The engine `openai`: generation by any server that speaks OpenAI's API.

Each sample is a request of its own with a seed of its own, made of the prompt's seed and the number of the sample; at
temperature 0 all samples of a prompt are one request. Replies are kept on disk before anything is cut off them.

What a server means by its numbers is its own affair:
- Log-probabilities: vLLM, llama.cpp and Ollama give those of the plain model (before temperature and truncation),
  SGLang those after the temperature. OpenAI does not say. At temperature 1 without truncation all agree.
- The end token: vLLM counts it and gives its log-probability, others leave out the one or the other.
- The seed: repeatable on one server with one load at best; no two servers draw alike.
"""

import asyncio
import hashlib
import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from anyio.from_thread import start_blocking_portal

from athlos.errors import ConfigError, ConfigErrors
from athlos.generation.http_config import Api, HTTPEngineConfig, OpenAIEngineConfig, http_errors
from athlos.generation.interface import Progress, Prompt, Sample, SamplingRule
from athlos.generation.reply_cache import ReplyCache, request_key
from athlos.generation.server_client import ServerClient
from athlos.generation.server_replies import Reply, as_sample, read_reply
from athlos.stages import cache_dir

log = logging.getLogger(__name__)

PATHS = {Api.completions: "/completions", Api.chat: "/chat/completions"}
MAX_FIRST_TOKENS = {Api.completions: 5, Api.chat: 20}
"""OpenAI tells no more of the tokens that might have come."""
MAX_STOP_STRINGS = 4
"""OpenAI takes no more; the others are cut off here, after the fact."""
COUNTERS = ("requests", "retries", "cache_hits", "prompt_tokens", "completion_tokens")
"""What an engine has asked for so far: requests (retries among them), and the tokens that the server counted for it."""
SEED_BITS = 31
"""Fits the signed 32-bit integers that some servers keep a seed in."""


@dataclass(kw_only=True)
class Question:
    """One request and the samples it serves, as (prompt index, sample index) of its first choice."""

    request: dict[str, Any]
    """`url`, `body` and `sample`: what the cache is asked for."""
    num_choices: int
    places: list[tuple[int, int]] = field(default_factory=list)

    @property
    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = self.request["body"]
        return body


class OpenAIEngine:
    """Samples from a server. `model` and `tokenizer` of the run are not used: the server has its own.

    `cache_root` is the run's cache folder; without it the one of $ATHLOS_CACHE. Raises `ConfigErrors` for values out
    of range.
    """

    name = "openai"
    max_stop_strings: int | None = MAX_STOP_STRINGS
    max_first_tokens = MAX_FIRST_TOKENS

    def __init__(
        self, config: HTTPEngineConfig, model: Any = None, tokenizer: Any = None, *, cache_root: Path | None = None
    ) -> None:
        if errors := list(http_errors(config)):
            raise ConfigErrors(errors)
        self.config = config
        self.base_url = config.base_url.rstrip("/")
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.cache: ReplyCache | None = None
        if config.cache is not None:
            self.cache = ReplyCache((cache_root or cache_dir()) / Path(config.cache).expanduser())
            size = self.cache.size()
            log.info("engine.cache: %s, %d replies, %.1f MB", self.cache.folder, size.num_replies, size.num_bytes / 1e6)

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        rule: SamplingRule,
        num_samples: int = 1,
        stop: Sequence[str] = (),
        progress: Progress | None = None,
        num_first_tokens: int = 0,
    ) -> list[list[Sample]]:
        """`num_samples` samples a prompt, in the order of the prompts, each with so many of its likeliest first tokens.

        Raises `ConfigError` for a rule or a setting the server cannot follow, `DataError` for a prompt that does not
        fit into its context, `ModelError` when it stays away or answers nonsense.
        """
        self.check_rule(rule)
        # The event loop runs in a thread of its own, since a notebook's thread already runs one. Leaving the block by
        # an error or by ctrl-C cancels every request.
        with start_blocking_portal() as portal:
            return portal.call(
                partial(
                    self._generate,
                    prompts,
                    rule=rule,
                    num_samples=num_samples,
                    stop=stop,
                    progress=progress,
                    num_first_tokens=num_first_tokens,
                )
            )

    def first_token_probs(self, prompts: Sequence[Prompt], *, options: Sequence[str]) -> list[list[float]]:
        """[prompt][option]: the probability that the answer begins with an option, such as `yes` against `no`.

        That of the first token under the plain model: see `option_probs`. Tokens that are less likely than those that
        a server tells count as 0, so the sum over the options is what is left of 1 at most. Raises as `generate`.
        """
        asked = [replace(prompt, max_new_tokens=1) for prompt in prompts]
        most = self.max_first_tokens[self.config.api]
        answers = self.generate(asked, rule=SamplingRule(), num_first_tokens=most)
        return [option_probs(sample.first_tokens, options) for [sample] in answers]

    async def _generate(
        self,
        prompts: Sequence[Prompt],
        *,
        rule: SamplingRule,
        num_samples: int,
        stop: Sequence[str],
        progress: Progress | None,
        num_first_tokens: int,
    ) -> list[list[Sample]]:
        samples: dict[tuple[int, int], Sample] = {}
        num_tokens = 0

        def take(question: Question, reply: Reply) -> None:
            nonlocal num_tokens
            for prompt_index, first in question.places:
                for offset, sample in enumerate(self._samples(reply, stop=stop)):
                    samples[prompt_index, first + offset] = sample
                    num_tokens += sample.num_tokens
            if progress:
                progress(len(samples), len(prompts) * num_samples, num_tokens)

        async with ServerClient(self.config, counters=self.counters) as client:
            model = await self.model_name(client)
            unanswered = []
            asked = self.questions(
                prompts, model=model, rule=rule, num_samples=num_samples, stop=stop, num_first_tokens=num_first_tokens
            )
            for question in asked:
                if (kept := self._kept(question)) is not None:
                    take(question, kept)
                else:
                    unanswered.append(question)
            if unanswered:
                await self.before_asking(client)

            async def ask(question: Question) -> None:
                take(question, await self._asked(client, question, num_prompts=len(prompts)))

            await side_by_side(ask, unanswered, max_in_flight=self.config.max_in_flight)
        return [[samples[index, sample] for sample in range(num_samples)] for index in range(len(prompts))]

    # What differs between servers

    def check_rule(self, rule: SamplingRule) -> None:
        """Raises `ConfigError` for a rule that OpenAI's API has no word for."""
        plain = SamplingRule()
        for name in ("top_k", "min_p", "repetition_penalty"):
            if getattr(rule, name) != getattr(plain, name):
                raise ConfigError(
                    f"decoding.{name}: got {getattr(rule, name)}, but engine={self.name} knows only temperature and "
                    "top_p; take engine=vllm or an engine that computes here"
                )

    async def model_name(self, client: ServerClient) -> str:
        assert self.config.model is not None
        return self.config.model

    def asked_at(self) -> str:
        """Where a request goes: beside its body, what a kept reply is found by."""
        return self.base_url + PATHS[self.config.api]

    async def before_asking(self, client: ServerClient) -> None:
        """Called once before requests that the cache does not hold."""

    def length_field(self) -> str:
        assert isinstance(self.config, OpenAIEngineConfig)
        return self.config.length_field.value

    def prompt_value(self, prompt: Prompt, index: int) -> str | list[int]:
        return prompt.text

    def rule_fields(self, rule: SamplingRule) -> dict[str, Any]:
        """The rule in the words of the server; nothing is left to its defaults, which may come with the model."""
        penalty = {"presence_penalty": rule.presence_penalty} if rule.presence_penalty else {}
        return {"temperature": rule.temperature, "top_p": rule.top_p if rule.temperature > 0 else 1.0, **penalty}

    def read(self, answer: Mapping[str, Any], *, num_choices: int, place: str) -> Reply:
        return read_reply(answer, api=self.config.api, num_choices=num_choices, place=place)

    # Requests

    def questions(
        self,
        prompts: Sequence[Prompt],
        *,
        model: str,
        rule: SamplingRule,
        num_samples: int,
        stop: Sequence[str],
        num_first_tokens: int = 0,
    ) -> list[Question]:
        """The requests to send, each once however many samples it serves."""
        by_key: dict[str, Question] = {}
        is_greedy = rule.temperature == 0
        at_once = num_samples if self.config.one_request_for_samples and not is_greedy else 1
        for index, prompt in enumerate(prompts):
            body = self._body(prompt, index, model=model, rule=rule, stop=stop, num_first_tokens=num_first_tokens)
            if at_once > 1:
                body["n"] = at_once
            for sample in range(0, num_samples, at_once):
                request = {"url": self.asked_at(), "body": body, "sample": 0}
                if not is_greedy:
                    request |= {"body": {**body, "seed": sample_seed(prompt.seed, sample)}, "sample": sample}
                question = by_key.setdefault(request_key(request), Question(request=request, num_choices=at_once))
                question.places.append((index, sample))
        return list(by_key.values())

    def _body(
        self,
        prompt: Prompt,
        index: int,
        *,
        model: str,
        rule: SamplingRule,
        stop: Sequence[str],
        num_first_tokens: int,
    ) -> dict[str, Any]:
        asked = self.prompt_value(prompt, index)
        body: dict[str, Any] = {"model": model, self.length_field(): prompt.max_new_tokens, **self.rule_fields(rule)}
        is_chat = self.config.api is Api.chat
        if prompt.system and not is_chat:
            raise ConfigError(f"prompt {index + 1}: has a system message, which engine.api=chat alone can send")
        if is_chat:
            system = [{"role": "system", "content": prompt.system}] if prompt.system else []
            body["messages"] = [*system, {"role": "user", "content": asked}]
        else:
            body["prompt"] = asked
        if is_chat and prompt.reply_schema and self.config.reply_schemas:
            form = {"name": "reply", "schema": json.loads(prompt.reply_schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        if stop:
            body["stop"] = list(stop[: self.max_stop_strings])
        if self.config.log_probs or num_first_tokens:
            body["logprobs"] = True if is_chat else max(1, num_first_tokens)
        if is_chat and num_first_tokens:
            body["top_logprobs"] = num_first_tokens
        return body

    def _kept(self, question: Question) -> Reply | None:
        """The reply on disk."""
        kept = None if self.cache is None else self.cache.get(question.request)
        if kept is None:
            return None
        self.counters["cache_hits"] += 1
        return Reply.from_dict(kept)

    async def _asked(self, client: ServerClient, question: Question, *, num_prompts: int) -> Reply:
        """The reply of the server, which is kept on disk."""
        place = f"prompt {question.places[0][0] + 1} of {num_prompts}"
        answer = await client.post(PATHS[self.config.api], question.body, place=place)
        reply = self.read(answer, num_choices=question.num_choices, place=place)
        self.counters["prompt_tokens"] += reply.num_prompt_tokens
        self.counters["completion_tokens"] += reply.num_tokens
        if self.cache is not None:
            self.cache.put(question.request, asdict(reply))
        return reply

    def _samples(self, reply: Reply, *, stop: Sequence[str]) -> list[Sample]:
        is_alone = len(reply.choices) == 1
        return [
            as_sample(
                choice,
                stop=stop,
                num_prompt_tokens=reply.num_prompt_tokens,
                num_tokens=reply.num_tokens if is_alone else len(choice.tokens),
            )
            for choice in reply.choices
        ]


def option_probs(first_tokens: Sequence[tuple[str, float]], options: Sequence[str]) -> list[float]:
    """The probability of each option, of the log-probabilities of first tokens, whatever their case and blanks.

    A token counts for the only option that it begins: `contra` for `contradiction`, but `n` for neither of `no` and
    `neutral`.
    """
    probs = [0.0] * len(options)
    for token, log_prob in first_tokens:
        letters = token.strip().casefold()
        begun = [place for place, option in enumerate(options) if letters and option.casefold().startswith(letters)]
        if len(begun) == 1:
            probs[begun[0]] += math.exp(log_prob)
    return probs


async def side_by_side(
    ask: Callable[[Question], Awaitable[None]], questions: Sequence[Question], *, max_in_flight: int
) -> None:
    """Asks every question, `max_in_flight` of them at once. The first error cancels the others and is raised."""
    room = asyncio.Semaphore(max_in_flight)

    async def ask_in_turn(question: Question) -> None:
        async with room:
            await ask(question)

    try:
        async with asyncio.TaskGroup() as group:
            for question in questions:
                group.create_task(ask_in_turn(question))
    except ExceptionGroup as errors:
        first = errors.exceptions[0]
        raise first from first.__cause__


def sample_seed(seed: int, index: int) -> int:
    """The seed of one sample of a prompt: a stream of its own for each (seed, index)."""
    digest = hashlib.sha256(f"{seed}:{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - SEED_BITS)
