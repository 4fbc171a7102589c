"""The baseline: minimise the objective on the training rows."""

from torch import Tensor

from athlos.config.schema import MethodConfig
from athlos.data.batches import Batch
from athlos.training.module import MethodModule


class FinetuneModule(MethodModule[MethodConfig]):
    """Trains what the selection lets train on the objective of the run (next token by default)."""

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        loss = self.objective.loss(self.model, batch)
        return self.step_loss(loss, batch)
