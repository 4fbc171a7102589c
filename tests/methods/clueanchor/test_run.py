"""Whole runs of ClueAnchor on a tiny model: pairs of its own replies train low-rank updates alone, and it stacks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.assembled import moved, ready_to_train

from athlos.config.compose import run_config
from athlos.generation.interface import Request
from athlos.methods.clueanchor.prompts import parse

LAB = [
    "experiment=clueanchor/lab",
    "model=lab/tiny",
    "tracking=none",
    "progress=false",
    "data.num_train=12",
    "data.num_test=4",
    "construct.num_questions=12",
    "construct.select.selector=reward_rank",
    "construct.select.min_gap=0",
    "construct.select.min_pairs=1",
    "train.max_steps=2",
    "train.batch_size=4",
    "train.micro_batch_size=4",
    "train.checkpoint_every=1",
    "eval.bootstrap=0",
]
"""An untrained model: its replies are noise, which the reward ranks all the same."""


def lab(cache: Path, *overrides: str) -> list[str]:
    return [*LAB, f"results_dir={cache.parent / 'results'}", *overrides]


def metrics_of(folder: str) -> dict[str, float]:
    return dict(json.loads((Path(folder) / "metrics.json").read_text()))


def test_forced_tags_hold_thought_and_answer_within_their_lengths(cache: Path):
    run = run_config(lab(cache))
    module: Any = ready_to_train(run).module
    replies = module.answer([Request(identifier=f"q{n}", prompt=f"kake {n}?", record=None) for n in range(3)])
    for reply in replies:
        assert reply.text.startswith("<think> ")
        assert reply.text.endswith(" </answer>")
        assert [reply.text.count(tag) for tag in ("<think>", "</think>", "<answer>", "</answer>")] == [1] * 4
        assert reply.num_tokens <= run.method.reply.think_tokens + run.method.reply.answer_tokens  # type: ignore[attr-defined]
        assert parse(reply.text).answer
    again = module.answer([Request(identifier="q1", prompt="kake 1?", record=None)])
    assert again[0].text == replies[1].text


def test_a_prompt_is_the_same_in_exploration_training_and_test(cache: Path):
    run = run_config(lab(cache))
    assembly = ready_to_train(run)
    assert assembly.context.made is not None
    pairs = list(assembly.context.made.records or [])
    rows = assembly.context.data.rows("train")  # type: ignore[union-attr]
    tokenizer = assembly.context.tokenizer
    for index, pair in enumerate(pairs):
        better, labels = rows.row(index)
        asked = tokenizer.encode(pair.prompt, add_special_tokens=False)  # type: ignore[attr-defined]
        assert better[: len(asked)].tolist() == asked
        assert (labels[: len(asked)] == -100).all()
        told = tokenizer.decode(better[len(asked) : -1])
        assert told.strip() == pair.chosen.strip()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_low_rank_updates_move_and_nothing_else(cache: Path, run: Callable[..., tuple[int, str, str]]):
    code, out, _ = run("run", *lab(cache))
    assert code == 0
    folder = out.splitlines()[-1]
    metrics = metrics_of(folder)
    assert metrics["construct/pairs"] >= 1
    assert {f"test/acc@noise{level}" for level in (0, 25, 50, 75, 100)} <= set(metrics)
    names = moved(Path(folder))
    assert names
    assert all(".self_attn." in name or ".mlp." in name for name in names)
    made = {path.name for path in cache.rglob("training/*/made/*")}
    assert made == {"cases.json", "pairs.jsonl", "paths.jsonl"}, "the construction's files lie beside the weights"
    again = run("run", *lab(cache, "decoding.max_new_tokens=30"))
    assert again[0] == 0
    assert len(list(cache.rglob("training/*/made"))) == 1, "another decoding trains nothing"


def test_a_selection_says_where_the_updates_stand(cache: Path):
    overrides = ["selection=slam", "selection.selector=manual", "selection.layers=[1]"]
    model = ready_to_train(run_config(lab(cache, *overrides))).module.model
    trains = [name for name, one in model.named_parameters() if one.requires_grad]
    assert trains
    assert all(".layers.1.mlp." in name for name in trains)
