"""`PipelineModule`: the base of methods without gradients. What a paper does stands in its `solver`.

Answers are a stage product that grows by question: a stopped run goes on with the questions that it lacks, and the same
requests to the same pipeline are never answered twice.
"""

import dataclasses
import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from athlos.config.compose import plain
from athlos.data.json_lines import add_row, read_rows
from athlos.data.records import Passage, QuestionRecord
from athlos.generation.contrastive_decoding import Sid, SidEngine
from athlos.generation.interface import Prediction, Request
from athlos.generation.llama_cpp_engine import LlamaCppEngine
from athlos.generation.pipeline import Solver, solve_together
from athlos.parts import PartContext
from athlos.retrieval.building import build_corpus
from athlos.retrieval.corpora import gold_ids
from athlos.stages import Stage, StageStore, content_hash
from athlos.training.module import Measured, MethodModule
from athlos.training.pipeline_config import PipelineMethodConfig

ItemT = TypeVar("ItemT")
PipelineT = TypeVar("PipelineT", bound=PipelineMethodConfig)
Trace = list[dict[str, Any]]
"""What a pipeline did for a question, one row a call."""

ANSWERS_VERSION = 1
"""Raised when the same requests get other answers."""
ANSWERS = "answers.jsonl"


class PipelineModule(MethodModule[PipelineT]):
    """A method that answers a request by a pipeline of calls and searches."""

    def prepare(self, *, context: PartContext) -> None:
        """With `decoding=sid` every call of the pipeline is answered by it."""
        if isinstance(self.decoding, Sid):
            native = self.decoding.native(context.generator)
            context = dataclasses.replace(context, generator=SidEngine(native, decoding=self.decoding))
        self.context = context
        self.answered: list[tuple[Trace, tuple[str, set[str]]]] = []
        """Of each question that this process answered: trace, language, gold passages."""
        self._joined: list[tuple[Trace, tuple[str, set[str]]]] | None = None

    @abstractmethod
    def solver(self, request: Request) -> Solver:
        """The pipeline of one question: what is asked and searched, step by step, and the answer."""

    def answer(self, requests: Sequence[Request], *, progress: Callable[..., None] | None = None) -> list[Prediction]:
        """One prediction a request, in order, each with its trace."""
        predictions = self.solved(requests, self.solver, name="answers", config=self.answer_config(), progress=progress)
        self.answered += [
            (prediction.trace, gold_of(request)) for request, prediction in zip(requests, predictions, strict=True)
        ]
        return predictions

    def solved(
        self,
        requests: Sequence[Request],
        solver: Callable[[Request], Solver],
        *,
        name: str,
        config: dict[str, Any],
        progress: Callable[..., None] | None = None,
    ) -> list[Prediction]:
        """What a solver makes of each request, in order: the product `name`, keyed by `config` and `answer_inputs`."""
        stage = Stage(
            name=name,
            version=ANSWERS_VERSION,
            inputs=self.answer_inputs(requests),
            config=config,
            is_resumable=True,
            build=lambda folder: self._fill(folder / ANSWERS, requests, solver, progress),
        )
        # Each process of a run answers a share of its own, so each is the writer of its product.
        product = StageStore(self.context.stages.root).get(stage)
        self.context.stages.history.append(product)
        by_place = _read(product.path / ANSWERS)
        return [by_place[place] for place in range(len(requests))]

    def answer_inputs(self, requests: Sequence[Request]) -> dict[str, str]:
        """Content hashes of what the answers are made from."""
        context = self.context
        assert context.index is not None
        engine = context.generator
        # A folder may hold other weights tomorrow; a server's are known by its name alone.
        weights = {"generator": engine.gguf.sha256} if isinstance(engine, LlamaCppEngine) else {}
        return {
            **weights,
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
        numbers = {"dtype": values["model"]["dtype"], "precision": self.config.hardware.precision}
        return {**{name: values[name] for name in names}, **numbers}

    def _fill(
        self,
        path: Path,
        requests: Sequence[Request],
        solver: Callable[[Request], Solver],
        progress: Callable[..., None] | None,
    ) -> None:
        """Append an answer for each request that has none yet, as each is finished."""
        assert self.context.generator is not None
        assert self.context.index is not None
        answered = _read(path) if path.is_file() else {}
        num_tokens = sum(prediction.num_tokens for prediction in answered.values())
        open_places = [place for place in range(len(requests)) if place not in answered]
        with path.open("a", encoding="utf-8") as file:
            for number, prediction in solve_together(
                [requests[place] for place in open_places],
                solver,
                generator=self.context.generator,
                index=self.context.index,
                in_flight=self.method.in_flight,
            ):
                row = {"place": open_places[number], **dataclasses.asdict(prediction)}
                add_row(file, row)
                file.flush()
                answered[open_places[number]] = prediction
                num_tokens += prediction.num_tokens
                if progress is not None:
                    progress(len(answered), len(requests), num_tokens)

    def documents(self, predictions: Sequence[Prediction]) -> list[list[Passage]]:
        """What stood before the model as it wrote each answer, in order; nothing where it had nothing to read.

        The corpus is gone through once a language. Of a passage in several languages, that which was found first.
        """
        assert self.context.data is not None
        read = [last_read(prediction.trace) for prediction in predictions]
        wanted = {identifier for identifiers in read for identifier in identifiers}
        if not wanted:
            return [[] for _ in predictions]
        store = build_corpus(self.config, source=self.context.data.source).store(self.context.stages)
        searches = [row for prediction in predictions for row in prediction.trace if "query" in row]
        known: dict[str, Passage] = {}
        for language in dict.fromkeys(row["language"] or store.languages[0] for row in searches):
            for passage in store.passages(language):
                if passage.identifier in wanted and passage.identifier not in known:
                    known[passage.identifier] = Passage(
                        title=passage.title, text=passage.text, identifier=passage.identifier
                    )
        return [[known[identifier] for identifier in identifiers] for identifiers in read]

    def measurements(self) -> Measured:
        """What a question cost, and the share of its gold passages that was read: means over all that were answered."""
        counts: dict[str, Callable[[Trace], float]] = {
            "cost/calls": lambda trace: sum("reply" in row for row in trace),
            "cost/retrievals": lambda trace: sum("query" in row for row in trace),
            "cost/passages_found": lambda trace: sum(len(row.get("passages", ())) for row in trace),
            "cost/passages_read": lambda trace: len(passages_read(trace)),
            "cost/prompt_tokens": lambda trace: sum(row.get("num_prompt_tokens", 0) for row in trace),
            "cost/new_tokens": lambda trace: sum(row.get("num_tokens", 0) for row in trace),
        }
        return {**self.means(counts), **self._recall()}, {}

    def means(self, counts: Mapping[str, "Callable[[Trace], float]"]) -> dict[str, float]:
        """The mean of each count over the traces of all questions, those that other processes answered included."""
        traces = [trace for trace, _ in self._finished()]
        return {name: math.fsum(map(count, traces)) / len(traces) for name, count in counts.items() if traces}

    def _recall(self) -> dict[str, float]:
        """`retrieval/recall`, and `retrieval/recall/<language>` where there are several; over questions with gold."""
        by_language: dict[str, list[float]] = defaultdict(list)
        for trace, (language, gold) in self._finished():
            if gold:
                by_language[language].append(len(gold & passages_read(trace)) / len(gold))
        means = {language: math.fsum(values) / len(values) for language, values in by_language.items()}
        if not means:
            return {}
        macro = {"retrieval/recall": math.fsum(means.values()) / len(means)}
        return macro | ({f"retrieval/recall/{code}": mean for code, mean in means.items()} if len(means) > 1 else {})

    def _finished(self) -> list[tuple[Trace, tuple[str, set[str]]]]:
        """Each answered question's trace, language and gold passages."""
        if self._joined is None:
            self._joined = in_all_processes(self.answered)
        return self._joined


def gold_of(request: Request) -> tuple[str, set[str]]:
    """Language of a request, and the ids of the passages that its answer rests on; none where the data names none."""
    record = request.record
    return record.language, set(gold_ids(record)) if isinstance(record, QuestionRecord) else set()


def passages_read(trace: Trace) -> set[str]:
    """The passages that stood in a prompt."""
    return {identifier for row in trace for identifier in row.get("read", ())}


def last_read(trace: Trace) -> list[str]:
    """The passages that stood in the last prompt with any."""
    return next((list(row["read"]) for row in reversed(trace) if row.get("read")), [])


def in_all_processes(items: list[ItemT]) -> list[ItemT]:
    """The items of all processes of a run, in an order of which no sum hangs; every process must call it."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return items
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, items)
    return [item for of_process in gathered for item in of_process]


def _read(path: Path) -> dict[int, Prediction]:
    """Place -> prediction."""
    return {row.pop("place"): Prediction(**row) for row in read_rows(path)}
