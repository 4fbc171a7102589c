"""The engines over HTTP against a real server on this machine: its answers, its failures, and what is kept of both."""

import asyncio
import contextlib
import gzip
import json
import logging
import signal
import socket
import threading
import time
from pathlib import Path

import openai as openai_package
import pytest
import torch
from tests.generation.compatible_server import (
    CONTEXT,
    EOS,
    MODEL,
    PRINTABLE,
    CompatibleServer,
    Failure,
    running,
    spoken,
    tiny_model,
)

from athlos.config.registry import registry
from athlos.errors import ConfigError, ConfigErrors, DataError, ModelError
from athlos.generation.http_config import Api, LengthField, OpenAIEngineConfig, VLLMEngineConfig, http_errors
from athlos.generation.interface import Prompt, SamplingRule
from athlos.generation.openai_engine import OpenAIEngine, sample_seed
from athlos.generation.reply_cache import ReplyCache, request_key
from athlos.generation.server_client import BoundedClient
from athlos.generation.server_replies import Choice, as_sample, read_reply
from athlos.generation.vllm_engine import VLLMEngine
from athlos.models.tokenizers import byte_tokenizer

TEXTS = ["hello there", "x", "мир и труд", "a rather longer prompt than the others", "日本"]
NEW_TOKENS = 12
LOG_PROB_TOLERANCE = 1e-4
"""Padding-free float32 sums over a few dozen terms, in another order."""
SECRET = "sk-very-secret-0123456789"
VARIABLE = "ATHLOS_TEST_KEY"
GREEDY = SamplingRule()
WARM = SamplingRule(temperature=1.0)
AT_ONCE = 5.0
"""Seconds: far below every wait that the tests would otherwise sit out."""
LONG_WAIT = 50.0


@pytest.fixture
def server():
    with running() as started:
        yield started


@pytest.fixture
def vllm_server():
    with running(is_vllm=True) as started:
        yield started


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    """The package's first wait before a retry is half a second."""
    monkeypatch.setattr(openai_package._base_client, "INITIAL_RETRY_DELAY", 0.01)


def openai(server: CompatibleServer, **values) -> OpenAIEngine:
    return OpenAIEngine(OpenAIEngineConfig(**{"base_url": server.url, "model": MODEL, "cache": None, **values}))


def vllm(url: str, **values) -> VLLMEngine:
    return VLLMEngine(VLLMEngineConfig(**{"base_url": url, "model": None, "cache": None, **values}))


def prompts_of(texts=TEXTS, *, max_new_tokens=NEW_TOKENS, seed=0) -> list[Prompt]:
    return [Prompt(text=text, max_new_tokens=max_new_tokens, seed=seed) for text in texts]


def local_greedy(text: str) -> tuple[list[int], list[float]]:
    """(token ids, log-probabilities) of the served model, by `transformers.generate` in one row."""
    model = tiny_model()
    ids = torch.tensor([byte_tokenizer().encode(text, add_special_tokens=False)])
    silent = sorted(set(range(model.config.vocab_size)) - set(PRINTABLE))
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, do_sample=False, suppress_tokens=silent
    )
    with torch.inference_mode():
        logits = spoken(model(out).logits[0])
    tokens = out[0, ids.shape[1] :].tolist()
    places = range(ids.shape[1] - 1, out.shape[1] - 1)
    return tokens, [logits[at].log_softmax(-1)[token].item() for at, token in zip(places, tokens, strict=True)]


def spelled(tokens: list[int]) -> str:
    return byte_tokenizer().decode([token for token in tokens if token != EOS])


# Answers


@pytest.mark.parametrize("api", list(Api))
def test_greedy_equals_local_generation(server, api):
    seen = []
    engine = openai(server, api=api)
    found = engine.generate(prompts_of(), rule=GREEDY, progress=lambda *numbers: seen.append(numbers))
    for text, samples in zip(TEXTS, found, strict=True):
        tokens, log_probs = local_greedy(text)
        (sample,) = samples
        assert sample.text == spelled(tokens)
        assert sample.log_probs == pytest.approx(log_probs, abs=LOG_PROB_TOLERANCE)
        assert (sample.num_tokens, sample.num_prompt_tokens) == (len(tokens), len(text.encode()))
        assert sample.finished == (tokens[-1] == EOS)
        assert sample.token_ids == []
    total = sum(samples[0].num_tokens for samples in found)
    assert [done for done, _, _ in seen] == [1, 2, 3, 4, 5]
    assert seen[-1] == (5, 5, total)
    assert engine.counters == {
        "requests": 5,
        "retries": 0,
        "cache_hits": 0,
        "completion_tokens": total,
        "prompt_tokens": sum(len(text.encode()) for text in TEXTS),
    }
    assert {frozenset(body) - {"prompt", "messages"} for body in server.bodies} == {
        frozenset({"model", "max_tokens", "temperature", "top_p", "logprobs"})
    }


