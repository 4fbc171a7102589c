"""The judge of a config."""

from hydra.utils import get_class

from athlos.config.schema import JudgeConfig
from athlos.judging.interface import Judge
from athlos.stages import StageStore


def build_judge(config: JudgeConfig, *, stages: StageStore) -> Judge:
    """From its `_target_` (the allow-list was checked at compose time); nothing is loaded before the first pair."""
    judge: Judge = get_class(config._target_)(config, stages=stages)
    return judge
