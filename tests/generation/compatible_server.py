"""A small server of OpenAI's API on 127.0.0.1 with a tiny real model behind it, that can be told to fail.

It checks what it is sent as strictly as the original: unknown fields, too many stop strings, a wrong key or model, and
a prompt that is too long are refused. `is_vllm` lets it know vLLM's own fields and answer with token ids.

B batch of one, V vocabulary.
"""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from athlos.models.tokenizers import byte_tokenizer

MODEL = "tiny"
EOS = 258
CONTEXT = 96
PRINTABLE = [*range(32, 127), EOS]
"""The served model says nothing else, so that each token is one character of its answer."""
PLAIN_FIELDS = {
    "model",
    "prompt",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "response_format",
    "top_p",
    "n",
    "stop",
    "logprobs",
    "seed",
}
VLLM_FIELDS = {"top_k", "min_p", "repetition_penalty", "presence_penalty", "return_token_ids"}


def tiny_model() -> PreTrainedModel:
    sizes = {
        "vocab_size": 259,
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_hidden_layers": 2,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.4,
        "pad_token_id": 256,
        "bos_token_id": 257,
        "eos_token_id": EOS,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(LlamaConfig(**sizes)).eval()


def spoken(logits_V: Tensor) -> Tensor:
    """Logits of the served model: minus infinity for what it never says."""
    kept_V = torch.full_like(logits_V, float("-inf"))
    kept_V[..., PRINTABLE] = logits_V[..., PRINTABLE]
    return kept_V


@dataclass(kw_only=True)
class Failure:
    """What happens to one request instead of an answer."""

    status: int = 200
    body: str | bytes = "{}"
    headers: dict[str, str] = field(default_factory=dict)
    is_dropped: bool = False
    """The connection is closed, without a word or, where `headers` promise a longer body, in the middle of it."""
    is_silent: bool = False
    """Nothing is sent until the server ends."""


class RefusedError(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        self.status, self.message, self.code = status, message, code


@dataclass
class CompatibleServer:
    """Answers until the `with` block of `running` ends. Everything it saw stays in its lists."""

    is_vllm: bool = False
    behind: str = ""
    """`http://.../v1` of a server with a model of its own, that answers in place of the tiny one."""
    key: str = ""
    failures: deque[Failure] = field(default_factory=deque)
    """Taken one a request, then answers are real."""
    meanwhile: Callable[[dict[str, Any]], None] = lambda body: None
    """Called in the middle of each request."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    gets: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    posts: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released at each POST."""
    most_in_flight: int = 0
    url: str = ""
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.model, self.tokenizer, self.in_flight = tiny_model(), byte_tokenizer(), 0

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self.lock:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            yield
        finally:
            with self.lock:
                self.in_flight -= 1

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        is_chat = path.endswith("/chat/completions")
        self._check(body)
        if self.behind:
            reply = httpx2.post(self.behind + path.removeprefix("/v1"), json=body, timeout=None)
            answered: dict[str, Any] = reply.raise_for_status().json()
            return answered
        prompt = body["messages"][0]["content"] if is_chat else body["prompt"]
        ids = prompt if isinstance(prompt, list) else self.encode(prompt)
        length = body.get("max_tokens", body.get("max_completion_tokens", 16))
        if len(ids) + length > CONTEXT:
            raise RefusedError(
                400, f"This model's maximum context length is {CONTEXT} tokens.", "context_length_exceeded"
            )
        generator = torch.Generator().manual_seed(body.get("seed", 0))
        choices = [self._choice(ids, length, body, generator, is_chat, index) for index in range(body.get("n", 1))]
        num_tokens = sum(choice.pop("num_tokens") for choice in choices)
        return {"choices": choices, "usage": {"prompt_tokens": len(ids), "completion_tokens": num_tokens}}

    def _check(self, body: dict[str, Any]) -> None:
        if unknown := set(body) - PLAIN_FIELDS - (VLLM_FIELDS if self.is_vllm else set()):
            raise RefusedError(400, f"Unrecognized request argument supplied: {sorted(unknown)[0]}")
        if body["model"] != MODEL:
            raise RefusedError(404, f"The model `{body['model']}` does not exist.", "model_not_found")
        if not self.is_vllm and len(body.get("stop", [])) > 4:
            raise RefusedError(400, "'stop' must not have more than 4 entries")

    def _choice(self, ids, length, body, generator, is_chat, index) -> dict[str, Any]:
        tokens, logs, stop = [], [], body.get("stop", [])
        reason = "length"
        while len(tokens) < length and reason == "length":
            with self.lock, torch.inference_mode():
                logits_V = spoken(self.model(torch.tensor([ids + tokens])).logits[0, -1])
            token = self._chosen(logits_V, ids + tokens, body, generator)
            tokens.append(token)
            logs.append(logits_V.log_softmax(-1)[token].item())
            text = self.tokenizer.decode([token for token in tokens if token != EOS])
            if token == EOS or any(string in text for string in stop):
                reason = "stop"
        for string in stop:
            text = text.split(string)[0]
        shown = [self.tokenizer.decode([token]) for token in tokens]
        choice: dict[str, Any] = {"index": index, "finish_reason": reason, "num_tokens": len(tokens)}
        if self.is_vllm and body.get("return_token_ids"):
            choice["token_ids"] = tokens
        if is_chat:
            content = [{"token": token, "logprob": log} for token, log in zip(shown, logs, strict=True)]
            return choice | {
                "message": {"role": "assistant", "content": text},
                "logprobs": {"content": content} if body.get("logprobs") else None,
            }
        return choice | {
            "text": text,
            "logprobs": {"tokens": shown, "token_logprobs": logs} if body.get("logprobs") else None,
        }

    def _chosen(self, logits_V: Tensor, seen: list[int], body: dict[str, Any], generator: torch.Generator) -> int:
        penalty = body.get("repetition_penalty", 1.0)
        logits_V = logits_V.clone()
        at = torch.tensor(sorted(set(seen)))
        logits_V[at] = torch.where(logits_V[at] > 0, logits_V[at] / penalty, logits_V[at] * penalty)
        if body["temperature"] == 0:
            return int(logits_V.argmax())
        probs_V = (logits_V / body["temperature"]).softmax(-1)
        if top_k := body.get("top_k", 0):
            probs_V[probs_V < probs_V.topk(top_k).values[-1]] = 0
        probs_V[probs_V < body.get("min_p", 0.0) * probs_V.max()] = 0
        order = probs_V.argsort(descending=True)
        before = probs_V[order].cumsum(-1) - probs_V[order]
        probs_V[order[before >= body.get("top_p", 1.0) * probs_V.sum()]] = 0
        return int(torch.multinomial(probs_V, 1, generator=generator))


class HTTPServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, owner: CompatibleServer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.owner = owner

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is expected here, and no news for the screen."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HTTPServer

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def send(self, status: int, body: str | bytes, headers: dict[str, str] | None = None) -> None:
        content = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def refuse(self, refusal: RefusedError) -> None:
        self.send(refusal.status, json.dumps({"error": {"message": refusal.message, "code": refusal.code}}))

    def is_let_in(self) -> bool:
        owner, shown = self.server.owner, self.headers.get("Authorization")
        owner.headers.append({name.title(): value for name, value in self.headers.items()})
        if owner.key and shown != f"Bearer {owner.key}":
            self.refuse(RefusedError(401, f"Incorrect API key provided: {shown}"))
            return False
        return True

    def do_GET(self) -> None:
        self.server.owner.gets.append(self.path)
        if self.is_let_in():
            self.send(200, json.dumps({"data": [{"id": MODEL}]}))

    def do_POST(self) -> None:
        owner = self.server.owner
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        owner.bodies.append(body)
        owner.posts.release()
        if not self.is_let_in():
            return
        with owner.counted():
            with owner.lock:
                failure = owner.failures.popleft() if owner.failures else None
            if failure is not None:
                self.fail(failure)
                return
            owner.meanwhile(body)
            try:
                answer = owner.answer(self.path, body)
            except RefusedError as refusal:
                self.refuse(refusal)
                return
        self.send(200, json.dumps(answer))

    def fail(self, failure: Failure) -> None:
        if failure.is_silent:
            self.server.owner.ended.wait()
        if failure.is_dropped or failure.is_silent:
            self.close_connection = True
        if failure.is_silent or (failure.is_dropped and not failure.headers):
            return
        self.send(failure.status, failure.body, failure.headers)


@contextmanager
def running(**options: Any) -> Iterator[CompatibleServer]:
    """A server on a free port of this machine, at `url` (with /v1), as long as the block lasts."""
    owner = CompatibleServer(**options)
    http = HTTPServer(owner)
    owner.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield owner
    finally:
        owner.ended.set()
        http.shutdown()
        http.server_close()
        thread.join()
