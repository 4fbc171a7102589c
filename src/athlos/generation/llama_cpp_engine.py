"""The engine `llama_cpp`: llama.cpp's server in this process, asked over the loopback device like any other.

What it adds to `openai`: top-k, min-p and the repetition penalty, in the order of Athlos's own engine; token ids with
the samples; any number of stop strings. Weights of our own are converted once, and asked in token ids of their own
tokenizer. Its log-probabilities are those of the plain model. A kept reply is found by
the content of the GGUF file, wherever that lies and whatever port the server gets, so a run that was stopped asks
nothing twice. The server starts with the first question that is not kept.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from athlos.config.schema import ModelConfig, TokenizerConfig
from athlos.errors import ConfigError
from athlos.generation.endings import decode
from athlos.generation.http_config import Api, HTTPEngineConfig, LlamaCppConfig
from athlos.generation.interface import Prompt, SamplingRule
from athlos.generation.llama_cpp_server import ServerSettings, server_url
from athlos.generation.local import encoded_prompt
from athlos.generation.openai_engine import PATHS, OpenAIEngine
from athlos.generation.server_client import ServerClient
from athlos.generation.server_replies import Reply
from athlos.models.gguf_files import GGUFFile, gguf_file
from athlos.models.loading import load_tokenizer
from athlos.stages import StageStore, cache_dir

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NOT_STARTED = "http://127.0.0.1/v1"
PATIENCE = 7 * 24 * 3600.0
"""Seconds: a server inside this process is slow or busy, but never away."""
NUM_FIRST_TOKENS = 100
"""Tokens told of the first place; it has no limit of its own."""
SAMPLERS = ["penalties", "temperature", "top_k", "top_p", "min_p"]


class LlamaCppEngine(OpenAIEngine):
    """Samples from a GGUF file. `stages` keeps what is fetched or converted; without it the store of `cache_root`."""

    name = "llama_cpp"
    max_stop_strings = None
    max_first_tokens = dict.fromkeys(Api, NUM_FIRST_TOKENS)

    def __init__(
        self,
        config: LlamaCppConfig,
        model: Any = None,
        tokenizer: Any = None,
        *,
        cache_root: Path | None = None,
        stages: StageStore | None = None,
    ) -> None:
        http = HTTPEngineConfig(
            _target_="",
            base_url=NOT_STARTED,
            model=self.name,
            api=config.api,
            log_probs=config.log_probs,
            max_in_flight=config.num_slots,
            read_timeout=PATIENCE,
            max_retries=0,
            cache=config.cache,
        )
        super().__init__(http, model, tokenizer, cache_root=cache_root)
        self.settings = config
        self.stages = stages or StageStore(cache_root or cache_dir())
        self.source = config.trained_at or config.source

    @cached_property
    def gguf(self) -> GGUFFile:
        """The weights. Raises `ModelError` where they cannot be had."""
        return gguf_file(self.source, number_format=self.settings.format, stages=self.stages)

    @cached_property
    def own_tokenizer(self) -> "PreTrainedTokenizerBase | None":
        """That of converted weights, which cuts a text as in training; None for a GGUF file that was there before."""
        if self.gguf.folder is None:
            return None
        config = ModelConfig(name=self.name, source=f"dir:{self.gguf.folder}", tokenizer=TokenizerConfig(kind="source"))
        return load_tokenizer(config, stages=self.stages)

    @cached_property
    def drops_blank(self) -> bool:
        """Whether the tokenizer drops the blank that a word brings at the front of an answer; llama.cpp keeps it."""
        tokenizer = self.own_tokenizer
        if tokenizer is None:
            return False
        first, both = (tokenizer.encode(text, add_special_tokens=False) for text in ("a", "a a"))
        return not decode(tokenizer, both[len(first) :]).startswith(" ")

    @property
    def weights(self) -> dict[str, str]:
        """What a record of the run says of the weights that answered."""
        return {"source": self.settings.source, "license": self.gguf.license, "fingerprint": self.gguf.sha256}

    def check_rule(self, rule: SamplingRule) -> None:
        """llama.cpp has a word for every field of a rule."""

    def asked_at(self) -> str:
        """The weights and the context, at which an answer is cut."""
        return f"gguf:{self.gguf.sha256}/{self.settings.context_length}{PATHS[self.settings.api]}"

    def prompt_value(self, prompt: Prompt, index: int) -> str | list[int]:
        """Token ids for weights of our own; a chat is a text that the file's own template and tokenizer read."""
        tokenizer = self.own_tokenizer
        if tokenizer is None:
            return prompt.text
        if self.settings.api is Api.completions:
            return encoded_prompt(tokenizer, prompt.text)
        if not tokenizer.chat_template:
            raise ConfigError(
                f"engine.api: got chat, but {self.source} has no chat template; engine.api=completions continues a text"
            )
        return prompt.text

    async def before_asking(self, client: ServerClient) -> None:
        settings = ServerSettings(
            path=self.gguf.path,
            context_length=self.settings.context_length,
            num_slots=self.settings.num_slots,
            num_threads=self.settings.num_threads,
        )
        client.move_to(server_url(settings))

    def length_field(self) -> str:
        return "max_tokens"

    def read(self, answer: Mapping[str, Any], *, num_choices: int, place: str) -> Reply:
        """The reply, its tokens unknown where it leaves some out: those that only begin a letter of several bytes."""
        reply = super().read(answer, num_choices=num_choices, place=place)
        for choice in reply.choices:
            # Of an answer in ASCII none but those of the stop string are missing.
            if len(choice.tokens) < reply.num_tokens and not choice.text.isascii():
                choice.tokens, choice.token_ids, choice.log_probs = [], [], []
            if self.drops_blank:
                choice.text = choice.text.removeprefix(" ")
                choice.tokens[:1] = [token.removeprefix(" ") for token in choice.tokens[:1]]
        return reply

    def _body(self, prompt: Prompt, index: int, **asked: Any) -> dict[str, Any]:
        body = super()._body(prompt, index, **asked)
        if body.get("logprobs") is True:
            body.setdefault("top_logprobs", 1)  # a chat would tell 20
        return body

    def rule_fields(self, rule: SamplingRule) -> dict[str, Any]:
        """Every field, the neutral ones too: llama.cpp's own defaults cut the tail."""
        return {
            **super().rule_fields(rule),
            "samplers": SAMPLERS,
            "top_k": rule.top_k,
            "min_p": rule.min_p,
            "repeat_penalty": rule.repetition_penalty,
            "repeat_last_n": self.settings.context_length,
        }
