"""ClueAnchor: DPO on pairs of explored replies, all on the plain external prompt; the reply in tags needs no clue.

What is tried, chosen and written stands in `pipeline.py`, `selection.py` and `construct.py`; the step is plain. Answers
are made as the exploration made its replies: with the tags forced where the method says so.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from athlos.data.batches import Batch
from athlos.errors import ConfigError
from athlos.generation.interface import Prediction, Request
from athlos.generation.local import LocalEngine
from athlos.generation.pipeline import Solver, in_chat_form, reply_gap
from athlos.methods.clueanchor.config import ClueAnchorConfig, PathsConfig
from athlos.methods.clueanchor.construct import decides, solver_of
from athlos.methods.clueanchor.prompts import CLOSE_ANSWER, CLOSE_THINK, OPEN_ANSWER, OPEN_THINK, thought, written
from athlos.parts import PartContext
from athlos.training.module import MethodModule
from athlos.training.pipeline_module import PipelineModule


class ClueAnchorModule(MethodModule[ClueAnchorConfig]):
    """The objective of the run on what its construct made."""

    def prepare(self, *, context: PartContext) -> None:
        self.context = context

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        return self.step_loss(self.objective.loss(self.model, batch), batch)

    def answer(self, requests: Sequence[Request], *, progress: Callable[..., None] | None = None) -> list[Prediction]:
        """One reply in tags a request: two calls of the decoding rule with forced tags, else one."""
        reply = self.method.reply
        if not (reply.force_tags or reply.prime_think):
            asked = [
                dataclasses.replace(request, prompt=in_chat_form(self.engine, request.prompt)) for request in requests
            ]
            return self.decoding.answer(self.engine, asked, progress=progress)
        if not isinstance(self.engine, LocalEngine):
            raise ConfigError("method.reply: prime_think and force_tags need engine=native or engine=transformers")
        gap = reply_gap(self.engine.tokenizer)
        opened = [
            dataclasses.replace(request, prompt=f"{in_chat_form(self.engine, request.prompt)}{gap}{OPEN_THINK}")
            for request in requests
        ]
        if not reply.force_tags:
            predictions = self.decoding.answer(self.engine, opened, progress=progress)
            return [
                dataclasses.replace(prediction, text=f"{OPEN_THINK}{prediction.text}") for prediction in predictions
            ]
        predictions = self._part(opened, most=reply.think_tokens, stop=[OPEN_ANSWER], progress=progress)
        thinks = [dataclasses.replace(prediction, text=thought(prediction.text)) for prediction in predictions]
        asked = [
            dataclasses.replace(request, prompt=f"{request.prompt} {think.text} {CLOSE_THINK} {OPEN_ANSWER}")
            for request, think in zip(opened, thinks, strict=True)
        ]
        answers = self._part(asked, most=reply.answer_tokens, stop=[CLOSE_ANSWER], progress=progress)
        return [
            Prediction(
                identifier=think.identifier,
                text=written(think.text, answer.text.strip()),
                num_prompt_tokens=think.num_prompt_tokens,
                num_tokens=think.num_tokens + answer.num_tokens,
                log_prob=think.log_prob + answer.log_prob,
                finished=think.finished and answer.finished,
            )
            for think, answer in zip(thinks, answers, strict=True)
        ]

    def _part(
        self, requests: Sequence[Request], *, most: int, stop: list[str], progress: Callable[..., None] | None
    ) -> list[Prediction]:
        """Thoughts, or answers, by the run's decoding rule."""
        config = dataclasses.replace(self.config.decoding, max_new_tokens=most)
        asked = [dataclasses.replace(request, stop=[*request.stop, *stop]) for request in requests]
        return type(self.decoding)(config).answer(self.engine, asked, progress=progress)  # type: ignore[call-arg]


class PathsModule(PipelineModule[PathsConfig]):
    """Answers each request by the exploration of its question, as JSON; nothing is trained."""

    def prepare(self, *, context: PartContext) -> None:
        super().prepare(context=context)
        self._solver = solver_of(self.config)

    def solver(self, request: Request) -> Solver:
        return self._solver(request)

    def answer_config(self) -> dict[str, Any]:
        return {**super().answer_config(), "construct": decides(self.config)}
