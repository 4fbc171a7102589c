"""Questions, profiles and engines that a test makes by hand."""

from typing import Any

from athlos.data.fact_variants import BACKGROUND, DENIAL, EXPANSIONS, FACT, STATEMENTS
from athlos.data.records import QuestionRecord
from athlos.generation.interface import Sample
from athlos.methods.kmkc.regions import Profile

LAMBDAS = {"mastered": [0.3, 0.1], "confused": [0.2, 0.2], "missing": [0.1, 0.3], "equal": [0.2, 0.2]}


def profile(identifier: str = "q", *, acc: float = 0.5, nats: float = 0.5, omega: float = 0.0) -> Profile:
    """16 answers of these means; `omega` of them are one wrong answer, the other wrong ones differ."""
    num_right, num_same = round(16 * acc), round(16 * omega)
    wrong = ["rival"] * num_same + [f"wrong {number}" for number in range(16 - num_right - num_same)]
    texts = ["gold"] * num_right + wrong
    return Profile(
        id=identifier,
        answers=texts,
        texts=[text.capitalize() for text in texts],
        nats=[nats] * 16,
        right=[True] * num_right + [False] * (16 - num_right),
        entropies=[],
    )


def question(identifier: str = "fr-capital", **meta: Any) -> QuestionRecord:
    facts = {
        FACT: identifier,
        STATEMENTS: ["The capital of France is Paris.", "Paris is the capital of France."],
        DENIAL: "The capital of France is not {}.",
        BACKGROUND: ["France lies in Europe."],
        EXPANSIONS: ["What is the capital of the country of the Louvre?"],
    }
    return QuestionRecord(
        identifier=identifier,
        question="What is the capital of France?",
        answers=["Paris"],
        meta={**facts, **meta},
    )


class Says:
    """An engine that replies with the same texts, in turn, and keeps what it was asked.

    `untold` are texts that come without log-probabilities, as an empty one does from a server.
    """

    def __init__(self, *texts: str, untold: tuple[str, ...] = ()) -> None:
        self.texts, self.untold, self.asked, self.num_said = texts, untold, [], 0

    def generate(self, prompts: Any, *, rule: Any, num_samples: int = 1, stop: Any = (), progress: Any = None) -> Any:
        self.asked += prompts
        self.rule = rule
        return [[self._sample() for _ in range(num_samples)] for _ in prompts]

    def _sample(self) -> Sample:
        text = self.texts[self.num_said % len(self.texts)]
        self.num_said += 1
        log_probs = [] if text in self.untold else [-0.5, -1.5]
        return Sample(
            text=text, token_ids=[1, 2], log_probs=log_probs, num_tokens=2, num_prompt_tokens=3, finished=True
        )
