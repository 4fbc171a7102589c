"""Generators as judges, against a server on this machine that answers by rule."""

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.generation.compatible_server import MODEL, CompatibleServer, running
from tests.tolerances import EXACT

from athlos.config.compose import run_config
from athlos.errors import ConfigErrors
from athlos.generation.config import SelfGeneratorConfig
from athlos.judging.building import build_judge
from athlos.judging.config import judge_errors
from athlos.judging.generated import GeneratorJudge, filled, first_word
from athlos.judging.interface import Pair
from athlos.stages import StageStore

PROMPT = "Premise: {}\nHypothesis: {}\nDoes the premise entail the hypothesis? Answer yes or no."
PAIRS = [Pair("It rains.", "It is wet."), Pair("It is wet.", "It rains."), Pair("日本 {hypothesis}", "мир")]
PROBS = {" Yes": 0.5, "yes": 0.1, "No": 0.2, "Maybe": 0.2}


def choice(text: str, probs: dict[str, float] | None = None) -> dict:
    told = [{"token": token, "logprob": math.log(prob)} for token, prob in (probs or {}).items()]
    content = [{"token": text, "logprob": -0.1, "top_logprobs": told}]
    message = {"role": "assistant", "content": text}
    logs = {"content": content} if probs else None
    return {"choices": [{"index": 0, "finish_reason": "stop", "message": message, "logprobs": logs}]}


@pytest.fixture
def server():
    with running() as started:
        started.answer = lambda path, body: choice("Yes", PROBS) | {"usage": USAGE}
        yield started


USAGE = {"prompt_tokens": 1, "completion_tokens": 1}


def judge_of(server: CompatibleServer, root: Path, *overrides: str) -> GeneratorJudge:
    asked = (f"judge.engine.base_url={server.url}", f"judge.engine.model={MODEL}", "judge.engine.max_retries=0")
    judge = build_judge(run_config(["judge=server", *asked, *overrides]).judge, stages=StageStore(root))
    assert isinstance(judge, GeneratorJudge)
    return judge


def texts_sent(server: CompatibleServer) -> list[str]:
    return [body["messages"][0]["content"] for body in server.bodies]


def test_the_score_is_yes_against_no_at_the_first_token(server, tmp_path):
    judge = judge_of(server, tmp_path)
    assert judge.scores(PAIRS[:1]) == pytest.approx([0.6 / 0.8], abs=EXACT)
    [body] = server.bodies
    assert (body["max_tokens"], body["temperature"], body["top_logprobs"]) == (1, 0, 20)
    assert judge.counters == {"pairs": 1, "fallbacks": 0, "unread": 0}


def test_each_pair_has_its_place_and_the_premise_comes_first(server, tmp_path):
    share_of = {PROMPT.format(*pair): 0.1 + number / 10 for number, pair in enumerate(PAIRS)}

    def answer(path, body):
        share = share_of[body["messages"][0]["content"]]
        return choice("Yes", {"yes": share, "no": 1 - share}) | {"usage": USAGE}

    server.answer = answer
    scores = judge_of(server, tmp_path).scores([*PAIRS, PAIRS[0]])
    assert scores == pytest.approx([0.1, 0.2, 0.3, 0.1], abs=EXACT)
    assert sorted(texts_sent(server)) == sorted(share_of), "the same pair is asked once"


def test_what_looks_like_a_field_in_a_text_stays():
    assert filled("{hypothesis}|{premise}", Pair("{hypothesis} {x}", "{premise}")) == "{premise}|{hypothesis} {x}"


def test_without_log_probabilities_the_first_word_of_a_reply_counts(server, tmp_path):
    replies = dict(zip(map(str, range(5)), ["Yes, it does.", "\n**No**", "Perhaps yes", "", "yesterday"], strict=True))
    server.answer = lambda path, body: choice(replies[body["messages"][0]["content"]]) | {"usage": USAGE}
    judge = judge_of(server, tmp_path, "judge.engine.log_probs=false", 'judge.prompt="{hypothesis}{premise}"')
    assert judge.scores([Pair("", number) for number in replies]) == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert judge.counters == {"pairs": 5, "fallbacks": 5, "unread": 3}
    assert all(body["max_tokens"] == 8 and "top_logprobs" not in body for body in server.bodies)


