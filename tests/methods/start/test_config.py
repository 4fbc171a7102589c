"""The recipe as phases, and what makes no sense, in one line with the key."""

import pytest
from tests.methods.start.made import COMPOSED

from athlos.config.compose import run_config
from athlos.errors import ConfigError
from athlos.methods.start.config import SamplesConfig, SynthesisConfig
from athlos.runs.chain import phases_of
from athlos.runs.identity import training_identity


def phases(*overrides):
    return phases_of(run_config([*COMPOSED, *overrides]))


def told(*overrides):
    return [(phase.name, phase.start, phase.made_by, phase.is_evaluated) for phase in phases(*overrides)]


def test_warm_up_then_best_samples_and_pairs_of_the_same_weights():
    assert told("method.iterations=2") == [
        ("warmup", "previous", "", True),
        ("rft-1", "base", "warmup", True),
        ("prefer-1", "rft-1", "warmup", True),
        ("rft-2", "base", "prefer-1", True),
        ("prefer-2", "rft-2", "prefer-1", False),
    ]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["method.iterations=0"], [("warmup", "previous", "", False)]),
        (
            ["method.iterations=1", "method.warmup.enabled=false"],
            [("rft-1", "base", "base", True), ("prefer-1", "rft-1", "base", False)],
        ),
        (
            ["method.iterations=1", "construct.warmup.num_queries=0", "method.rft.start_from=previous"],
            [("rft-1", "base", "base", True), ("prefer-1", "rft-1", "base", False)],
        ),
        (
            ["method.iterations=1", "method.preference.pairs=none", "method.rft.start_from=previous"],
            [("warmup", "previous", "", True), ("rft-1", "warmup", "warmup", False)],
        ),
        (
            ["method.iterations=1", "method.rft.enabled=false"],
            [("warmup", "previous", "", True), ("prefer-1", "warmup", "warmup", False)],
        ),
    ],
)
def test_switches_leave_phases_out(overrides, expected):
    assert told(*overrides) == expected


def test_each_phase_trains_in_its_own_way():
    warmup, best, pairs = phases(
        "method.iterations=1", "train.max_steps=9", "train.lr=1e-3", "method.rft.steps=7", "method.preference.steps=5"
    )
    assert isinstance(warmup.run.construct, SynthesisConfig)
    assert isinstance(best.run.construct, SamplesConfig)
    assert isinstance(pairs.run.construct, SamplesConfig)
    assert [one.run.num_steps for one in (warmup, best, pairs)] == [9, 7, 5]
    assert [one.run.objective.takes_pairs for one in (warmup, best, pairs)] == [False, False, True]
    assert [one.run.train.lr for one in (warmup, best, pairs)] == [1e-3, 1e-3, 5e-7]
    assert (best.run.construct.kinds, pairs.run.construct.kinds) == ([], ["attr", "comp"])
    assert best.run.construct.warmup.num_queries > 0, "the warm-up set joins the best samples"
    [_, bare, _] = phases("method.iterations=1", "construct.warmup.num_queries=1")
    assert bare.run.construct.warmup.num_queries == 1
    [alone, _] = phases("method.iterations=1", "method.warmup.enabled=false")
    assert alone.run.construct.warmup.num_queries == 0


def test_sweeps_over_later_phases_share_the_first_ones():
    def keys(*overrides):
        return [training_identity(phase.run) for phase in phases("method.iterations=1", *overrides)]

    plain = keys()
    for change in ("reward.robust=false", "construct.sample.temperature=0.5"):
        other = keys(change)
        assert other[0] == plain[0]
        assert other[1] != plain[1]
    others = keys("method.preference.pairs=attr", "method.preference.steps=3")
    assert others[:2] == plain[:2]
    assert others[2] != plain[2]
    assert keys("method.attach=best_match") == plain
    assert keys("construct.warmup.noise=0.5")[0] != plain[0]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objective=next_token"], "objective: got one without pairs, expected objective=preference, or"),
        (["method.warmup.enabled=false", "method.iterations=0"], "method: no warm-up and no iteration that trains"),
        (["method.rft.enabled=false", "method.preference.pairs=none"], "method.iterations: nothing trains in them"),
        (["method.rft.steps=0"], "method.rft.steps: got 0, expected an integer >= 1"),
        (["method.preference.steps=0"], "method.preference.steps: got 0"),
        (["method.iterations=4"], r"method.iterations: got 4, expected an integer in \[0, 3\]"),
        (["method.preference.masked_heads=[[1]]"], r"masked_heads: got \[1\], expected pairs of layer and head"),
        (["construct.sample.num_samples=5"], "construct.sample.num_samples: got 5, expected one of 4, 8, 16"),
        (["construct.cite.max_per_sentence=6"], r"max_per_sentence: got 6, expected an integer in \[1, 5\]"),
        (["construct.warmup.join_share=0.5"], "join_share: got 0.5, expected 0 with claims=oracle"),
        (["construct.warmup.claims=model", "construct.warmup.noise=0.5"], "noise: got 0.5, expected 0 with claims"),
        (["construct.warmup.sentences_per_document=2"], "sentences_per_document: got 2, expected at least claims_per"),
        (["data.train_split=test"], "data.train_split: got 'test', which the test asks too, expected another"),
        (["judge@reward.judge=none"], "reward.judge: got none, expected one"),
    ],
)
def test_contradictions_are_named(overrides, message):
    with pytest.raises(ConfigError, match=message):
        run_config([*COMPOSED, *overrides])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=start", "construct=none"], "construct: got another, expected construct=start"),
        (["method=start", "reward=none"], "reward: got another, expected reward=start"),
        (["method=finetune", "reward=start"], "reward: got start, expected method=start"),
        (["method=finetune", "construct=start"], "construct: got start, expected method=start"),
    ],
)
def test_its_parts_go_together(overrides, message):
    with pytest.raises(ConfigError, match=message):
        run_config(["data=lab_cited", "prompt_style=start_bare", "judge=symbolic", "train.batching=bucket", *overrides])