def test_a_chats_reply_is_held_to_its_schema_unless_the_server_refuses_that(server):
    schema = {"type": "array", "items": {"type": "string"}}
    prompt = Prompt(text="x", max_new_tokens=1, reply_schema=json.dumps(schema))
    for values in ({"api": Api.chat}, {"api": Api.chat, "reply_schemas": False}, {"api": Api.completions}):
        openai(server, **values).generate([prompt], rule=GREEDY)
    openai(server, api=Api.chat).generate(prompts_of(["x"]), rule=GREEDY)
    form = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema, "strict": True}}
    assert [body.get("response_format") for body in server.bodies] == [form, None, None, None]


def test_vllm_gives_token_ids_and_takes_the_only_model(vllm_server):
    engine = vllm(vllm_server.url)
    found = engine.generate(prompts_of(), rule=GREEDY)
    assert [samples[0].token_ids for samples in found] == [local_greedy(text)[0] for text in TEXTS]
    engine.generate(prompts_of(), rule=GREEDY)
    assert vllm_server.gets == ["/v1/models"]


def test_vllm_takes_prompts_as_token_ids(vllm_server):
    ids = byte_tokenizer().encode(TEXTS[0], add_special_tokens=False)
    engine = vllm(vllm_server.url, prompt_as_token_ids=True)
    ((sample,),) = engine.generate([Prompt(token_ids=ids, max_new_tokens=NEW_TOKENS, text="not this")], rule=GREEDY)
    assert vllm_server.bodies[0]["prompt"] == ids
    assert sample.token_ids == local_greedy(TEXTS[0])[0]
    with pytest.raises(DataError, match="prompt 2: has no token ids"):
        engine.generate([Prompt(token_ids=ids, max_new_tokens=1), Prompt(text="x", max_new_tokens=1)], rule=GREEDY)


def test_vllm_is_told_the_whole_rule_and_openai_refuses_what_it_has_no_word_for(server, vllm_server):
    rule = SamplingRule(temperature=0.7, top_k=3, top_p=0.9, min_p=0.05, repetition_penalty=1.2)
    vllm(vllm_server.url).generate(prompts_of(["x"]), rule=rule)
    sent = vllm_server.bodies[0]
    assert {name: sent[name] for name in vars(rule)} == vars(rule)
    vllm(vllm_server.url).generate(prompts_of(["x"]), rule=GREEDY)
    assert {name: vllm_server.bodies[1][name] for name in vars(GREEDY)} == vars(GREEDY)
    for name in ("top_k", "min_p", "repetition_penalty"):
        odd = SamplingRule(temperature=0.7, **{name: getattr(rule, name)})
        with pytest.raises(ConfigError, match=rf"decoding\.{name}: got {getattr(rule, name)}.*engine=openai"):
            openai(server).generate(prompts_of(["x"]), rule=odd)
    assert server.bodies == []
    openai(server).generate(prompts_of(["x"]), rule=SamplingRule(temperature=0.7, top_p=0.9))
    assert (server.bodies[0]["temperature"], server.bodies[0]["top_p"]) == (0.7, 0.9)


def test_the_length_goes_under_the_name_the_server_wants(server):
    openai(server, length_field=LengthField.max_completion_tokens).generate(prompts_of(["x"]), rule=GREEDY)
    assert server.bodies[0]["max_completion_tokens"] == NEW_TOKENS
    assert "max_tokens" not in server.bodies[0]


def test_without_log_probs_none_are_asked_for_and_tokens_are_counted_all_the_same(server):
    ((sample,),) = openai(server, log_probs=False).generate(prompts_of(["x"]), rule=GREEDY)
    assert "logprobs" not in server.bodies[0]
    assert (sample.log_probs, sample.num_tokens) == ([], len(local_greedy("x")[0]))


# Samples and seeds


def test_samples_have_seeds_of_their_own_and_come_again(server):
    engine = openai(server)
    first = engine.generate(prompts_of(seed=3), rule=WARM, num_samples=4)
    assert engine.generate(prompts_of(seed=3)[::-1], rule=WARM, num_samples=4) == first[::-1]
    assert engine.generate(prompts_of(seed=4), rule=WARM, num_samples=4) != first
    assert all(len({sample.text for sample in samples}) == 4 for samples in first)
    assert {body["seed"] for body in server.bodies[:20]} == {sample_seed(3, index) for index in range(4)}
    # Fewer samples are the first of more, so the cache serves both.
    assert engine.generate(prompts_of(seed=3), rule=WARM, num_samples=2) == [samples[:2] for samples in first]


def test_seeds_are_spread_and_fit_into_31_bits():
    seeds = [sample_seed(seed, index) for seed in range(50) for index in range(50)]
    assert len(set(seeds)) == len(seeds)
    assert 0 <= min(seeds) < 2**26 < 2**30 < max(seeds) < 2**31
    assert sample_seed(1, 23) != sample_seed(12, 3)


def test_greedy_samples_are_one_request(server):
    engine = openai(server)
    ((first, second, third),) = engine.generate(prompts_of(["x"]), rule=GREEDY, num_samples=3)
    assert first == second == third
    assert first.log_probs is not second.log_probs
    assert len(server.bodies) == engine.counters["requests"] == 1
    assert "seed" not in server.bodies[0]


def test_equal_prompts_are_one_request_and_keep_their_places(server):
    found = openai(server).generate(prompts_of(["x", "hello there", "x"]), rule=WARM, num_samples=2)
    assert found[0] == found[2] != found[1]
    assert len(server.bodies) == 4


