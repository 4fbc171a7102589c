"""`judge=symbolic`: the lab's truth. A text of the lab is supported where it follows from the premise, exactly."""

from collections.abc import Mapping, Sequence
from functools import cached_property

from athlos.config.compose import plain
from athlos.judging.config import SymbolicJudgeConfig
from athlos.judging.interface import NUM_DIGITS, Pair, judge_id
from athlos.lab import entailment
from athlos.lab.entailment import Verdict
from athlos.lab.world import World
from athlos.stages import StageStore, content_hash


class SymbolicJudge:
    """1 where all claims of the hypothesis follow, else 0; a hypothesis that cannot be read has 0 and is counted."""

    def __init__(self, config: SymbolicJudgeConfig, *, stages: StageStore | None = None) -> None:
        self.identity: Mapping[str, str] = {
            "judge": "symbolic",
            "world": content_hash(plain(config.world))[:NUM_DIGITS],
        }
        self.id = judge_id(self.identity)
        self.config = config
        self.counters = {"pairs": 0, "unparsed": 0}

    @cached_property
    def truth(self) -> entailment.Judge:
        return entailment.Judge(World(self.config.world).languages)

    def scores(self, pairs: Sequence[Pair]) -> list[float]:
        # A line by itself, so that the title above a passage does not make its first sentence unreadable.
        verdicts = [self.truth.verdict(premise.splitlines(), hypothesis) for premise, hypothesis in pairs]
        self.counters["pairs"] += len(pairs)
        self.counters["unparsed"] += verdicts.count(Verdict.unparseable)
        return [float(verdict is Verdict.supported) for verdict in verdicts]
