"""Questions over three passages, and a generator that replies by a script and remembers what it was asked."""

from collections.abc import Callable, Sequence
from typing import Any

from athlos.config.compose import run_config
from athlos.data.records import Passage, QuestionRecord
from athlos.generation.interface import Request, Sample
from athlos.generation.pipeline import solve_together
from athlos.methods.clueanchor.construct import solver_of

COMPOSED = [
    "method=clueanchor",
    "construct=clueanchor",
    "objective=preference",
    "prompt_style=clueanchor",
    "train.batching=bucket",
    "eval=clueanchor",
    "data=hotpotqa",
]


def question(number: int = 0, *, answer: str = "Rome", **values: Any) -> QuestionRecord:
    """`The Old Bridge` and `Its Builder` hold the answer, `Far Away` does not."""
    texts = {
        "Far Away": ["A desert has no water.", "It is dry."],
        "The Old Bridge": [f"Bridge {number} was built by Ada.", "It has five arches."],
        "Its Builder": ["Ada liked tea.", f"Ada was born in {answer}."],
    }
    passages = [
        Passage(title=title, text=" ".join(sentences), sentences=sentences, is_supporting=title != "Far Away")
        for title, sentences in texts.items()
    ]
    return QuestionRecord(
        identifier=f"q{number}",
        question=f"Where was the builder of bridge {number} born?",
        answers=[answer],
        passages=passages,
        supporting_facts=[("The Old Bridge", 0), ("Its Builder", 1)],
        **values,
    )


def kind_of(prompt: str) -> str:
    """Which of the five prompts of the English layout this is."""
    if "Copy the sentences" in prompt:
        return "extract"
    if "Answer in a few words" in prompt:
        return "verify"
    if "Key clue" in prompt:
        return "clue"
    return "external" if "Background:" in prompt else "internal"


class Scripted:
    """A server that replies by kind of prompt; `replies` maps a kind to a text, or to a function of the prompt."""

    def __init__(self, **replies: str | Callable[[Any], str]) -> None:
        self.replies = replies
        self.prompts: list[Any] = []
        self.rules: list[Any] = []
        self.batches: list[list[str]] = []

    def generate(self, prompts: Sequence[Any], *, rule: Any, stop: Sequence[str] = (), **_: Any) -> list[list[Sample]]:
        self.prompts += prompts
        self.rules.append(rule)
        self.batches.append([kind_of(prompt.text) for prompt in prompts])
        return [[self._sample(prompt)] for prompt in prompts]

    def _sample(self, prompt: Any) -> Sample:
        reply = self.replies[kind_of(prompt.text)]
        text = reply if isinstance(reply, str) else reply(prompt)
        return Sample(
            text=text, token_ids=[], log_probs=[], num_tokens=len(text.split()), num_prompt_tokens=9, finished=True
        )

    @property
    def asked(self) -> list[str]:
        return [kind_of(prompt.text) for prompt in self.prompts]


def tagged(think: str, answer: str) -> str:
    return f"<think> {think} </think> <answer> {answer} </answer>"


RIGHT = {
    "internal": tagged("I recall Rome.", "Rome"),
    "external": tagged("Ada was born in Rome.", "Rome"),
    "clue": tagged("The clue says Rome.", "Rome"),
    "extract": "Ada was born in Rome.",
    "verify": "Rome",
}


def explore(*overrides: str, generator: Scripted, records: Sequence[QuestionRecord] = ()) -> list[Any]:
    """What the exploration of each record says."""
    run = run_config([*COMPOSED, *overrides])
    asked = [Request(identifier=one.identifier, prompt="", record=one) for one in records or [question()]]
    found = solve_together(asked, solver_of(run), generator=generator, index=None, in_flight=8)  # type: ignore[arg-type]
    return [prediction for _, prediction in sorted(found, key=lambda pair: pair[0])]
