"""`reward=judge`: what a judge says of each response to a question."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from athlos.config.schema import JudgeConfig, RunConfig
from athlos.data.records import QuestionRecord
from athlos.errors import ConfigError
from athlos.judging.answers import answer_scores
from athlos.judging.building import build_judge
from athlos.judging.config import ScoringJudgeConfig
from athlos.judging.interface import Judge
from athlos.objectives.reward_config import JudgeRewardConfig, same_judge, training_judges
from athlos.objectives.rewards import responses_by_prompt, training_records
from athlos.parts import PartContext, Scores
from athlos.stages import StageStore

if TYPE_CHECKING:
    from athlos.generation.rollouts import PolicyPrompt, Rollouts


class JudgeReward:
    """The judge's score; what was cut by length has 0. Right is what the judge's threshold lets pass."""

    def __init__(self, config: JudgeRewardConfig) -> None:
        self.config = config

    def prepare(self, *, context: PartContext) -> None:
        """Build the judge. Raises `ConfigError` where it is that of the run, as a copy of its weights may be."""
        training_records(context, kind=QuestionRecord, reward="judge")
        self.judge = build_judge(self.config.judge, stages=context.stages)
        evaluates = context.config.judge
        is_allowed = isinstance(evaluates, ScoringJudgeConfig) and evaluates.allow_same
        if context.judge is not None and self.judge.id == context.judge.id and not is_allowed:
            raise ConfigError(same_judge("reward.judge"))

    def scores(self, prompts: Sequence["PolicyPrompt"], rollouts: "Rollouts", *, progress: float) -> Scores:
        assert isinstance(self.config.judge, ScoringJudgeConfig)
        responses = [response for group in responses_by_prompt(rollouts) for response in group]
        records = [prompt.record for prompt in prompts for _ in range(rollouts.group_size)]
        questions = [record for record in records if isinstance(record, QuestionRecord)]  # `prepare` looked at all
        answer_score_list = answer_scores(
            self.judge, [text for text, _ in responses], questions, premise=self.config.premise
        )
        kept = [0.0 if is_cut else score for score, (_, is_cut) in zip(answer_score_list, responses, strict=True)]
        scores_PG = torch.tensor(kept, dtype=torch.float64).view(len(prompts), rollouts.group_size)
        return Scores(
            rewards_PG=scores_PG,
            is_right_PG=scores_PG >= self.config.judge.threshold,
            parts={"judged": scores_PG},
        )


def judges_of(run: RunConfig, *, stages: StageStore) -> dict[str, Judge]:
    """Key of the config -> judge: the run's own as `judge`, where it has one, and those that its training asks."""
    configs: dict[str, JudgeConfig] = dict(training_judges(run))
    if isinstance(run.judge, ScoringJudgeConfig):
        configs["judge"] = run.judge
    return {path: build_judge(config, stages=stages) for path, config in configs.items()}
