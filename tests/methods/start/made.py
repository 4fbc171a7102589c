"""A judge by whole sentences, questions over documents of facts, and a context without a model."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.assembled import loaded

from athlos.config.compose import run_config
from athlos.data.records import Claim, LongAnswerRecord, Passage
from athlos.data.sources.lab_cited import FACTS
from athlos.judging.interface import Pair
from athlos.methods.start.rewards import StartReward
from athlos.models.tokenizers import byte_tokenizer
from athlos.parts import PartContext
from athlos.stages import StageStore
from athlos.text.prompts import build_prompt, completion

COMPOSED = [
    "method=start",
    "data=lab_cited",
    "model=lab/tiny",
    "prompt_style=start_bare",
    "judge=symbolic",
    "train.batching=bucket",
    "train.max_length=2000",
    "construct.sample.num_samples=4",
    "construct.warmup.claims=oracle",
    "construct.warmup.sentences_per_document=3",
    "reward.claims=oracle",
]
EDINBURGH = ["Ada was born in Rome.", "Ada wrote Orla.", "Orla is a poem.", "Ada liked tea."]


class SentenceJudge:
    """A premise supports the sentences that stand in it, each of the hypothesis's; `asked` remembers all pairs."""

    id = "sentences:0"
    identity = {"judge": "sentences"}

    def __init__(self, score: float | None = None) -> None:
        self.counters: dict[str, int] = {}
        self.asked: list[Pair] = []
        self.score = score

    def scores(self, pairs: Sequence[Pair]) -> list[float]:
        self.asked += pairs
        if self.score is not None:
            return [self.score] * len(pairs)
        return [
            float(all(f"{part.strip()}." in premise for part in told.split(".") if part.strip()))
            for premise, told in pairs
        ]


@cache
def _reward_config(*overrides: str) -> Any:
    return run_config([*COMPOSED, *overrides]).reward


def reward_of(*, judge: Any = None, **values: Any) -> StartReward:
    reward = StartReward(_reward_config(*(f"reward.{name}={value}" for name, value in values.items())))
    reward.judge, reward.threshold = judge or SentenceJudge(), 0.5
    return reward


def question(number: int = 0, facts: Sequence[str] = EDINBURGH, **values: Any) -> LongAnswerRecord:
    """Each fact in a document of its own, behind a sentence that only this question has; the answer states them all."""
    names = [fact.replace("Ada", f"Ada{number}").replace("Orla", f"Orla{number}") for fact in facts]
    return LongAnswerRecord(
        **{
            "identifier": f"q{number}",
            "question": f"Who was Ada{number}?",
            "answer": " ".join(f"{name[:-1]} [{place}]." for place, name in enumerate(names, start=1)),
            "passages": [
                Passage(title="", text=f"Page {number} of {place}. {name}") for place, name in enumerate(names)
            ],
            "claims": [Claim(text=name) for name in names],
            "meta": {FACTS: [[name] for name in names]},
            **values,
        }
    )


class Splits:
    """The data of a run, as a dictionary of splits."""

    def __init__(self, style: str, **splits: list[Any]) -> None:
        self.splits, self.style, self.source = splits, style, self

    def records(self, split: str) -> list[Any]:
        return self.splits[split]

    def text_of(self, record: Any) -> tuple[str, str]:
        return build_prompt(record, shots=(), style=self.style), completion(record, self.style)


def context_of(folder: Path, *overrides: str, generator: Any = None, model: Any = None, **splits: Any) -> PartContext:
    run = run_config([*COMPOSED, *overrides])
    data: Any = Splits(run.prompt_style, **{"train": [question(n) for n in range(4)], "test": [question(9)], **splits})
    return PartContext(
        config=run,
        stages=StageStore(folder),
        data=data,
        start=loaded(model, byte_tokenizer()),
        generator=generator,
        index=data,
    )
