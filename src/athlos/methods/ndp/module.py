"""NDP's recipe: the objective on rows without repeats, and how its arms are equalised.

A run is one arm. `dedup` says which arms leave out rows that stood before. With `match=epochs` an arm on fewer rows
does fewer steps, so that all arms pass equally often over their own rows; with `match=steps` all do the same steps.
"""

from typing import Any

import numpy as np
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from athlos.config.parts import PartContext
from athlos.config.schema import RunConfig
from athlos.data.batches import Batch
from athlos.data.datamodule import DataModule
from athlos.data.encoding import Rows
from athlos.methods.ndp.config import Dedup, Match, NdpConfig, NdpObjectiveConfig
from athlos.methods.ndp.similarity import similarities
from athlos.models.forward import causal_model
from athlos.training.module import MethodModule, build_optimizer, lr_factor


class NdpModule(MethodModule):
    """Minimises the run's objective (`ndp`, or a baseline's) on the rows that `dedup` leaves."""

    num_matched_steps = 0
    """Optimizer steps of this arm, at most those of the config."""
    kept_share = 1.0
    """Share of the training rows that are left."""

    def prepare(self, *, context: PartContext) -> None:
        config, data = context.config, context.data
        self.num_matched_steps = config.num_steps
        self.premise: dict[str, float] = {}
        if not config.num_steps or data is None:
            return
        assert config.data.train_split is not None
        rows = data.rows(config.data.train_split)
        self._measure_premise(rows, context=context)
        if drops_repeats(config):
            self._leave_out(rows, data=data)

    def _measure_premise(self, rows: Rows, *, context: PartContext) -> None:
        recipe, objective = context.config.method, context.config.objective
        assert isinstance(recipe, NdpConfig)
        wanted, cap = recipe.similarity_rows, context.config.hardware.limit_items_cap
        if wanted:
            assert isinstance(objective, NdpObjectiveConfig)
            num_rows = min(wanted, cap) if cap else wanted  # a smoke test looks at a few
            self.premise = similarities(
                causal_model(self.model), rows, objective, context.constructed, num_rows=num_rows
            )  # fmt: skip

    def _leave_out(self, rows: Rows, *, data: DataModule) -> None:
        config = self.config
        data.kept_rows = first_occurrences(rows)
        self.kept_share = len(data.kept_rows) / len(rows)
        recipe = config.method
        assert isinstance(recipe, NdpConfig)
        if recipe.match is Match.epochs:
            self.num_matched_steps = max(1, round(config.num_steps * self.kept_share))

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

    def measurements(self) -> tuple[dict[str, float], dict[str, bytes]]:
        arm = {"ndp/steps": float(self.num_matched_steps), "ndp/kept_rows_share": self.kept_share}
        return {**arm, **self.premise}, {}


def drops_repeats(config: RunConfig) -> bool:
    """Whether this arm leaves out rows that stood before."""
    recipe = config.method
    assert isinstance(recipe, NdpConfig)
    is_ndp = isinstance(config.objective, NdpObjectiveConfig)
    return recipe.dedup is Dedup.both or (recipe.dedup is Dedup.ndp_only and is_ndp)


def first_occurrences(rows: Rows) -> np.ndarray:
    """Indices of the rows whose tokens and targets no earlier row has."""
    seen: set[tuple[bytes, bytes]] = set()
    kept = []
    for index in range(len(rows)):
        span = slice(int(rows.starts_R[index]), int(rows.ends_R[index]))
        key = (np.asarray(rows.tokens_T[span]).tobytes(), np.asarray(rows.is_target_T[span]).tobytes())
        if key not in seen:
            seen.add(key)
            kept.append(index)
    return np.array(kept, dtype=np.int64)
