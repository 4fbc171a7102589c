"""`PipelineModule`: the base of methods without gradients. What a paper does stands in its `solver`.

Answers are a stage product that grows by question: a stopped run goes on with the questions that it lacks, and the same
requests to the same pipeline are never answered twice.
"""

import dataclasses
import json
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from athlos.config.compose import plain
from athlos.generation.interface import Prediction, Request
from athlos.generation.pipeline import Solver, solve_together
from athlos.parts import PartContext
from athlos.stages import Stage, StageStore, content_hash
from athlos.training.module import Measured, MethodModule, MethodT

ANSWERS_VERSION = 1
ANSWERS = "answers.jsonl"


class PipelineModule(MethodModule[MethodT]):
    """A method that answers a request by a pipeline of calls and searches."""

    def prepare(self, *, context: PartContext) -> None:
        self.context = context
        self.answered: list[Prediction] = []

    @abstractmethod
    def solver(self, request: Request) -> Solver:
        """The pipeline of one question: what is asked and searched, step by step, and the answer."""

    def answer(self, requests: Sequence[Request], *, progress: Callable[..., None] | None = None) -> list[Prediction]:
        """One prediction a request, in order, each with its trace."""
        stage = Stage(
            name="answers",
            version=ANSWERS_VERSION,
            inputs=self.answer_inputs(requests),
            config=self.answer_config(),
            is_resumable=True,
            build=lambda folder: self._fill(folder / ANSWERS, requests, progress),
        )
        # Each process of a run answers a share of its own, so each is the writer of its product.
        product = StageStore(self.context.stages.root).get(stage)
        self.context.stages.history.append(product)
        by_place = _read(product.path / ANSWERS)
        predictions = [by_place[place] for place in range(len(requests))]
        self.answered += predictions
        return predictions

    def answer_inputs(self, requests: Sequence[Request]) -> dict[str, str]:
        """Content hashes of what the answers are made from."""
        context = self.context
        assert context.index is not None
        return {
            "requests": content_hash(
                [[request.identifier, request.prompt, dataclasses.asdict(request.record)] for request in requests]
            ),
            "index": context.index.key,
            "model": "" if context.start is None else context.model_fingerprint,
        }

    def answer_config(self) -> dict[str, Any]:
        """Plain values of the config that change an answer."""
        values = plain(self.config)
        del values["method"]["in_flight"]
        for group, engine in (("engine", self.config.engine), ("generator", self.config.generator)):
            values[group] = {key: value for key, value in values[group].items() if key not in engine.operational}
        names = ("method", "surgery", "decoding", "engine", "generator", "judge", "prompt_style", "seed")
        return {name: values[name] for name in names}

    def _fill(self, path: Path, requests: Sequence[Request], progress: Callable[..., None] | None) -> None:
        """Append an answer for each request that has none yet, as each is finished."""
        assert self.context.generator is not None
        assert self.context.index is not None
        answered = _read(path) if path.is_file() else {}
        num_tokens = sum(prediction.num_tokens for prediction in answered.values())
        open_places = [place for place in range(len(requests)) if place not in answered]
        with path.open("a", encoding="utf-8") as file:
            for number, prediction in solve_together(
                [requests[place] for place in open_places],
                self.solver,
                generator=self.context.generator,
                index=self.context.index,
                in_flight=self.method.in_flight,
            ):
                row = {"place": open_places[number], **dataclasses.asdict(prediction)}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()
                answered[open_places[number]] = prediction
                num_tokens += prediction.num_tokens
                if progress is not None:
                    progress(len(answered), len(requests), num_tokens)

    def measurements(self) -> Measured:
        """What a question cost on average, over all questions that were answered."""
        if not self.answered:
            return {}, {}
        traces = [prediction.trace for prediction in self.answered]
        counts = {
            "cost/calls": [sum("reply" in row for row in trace) for trace in traces],
            "cost/retrievals": [sum("query" in row for row in trace) for trace in traces],
            "cost/passages_found": [sum(len(row.get("passages", ())) for row in trace) for trace in traces],
            "cost/prompt_tokens": [prediction.num_prompt_tokens for prediction in self.answered],
            "cost/new_tokens": [prediction.num_tokens for prediction in self.answered],
        }
        return {name: math.fsum(values) / len(values) for name, values in counts.items()}, {}


def _read(path: Path) -> dict[int, Prediction]:
    """Place -> prediction. A last line that a kill cut off in the middle is taken away."""
    whole = path.read_bytes()
    kept = whole[: whole.rfind(b"\n") + 1]
    if len(kept) < len(whole):
        path.write_bytes(kept)
    predictions = {}
    for line in kept.decode("utf-8").split("\n")[:-1]:
        row = json.loads(line)
        predictions[row.pop("place")] = Prediction(**row)
    return predictions
