"""The engine `vllm`: a vLLM server, spoken to over HTTP so that its own pins stay in an environment of their own.

What it adds to `openai`: top-k, min-p and the repetition penalty; token ids with the samples (vLLM 0.10.2 and later);
any number of stop strings; a look at the server before the first request. Its log-probabilities are those of the plain
model unless the server was started with another `--logprobs-mode`. It applies min-p before top-k and top-p, Athlos's
own engine after them: the two differ where min-p stands beside top-p.
"""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from athlos.errors import ConfigError, DataError, ModelError
from athlos.generation.http_config import VLLMEngineConfig
from athlos.generation.interface import Prompt, SamplingRule
from athlos.generation.openai_engine import OpenAIEngine
from athlos.generation.server_client import ServerAwayError, ServerClient

DEFAULT_PORT = 8000


class VLLMEngine(OpenAIEngine):
    """Samples from a vLLM server."""

    name = "vllm"
    max_stop_strings = None

    def __init__(
        self, config: VLLMEngineConfig, model: Any = None, tokenizer: Any = None, *, cache_root: Path | None = None
    ) -> None:
        super().__init__(config, model, tokenizer, cache_root=cache_root)
        self.sends_token_ids = config.prompt_as_token_ids
        self._served: list[str] | None = None

    def check_rule(self, rule: SamplingRule) -> None:
        """vLLM has a word for every field of a rule."""

    async def model_name(self, client: ServerClient) -> str:
        if self.config.model is not None:
            return self.config.model
        served = await self._models(client)
        if len(served) != 1:
            raise ConfigError(f"engine.model: {self.base_url} serves {', '.join(served) or 'nothing'}; name one")
        return served[0]

    async def before_asking(self, client: ServerClient) -> None:
        """Raises `ModelError` at once, and says how to start a server, when none answers."""
        await self._models(client)

    def length_field(self) -> str:
        return "max_tokens"

    def prompt_value(self, prompt: Prompt, index: int) -> str | list[int]:
        if not self.sends_token_ids:
            return prompt.text
        if not prompt.token_ids:
            raise DataError(f"prompt {index + 1}: has no token ids; set engine.prompt_as_token_ids=false")
        return prompt.token_ids

    def rule_fields(self, rule: SamplingRule) -> dict[str, Any]:
        """Every field, the neutral ones too: vLLM takes what is missing from the model's generation_config.json."""
        return {
            **super().rule_fields(rule),
            "top_k": rule.top_k,
            "min_p": rule.min_p,
            "repetition_penalty": rule.repetition_penalty,
            "presence_penalty": rule.presence_penalty,
            "return_token_ids": True,
        }

    async def _models(self, client: ServerClient) -> list[str]:
        """What the server serves, asked once."""
        if self._served is None:
            try:
                self._served = await client.models()
            except ServerAwayError as trouble:
                raise ModelError(
                    f"engine.base_url: {self.base_url}: {trouble.reason}; start one in an environment of its own: "
                    f"{self._command()}"
                ) from trouble
        return self._served

    def _command(self) -> str:
        name = f" --served-model-name {self.config.model}" if self.config.model else ""
        return f"vllm serve <folder with the weights>{name} --port {urlsplit(self.base_url).port or DEFAULT_PORT}"
