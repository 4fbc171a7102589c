"""DaPT's module: the two parts of the pipeline as products of their own, tau where it is fitted, and what is measured.

The decompositions are keyed by what changes them, so that a sweep over merge, k or fusion begins at the graphs.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from athlos.data.records import QuestionRecord
from athlos.errors import DataError
from athlos.generation.interface import Prediction, Request
from athlos.generation.pipeline import Solver
from athlos.methods.dapt.components import Components, Question, read_translations
from athlos.methods.dapt.config import AUTO, DaptConfig, Retrieval
from athlos.methods.dapt.exact import exact_of
from athlos.methods.dapt.graph import Graph
from athlos.methods.dapt.measures import measured
from athlos.methods.dapt.merge import auto_tau
from athlos.methods.dapt.pipeline import Compare, DaptSolver, Decomposed, decompose
from athlos.parts import PartContext
from athlos.retrieval.corpora import existing_file
from athlos.retrieval.encoders import Encoder
from athlos.stages import file_hash
from athlos.training.module import Measured
from athlos.training.pipeline_module import PipelineModule, gold_of, in_all_processes

DECOMPOSITION = (
    "path",
    "pivot",
    "translator",
    "decomposer",
    "max_nodes",
    "num_demonstrations",
    "max_new_tokens",
    "noise",
)
"""Keys of the method that change a decomposition."""


class DaptModule(PipelineModule[DaptConfig]):
    def prepare(self, *, context: PartContext) -> None:
        super().prepare(context=context)
        self.solved_questions: list[tuple[QuestionRecord, Prediction]] = []
        self._first: dict[tuple[str, str], Decomposed] = {}

    @cached_property
    def parts(self) -> Components:
        assert self.context.data is not None
        path = self.translations
        return Components(
            self.method,
            seed=self.config.seed,
            exact=exact_of(self.context.data.source),
            translations=None if path is None else read_translations(path),
        )

    @property
    def translations(self) -> Path | None:
        """The file of `translator=file`; `ConfigError` where it is none."""
        named = self.method.translations
        return existing_file(named, key="method.translations") if named else None

    def answer_inputs(self, requests: Sequence[Request]) -> dict[str, str]:
        inputs = super().answer_inputs(requests)
        return inputs if self.translations is None else {**inputs, "translations": file_hash(self.translations)}

    @cached_property
    def compare(self) -> Compare | None:
        """Cosines by the encoder, each text encoded once in its turn; None where there is none."""
        name = self.method.merge.encoder
        if not name:
            return None
        encoder = Encoder(name, batch_size=self.config.eval.batch_size, stages=self.context.stages)

        def cosines(texts_s: Sequence[str], texts_e: Sequence[str]) -> np.ndarray:
            vectors = encoder.encode([*texts_s, *texts_e])
            return np.asarray(vectors[: len(texts_s)] @ vectors[len(texts_s) :].T)

        return cosines

    def question(self, record: QuestionRecord) -> Question:
        return Question.of(record, pivot=self.method.pivot)

    def answer(self, requests: Sequence[Request], *, progress: Callable[..., None] | None = None) -> list[Prediction]:
        """One prediction a request; its trace begins with the decomposition."""
        first = self._decomposed(requests, progress=progress)
        rest = super().answer(requests, progress=progress)
        predictions = [_joined(prediction, other) for prediction, other in zip(first, rest, strict=True)]
        asked = list(zip(requests, predictions, strict=True))
        self.answered[-len(asked) :] = [(prediction.trace, gold_of(request)) for request, prediction in asked]
        self.solved_questions += [(request.record, prediction) for request, prediction in asked]
        return predictions

    def solver(self, request: Request) -> Solver:
        question = self.question(request.record)
        return self._solver_with(self.tau).solve(question, self._first[_key(request.record)])

    def _solver_with(self, tau: float) -> DaptSolver:
        return DaptSolver(method=self.method, parts=self.parts, tau=tau, compare=self.compare)

    def _decomposed(
        self, requests: Sequence[Request], *, progress: Callable[..., None] | None = None
    ) -> list[Prediction]:
        for request in requests:
            if not isinstance(request.record, QuestionRecord):
                raise DataError(f"method=dapt: '{request.identifier}' is no question; choose data with questions")

        def decomposition(request: Request) -> Solver:
            return decompose(self.question(request.record), method=self.method, parts=self.parts)

        config = self.answer_config()
        # Where a file of translations lies is in no key; its content is in the inputs.
        config["method"] = {key: value for key, value in config["method"].items() if key in DECOMPOSITION}
        predictions = self.solved(
            requests,
            decomposition,
            name="decompositions",
            config={**config, "translates_question": self.method.retrieval is not Retrieval.src},
            progress=progress,
        )
        for request, prediction in zip(requests, predictions, strict=True):
            self._first[_key(request.record)] = Decomposed.loaded(prediction.text)
        return predictions

    # -- tau -----------------------------------------------------------------------------------------------------------

    @cached_property
    def tau(self) -> float:
        tau = self.method.merge.tau
        return self._fitted_tau() if tau == AUTO else float(tau)

    def _fitted_tau(self) -> float:
        """Halfway between the mean score of gold nodes that ask the same and that of other pairs of a question.

        Questions are those of the validation split that are not in English and have steps in both languages.
        """
        assert self.context.data is not None
        split = self.config.data.val_split
        assert split is not None
        questions = [
            question
            for record in self.context.data.source.records(split)
            if isinstance(record, QuestionRecord) and not (question := self.question(record)).is_english
            if question.english_steps and len(question.steps) == len(question.english_steps)
        ][: self.method.merge.tau_questions]
        if not questions:
            raise DataError(f"method.merge.tau: got auto, but the split '{split}' has no steps in two languages")
        requests = [
            Request(identifier=question.identifier, prompt=question.text, record=question) for question in questions
        ]

        def scored(request: Request) -> Solver:
            question = request.record
            graphs = (Graph(tuple(text for text, _ in steps)) for steps in (question.steps, question.english_steps))
            scores_SE = yield from self._solver_with(0.0).scores(question, *graphs)
            return " ".join(f"{score:.17g}" for score in scores_SE.ravel())

        same: list[float] = []
        other: list[float] = []
        predictions = self.solved(requests, scored, name="alignments", config=self.answer_config())
        for question, prediction in zip(questions, predictions, strict=True):
            size = len(question.steps)
            scores = [float(score) for score in prediction.text.split()]
            same += scores[:: size + 1]
            other += [score for place, score in enumerate(scores) if place % (size + 1)]
        return auto_tau(same, other)

    # -- what is measured ----------------------------------------------------------------------------------------------

    def measurements(self) -> Measured:
        metrics, figures = super().measurements()
        solved = in_all_processes(self.solved_questions)
        if not solved:
            return metrics, figures
        metrics |= measured([(self.question(record), record, done) for record, done in solved], k=self.method.k)
        metrics["cost/tokens"] = metrics["cost/prompt_tokens"] + metrics["cost/new_tokens"]
        if self.method.merge.tau == AUTO:
            metrics["graph/tau"] = self.tau
        return metrics, figures


def _key(record: QuestionRecord) -> tuple[str, str]:
    return record.language, record.identifier


def _joined(first: Prediction, rest: Prediction) -> Prediction:
    """The prediction of the second part with trace and tokens of both."""
    return dataclasses.replace(
        rest,
        trace=[*first.trace, *rest.trace],
        num_prompt_tokens=first.num_prompt_tokens + rest.num_prompt_tokens,
        num_tokens=first.num_tokens + rest.num_tokens,
    )
