"""Decoding rules that belong to no single method: greedy and sampling."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from athlos.config.parts import Prediction, Request
from athlos.config.schema import DecodingConfig
from athlos.data.encoding import prefix_token
from athlos.errors import DataError
from athlos.generation import engine
from athlos.generation.config import GreedyConfig, SamplingConfig
from athlos.generation.engine import Chooser, Progress, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_BATCH_SIZE = 8


class Greedy:
    """The most probable token at each step. Batching changes no answer."""

    def __init__(self, config: GreedyConfig) -> None:
        self.config = config

    def answer(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        requests: Sequence[Request],
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
        progress: Progress | None = None,
    ) -> list[Prediction]:
        return answer_requests(
            model, tokenizer, requests,
            config=self.config, choose=engine.greedy, batch_size=batch_size, progress=progress,
        )  # fmt: skip


class Sampling:
    """Temperature, then top-k, then top-p, then a draw from what is left.

    Each request draws from its own seed, so its answer does not depend on the requests it shares a batch with.
    """

    def __init__(self, config: SamplingConfig) -> None:
        self.config = config
        self._warpers = LogitsProcessorList([TemperatureLogitsWarper(float(config.temperature))])
        if config.top_k > 0:
            self._warpers.append(TopKLogitsWarper(config.top_k))
        if config.top_p < 1:
            self._warpers.append(TopPLogitsWarper(float(config.top_p)))

    def choose(self, logits_BV: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """A token of each row, [B], drawn from its truncated distribution with the row's generator.

        The largest of log-probability plus Gumbel noise is a draw from the distribution (Gumbel-max); minus the log of
        exponential noise is Gumbel noise.
        """
        kept_BV = self._warpers(None, logits_BV)
        noise_BV = torch.empty_like(kept_BV)
        for row_V, generator in zip(noise_BV, generators, strict=True):
            row_V.exponential_(generator=generator)
        return (kept_BV - noise_BV.log_()).argmax(dim=-1)

    def answer(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        requests: Sequence[Request],
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
        progress: Progress | None = None,
    ) -> list[Prediction]:
        return answer_requests(
            model, tokenizer, requests,
            config=self.config, choose=self.choose, batch_size=batch_size, progress=progress,
        )  # fmt: skip


def answer_requests(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    requests: Sequence[Request],
    *,
    config: DecodingConfig,
    choose: Chooser,
    batch_size: int,
    progress: Progress | None,
) -> list[Prediction]:
    """One prediction a request, in order. Raises `DataError` for a prompt that does not fit into the context."""
    context = model.config.get_text_config().max_position_embeddings
    prompts = [_encoded(tokenizer, request, config=config, context=context) for request in requests]
    answers = engine.generate(
        model, tokenizer, prompts, choose=choose, stop=config.stop, batch_size=batch_size, progress=progress
    )
    return [
        Prediction(
            identifier=request.identifier,
            text=answer.text,
            num_prompt_tokens=len(prompt.token_ids),
            num_tokens=len(answer.token_ids),
            log_prob=answer.log_prob,
            finished=answer.finished,
        )
        for request, prompt, answer in zip(requests, prompts, answers, strict=True)
    ]


def _encoded(tokenizer: "PreTrainedTokenizerBase", request: Request, *, config: DecodingConfig, context: int) -> Prompt:
    """A prompt is encoded as in training (`data/encoding.py`); an answer never runs past the model's context."""
    prefix = prefix_token(tokenizer)
    token_ids = ([] if prefix is None else [prefix]) + tokenizer.encode(
        request.prompt, add_special_tokens=False, verbose=False
    )
    if not token_ids:
        raise DataError(f"request '{request.identifier}': the prompt has no tokens")
    if len(token_ids) >= context:
        raise DataError(
            f"request '{request.identifier}': the prompt has {len(token_ids)} tokens, the model's context {context}; "
            "lower eval.shots or shorten the passages"
        )
    return Prompt(
        token_ids=token_ids, max_new_tokens=min(config.max_new_tokens, context - len(token_ids)), seed=request.seed
    )
