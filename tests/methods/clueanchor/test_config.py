"""What makes no sense is said before anything runs, in one line with the key."""

import pytest
from tests.methods.clueanchor.scripted import COMPOSED

from athlos.config.compose import run_config
from athlos.errors import ConfigError
from athlos.methods.clueanchor.config import explored_reply
from athlos.methods.clueanchor.construct import decides

TRAINS = [*COMPOSED, "model=small/tiny_llama"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["construct.explore.paths=[external]"], "construct.explore.paths: got .*expected at least two of"),
        (["construct.explore.paths=[external,cleu]"], "construct.explore.paths: got 'cleu'.*did you mean 'clue'"),
        (["construct.explore.clue_source=none"], "construct.explore.clue_source: got none, but .*paths has clue"),
        (["construct.explore.paths=[internal,external]"], "clue_source: got gold, expected none"),
        (["construct.select.selector=ddr"], r"paths: got .*expected \[internal, external\] with selector=ddr"),
        (["construct.explore.num_draws=4", "construct.explore.temperature=0"], "num_draws: got 4, expected 1"),
        (["construct.explore.internal_requires_known=true"], "regions: got None with internal_requires_known=true"),
        (["construct.explore.regions=x.jsonl"], "regions: got x.jsonl with internal_requires_known=false"),
        (["construct.explore.temperature=-1"], "construct.explore.temperature: got -1"),
        (["method.noise.share=1.5"], r"method.noise.share: got 1.5, expected a number in \[0, 1\]"),
        (["method.prompt.top_n=0"], "method.prompt.top_n: got 0, expected an integer >= 1"),
        (["method.reply.force_tags=true", "engine=llama_cpp", "engine.source=dir:x.gguf"], "method.reply: "),
        (["prompt_style=bare"], "prompt_style: got 'bare', expected one of clueanchor, clueanchor_bare"),
        (["eval.shots=2"], "eval.shots: got 2, expected 0"),
        (["objective=next_token"], "objective: got one without pairs, expected objective=preference"),
        (["construct=none"], "construct: got another, expected construct=clueanchor"),
        (["method=finetune"], "construct: got clueanchor, expected method=clueanchor"),
        (["eval.suites.clueanchor.metric=accuracy"], "eval.suites.clueanchor.metric: got 'accuracy'"),
        (["eval.suites.clueanchor.noise_shares=[2]"], r"noise_shares: got \[2.0\], expected one or more numbers"),
        (["eval.base=true"], "eval.base: got true, expected false: method=clueanchor train.max_steps=0"),
        (["eval=clueanchor_paths"], "eval.suites.clueanchor_paths: it reads explorations"),
        (["construct=clueanchor_lessons", "+construct.weights.reading=1.0"], "construct.weights: got .*'reading'"),
        (["construct=clueanchor_lessons", "construct.noise_shares=[]"], r"construct.noise_shares: got \[\]"),
    ],
)
def test_contradictions_are_named(overrides, message):
    with pytest.raises(ConfigError, match=message):
        run_config([*TRAINS, *overrides])


def test_the_exploration_alone_trains_nothing():
    paths = [*COMPOSED, "method=clueanchor_paths", "eval=clueanchor_paths", "objective=next_token"]
    with pytest.raises(ConfigError, match=r"train\.max_steps: got 200"):
        run_config(paths)
    with pytest.raises(ConfigError, match="construct: got another, expected construct=clueanchor"):
        run_config([*paths, "train.max_steps=0", "construct=none"])
    assert run_config([*paths, "train.max_steps=0"]).construct.explore.paths == ["internal", "external", "clue"]


def test_the_gate_changes_no_exploration_and_a_draw_does():
    from athlos.methods.clueanchor.construct import decides

    def kept(*overrides):
        return decides(run_config([*TRAINS, *overrides]))

    assert kept("construct.explore.verify_gate=false", "construct.select.selector=random") == kept()
    assert kept("construct.explore.num_draws=2") != kept()
    assert kept("construct.explore.clue_source=self") != kept()
    assert kept("method.reply.prime_think=true") != kept()


def test_a_server_that_explores_sets_its_own_tags():
    tags = ["experiment=clueanchor/hotpotqa", "data.dir=d", "method.reply.force_tags=true"]
    here = run_config(tags)
    served = run_config([*tags, "generator=llama_cpp", "generator.source=dir:x.gguf"])
    assert explored_reply(here).force_tags
    assert not explored_reply(served).force_tags
    assert served.method.reply.force_tags  # type: ignore[attr-defined]
    assert decides(here)["reply"] != decides(served)["reply"]