def test_a_server_that_tells_neither_answer_is_asked_in_words(server, tmp_path):
    server.answer = lambda path, body: (
        (choice("The", {"The": 0.9}) if body["max_tokens"] == 1 else choice("No.")) | {"usage": USAGE}
    )
    judge = judge_of(server, tmp_path)
    assert judge.scores(PAIRS[:1]) == [0.0]
    assert judge.counters == {"pairs": 1, "fallbacks": 1, "unread": 0}


def test_a_long_premise_has_the_score_of_its_best_window(server, tmp_path):
    server.answer = lambda path, body: (
        choice("Yes", {"yes": 0.9, "no": 0.1} if "seven" in str(body) else {"yes": 0.2, "no": 0.8}) | {"usage": USAGE}
    )
    premise = "One two three. Four five six. Seven eight nine. Seventy."
    assert judge_of(server, tmp_path, "judge.window_words=6").scores([Pair(premise.lower(), "x")]) == [0.9]
    assert len(server.bodies) == 3


def test_a_second_judge_asks_nothing_and_another_prompt_asks_again(server, tmp_path):
    first = judge_of(server, tmp_path)
    scores = first.scores(PAIRS)
    assert judge_of(server, tmp_path).scores(PAIRS[::-1]) == scores[::-1]
    assert len(server.bodies) == len(PAIRS)
    other = judge_of(server, tmp_path, 'judge.prompt="{premise} => {hypothesis}?"')
    other.scores(PAIRS)
    assert len(server.bodies) == 2 * len(PAIRS)
    assert other.id != first.id
    assert other.identity["prompt"] != first.identity["prompt"]


def test_where_a_judge_is_asked_is_no_part_of_it(server, tmp_path):
    judge = judge_of(server, tmp_path)
    assert judge_of(server, tmp_path, "judge.engine.max_in_flight=1", "judge.threshold=.7").id == judge.id
    with running() as elsewhere:
        assert judge_of(elsewhere, tmp_path).id == judge.id
    named = replace(judge.config, engine=replace(judge.config.engine, model="another"))
    assert GeneratorJudge(named, stages=StageStore(tmp_path)).id != judge.id


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("judge.prompt=hello", r"judge.prompt: has \{premise\} 0 times, expected once"),
        ('judge.prompt="{premise}{hypothesis}{premise}"', r"judge.prompt: has \{premise\} 2 times"),
        ("judge.engine.base_url=nowhere", "judge.engine.base_url: got 'nowhere'"),
    ],
)
def test_a_config_that_cannot_judge_is_refused(override, reason):
    asked = ("judge.engine.base_url=http://h/v1", "judge.engine.model=m")
    with pytest.raises(ConfigErrors, match=reason):
        run_config(["judge=server", *asked, override])


def test_an_engine_that_asks_nobody_is_refused(server, tmp_path):
    config = replace(judge_of(server, tmp_path).config, engine=SelfGeneratorConfig(_target_=""))
    [error] = judge_errors(config, path="reward.judge")
    assert error == "reward.judge.engine: expected openai, vllm or llama_cpp: generator@reward.judge.engine=llama_cpp"


@pytest.mark.parametrize(("reply", "word"), [("  Yes!", "yes"), ("**NO**", "no"), ("...", ""), ("yesno", "yesno")])
def test_the_first_word_of_a_reply(reply, word):
    assert first_word(reply) == word


@pytest.mark.slow
def test_after_a_kill_no_answered_pair_is_asked_again(server, tmp_path):
    lines = [f'{{"premise": "p{number}", "hypothesis": "h{number}"}}\n' for number in range(6)]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(lines))
    command = [sys.executable, "-m", "athlos.cli.main", "judge", str(pairs), "judge=server", f"cache_dir={tmp_path}"]
    command += [f"judge.engine.base_url={server.url}", f"judge.engine.model={MODEL}", "judge.engine.max_in_flight=1"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ)
    server.meanwhile = lambda body: os.kill(process.pid, signal.SIGKILL) if len(server.bodies) == 4 else None
    assert process.wait() == -signal.SIGKILL
    assert len(server.bodies) == 4
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=True)
    assert len(server.bodies) == 4 + 3, "three were answered; the fourth was on its way and is asked again"
    assert "pairs      6" in done.stdout
