"""What engines that compute in this process share: a model, its tokenizer, and the way from tokens to a sample."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from athlos.data.encoding import prefix_token
from athlos.errors import ConfigError, DataError
from athlos.generation.config import LocalEngineConfig
from athlos.generation.endings import end_tokens
from athlos.generation.interface import Progress, Prompt, Sample, SamplingRule
from athlos.generation.rules import LogitsRule
from athlos.models.forward import causal_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class LocalEngine(ABC):
    """Holds the model as it is: what trains or changes later is seen by the next call."""

    name: ClassVar[str]
    """Its name in the group `engine`."""

    def __init__(
        self, config: LocalEngineConfig, *, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase"
    ) -> None:
        self.config, self.model, self.tokenizer = config, model, tokenizer

    @abstractmethod
    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        rule: SamplingRule,
        num_samples: int = 1,
        stop: Sequence[str] = (),
        progress: Progress | None = None,
        end_token_ids: Sequence[int] | None = None,
        extra_rules: Sequence[LogitsRule] = (),
    ) -> list[list[Sample]]:
        """`num_samples` samples a prompt, in the order of the prompts. The model is left in the mode it came in.

        `end_token_ids` is what ends an answer; None = what model and tokenizer name, empty = nothing. `extra_rules`
        change the logits before temperature and truncation. At temperature 0 the samples of a prompt are one answer,
        computed once. Raises `DataError` for a prompt without tokens, `ConfigError` for a rule out of range,
        `ModelError` for a decoder that the engine does not fit.
        """

    @contextmanager
    def keeping_prompts(self) -> Iterator[None]:
        """Inside, an engine may keep what it reads for later prompts that begin alike. The model must stay as it is."""
        yield

    @property
    def causal_model(self) -> "PreTrainedModel":
        """The transformers model, out of its PEFT wrapper."""
        return causal_model(self.model)

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together."""
        return context_length(self.causal_model)

    def encode(self, text: str) -> list[int]:
        return encoded_prompt(self.tokenizer, text)

    def ends(self, end_token_ids: Sequence[int] | None) -> tuple[int, ...]:
        """What ends an answer: the given tokens, or those that model and tokenizer name."""
        return end_tokens(self.causal_model, self.tokenizer) if end_token_ids is None else tuple(end_token_ids)


def encoded_prompt(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """A prompt is encoded as in training (`data/encoding.py`)."""
    prefix = prefix_token(tokenizer)
    ids = tokenizer.encode(text, add_special_tokens=False, verbose=False)
    return list(ids) if prefix is None else [prefix, *ids]


def context_length(model: "PreTrainedModel") -> int:
    """Most tokens that a model reads at once; the largest integer for one without a table of positions (Mamba)."""
    config = model.config.get_text_config()
    name = config.attribute_map.get("max_position_embeddings", "max_position_embeddings")
    return config.to_dict().get(name) or sys.maxsize


def check_prompts(prompts: Sequence[Prompt], *, num_samples: int) -> None:
    """Raises `DataError` for a prompt without tokens, `ConfigError` for a number below 1."""
    for index, prompt in enumerate(prompts):
        if not prompt.token_ids:
            raise DataError(f"prompt {index}: it has no tokens; a model must read at least one")
        if prompt.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens: got {prompt.max_new_tokens} for prompt {index}, expected a number >= 1")
    if num_samples < 1:
        raise ConfigError(f"num_samples: got {num_samples}, expected a number >= 1")


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every module is in the mode it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
