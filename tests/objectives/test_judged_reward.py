"""Rewards by a judge, and the judge that may not measure what it rewards."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from athlos.config.compose import run_config
from athlos.config.registry import registry
from athlos.config.schema import JudgeConfig
from athlos.data.records import Passage, QuestionRecord
from athlos.errors import ConfigError, ConfigErrors, DataError
from athlos.generation.rollouts import PolicyPrompt, Rollouts
from athlos.judging.building import build_judge
from athlos.judging.config import CoverJudgeConfig, ExactJudgeConfig, NoJudgeConfig
from athlos.objectives.judged_reward import JudgeReward, judges_of
from athlos.objectives.reward_config import training_judges
from athlos.objectives.rewards import build_reward
from athlos.stages import StageStore

POLICY = ["train.max_steps=0", "data=own", "data.path=mine.jsonl", "reward=judge"]
RECORDS = [
    QuestionRecord(identifier="1", question="?", answers=["Rome", "Roma"]),
    QuestionRecord(
        identifier="2", question="?", answers=["3"], passages=[Passage(title="Cats", text="All cats purr.")]
    ),
]


def rollouts_of(texts: list[str], *, cut: tuple[int, ...] = ()) -> Rollouts:
    empty = torch.zeros(len(texts), 0, dtype=torch.int64)
    return Rollouts(
        prompt_ids=empty[::2],
        prompt_mask=empty[::2],
        response_ids=empty,
        response_mask=empty,
        log_probs=empty.float(),
        texts=texts,
        group_size=2,
        truncated=torch.tensor([row in cut for row in range(len(texts))]),
    )


def prepared(tmp_path, *overrides: str, records=RECORDS) -> JudgeReward:
    config = run_config([*POLICY, *overrides])
    stages = StageStore(tmp_path)
    context: Any = SimpleNamespace(
        config=config,
        stages=stages,
        judge=build_judge(config.judge, stages=stages),
        data=SimpleNamespace(records=lambda split: iter(records)),
    )
    reward = build_reward(config.reward)
    assert isinstance(reward, JudgeReward)
    reward.prepare(context=context)
    return reward


def scored(reward: JudgeReward, texts: list[str], *, records=RECORDS, cut: tuple[int, ...] = ()) -> Any:
    prompts = [PolicyPrompt(record=record, text="?") for record in records]
    return reward.scores(prompts, rollouts_of(texts, cut=cut), progress=0.0)


def test_the_best_gold_answer_of_its_own_prompt_counts_and_a_cut_response_has_nothing(tmp_path):
    found = scored(prepared(tmp_path), ["roma", "3", "Rome", " 3"])
    assert found.rewards_PG.tolist() == found.parts["judged"].tolist() == [[1, 0], [0, 1]]
    assert found.is_right_PG.tolist() == [[True, False], [False, True]]
    assert not scored(prepared(tmp_path), ["roma", "3", "Rome", " 3"], cut=(0, 3)).rewards_PG.any()


def test_passages_support_a_response_in_part(tmp_path):
    lexical = ("judge@reward.judge=overlap", "reward.judge.threshold=0.6", "reward.premise=passages")
    reward = prepared(tmp_path, *lexical, records=RECORDS[1:])
    found = scored(reward, ["Cats bark", "all title cats"], records=RECORDS[1:])
    assert found.rewards_PG.tolist() == [[0.5, 1.0]]
    assert found.is_right_PG.tolist() == [[False, True]]
    with pytest.raises(DataError, match="question 1 has no passages to judge its answer by; premise=answers"):
        scored(prepared(tmp_path, *lexical), ["a"] * 4)


@pytest.mark.parametrize("judge", ["exact", "overlap", "qwen25_coder_1_5b"])
def test_one_judge_for_reward_and_evaluation_is_refused_unless_allowed(judge):
    same = [*POLICY, f"judge={judge}", f"judge@reward.judge={judge}"]
    with pytest.raises(ConfigErrors, match=r"reward\.judge: is the run's judge.*judge\.allow_same=true"):
        run_config([*same, "judge.threshold=.9"])
    run_config([*same, "judge.allow_same=true"])
    run_config([*POLICY, f"judge={judge}", "judge@reward.judge=cover"])


def test_the_judge_of_a_part_of_a_sum_is_looked_at_as_well():
    parts = [*POLICY[:-1], "reward=sum", "+reward@reward.parts.judged=judge", "judge=exact"]
    with pytest.raises(ConfigErrors, match=r"reward\.parts\.judged\.judge: is the run's judge"):
        run_config(parts)


def test_other_keys_of_the_engine_alone_make_no_other_judge(tmp_path):
    asked = ["judge.engine.base_url=http://a/v1", "judge.engine.model=m", "reward.judge.engine.model=m"]
    same = [*POLICY, "judge=server", "judge@reward.judge=server", *asked, "reward.judge.engine.base_url=http://b/v1"]
    with pytest.raises(ConfigErrors, match="is the run's judge"):
        run_config(same)
    assert set(judges_of(run_config([*same, "judge.engine.model=n"]), stages=StageStore(tmp_path))) == {
        "judge",
        "reward.judge",
    }


def test_a_copy_of_the_judge_elsewhere_is_refused_when_it_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr("athlos.judging.lexical.CoverJudge.id", "exact:a34d1a9d6391")
    with pytest.raises(ConfigError, match="is the run's judge"):
        prepared(tmp_path, "judge=cover")
    prepared(tmp_path, "judge=cover", "judge.allow_same=true")


def test_a_reward_without_a_judge_is_refused():
    with pytest.raises(ConfigErrors, match=r"reward\.judge: got none, expected one: judge@reward\.judge=<judge>"):
        run_config([*POLICY, "judge@reward.judge=none"])


def test_where_a_judge_is_asked_is_no_part_of_a_training():
    from athlos.runs.identity import training_identity

    asked = ["judge=server", "judge.engine.model=m", "judge.engine.base_url=http://a/v1"]
    base, elsewhere, other = (
        training_identity(run_config([*POLICY, *asked, *more]))
        for more in (
            ["judge.allow_same=true"],
            ["judge.engine.base_url=http://b/v1", "judge.engine.max_in_flight=2"],
            ["judge.engine.model=n"],
        )
    )
    assert base == elsewhere
    assert base != other


def test_judges_are_found_wherever_a_part_of_the_training_holds_one():
    @dataclass
    class Filter:
        judge: JudgeConfig

    @dataclass
    class ConstructWithJudges:
        checks: dict[str, Filter]
        name: str = "x"

    run = run_config([*POLICY[:-1], "judge=cover"])
    cover, exact = CoverJudgeConfig(_target_="c", threshold=0.9), ExactJudgeConfig(_target_="e")
    run.construct = ConstructWithJudges(
        {"near": Filter(exact), "far": Filter(cover), "none": Filter(NoJudgeConfig(_target_="n"))}
    )
    assert dict(training_judges(run)) == {"construct.checks.near.judge": exact, "construct.checks.far.judge": cover}
    run.judge = cover
    [error] = list(registry().get("reward", "none").check(run))
    assert error.startswith("construct.checks.far.judge: is the run's judge")
