"""Judges that compare letters."""

from collections.abc import Sequence

from athlos.config.schema import JudgeConfig
from athlos.errors import ConfigError


class NoJudge:
    """The judge of runs that judge nothing: whoever asks it is told what to choose."""

    def __init__(self, config: JudgeConfig) -> None:
        self.config = config

    def scores(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        raise ConfigError("judge: got none, but this run judges answers; choose one, such as judge=exact")


class ExactJudge:
    """1 for an answer that is one of its references, whatever the case and the space around it; else 0."""

    def __init__(self, config: JudgeConfig) -> None:
        self.config = config

    def scores(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
        return [
            float(_plain(answer) in map(_plain, accepted)) for answer, accepted in zip(answers, references, strict=True)
        ]


def _plain(text: str) -> str:
    return text.strip().casefold()
