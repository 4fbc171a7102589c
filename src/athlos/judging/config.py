"""Schemas of the judges."""

from dataclasses import dataclass

from athlos.config.registry import Part
from athlos.config.schema import JudgeConfig


@dataclass(kw_only=True)
class NoJudgeConfig(JudgeConfig):
    """Nothing is judged."""


@dataclass(kw_only=True)
class ExactJudgeConfig(JudgeConfig):
    """An answer is right if it is one of the references, in upper or lower case, less space around it."""


PARTS = [
    Part(
        group="judge",
        name="none",
        schema=NoJudgeConfig,
        target="athlos.judging.lexical.NoJudge",
        summary="nothing is judged",
    ),
    Part(
        group="judge",
        name="exact",
        schema=ExactJudgeConfig,
        target="athlos.judging.lexical.ExactJudge",
        summary="an answer is right if it is one of the references",
    ),
]