@pytest.mark.parametrize("api", list(Api))
def test_all_samples_in_one_request(server, api):
    engine = openai(server, one_request_for_samples=True, api=api)
    found = engine.generate(prompts_of(), rule=WARM, num_samples=3)
    assert [body["n"] for body in server.bodies] == [3] * len(TEXTS)
    assert all(len({sample.text for sample in samples}) == 3 for samples in found)
    counted = sum(sample.num_tokens for samples in found for sample in samples)
    assert counted == engine.counters["completion_tokens"]
    assert all(len(sample.log_probs) == sample.num_tokens for samples in found for sample in samples)


def test_a_server_that_gives_fewer_samples_is_named(server):
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    server.failures.append(Failure(body=json.dumps({"choices": [{"index": 0, "text": "a"}], "usage": usage})))
    with pytest.raises(ModelError, match=r"1 choices, expected 2; set engine\.one_request_for_samples=false"):
        openai(server, one_request_for_samples=True).generate(prompts_of(["x"]), rule=WARM, num_samples=2)


# Stop strings


def stops_of(text: str, number: int) -> list[str]:
    """Stop strings that do not occur in a text, then one that does: its seventh character on."""
    return [*(f"\t{index}" for index in range(number)), text[6:8]]


@pytest.mark.parametrize("num_before", [0, 3, 4, 9])
@pytest.mark.parametrize("api", list(Api))
def test_stop_strings_also_beyond_the_fourth(server, num_before, api):
    tokens, log_probs = local_greedy(TEXTS[0])
    text = spelled(tokens)
    stop = stops_of(text, num_before)
    ((sample,),) = openai(server, api=api).generate(prompts_of(TEXTS[:1]), rule=GREEDY, stop=stop)
    end = text.find(stop[-1]) + 2
    assert len(text) > end
    assert server.bodies[0]["stop"] == stop[:4]
    assert sample.text == text[: end - 2]
    assert (sample.num_tokens, sample.finished) == (end, True)
    assert sample.log_probs == pytest.approx(log_probs[:end], abs=LOG_PROB_TOLERANCE)


def test_vllm_is_sent_every_stop_string(vllm_server):
    text = spelled(local_greedy(TEXTS[0])[0])
    stop = stops_of(text, 9)
    ((sample,),) = vllm(vllm_server.url).generate(prompts_of(TEXTS[:1]), rule=GREEDY, stop=stop)
    assert vllm_server.bodies[0]["stop"] == stop
    assert sample.text == text[: text.find(stop[-1])]
    assert len(sample.token_ids) == sample.num_tokens == text.find(stop[-1]) + 2


@pytest.mark.parametrize(
    ("stop", "text", "num_kept"),
    [
        (["z"], "one two three", 3),
        ([" two"], "one", 2),
        (["t", "ne"], "o", 1),
        (["e two t", "w"], "one t", 2),
        (["three", "ee"], "one two ", 3),
    ],
)
def test_the_stop_string_complete_first_cuts(stop, text, num_kept):
    choice = Choice(
        text="one two three",
        reason="length",
        tokens=["one", " two", " three"],
        token_ids=[1, 2, 3],
        log_probs=[-1.0, -2.0, -3.0],
    )
    sample = as_sample(choice, stop=stop, num_prompt_tokens=1, num_tokens=3)
    assert sample.text == text
    assert sample.token_ids == [1, 2, 3][:num_kept]
    assert sample.log_probs == [-1.0, -2.0, -3.0][:num_kept]
    assert sample.num_tokens == num_kept
    assert sample.finished == (stop != ["z"])


def test_tokens_that_do_not_spell_the_text_are_not_guessed():
    choice = Choice(text="né\nx", reason="stop", tokens=["n", "�", "�", "\n", "x"], log_probs=[-1.0] * 5)
    sample = as_sample(choice, stop=["\n"], num_prompt_tokens=1, num_tokens=5)
    assert (sample.text, sample.log_probs, sample.token_ids, sample.num_tokens) == ("né", [], [], 5)


