"""RHIO: faithfulness-aware tuning, and what is asked afterwards.

`RhioConfig.phases`: plain tuning on references; then `construct.py` finds retrieval heads (`detect.py`), has the model
answer without them and keeps what is unfaithful (`negatives.py`); then the objective `control` learns references behind
[POS] and negatives behind [NEG]. The step is plain. Answers are asked for behind [POS]; `decoding=sid` contrasts both.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from athlos.data.batches import Batch, collate
from athlos.generation.contrastive_decoding import Sid
from athlos.generation.decoding import answer_requests
from athlos.generation.interface import Decoding, Prediction, Request
from athlos.generation.local import LocalEngine
from athlos.methods.rhio.config import RhioConfig, count_of_heads, is_detecting
from athlos.methods.rhio.detect import detected
from athlos.models.control_tokens import control_ids, has_control_tokens, num_before
from athlos.models.forward import hidden_states, project
from athlos.objectives.control import with_control
from athlos.objectives.next_token import gather_targets
from athlos.parts import PartContext
from athlos.training.module import Measured, MethodModule


class RhioModule(MethodModule[RhioConfig]):
    """The objective of the run on what its construct made."""

    def prepare(self, *, context: PartContext) -> None:
        self.context = context

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        return self.step_loss(self.objective.loss(self.model, batch), batch)

    def answer(self, requests: Sequence[Request], *, progress: Callable[..., None] | None = None) -> list[Prediction]:
        """One prediction a request by the run's decoding rule, behind [POS] where the model has the control tokens.

        What `decoding=sid` contrasts the weights of plain tuning do not have: they answer by its rule without it.
        """
        decoding = self.found_decoding
        is_plain = isinstance(self.engine, LocalEngine) and not self.has_control
        if isinstance(decoding, Sid) and is_plain and self.config.num_steps:
            return answer_requests(self.engine, requests, config=decoding.config, rule=decoding.rule, progress=progress)
        if isinstance(self.engine, LocalEngine) and self.has_control and not isinstance(decoding, Sid):
            pos, _ = control_ids(self.tokenizer)
            requests = [dataclasses.replace(request, control=(pos,)) for request in requests]
        return decoding.answer(self.engine, requests, progress=progress)

    @property
    def has_control(self) -> bool:
        return has_control_tokens(self.tokenizer)

    @cached_property
    def found_decoding(self) -> Decoding:
        """The run's decoding rule; `decoding.heads=[detected]` are the best heads of the model that is asked."""
        if not is_detecting(self.config):
            return self.decoding
        scores, _ = detected(self.method.decore, context=self.context)
        heads = scores.ranked()[: count_of_heads(None, whole=scores.mean_LH.numel())]
        config = dataclasses.replace(
            self.config.decoding,
            heads=[f"{layer}-{head}" for layer, head in heads],  # type: ignore[call-arg]
        )
        return type(self.decoding)(config)  # type: ignore[call-arg]

    def measurements(self) -> Measured:
        """`val/kl_pos_neg`: how much the two tokens change what is said, before which no contrast can do anything."""
        split = self.config.data.val_split
        if self.data is None or split is None or self.tokenizer is None or not self.has_control:
            return {}, {}
        return {"val/kl_pos_neg": self._kl(split)}, {}

    @torch.no_grad()
    def _kl(self, split: str) -> float:
        """KL(POS || NEG) in nats, a mean over the answer tokens of a split."""
        assert self.data is not None
        rows, ids, front = self.data.rows(split), control_ids(self.tokenizer), num_before(self.tokenizer)
        total, count = 0.0, 0
        for first in range(0, len(rows), self.config.train.micro_batch_size):
            places = np.arange(first, min(first + self.config.train.micro_batch_size, len(rows)))
            batch = collate(rows, places, pad_id=self.data.pad_id, step_targets=1)
            on_device = {name: value.to(self.model.device) for name, value in batch.items()}
            logs = []
            for token in ids:
                asked = with_control(on_device, (token, token), front=front)
                hidden_ND, _ = gather_targets(hidden_states(self.model, asked), asked["labels"])
                logs.append(project(self.model, hidden_ND).log_softmax(-1))
            total += float((logs[0].exp() * (logs[0] - logs[1])).sum())
            count += len(logs[0])
        return total / count
