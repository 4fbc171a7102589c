"""START: phases (`StartConfig.phases`) over what `warmup.py` and `samples.py` make; each step is that of its objective.

What the warm-up is made of stands in `synthesis.py` and `cover.py`, what a sample is worth in `rewards.py` and
`likelihood.py`, what is trained on of the samples in `selection.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from athlos.data.batches import Batch
from athlos.generation.interface import Prediction, Request
from athlos.methods.start.attach import with_best_match
from athlos.methods.start.config import Attach, StartConfig
from athlos.training.module import MethodModule


class StartModule(MethodModule[StartConfig]):
    """The objective of the phase on what its construction made, and answers with citations."""

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        return self.step_loss(self.objective.loss(self.model, batch), batch)

    def answer(self, requests: Sequence[Request], *, progress: Callable[..., None] | None = None) -> list[Prediction]:
        """Answers by the decoding rule; with `attach=best_match` their own citations give way to the best matches."""
        predictions = super().answer(requests, progress=progress)
        if self.method.attach is Attach.model:
            return predictions
        return [
            replace(prediction, text=with_best_match(prediction.text, request.record))
            for prediction, request in zip(predictions, requests, strict=True)
        ]
