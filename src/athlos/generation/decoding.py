"""Decoding rules that belong to no single method: greedy and sampling. They turn requests into prompts."""

import math
from collections.abc import Sequence

from athlos.config.schema import DecodingConfig
from athlos.errors import DataError
from athlos.generation.config import GreedyConfig, SamplingConfig
from athlos.generation.interface import Contrast, Engine, Prediction, Progress, Prompt, Request, SamplingRule
from athlos.generation.local import LocalEngine
from athlos.generation.native import NativeEngine
from athlos.models.control_tokens import controlled


class Greedy:
    """The most probable token at each step. Batching changes no answer."""

    def __init__(self, config: GreedyConfig) -> None:
        self.config = config

    def answer(
        self, engine: Engine, requests: Sequence[Request], *, progress: Progress | None = None
    ) -> list[Prediction]:
        return answer_requests(engine, requests, config=self.config, rule=SamplingRule(), progress=progress)


class Sampling:
    """Temperature, then top-k, top-p and min-p, then a draw from what is left.

    Each request draws from its own seed, so its answer does not depend on the requests it shares a batch with.
    """

    def __init__(self, config: SamplingConfig) -> None:
        self.config = config
        self.rule = SamplingRule(
            temperature=config.temperature,
            top_k=config.top_k,
            top_p=config.top_p,
            min_p=config.min_p,
            repetition_penalty=config.repetition_penalty,
            presence_penalty=config.presence_penalty,
        )

    def answer(
        self, engine: Engine, requests: Sequence[Request], *, progress: Progress | None = None
    ) -> list[Prediction]:
        return answer_requests(engine, requests, config=self.config, rule=self.rule, progress=progress)


def answer_requests(
    engine: Engine,
    requests: Sequence[Request],
    *,
    config: DecodingConfig,
    rule: SamplingRule,
    contrast: Contrast | None = None,
    progress: Progress | None,
) -> list[Prediction]:
    """One prediction a request, in order. Requests with unlike stop strings go to the engine one after the other.

    A `contrast` takes the engine `native`; its second stream reads `Request.without`, where there is one.

    Raises `DataError` for a prompt that does not fit into the context of a model that computes here.
    """
    prompts = [encoded(engine, request, max_new_tokens=config.max_new_tokens) for request in requests]
    by_stop: dict[tuple[str, ...], list[int]] = {}
    for index, request in enumerate(requests):
        by_stop.setdefault(tuple(dict.fromkeys([*config.stop, *request.stop])), []).append(index)
    predictions: dict[int, Prediction] = {}
    num_tokens = 0
    for stop, indices in by_stop.items():
        counted = _counted(progress, done=len(predictions), whole=len(requests), num_tokens=num_tokens)
        asked = [prompts[index] for index in indices]
        if contrast is None:
            answers = engine.generate(asked, rule=rule, stop=stop, progress=counted)
        else:
            assert isinstance(engine, NativeEngine)
            answers = engine.generate(asked, rule=rule, stop=stop, progress=counted, contrast=contrast)
        for index, [sample] in zip(indices, answers, strict=True):
            num_tokens += sample.num_tokens
            predictions[index] = Prediction(
                identifier=requests[index].identifier,
                text=sample.text,
                num_prompt_tokens=sample.num_prompt_tokens,
                num_tokens=sample.num_tokens,
                log_prob=math.fsum(sample.log_probs) if sample.log_probs else math.nan,
                finished=sample.finished,
            )
    return [predictions[index] for index in range(len(requests))]


def _counted(progress: Progress | None, *, done: int, whole: int, num_tokens: int) -> Progress | None:
    """Progress of one of several calls of an engine, told as progress of them all."""
    if progress is None:
        return None
    return lambda done_here, _, tokens_here: progress(done + done_here, whole, num_tokens + tokens_here)


def encoded(engine: Engine, request: Request, *, max_new_tokens: int) -> Prompt:
    """The prompt of a request; for a model that computes here with token ids, its answer cut to the context."""
    prompt = Prompt(text=request.prompt, max_new_tokens=max_new_tokens, seed=request.seed)
    if not isinstance(engine, LocalEngine):
        return prompt
    prompt.token_ids = engine.encode(request.prompt)
    if not prompt.token_ids:
        raise DataError(f"request '{request.identifier}': the prompt has no tokens")
    if request.without:
        prompt.against_ids = engine.encode(request.without)
    if request.control:
        plain, tokenizer = prompt.token_ids, engine.tokenizer
        prompt.token_ids = controlled(plain, request.control[0], tokenizer)
        if request.without:
            prompt.against_ids = controlled(prompt.against_ids, request.control[0], tokenizer)
        elif len(request.control) == 2:
            prompt.against_ids = controlled(plain, request.control[1], tokenizer)
    num_tokens, context = len(prompt.token_ids), engine.context
    if num_tokens >= context:
        raise DataError(
            f"request '{request.identifier}': the prompt has {num_tokens} tokens, the model's context {context}; "
            "lower eval.shots or shorten the passages"
        )
    num_tokens = max(num_tokens, len(prompt.against_ids))
    prompt.max_new_tokens = min(max_new_tokens, context - num_tokens)
    return prompt
