"""A server of OpenAI's API through the `openai` package, with errors in one line that name what to change.

Retries, the waits between them, time-outs and connections are the package's. The key of the server leaves this file in
one header only. What a server says is data from outside: it is read up to a limit, stripped of what could steer a
terminal, and shown only inside an error.
"""

import json
import logging
import os
from collections.abc import Awaitable
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai

from athlos.errors import AthlosError, ConfigError, DataError, ModelError, choices
from athlos.generation.http_config import HTTPEngineConfig

log = logging.getLogger(__name__)

PASSING_STATUSES = (408, 409, 429)
"""Tried again by the package, and so is every status from 500 on."""
RETRY_COUNT = "x-stainless-retry-count"
"""Header in which the package says how often it has sent a request before."""
NO_CREDIT = "insufficient_quota"
"""Comes with status 429, but does not pass."""
CONTEXT_WORDS = ("context_length", "context length", "maximum context", "context size", "max_model_len")
MAX_REPLY_BYTES = 64 << 20
MAX_SHOWN = 300
MAX_LISTED = 10
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class ServerAwayError(ModelError):
    """A server that could not be reached, or that met a passing trouble at every try. `reason` says what happened."""

    def __init__(self, config: HTTPEngineConfig, *, reason: str, num_tries: int) -> None:
        self.reason = reason
        super().__init__(
            f"engine: {config.base_url.rstrip('/')}: {reason}; gave up after {num_tries} "
            f"{'try' if num_tries == 1 else 'tries'} (engine.max_retries={config.max_retries})"
        )


class BoundedClient(httpx2.AsyncClient):
    """Counts its requests in `counters`, bounds what it reads of an answer, and ends retries where credit is out."""

    def __init__(self, config: HTTPEngineConfig, *, counters: dict[str, int]) -> None:
        self.config, self.counters = config, counters
        # The engine bounds the requests under way. A proxy of the environment knows nothing of servers on this machine.
        # Redirects are not followed: they would carry prompts, and the key, to a place nobody named.
        super().__init__(
            limits=httpx2.Limits(),
            trust_env=urlsplit(config.base_url).hostname not in LOOPBACK,
            follow_redirects=False,
        )

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        self.counters["requests"] += 1
        if retry := int(request.headers[RETRY_COUNT]):
            self.counters["retries"] += 1
            log.info("engine: asking %s again, retry %d of %d", request.url, retry, self.config.max_retries)
        response = await super().send(request, **{**options, "stream": True})
        body = bytearray()
        try:
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_REPLY_BYTES:
                    raise ModelError(f"engine: {request.url} sent more than {MAX_REPLY_BYTES >> 20} MB for one answer")
        finally:
            await response.aclose()
        # The body is decoded here, so that what a compressed answer grows to is bounded too.
        headers = [(name, value) for name, value in response.headers.multi_items() if name != "content-encoding"]
        if response.status_code == 429 and NO_CREDIT.encode() in body:
            headers.append(("x-should-retry", "false"))
        return httpx2.Response(response.status_code, headers=headers, content=bytes(body), request=request)


