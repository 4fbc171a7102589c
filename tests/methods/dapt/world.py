"""A world of a few sentences in two languages, and what drives a pipeline over it: passages, replies, predictions."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from athlos.data.records import PARALLEL, QuestionRecord, Step
from athlos.errors import DataError
from athlos.generation.interface import Prediction, Request, Sample
from athlos.generation.pipeline import Solver, solve_together
from athlos.methods.dapt.components import Components, Question
from athlos.methods.dapt.config import (
    DaptConfig,
    Final,
    Fuse,
    Memory,
    MergeConfig,
    MergeKind,
    NoiseConfig,
    Path,
    Retrieval,
    Solve,
)
from athlos.methods.dapt.pipeline import DaptSolver, Decomposed, decompose
from athlos.retrieval.interface import Index, Passage

NAMES = {
    "de": {"anna": "Anna", "bern": "Bern-de", "aare": "Aare-de"},
    "en": {"anna": "Anna", "bern": "Bern", "aare": "Aare"},
}
QUESTIONS = {"de": "{relation} von {name} ?", "en": "{relation} of {name} ?"}
RELATIONS = {"de": {"home": "Heim", "river": "Fluss"}, "en": {"home": "home", "river": "river"}}
FACTS = {("anna", "home"): "bern", ("bern", "river"): "aare"}

GERMAN = QuestionRecord(
    identifier="q",
    language="de",
    question="Fluss von Heim von Anna ?",
    answers=["Aare-de"],
    steps=[Step(question="Heim von Anna ?", answer="Bern-de"), Step(question="Fluss von #1 ?", answer="Aare-de")],
    meta={
        PARALLEL: {
            "question": "river of home of Anna ?",
            "steps": [["home of Anna ?", "Bern"], ["river of #1 ?", "Aare"]],
        }
    },
)
ENGLISH = QuestionRecord(
    identifier="q",
    language="en",
    question="river of home of Anna ?",
    answers=["Aare"],
    steps=[Step(question="home of Anna ?", answer="Bern"), Step(question="river of #1 ?", answer="Aare")],
)


def text_of(relation: str, name: str, language: str) -> str:
    return QUESTIONS[language].format(relation=RELATIONS[language][relation], name=name)


class Speech:
    """Reads and translates the questions of `FACTS`; a passage is `subject relation object` in concepts."""

    def _asked(self, text: str) -> tuple[str, str]:
        for language in NAMES:
            for relation in RELATIONS[language]:
                pattern = re.escape(text_of(relation, "NAME", language)).replace("NAME", "(.+)")
                if match := re.fullmatch(pattern, text):
                    for concept, name in NAMES[language].items():
                        if name == match[1]:
                            return relation, concept
                    if match[1].startswith("#"):
                        return relation, match[1]
        raise DataError(f"no question: {text}")

    def answer(self, question: str, passages: Sequence[str], *, language: str) -> str | None:
        relation, concept = self._asked(question)
        for passage in passages:
            subject, of, value = passage.split()
            if (subject, of) == (concept, relation):
                return NAMES[language][value]
        return None

    def translation(self, text: str, *, language: str) -> str:
        relation, concept = self._asked(text)
        return text_of(relation, NAMES[language].get(concept, concept), language)


class Shelf:
    """Finds the passage that a query of its language asks for, then fillers; remembers its batches."""

    key = "shelf"

    def __init__(self, languages: Sequence[str] = ("de", "en")) -> None:
        self.languages = languages
        self.batches: list[tuple[list[str], int, str | None]] = []

    def search(self, queries: Sequence[str], *, k: int, language: str | None = None) -> list[list[Passage]]:
        self.batches.append((list(queries), k, language))
        assert language is not None
        return [self._found(query, k, language) for query in queries]

    def _found(self, query: str, k: int, language: str) -> list[Passage]:
        names = []
        for (subject, relation), value in FACTS.items():
            if query == text_of(relation, NAMES[language][subject], language) and language in self.languages:
                names.append((f"{subject}-{relation}", f"{subject} {relation} {value}"))
        names += [(f"filler-{language}-{number}", "x y z") for number in range(k)]
        return [
            Passage(identifier=name, text=text, language=language, score=1 / rank)
            for rank, (name, text) in enumerate(names[:k], start=1)
        ]


class Script:
    """Replies by the first words of a prompt that it knows; remembers the purposes of each batch by its prompts."""

    def __init__(self, reply: Callable[[str], str] = lambda prompt: "") -> None:
        self.reply = reply
        self.batches: list[list[str]] = []
        self.prompts: list[Sequence[Any]] = []

    def generate(self, prompts: Sequence[Any], *, rule: Any, num_samples: int = 1, stop: Sequence[str] = (), **_: Any):
        self.batches.append([prompt.text for prompt in prompts])
        self.prompts.append(prompts)
        return [
            [
                Sample(
                    text=self.reply(prompt.text),
                    token_ids=[],
                    log_probs=[],
                    num_tokens=1,
                    num_prompt_tokens=2,
                    finished=True,
                )
            ]
            for prompt in prompts
        ]


def method(**changes: Any) -> DaptConfig:
    """The values of conf/method/dapt.yaml with components that know the truth; `noise` and `merge` take dicts."""
    merge = {
        "kind": MergeKind.align,
        "tau": 0.7,
        "tau_questions": 50,
        "alpha": 0.1,
        "beta": 0.1,
        "keep_unmatched": True,
        "encoder": "",
        **changes.pop("merge", {}),
    }
    noise = {
        "translate": 0.0,
        "decompose_s": 0.0,
        "decompose_en": 0.0,
        "correlated": False,
        **changes.pop("noise", {}),
    }
    values: dict[str, Any] = {
        "in_flight": 4,
        "path": Path.dual,
        "pivot": "en",
        "retrieval": Retrieval.bilingual,
        "k": 2,
        "fuse": Fuse.rrf,
        "solve": Solve.sequential,
        "final": Final.sink,
        "answer_memory": Memory.both,
        "translator": "oracle",
        "translations": "",
        "decomposer": "gold",
        "reader": "exact",
        "max_nodes": 6,
        "num_demonstrations": 3,
        "max_new_tokens": 64,
        **changes,
    }
    return DaptConfig(_target_="", merge=MergeConfig(**merge), noise=NoiseConfig(**noise), **values)


def run(
    config: DaptConfig,
    records: Sequence[QuestionRecord] = (GERMAN,),
    *,
    script: Script | None = None,
    shelf: Index | None = None,
    seed: int = 1,
) -> list[Prediction]:
    """The pipeline from end to end over some questions, in order; the trace begins with the decomposition."""
    parts = Components(config, seed=seed, exact=Speech())
    tau = config.merge.tau
    assert isinstance(tau, float)

    def both(request: Request) -> Solver:
        question = Question.of(request.record, pivot="en")
        first = yield from decompose(question, method=config, parts=parts)
        return (yield from DaptSolver(method=config, parts=parts, tau=tau).solve(question, Decomposed.loaded(first)))

    requests = [Request(identifier=record.identifier, prompt=record.question, record=record) for record in records]
    solved = dict(
        solve_together(
            requests,
            both,
            generator=script or Script(),
            index=shelf or Shelf(),
            in_flight=config.in_flight,
        )
    )
    return [solved[place] for place in range(len(records))]


def rows(prediction: Prediction, purpose: str) -> list[dict[str, Any]]:
    return [row for row in prediction.trace if row["purpose"] == purpose]
