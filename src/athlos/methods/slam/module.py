"""SLAM's recipe as a module: next tokens of translations; what tuning did to alignment.

B texts, T positions, D width.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from athlos.data.batches import Batch
from athlos.data.parallel_texts import parallel_texts
from athlos.methods.slam.config import SlamMethodConfig
from athlos.methods.slam.probing import text_batches
from athlos.models.forward import causal_model
from athlos.models.sites import backbone
from athlos.parts import PartContext
from athlos.training.module import Measured, MethodModule

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class SlamModule(MethodModule[SlamMethodConfig]):
    """The selection says what trains; the loss is the objective's on the targets, the translations.

    With `reason_steps` a second phase trains on worked problems: the two-stage recipe.
    """

    def prepare(self, *, context: PartContext) -> None:
        """Read the parallel texts whose alignment is measured."""
        method = self.method
        self._texts: dict[str, list[str]] = {}
        self._before: dict[str, float] = {}
        if method.align_items and context.data is not None and context.start is not None:
            self._texts = parallel_texts(
                context.data.source.records(method.align_split), languages=[], num_items=method.align_items
            )

    def before_training(self, *, context: PartContext) -> None:
        """Alignment of the run's model; a second phase measures none, since its start is no such model."""
        if context.load_base is None:
            self._before = self._alignment("before")

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        return self.step_loss(self.objective.loss(self.model, batch), batch)

    def after_training(self) -> Measured:
        """Alignment before and after, by layer."""
        return self._before | self._alignment("after"), {}

    def measurements(self) -> Measured:
        """Of a model that nothing trained here, what training would have measured at its end."""
        return ({} if self.config.num_steps else self._alignment("after")), {}

    def _alignment(self, when: str) -> dict[str, float]:
        if not self._texts:
            return {}
        cosines_L = alignment_cosines(
            causal_model(self.model), self.tokenizer, self._texts, reference=self.method.reference
        )
        return {f"diag/alignment_cosine_{when}/{index}": float(value) for index, value in enumerate(cosines_L)}


@torch.inference_mode()
def alignment_cosines(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    texts: dict[str, list[str]],
    *,
    reference: str,
    batch_size: int = 8,
) -> np.ndarray:
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
    cosines = [functional.cosine_similarity(pooled[language], pooled[reference], dim=-1).mean(1) for language in others]
    return np.asarray(torch.stack(cosines).mean(0).cpu().numpy())


def pooled_states(model: "PreTrainedModel", inputs: dict[str, Tensor], mask_BT: Tensor) -> Tensor:
    """[L + 1, B, D]: states averaged over the text's own tokens."""
    sites = backbone(model)
    device = sites.embedding.weight.device
    states: list[Tensor] = []
    weights_BT1 = (mask_BT / mask_BT.sum(1, keepdim=True).clamp_min(1)).to(device)[..., None]

    def keep(_: Any, __: Any, output: Tensor) -> None:
        states.append((output * weights_BT1).sum(1))

    handles = [
        module.register_forward_hook(keep) for module in (sites.embedding, *(layer.module for layer in sites.layers))
    ]
    try:
        model.base_model(**{name: value.to(device) for name, value in inputs.items()}, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(states)
