"""SLAM's recipe as a module: next tokens of translations; the two-stage recipe and what tuning did to alignment.

B texts, T positions, D width.
"""

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from athlos.config.parts import PartContext
from athlos.data.batches import Batch, BatchPlan, collate
from athlos.data.encoding import Rows
from athlos.data.parallel_texts import parallel_texts
from athlos.methods.slam.config import SlamMethodConfig
from athlos.methods.slam.probing import num_texts, text_batches
from athlos.models.forward import causal_model
from athlos.models.sites import backbone
from athlos.training.module import MethodModule

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class SlamModule(MethodModule):
    """The selection says what trains; the loss is the objective's on the targets, the translations.

    With `reason_steps` the last steps train on worked problems instead: the two-stage recipe.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._data: Any = None
        self._reason: tuple[Rows, BatchPlan] | None = None
        self._texts: dict[str, list[str]] = {}
        self._metrics: dict[str, float] = {}
        self._started = (0.0, 0.0)

    @property
    def _recipe(self) -> SlamMethodConfig:
        config = self.config.method
        assert isinstance(config, SlamMethodConfig)
        return config

    def prepare(self, *, context: PartContext) -> None:
        self._data = context.data
        recipe = self._recipe
        if recipe.align_items and context.data is not None:
            self._texts = parallel_texts(
                context.data.source.records(recipe.align_split), languages=[],
                num_items=num_texts(recipe.align_items, context=context),
            )  # fmt: skip
            self._metrics |= self._alignment("before")

    @property
    def translation_steps(self) -> int:
        """Steps of the first stage. A capped run, a smoke test, keeps the share of each stage and at least one step."""
        steps, wanted = self.config.num_steps, self.config.train.max_steps
        reason = self._recipe.reason_steps
        if not reason:
            return steps
        return steps - (reason if steps == wanted else max(1, min(steps - 1, round(reason * steps / wanted))))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        if self.global_step >= self.translation_steps:
            batch = self.reason_batch(batch_index)
        return self.step_loss(self.objective.loss(self.model, batch), batch)

    def reason_batch(self, batch_index: int) -> Batch:
        """The second stage's rows of this micro batch: a pure function of seed, step and process."""
        train, micro_size = self.config.train, self.config.train.micro_batch_size
        if self._reason is None:
            rows = self._data.rows(self._recipe.reason_split)
            plan = BatchPlan(
                lengths_R=rows.ends_R - rows.starts_R, batch_size=train.batch_size, batching=train.batching,
                seed=self.config.seed,
            )  # fmt: skip
            self._reason = rows, plan
        rows, plan = self._reason
        step = self.global_step - self.translation_steps
        indices = next(plan.steps(first=step, last=step + 1))
        micro = batch_index % self.config.num_accumulated
        mine = indices.reshape(-1, self.trainer.world_size, micro_size)[micro, self.global_rank]
        batch = collate(rows, mine, pad_id=self._data.pad_id, step_targets=int(rows.num_targets_R[indices].sum()))
        return {name: value.to(self.device) for name, value in batch.items()}

    def on_train_start(self) -> None:
        self._started = (time.monotonic(), time.process_time())

    def on_train_end(self) -> None:
        wall, processor = self._started
        self._metrics["cost/train_s"] = time.monotonic() - wall
        # What other programs on the machine take does not count here: with one thread, the time it would take alone.
        self._metrics["cost/train_cpu_s"] = time.process_time() - processor

    def measurements(self) -> tuple[dict[str, float], dict[str, bytes]]:
        """Alignment before and after, by layer; seconds of training alone, of this process after a resume."""
        if self._texts:
            self._metrics |= self._alignment("after")
        return self._metrics, {}

    def _alignment(self, when: str) -> dict[str, float]:
        cosines_L = alignment_cosines(
            causal_model(self.model), self.tokenizer, self._texts, reference=self._recipe.reference
        )
        return {f"diag/alignment_cosine_{when}/{index}": float(value) for index, value in enumerate(cosines_L)}


@torch.inference_mode()
def alignment_cosines(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", texts: dict[str, list[str]], *, reference: str,
    batch_size: int = 8,
) -> np.ndarray:  # fmt: skip
    """[L + 1]: cosine between a text and its translation into the reference, mean-pooled states, by layer.

    Entry 0 is the embedding, entry l + 1 what layer l gives. Mean over texts and the other languages.
    """
    was_training = model.training
    model.eval()
    pooled = {}
    for language, of_language in texts.items():
        parts = [
            pooled_states(model, inputs, mask_BT)
            for inputs, mask_BT in text_batches(tokenizer, of_language, batch_size=batch_size)
        ]
        pooled[language] = torch.cat(parts, dim=1)
    model.train(was_training)
    others = [language for language in texts if language != reference]
    cosines = [functional.cosine_similarity(pooled[one], pooled[reference], dim=-1).mean(1) for one in others]
    return np.asarray(torch.stack(cosines).mean(0).cpu().numpy())


def pooled_states(model: "PreTrainedModel", inputs: dict[str, Tensor], mask_BT: Tensor) -> Tensor:
    """[L + 1, B, D]: states averaged over the text's own tokens."""
    found = backbone(model)
    device = found.embedding.weight.device
    states: list[Tensor] = []
    weights_BT1 = (mask_BT / mask_BT.sum(1, keepdim=True).clamp_min(1)).to(device)[..., None]

    def keep(_: Any, __: Any, output: Tensor) -> None:
        states.append((output * weights_BT1).sum(1))

    handles = [
        module.register_forward_hook(keep) for module in (found.embedding, *(one.module for one in found.layers))
    ]
    try:
        model.base_model(**{name: value.to(device) for name, value in inputs.items()}, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(states)