def test_unicode_there_and_back(server, tmp_path):
    told = "ответ: 東京 \U0001f5fc é\n"
    reply = {
        "choices": [{"index": 0, "text": told, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 9},
    }
    server.failures.append(Failure(body=json.dumps(reply, ensure_ascii=False)))
    asked = "Вопрос: 🗼 \u0000\t\"'\\"
    for _ in range(2):
        engine = openai(server, cache=str(tmp_path / "kept"))
        ((sample,),) = engine.generate(prompts_of([asked]), rule=GREEDY)
        assert (sample.text, sample.num_tokens, sample.log_probs) == (told, 9, [])
    assert [body["prompt"] for body in server.bodies] == [asked]


@pytest.mark.parametrize(
    ("reason", "finished"), [("stop", True), ("eos_token", True), ("length", False), ("content_filter", False)]
)
def test_only_a_cut_answer_is_unfinished(reason, finished):
    sample = as_sample(Choice(text="a", reason=reason), stop=["b"], num_prompt_tokens=1, num_tokens=1)
    assert sample.finished is finished


@pytest.mark.parametrize("log_probs", [[None, -1.0], [float("nan"), -1.0], [float("-inf"), -1.0], ["-2", -1.0]])
def test_one_unknown_log_probability_makes_all_unknown(server, log_probs):
    logs = {"tokens": ["a", "b"], "token_logprobs": log_probs}
    reply = {
        "choices": [{"index": 0, "text": "ab", "finish_reason": "stop", "logprobs": logs}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }
    server.failures.append(Failure(body=json.dumps(reply)))
    ((sample,),) = openai(server).generate(prompts_of(["x"]), rule=GREEDY)
    assert (sample.text, sample.log_probs, sample.num_tokens) == ("ab", [], 2)


@pytest.mark.parametrize(
    ("written", "text"), [("18 \\ud83d", "18 \ufffd"), ("\\ude00\\ud83d\\ude00", "\ufffd\U0001f600")]
)
def test_half_a_character_in_a_reply_is_replaced(server, written, text):
    logs = f'{{"tokens": ["{written}"], "token_logprobs": [-1.0]}}'
    choice = f'{{"index": 0, "text": "{written}", "finish_reason": "stop", "logprobs": {logs}}}'
    reply = f'{{"choices": [{choice}], "usage": {{"prompt_tokens": 1, "completion_tokens": 1}}}}'
    server.failures.append(Failure(body=reply))
    ((sample,),) = openai(server).generate(prompts_of(["x"]), rule=GREEDY)
    assert sample.text == text


def test_half_a_character_in_a_prompt_is_sent(server):
    reply = {"choices": [{"text": "a"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    server.failures.append(Failure(body=json.dumps(reply)))
    openai(server).generate(prompts_of(["18 \ud83d"]), rule=GREEDY)
    assert server.bodies[0]["prompt"] == "18 \ud83d"


# Failures that pass


@pytest.mark.parametrize(
    "failures",
    [
        [Failure(status=429, headers={"Retry-After": "0"})],
        [Failure(status=500), Failure(status=503)],
        [Failure(status=408), Failure(status=409)],
        [Failure(is_dropped=True)],
        [Failure(is_silent=True)],
        [Failure(body='{"choices": [', headers={"Content-Length": "99"}, is_dropped=True)],
    ],
    ids=["429", "500 twice", "408 and 409", "dropped", "silent", "half an answer"],
)
def test_a_passing_failure_is_tried_again(server, failures, caplog):
    caplog.set_level(logging.INFO, logger="athlos")
    server.failures.extend(failures)
    engine = openai(server, read_timeout=0.3)
    ((sample,),) = engine.generate(prompts_of(["x"]), rule=GREEDY)
    assert sample.text == spelled(local_greedy("x")[0])
    assert engine.counters["retries"] == len(failures)
    assert engine.counters["requests"] == len(server.bodies) == len(failures) + 1
    assert len({json.dumps(body) for body in server.bodies}) == 1
    assert any("retry 1 of 6" in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (Failure(status=502), "the server answers with status 502"),
        (Failure(status=429), "the server answers with status 429"),
        (Failure(is_dropped=True), r"the connection broke \(RemoteProtocolError\)"),
        (Failure(is_silent=True), r"no answer within 0\.3 s"),
    ],
    ids=["502", "429", "dropped", "silent"],
)
def test_a_failure_that_stays_ends_in_one_line(server, failure, reason):
    server.failures.extend([failure] * 9)
    line = rf"^engine: {server.url}: {reason}; gave up after 3 tries \(engine\.max_retries=2\)$"
    with pytest.raises(ModelError, match=line):
        openai(server, read_timeout=0.3, max_retries=2).generate(prompts_of(["x"]), rule=GREEDY)
    assert len(server.bodies) == 3


def test_no_retries_means_one_try(server):
    server.failures.append(Failure(status=500))
    with pytest.raises(ModelError, match="gave up after 1 try "):
        openai(server, max_retries=0).generate(prompts_of(["x"]), rule=GREEDY)


def test_the_wait_a_server_asks_for_is_kept_and_one_too_long_ends_the_run(server):
    server.failures.append(Failure(status=429, headers={"Retry-After": "1"}))
    start = time.monotonic()
    openai(server).generate(prompts_of(["x"]), rule=GREEDY)
    assert time.monotonic() - start >= 1
    server.failures.append(Failure(status=503, headers={"Retry-After": "3600"}))
    with pytest.raises(ModelError, match=r"status 503 and asks to wait \(Retry-After: 3600\); gave up after 1 try"):
        openai(server).generate(prompts_of(["x"]), rule=GREEDY)


# Failures that stay


def error_body(message: str, code: str | None = None) -> str:
    return json.dumps({"error": {"message": message, "code": code}})


@pytest.mark.parametrize("is_vllm", [False, True])
def test_an_unknown_model_names_what_is_served(is_vllm):
    with running(is_vllm=is_vllm) as server:
        engine = vllm(server.url, model="tinny") if is_vllm else openai(server, model="tinny")
        line = rf"engine\.model: {server.url} does not know 'tinny'; did you mean 'tiny'\? Served: tiny$"
        with pytest.raises(ConfigError, match=line):
            engine.generate(prompts_of(), rule=GREEDY)
        assert len(server.bodies) <= len(TEXTS)


def test_a_prompt_too_long_is_named_and_not_tried_again(server):
    prompts = prompts_of(["x", "y" * CONTEXT])
    with pytest.raises(DataError, match=r"^prompt 2 of 2: too long for the context of the server .*eval\.shots"):
        openai(server, max_in_flight=1).generate(prompts, rule=GREEDY)
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("failure", "error", "line"),
    [
        (Failure(status=404, body="not here"), ConfigError, r"^engine\.base_url: nothing to ask at .* \(status 404\)"),
        (Failure(status=307, headers={"Location": "/"}), ConfigError, r"engine\.base_url: .* \(status 307\)"),
        (Failure(status=422, body='{"detail": "no such field"}'), ModelError, r"^prompt 1 of 1: .*no such field$"),
        (Failure(status=400, body=error_body("a\n\x1b[31mred" + "!" * 999)), ModelError, r"a \[31mred!{291} \.\.\.$"),
        (Failure(status=429, body=error_body("pay", "insufficient_quota")), ModelError, "no credit left: pay$"),
        (Failure(body="<html>"), ModelError, r"the answer is not JSON; engine\.base_url usually ends in /v1$"),
        (Failure(body="[" * 100_000), ModelError, "the answer is not JSON"),
        (Failure(body="[1]"), ModelError, "answers with list, expected an object$"),
        (Failure(body="{}"), ModelError, "the answer holds no choices, expected 1$"),
        (Failure(body='{"choices": [{"text": "a"}]}'), ModelError, "does not count its tokens"),
        (
            Failure(body='{"choices": [{"text": 3}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}'),
            ModelError,
            "a choice of the answer lacks a field or has it in another form$",
        ),
        (
            Failure(body='{"choices": ["a"], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}'),
            ModelError,
            "a choice of the answer lacks a field or has it in another form$",
        ),
    ],
)
def test_an_error_that_stays_is_one_line_and_not_tried_again(server, failure, error, line):
    server.failures.append(failure)
    with pytest.raises(error, match=line) as caught:
        openai(server).generate(prompts_of(["x"]), rule=GREEDY)
    assert len(server.bodies) == 1
    assert "\n" not in str(caught.value)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_without_a_server_vllm_says_how_to_start_one_at_once():
    url = f"http://127.0.0.1:{free_port()}/v1"
    line = rf"^engine\.base_url: {url}: no server answers \(.*\); start .*: vllm serve <folder .*> --port {url[17:-3]}$"
    with pytest.raises(ModelError, match=line):
        vllm(url).generate(prompts_of(), rule=GREEDY)
    with pytest.raises(ModelError, match="--served-model-name mine --port"):
        vllm(url, model="mine").generate(prompts_of(), rule=GREEDY)


def test_without_a_server_openai_tries_and_then_says_so():
    url = f"http://127.0.0.1:{free_port()}/v1"
    engine = OpenAIEngine(OpenAIEngineConfig(base_url=url, model="m", cache=None, max_retries=2))
    with pytest.raises(ModelError, match=r"no server answers .*gave up after 3 tries"):
        engine.generate(prompts_of(["x"]), rule=GREEDY)
    assert engine.counters["retries"] == 2


@pytest.mark.parametrize("is_compressed", [False, True])
def test_an_answer_without_end_is_cut_off(server, monkeypatch, is_compressed):
    monkeypatch.setattr("athlos.generation.server_client.MAX_REPLY_BYTES", 1 << 20)
    body = b"x" * (2 << 20)
    server.failures.append(
        Failure(body=gzip.compress(body), headers={"Content-Encoding": "gzip"}) if is_compressed else Failure(body=body)
    )
    with pytest.raises(ModelError, match="sent more than 1 MB for one answer"):
        openai(server).generate(prompts_of(["x"]), rule=GREEDY)
    assert len(server.bodies) == 1


def test_a_compressed_answer_is_read(server):
    reply = {
        "choices": [{"index": 0, "text": "мир", "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }
    body = gzip.compress(json.dumps(reply).encode())
    server.failures.append(Failure(body=body, headers={"Content-Encoding": "gzip"}))
    ((sample,),) = openai(server).generate(prompts_of(["x"]), rule=GREEDY)
    assert sample.text == "мир"


# Side by side


def test_requests_are_really_side_by_side_and_really_bounded(server):
    """Each request waits in the server until three are there; a fourth would be seen."""
    meeting = threading.Barrier(3, timeout=AT_ONCE)
    server.meanwhile = lambda body: meeting.wait()
    found = openai(server, max_in_flight=3).generate(prompts_of([f"text {n}" for n in range(9)]), rule=GREEDY)
    assert [samples[0].num_prompt_tokens for samples in found] == [6] * 9
    assert server.most_in_flight == 3
    assert not meeting.broken


def test_answers_keep_the_order_of_the_prompts_whatever_comes_first(server):
    others = threading.Event()

    def first_is_last(body):
        if body["prompt"] == TEXTS[0]:
            assert others.wait(AT_ONCE)

    server.meanwhile = first_is_last
    done = []

    def progress(number, total, tokens):
        done.append(number)
        if number == total - 1:
            others.set()

    found = openai(server).generate(prompts_of(), rule=GREEDY, progress=progress)
    assert [samples[0].text for samples in found] == [spelled(local_greedy(text)[0]) for text in TEXTS]
    assert done == [1, 2, 3, 4, 5]


@pytest.fixture
def ctrl_c():
    """Python's own handler: a shell starts its background jobs with ctrl-C ignored, and Python keeps that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_does_not_wait_for_the_server(server, ctrl_c):
    """The interrupt comes while one request waits for an answer, one for its retry, and others for their turn."""
    server.failures.extend([Failure(status=503, headers={"Retry-After": "40"}), *[Failure(is_silent=True)] * 9])
    pressed: list[float] = []
    threads = set(threading.enumerate())

    def interrupt():
        assert all(server.posts.acquire(timeout=LONG_WAIT) for _ in range(2))
        pressed.append(time.monotonic())
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    presser = threading.Thread(target=interrupt)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        openai(server, max_in_flight=2, read_timeout=LONG_WAIT).generate(prompts_of(), rule=GREEDY)
    assert time.monotonic() - pressed[0] < 2
    presser.join()
    assert len(server.bodies) == 2
    left = [thread for thread in threading.enumerate() if thread not in threads and "portal" in thread.name]
    assert left == [], "nothing is asked any more"


def test_it_answers_where_an_event_loop_runs(server):
    """As in a notebook."""

    async def cell():
        return openai(server).generate(prompts_of(["x"]), rule=GREEDY)

    ((sample,),) = asyncio.run(cell())
    assert sample.text == spelled(local_greedy("x")[0])


def test_one_error_ends_the_waiting_of_all(server):
    server.failures.append(Failure(status=503, headers={"Retry-After": "40"}))
    start = time.monotonic()
    with pytest.raises(DataError, match=r"prompt [12] of 2"):
        openai(server, max_in_flight=2).generate(prompts_of(["y" * CONTEXT, "z" * CONTEXT]), rule=GREEDY)
    assert time.monotonic() - start < AT_ONCE
    assert len(server.bodies) == 2


@pytest.mark.parametrize("is_refused", [False, True])
def test_connections_are_closed_after_each_call(server, monkeypatch, is_refused):
    clients = []

    class Kept(BoundedClient):
        def __init__(self, config, *, counters):
            super().__init__(config, counters=counters)
            clients.append(self)

    monkeypatch.setattr("athlos.generation.server_client.BoundedClient", Kept)
    prompts = prompts_of(["x", "y" * CONTEXT] if is_refused else TEXTS)
    with pytest.raises(DataError) if is_refused else contextlib.nullcontext():
        openai(server).generate(prompts, rule=GREEDY)
    assert [client.is_closed for client in clients] == [True]


def test_no_prompts_no_requests(server):
    assert openai(server).generate([], rule=GREEDY) == []
    assert server.bodies == []


# The cache


def cached(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.json"))


def test_a_kept_reply_is_no_request(server, tmp_path, cache):
    engine = openai(server, cache="kept")
    first = engine.generate(prompts_of(seed=1), rule=WARM, num_samples=2)
    assert engine.cache.folder == cache / "kept"
    again = openai(server, cache="kept", connect_timeout=1.0, max_in_flight=2)
    assert again.generate(prompts_of(seed=1), rule=WARM, num_samples=2) == first
    assert again.counters == {"requests": 0, "retries": 0, "cache_hits": 10, "prompt_tokens": 0, "completion_tokens": 0}
    assert len(server.bodies) == 10
    files = cached(cache)
    asked = [json.loads(file.read_text())["request"] for file in files]
    assert sorted((request["sample"], request["body"]["prompt"]) for request in asked) == sorted(
        (sample, text) for text in TEXTS for sample in (0, 1)
    )
    size = again.cache.size()
    assert (size.num_replies, size.num_bytes) == (10, sum(file.stat().st_size for file in files))
    assert len(list((cache / "kept").rglob("*.*"))) == 10
    elsewhere = OpenAIEngine(
        OpenAIEngineConfig(base_url=server.url, model=MODEL, cache="kept"), cache_root=tmp_path / "run"
    )
    elsewhere.generate(prompts_of(["x"]), rule=GREEDY)
    assert len(cached(tmp_path / "run" / "kept")) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"rule": SamplingRule(temperature=0.9)},
        {"rule": SamplingRule(temperature=1.0, top_p=0.9)},
        {"stop": ["\t"]},
        {"prompts": prompts_of(["y"])},
        {"prompts": prompts_of(["x"], seed=1)},
        {"prompts": prompts_of(["x"], max_new_tokens=3)},
        {"num_samples": 2},
        {"api": Api.chat},
        {"log_probs": False},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_request_is_another_reply(server, tmp_path, change):
    asked = {"prompts": prompts_of(["x"]), "rule": WARM, "num_samples": 1, "stop": []}
    openai(server, cache=str(tmp_path)).generate(**asked)
    settings = {name: value for name, value in change.items() if name not in asked}
    call = {**asked, **{name: value for name, value in change.items() if name in asked}}
    openai(server, cache=str(tmp_path), **settings).generate(**call)
    assert len(cached(tmp_path)) == len(server.bodies) == 2


def test_another_server_or_model_is_another_reply(server, vllm_server, tmp_path):
    for url in (server.url, vllm_server.url, vllm_server.url + "/"):
        engine = OpenAIEngine(OpenAIEngineConfig(base_url=url, model=MODEL, cache=str(tmp_path)))
        engine.generate(prompts_of(["x"]), rule=GREEDY)
    assert (len(server.bodies), len(vllm_server.bodies)) == (1, 1)
    keys = {request_key({"url": "u", "body": {"model": model}, "sample": 0}) for model in ("a", "b")}
    assert len(keys) == 2


def damage_cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:40])


def damage_empty(file: Path) -> None:
    file.write_bytes(b"")


def damage_bytes(file: Path) -> None:
    file.write_bytes(b"\xff\xfe" + file.read_bytes())


def damage_list(file: Path) -> None:
    file.write_text("[]")


def damage_reply(file: Path) -> None:
    entry = json.loads(file.read_text())
    entry["reply"]["choices"][0]["text"] = "forged"
    file.write_text(json.dumps(entry))


def damage_request(file: Path) -> None:
    entry = json.loads(file.read_text())
    entry["request"]["body"]["prompt"] = "another"
    file.write_text(json.dumps(entry))


@pytest.mark.parametrize("damage", [damage_cut, damage_empty, damage_bytes, damage_list, damage_reply, damage_request])
def test_a_damaged_reply_is_asked_for_again(server, tmp_path, damage, caplog):
    engine = openai(server, cache=str(tmp_path))
    first = engine.generate(prompts_of(["x"]), rule=GREEDY)
    (file,) = cached(tmp_path)
    whole = file.read_text()
    damage(file)
    assert engine.generate(prompts_of(["x"]), rule=GREEDY) == first
    assert len(server.bodies) == 2
    assert file.read_text() == whole
    assert any("is damaged" in message and "asking again" in message for message in caplog.messages)


def test_replies_that_arrived_before_an_error_are_kept(server, tmp_path):
    prompts = prompts_of(["x", "hello", "y" * CONTEXT])
    with pytest.raises(DataError):
        openai(server, cache=str(tmp_path), max_in_flight=1).generate(prompts, rule=GREEDY)
    assert len(cached(tmp_path)) == 2


def test_what_is_kept_is_cut_by_the_stop_strings_of_the_day(server, tmp_path):
    """The fifth stop string is not sent, so two of them share a reply, and each cuts it for itself."""
    text = spelled(local_greedy(TEXTS[0])[0])
    for end in (text[5:7], text[8:10]):
        engine = openai(server, cache=str(tmp_path))
        ((sample,),) = engine.generate(prompts_of(TEXTS[:1]), rule=GREEDY, stop=["\t1", "\t2", "\t3", "\t4", end])
        assert sample.text == text[: text.find(end)]
    assert len(server.bodies) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigError, match=r"engine\.cache: cannot write below"):
        ReplyCache(file / "below")


def test_vllm_with_a_named_model_needs_no_server_for_kept_replies(tmp_path):
    with running(is_vllm=True) as server:
        first = vllm(server.url, model=MODEL, cache=str(tmp_path)).generate(prompts_of(), rule=GREEDY)
    assert vllm(server.url, model=MODEL, cache=str(tmp_path)).generate(prompts_of(), rule=GREEDY) == first


# The key


def files_with(secret: str, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def test_the_key_goes_to_the_server_and_nowhere_else(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv(VARIABLE, SECRET)
    caplog.set_level(logging.DEBUG)
    with running(key=SECRET) as server:
        engine = openai(server, api_key_variable=VARIABLE, cache=str(tmp_path))
        engine.generate(prompts_of(), rule=GREEDY)
        assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {SECRET}"}
        server.failures.append(Failure(status=400, body=error_body(f"bad header: Bearer {SECRET}")))
        with pytest.raises(ModelError, match=r"bad header: Bearer \*\*\*$"):
            engine.generate(prompts_of(["new"]), rule=GREEDY)
        monkeypatch.setenv(VARIABLE, SECRET + "x")
        with pytest.raises(ConfigError, match=rf"refuses the key in \${VARIABLE} \(status 401\)$") as caught:
            engine.generate(prompts_of(["newer"]), rule=GREEDY)
        monkeypatch.delenv(VARIABLE)
        with pytest.raises(ConfigError, match=rf"refuses a request without a key \(status 401\); set \${VARIABLE}$"):
            engine.generate(prompts_of(["newest"]), rule=GREEDY)
    assert caplog.records, "nothing was logged: the test looks at nothing"
    assert not [record for record in caplog.records if SECRET in record.getMessage() or SECRET in str(record.args)]
    assert len(cached(tmp_path)) == len(TEXTS)
    assert files_with(SECRET, tmp_path) == []
    assert sorted(files_with(MODEL, tmp_path)) == cached(tmp_path)
    assert SECRET not in repr(engine.config) + repr(vars(engine)) + str(caught.value)


def test_the_key_of_vllm_is_checked_at_the_first_look(monkeypatch):
    monkeypatch.setenv(VARIABLE, SECRET)
    with running(is_vllm=True, key=SECRET) as server:
        vllm(server.url, api_key_variable=VARIABLE).generate(prompts_of(["x"]), rule=GREEDY)
        with pytest.raises(ConfigError, match=r"refuses a request without a key .*; name a variable that holds one$"):
            vllm(server.url).generate(prompts_of(["x"]), rule=GREEDY)
        assert len(server.bodies) == 1


def test_no_other_key_of_the_environment_is_sent(server, monkeypatch):
    """The package itself would take either."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("OPENAI_ADMIN_KEY", SECRET)
    monkeypatch.setenv(VARIABLE, "named")
    for variable in (VARIABLE, "ATHLOS_NOT_SET", None):
        openai(server, api_key_variable=variable).generate(prompts_of(["x"]), rule=GREEDY)
    assert [headers.get("Authorization") for headers in server.headers] == ["Bearer named", None, None]
    assert SECRET not in str(server.headers)


def test_a_key_with_strange_characters_is_not_shown(server, monkeypatch):
    monkeypatch.setenv(VARIABLE, f"{SECRET}\nX-Other: 1")
    with pytest.raises(ConfigError, match=rf"\${VARIABLE} holds characters that no key has") as caught:
        openai(server, api_key_variable=VARIABLE).generate(prompts_of(["x"]), rule=GREEDY)
    assert SECRET not in str(caught.value)


def test_what_the_model_says_is_not_logged(server, caplog):
    caplog.set_level(logging.DEBUG)
    ((sample,),) = openai(server).generate(prompts_of(TEXTS[:1]), rule=GREEDY)
    assert len(sample.text) > 5
    assert not [message for message in caplog.messages if sample.text in message or TEXTS[0] in message]


# The config


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"max_in_flight": 0}, "engine.max_in_flight: got 0, expected an integer >= 1"),
        ({"max_retries": -1}, "engine.max_retries: got -1, expected an integer >= 0"),
        ({"read_timeout": 0.0}, "engine.read_timeout: got 0.0, expected a number > 0"),
        ({"connect_timeout": float("nan")}, "engine.connect_timeout: got nan, expected a finite number"),
        ({"base_url": "127.0.0.1:80"}, "engine.base_url: got '127.0.0.1:80', expected http(s)://host[:port]/v1"),
        ({"base_url": "ftp://host/v1"}, "engine.base_url: got 'ftp://host/v1', expected http(s)://host[:port]/v1"),
        ({"base_url": "http://[::1/v1"}, "engine.base_url: not a URL; expected http(s)://host[:port]/v1"),
        (
            {"base_url": "http://host/v1/chat/completions/"},
            "engine.base_url: got 'http://host/v1/chat/completions/', expected http(s)://host[:port]/v1 without "
            "/completions, which is appended",
        ),
        ({"model": None}, "engine.model: no value; give the server's name of the model with engine.model=..."),
    ],
)
def test_values_out_of_range(values, line):
    config = OpenAIEngineConfig(**{"base_url": "https://host/v1", "model": "m", **values})
    assert list(http_errors(config)) == [line]
    with pytest.raises(ConfigErrors):
        OpenAIEngine(config)


@pytest.mark.parametrize(
    "values",
    [
        {"base_url": f"https://me:{SECRET}@host/v1"},
        {"base_url": f"https://host/v1?key={SECRET}"},
        {"api_key_variable": SECRET},
    ],
)
def test_a_key_in_the_wrong_place_is_refused_and_not_shown(values):
    (line,) = http_errors(OpenAIEngineConfig(**{"base_url": "https://host/v1", "model": "m", **values}))
    assert SECRET not in line
    assert line.startswith(f"engine.{next(iter(values))}: ")


def test_settings_that_contradict_each_other():
    one = OpenAIEngineConfig(base_url="http://h/v1", model="m", one_request_for_samples=True, log_probs=False)
    assert [line.split(":")[0] for line in http_errors(one)] == ["engine.one_request_for_samples"]
    two = VLLMEngineConfig(base_url="http://h/v1", model=None, prompt_as_token_ids=True, api=Api.chat)
    assert [line.split(":")[0] for line in http_errors(two)] == ["engine.prompt_as_token_ids"]


def test_vllm_with_several_models_wants_one_named(vllm_server, monkeypatch):
    async def models(self):
        return ["a", "b"]

    monkeypatch.setattr("athlos.generation.server_client.ServerClient.models", models)
    with pytest.raises(ConfigError, match=r"engine\.model: .* serves a, b; name one$"):
        vllm(vllm_server.url).generate(prompts_of(), rule=GREEDY)


@pytest.mark.parametrize(("name", "schema"), [("openai", OpenAIEngineConfig), ("vllm", VLLMEngineConfig)])
def test_both_are_registered_as_remote(name, schema):
    part = registry().get("engine", name)
    assert part.schema is schema
    assert schema.is_remote


@pytest.mark.parametrize("api", list(Api))
def test_half_of_a_surrogate_pair_becomes_a_replacement_character(api: Api) -> None:
    text = json.loads(r'"18 \ud83d, \ud83d\ude00"')
    choice = {"text": text, "message": {"content": text}, "finish_reason": "stop"}
    answer = {"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 3}}
    reply = read_reply(answer, api=api, num_choices=1, place="engine")
    assert reply.choices[0].text == "18 \ufffd, \U0001f600"
