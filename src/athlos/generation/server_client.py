"""One server over HTTP: time-outs, retries, and errors in one line that names what to change.

The key of the server leaves this file in one header only. What a server says is data from outside: it is read up to a
limit, stripped of what could steer a terminal, and shown only inside an error.
"""

import json
import logging
import math
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2

from athlos import __version__
from athlos.errors import AthlosError, ConfigError, DataError, ModelError, choices
from athlos.generation.http_config import HTTPEngineConfig
from athlos.generation.in_flight import Stopped

log = logging.getLogger(__name__)

PASSING_STATUSES = (408, 409, 429)
"""Worth another try, and so is every status from 500 on."""
NO_CREDIT = "insufficient_quota"
"""Comes with status 429 too, but does not pass."""
CONTEXT_WORDS = ("context_length", "context length", "maximum context", "context size", "max_model_len")
MAX_REPLY_BYTES = 64 << 20
MAX_SHOWN = 300
MAX_LISTED = 10
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass
class Counters:
    """What an engine has asked for so far, over all its calls. Tokens are those the server counted, not cached ones."""

    requests: int = 0
    retries: int = 0
    cache_hits: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, **amounts: int) -> None:
        with self.lock:
            for name, amount in amounts.items():
                setattr(self, name, getattr(self, name) + amount)

    def as_dict(self) -> dict[str, int]:
        names = ("requests", "retries", "cache_hits", "prompt_tokens", "completion_tokens")
        with self.lock:
            return {name: getattr(self, name) for name in names}


class Passing(Exception):
    """A trouble that may be gone at the next try. `wait` is what the server asked for, in seconds."""

    def __init__(self, reason: str, *, wait: float | None = None) -> None:
        self.reason, self.wait = reason, wait
        super().__init__(reason)


