"""`generator=symbolic`: what a pipeline asks is answered by rule, from the passages in the prompt and nothing else.

It splits, translates and reads the questions of the lab world without a mistake, one fact for one question, so that the
score of a pipeline shows what its retrieval and its plan are worth. It sees what the prompt was written from
(`Ask.question`, `passages`, `said`) and not the prompt itself, and writes its replies in the form that the prompts of
`method=rag` ask for.
"""

from pathlib import Path

from athlos.errors import ConfigError, DataError, choices
from athlos.generation.config import SymbolicGeneratorConfig
from athlos.generation.pipeline import Ask, SymbolicGenerator
from athlos.lab.reader import LabReader
from athlos.lab.world import World
from athlos.text.replies import FINAL, NEXT, UNKNOWN, filled, numbered


class SymbolicReader(SymbolicGenerator):
    """Replies by purpose; what it cannot read is `unknown`."""

    def __init__(self, config: SymbolicGeneratorConfig, *, cache_root: Path | None = None) -> None:
        self.reader = LabReader(World(config.world))
        self._purposes = {
            "closed": lambda ask: UNKNOWN,
            "read": self._read,
            "translate": lambda ask: self.reader.translation(ask.question, language=ask.language),
            "decompose": lambda ask: numbered(self.reader.sub_questions(ask.question)),
            "follow_up": self._follow_up,
            "think": self._think,
        }

    def reply(self, ask: Ask) -> str:
        if ask.purpose not in self._purposes:
            known = choices(ask.purpose, tuple(self._purposes))
            raise ConfigError(f"generator=symbolic: it has no reply for the purpose '{ask.purpose}'{known}")
        try:
            return self._purposes[ask.purpose](ask)
        except DataError:
            return UNKNOWN

    def _read(self, ask: Ask) -> str:
        texts = [passage.text for passage in ask.passages]
        return self.reader.answer(ask.question, texts, language=ask.language) or UNKNOWN

    def _follow_up(self, ask: Ask) -> str:
        """The next sub-question, the answers in `said` filled in; the last of these where all are answered."""
        questions = self.reader.sub_questions(ask.question)
        if UNKNOWN in ask.said or len(ask.said) == len(questions):
            return f"{FINAL} {ask.said[-1]}"
        return f"{NEXT} {filled(questions[len(ask.said)], ask.said)}"

    def _think(self, ask: Ask) -> str:
        told = self.reader.next_step(ask.question, [passage.text for passage in ask.passages], ask.said)
        if told is None:
            return f"{FINAL} {UNKNOWN}"
        return told.sentence or f"{FINAL} {told.answer}"
