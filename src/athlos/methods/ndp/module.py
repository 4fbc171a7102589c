"""NDP's recipe: the objective on rows without repeats, and how its arms are equalised.

A run is one arm. `dedup` says which arms leave out rows that stood before. With `match=epochs` an arm on fewer rows
does fewer steps, so that all arms pass equally often over their own rows; with `match=steps` all do the same steps.
"""

from typing import Any

from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from athlos.data.batches import Batch
from athlos.methods.ndp.config import Match, NdpConfig, NdpObjectiveConfig
from athlos.methods.ndp.similarity import similarities
from athlos.models.forward import causal_model
from athlos.parts import PartContext
from athlos.training.module import Measured, MethodModule, build_optimizer, lr_factor


class NdpModule(MethodModule[NdpConfig]):
    """Minimises the run's objective (`ndp`, or a baseline's) on the rows that `dedup` leaves."""

    num_matched_steps = 0
    """Optimizer steps of this arm, at most those of the config."""
    kept_share = 1.0
    """Share of the training rows that are left."""

    def before_training(self, *, context: PartContext) -> None:
        """Say how many steps this arm does, and measure the paper's premise on the model as it starts."""
        method = self.method
        tables: Any = None if context.made is None else context.made.product
        if context.made is not None and context.made.rows is not None:
            self.kept_share = len(context.made.rows) / len(tables.rows)
        self.num_matched_steps = self.config.num_steps
        if method.match is Match.epochs:
            self.num_matched_steps = max(1, round(self.config.num_steps * self.kept_share))
        self._premise: dict[str, float] = {}
        if method.similarity_rows:
            objective = self.config.objective
            assert isinstance(objective, NdpObjectiveConfig)
            self._premise = similarities(causal_model(self.model), objective, tables, num_rows=method.similarity_rows)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        return self.step_loss(self.objective.loss(self.model, batch), batch)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_index: int) -> None:
        if self.global_step >= self.num_matched_steps:
            self.trainer.should_stop = True

    def configure_optimizers(self) -> Any:
        """As in the base class, over this arm's own steps."""
        train, steps = self.config.train, self.num_matched_steps
        optimizer = build_optimizer(self.model, train, beside=self.objective_parameters)
        schedule = LambdaLR(optimizer, lambda step: lr_factor(step, steps, train=train))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def after_training(self) -> Measured:
        arm = {"ndp/steps": float(self.num_matched_steps), "ndp/kept_rows_share": self.kept_share}
        return {**arm, **self._premise}, {}