class ServerClient:
    """Sends requests to `config.base_url`. Safe to use from several threads; `stop` ends all waiting at once."""

    def __init__(self, config: HTTPEngineConfig, *, counters: Counters, stop: threading.Event) -> None:
        self.config, self.counters, self.stop = config, counters, stop
        self.base_url = config.base_url.rstrip("/")
        self._key = read_key(config.api_key_variable)
        # A proxy of the environment knows nothing of servers on this machine. Redirects are not followed: they would
        # carry prompts, and the key, to a place nobody named.
        self._http = httpx2.Client(
            timeout=httpx2.Timeout(config.read_timeout, connect=config.connect_timeout),
            limits=httpx2.Limits(max_connections=config.max_in_flight, max_keepalive_connections=config.max_in_flight),
            trust_env=urlsplit(config.base_url).hostname not in LOOPBACK,
            follow_redirects=False,
        )

    def close(self) -> None:
        self._http.close()

    def post(self, path: str, body: dict[str, Any], *, jitter: random.Random, place: str) -> dict[str, Any]:
        """The server's answer. `place` names the prompt in errors. Raises `Stopped` when nobody waits any more."""
        content = json.dumps(body).encode()
        for attempt in range(self.config.max_retries + 1):
            if self.stop.is_set():
                raise Stopped
            self.counters.add(requests=1, retries=int(attempt > 0))
            try:
                return self._sent("POST", path, content=content, place=place)
            except Passing as trouble:
                if attempt == self.config.max_retries:
                    raise ModelError(
                        f"engine: {self.base_url}: {trouble.reason}; gave up after {attempt + 1} "
                        f"{'tries' if attempt else 'try'} (engine.max_retries={attempt})"
                    ) from trouble
                wait = self._wait(trouble, attempt=attempt, jitter=jitter)
                log.info("engine: %s; trying again in %.1f s", trouble.reason, wait)
            if self.stop.wait(wait):
                raise Stopped
        raise AssertionError("the last attempt returns or raises")

    def models(self) -> list[str]:
        """Names of the models that the server has, asked once without retries. Raises `Passing` when it is away."""
        self.counters.add(requests=1)
        answer = self._sent("GET", "/models", content=None, place="engine")
        entries = answer.get("data")
        if not isinstance(entries, list):
            raise ModelError(f"engine: {self.base_url}/models gives no list of models; is this a /v1 address?")
        return [str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry]

    def _wait(self, trouble: Passing, *, attempt: int, jitter: random.Random) -> float:
        """Seconds until the next try: what the server asks for, else doubling, less up to half of it at random."""
        longest = self.config.longest_wait
        if trouble.wait is not None:
            if trouble.wait > longest:
                raise ModelError(
                    f"engine: {self.base_url}: {trouble.reason} and asks to wait {trouble.wait:.0f} s, "
                    f"more than engine.longest_wait={longest:g}"
                ) from trouble
            return trouble.wait
        return min(longest, math.ldexp(self.config.first_wait, attempt)) * (1 - jitter.random() / 2)

    def _sent(self, method: str, path: str, *, content: bytes | None, place: str) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "User-Agent": f"athlos/{__version__}"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            with self._http.stream(method, self.base_url + path, content=content, headers=headers) as response:
                text = self._body(response)
        except httpx2.ConnectTimeout as error:
            raise Passing(f"no connection within {self.config.connect_timeout:g} s") from error
        except httpx2.TimeoutException as error:
            raise Passing(f"no answer within {self.config.read_timeout:g} s") from error
        except httpx2.ConnectError as error:
            raise Passing(f"no server answers ({self._shown(str(error))})") from error
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise Passing(f"the connection broke ({type(error).__name__})") from error
        if response.status_code in PASSING_STATUSES or response.status_code >= 500:
            raise self._trouble(response, text)
        if not response.is_success:
            raise self._refusal(response, text, place=place)
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Passing("the answer is not JSON") from error
        if not isinstance(answer, dict):
            raise ModelError(f"engine: {self.base_url}{path} answers with {type(answer).__name__}, expected an object")
        return answer

    def _body(self, response: httpx2.Response) -> bytes:
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > MAX_REPLY_BYTES:
                raise ModelError(f"engine: {self.base_url} sent more than {MAX_REPLY_BYTES >> 20} MB for one answer")
        return bytes(body)

    def _trouble(self, response: httpx2.Response, text: bytes) -> Passing | ModelError:
        """The error of a status that passes, unless the server's own code says that it does not."""
        code, message = _server_words(text)
        if code == NO_CREDIT:
            return ModelError(f"engine: {self.base_url}: no credit left: {self._shown(message)}")
        return Passing(f"the server answers with status {response.status_code}", wait=retry_after(response.headers))

    def _refusal(self, response: httpx2.Response, text: bytes, *, place: str) -> AthlosError:
        """The error of a status that will not pass."""
        status, variable = response.status_code, self.config.api_key_variable
        if status in (401, 403):
            # Not the server's own words: some repeat parts of the key.
            held = f"the key in ${variable}" if self._key else "a request without a key"
            advice = "" if self._key else f"; set ${variable}" if variable else "; name a variable that holds one"
            return ConfigError(f"engine.api_key_variable: {self.base_url} refuses {held} (status {status}){advice}")
        code, message = _server_words(text)
        shown = self._shown(message)
        if any(word in f"{code} {message}".lower() for word in CONTEXT_WORDS):
            return DataError(
                f"{place}: too long for the context of the server ({shown}); lower eval.shots, shorten the passages, "
                "or lower decoding.max_new_tokens"
            )
        if status == 404 and ("model" in f"{code} {message}".lower()):
            return ConfigError(f"engine.model: {self.base_url} does not know '{self.config.model}'{self._served()}")
        if status == 404 or response.is_redirect:
            return ConfigError(
                f"engine.base_url: nothing to ask at {self.base_url} (status {status}); it usually ends in /v1, and "
                f"engine.api={self.config.api.value} must be one that the server offers"
            )
        return ModelError(f"{place}: {self.base_url} refuses the request (status {status}): {shown}")

    def _served(self) -> str:
        """What the server has instead; nothing when it does not tell."""
        try:
            names = [self._shown(name) for name in self.models()]
        except (Passing, AthlosError):
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


def retry_after(headers: httpx2.Headers, *, now: Callable[[], float] = time.time) -> float | None:
    """Seconds that a server asks to wait, from `retry-after-ms` or `retry-after` (seconds or a date); none = nothing.

    Source: RFC 9110, section 10.2.3.
    """
    milliseconds, value = headers.get("retry-after-ms"), headers.get("retry-after", "")
    try:
        seconds = float(milliseconds) / 1000 if milliseconds else float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now()
        except ValueError:
            return None
    # A float may also be spelled "nan" or "inf": neither is a time to wait.
    return max(0.0, seconds) if abs(seconds) < float("inf") else None


def _server_words(text: bytes) -> tuple[str, str]:
    """(code, message) of an error body, in any of the usual forms; else the body itself as the message."""
    decoded = text.decode("utf-8", errors="replace")
    try:
        body = json.loads(decoded)
    except (ValueError, RecursionError):
        return "", decoded
    inner = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(inner, dict):
        return "", str(inner)
    message = inner.get("message") or inner.get("detail") or inner
    return str(inner.get("code") or inner.get("type") or ""), str(message)