class ServerClient:
    """Sends requests to `config.base_url` as long as its `async with` block lasts."""

    def __init__(self, config: HTTPEngineConfig, *, counters: dict[str, int]) -> None:
        self.config = config
        self.base_url = config.base_url.rstrip("/")
        self._key = read_key(config.api_key_variable)
        # The package looks for a key of its own where it is given none, so that the header is taken out instead.
        self._headers: dict[str, str | openai.Omit] = {} if self._key else {"Authorization": openai.Omit()}
        self._client = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self.base_url,
            timeout=httpx2.Timeout(config.read_timeout, connect=config.connect_timeout),
            max_retries=config.max_retries,
            http_client=BoundedClient(config, counters=counters),
        )

    def move_to(self, base_url: str) -> None:
        """Asks another address from now on: a server inside this process has none before it is started."""
        self.base_url = self._client.base_url = base_url

    async def __aenter__(self) -> "ServerClient":
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._client.close()

    async def post(self, path: str, body: dict[str, Any], *, place: str) -> dict[str, Any]:
        """The server's answer. `place` names the prompt in errors."""
        # Written in ASCII: a prompt may hold half a surrogate pair, and the package's own JSON refuses it.
        content = json.dumps(body).encode()
        return await self._answer(
            self._client.post(path, content=content, cast_to=httpx2.Response, options={"headers": self._headers}),
            place=place,
        )

    async def models(self) -> list[str]:
        """Names of the models that the server has, asked once without retries."""
        answer = await self._answer(
            self._client.get("/models", cast_to=httpx2.Response, options={"headers": self._headers, "max_retries": 0}),
            place="engine",
        )
        entries = answer.get("data")
        if not isinstance(entries, list):
            raise ModelError(f"engine: {self.base_url}/models gives no list of models; is this a /v1 address?")
        return [str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry]

    async def _answer(self, call: Awaitable[httpx2.Response], *, place: str) -> dict[str, Any]:
        try:
            answer = (await call).json()
        except openai.APIStatusError as error:
            raise await self._refusal(error, place=place) from error
        except openai.APIConnectionError as error:
            raise self._away(error, self._trouble(error.__cause__)) from error
        except (ValueError, RecursionError) as error:
            raise ModelError(
                f"engine: {self.base_url}: the answer is not JSON; engine.base_url usually ends in /v1"
            ) from error
        if not isinstance(answer, dict):
            raise ModelError(f"engine: {self.base_url} answers with {type(answer).__name__}, expected an object")
        return answer

    def _trouble(self, cause: BaseException | None) -> str:
        """What kept a request from being answered."""
        match cause:
            case httpx2.ConnectTimeout():
                return f"no connection within {self.config.connect_timeout:g} s"
            case httpx2.TimeoutException():
                return f"no answer within {self.config.read_timeout:g} s"
            case httpx2.ConnectError():
                return f"no server answers ({self._shown(str(cause))})"
        return f"the connection broke ({type(cause).__name__})"

    def _away(self, error: openai.APIError, reason: str) -> ServerAwayError:
        num_tries = int(error.request.headers[RETRY_COUNT]) + 1
        return ServerAwayError(self.config, reason=reason, num_tries=num_tries)

    async def _refusal(self, error: openai.APIStatusError, *, place: str) -> AthlosError:
        """The error of a status that is none of success."""
        status, variable = error.status_code, self.config.api_key_variable
        if status in (401, 403):
            # Not the server's own words: some repeat parts of the key.
            held = f"the key in ${variable}" if self._key else "a request without a key"
            advice = "" if self._key else f"; set ${variable}" if variable else "; name a variable that holds one"
            return ConfigError(f"engine.api_key_variable: {self.base_url} refuses {held} (status {status}){advice}")
        code, message = _server_words(error)
        shown = self._shown(message)
        if code == NO_CREDIT:
            return ModelError(f"engine: {self.base_url}: no credit left: {shown}")
        if status in PASSING_STATUSES or status >= 500:
            wait = self._shown(error.response.headers.get("retry-after", ""))
            asks = f" and asks to wait (Retry-After: {wait})" if wait else ""
            return self._away(error, f"the server answers with status {status}{asks}")
        if any(word in f"{code} {message}".lower() for word in CONTEXT_WORDS):
            return DataError(
                f"{place}: too long for the context of the server ({shown}); lower eval.shots, shorten the passages, "
                "lower decoding.max_new_tokens, or raise engine.context_length where that is an option"
            )
        if status == 404 and "model" in f"{code} {message}".lower():
            served = await self._served()
            return ConfigError(f"engine.model: {self.base_url} does not know '{self.config.model}'{served}")
        if status == 404 or status < 400:
            return ConfigError(
                f"engine.base_url: nothing to ask at {self.base_url} (status {status}); it usually ends in /v1, and "
                f"engine.api={self.config.api.value} must be one that the server offers"
            )
        return ModelError(f"{place}: {self.base_url} refuses the request (status {status}): {shown}")

    async def _served(self) -> str:
        """What the server has instead; nothing when it does not tell."""
        try:
            names = [self._shown(name) for name in await self.models()]
        except AthlosError:
            return ""
        return choices(str(self.config.model), names[:MAX_LISTED], label="served")

    def _shown(self, text: str) -> str:
        """Foreign text for an error: one line, printable, short, without the key."""
        if self._key:
            text = text.replace(self._key, "***")
        line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
        return line if len(line) <= MAX_SHOWN else line[:MAX_SHOWN] + " ..."


def read_key(variable: str | None) -> str:
    """The key in an environment variable, or an empty string. The value stands in no error."""
    key = os.environ.get(variable, "").strip() if variable else ""
    if not all("!" <= char <= "~" for char in key):
        raise ConfigError(f"engine.api_key_variable: ${variable} holds characters that no key has")
    return key


def _server_words(error: openai.APIError) -> tuple[str, str]:
    """(code, message) of an error's body, in any of the usual forms; else the body itself as the message."""
    body = error.body
    message = (body.get("message") or body.get("detail") or body) if isinstance(body, dict) else body
    return str(error.code or error.type or ""), str(message)
