"""`MethodModule`, the one base class: wires model, parts and optimizer. What a paper changes stands in its method."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.optim.lr_scheduler import LambdaLR

from athlos.config.schema import MethodConfig, RunConfig, Schedule, TrainConfig
from athlos.data.batches import Batch
from athlos.data.datamodule import DataModule
from athlos.errors import NumericalError, TrainingError
from athlos.generation.interface import Decoding, Engine, Prediction, Request
from athlos.models.added_loss import added_loss
from athlos.models.forward import causal_model
from athlos.models.own_rate import OwnRate
from athlos.models.sites import backbone
from athlos.objectives.config import NextTokenConfig
from athlos.objectives.next_token import NextTokenObjective
from athlos.parts import Loss, Objective, PartContext
from athlos.training.optimizer import MasterAdamW

if TYPE_CHECKING:
    from torch.utils.data import DataLoader
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Measured = tuple[dict[str, float], dict[str, bytes]]
"""Metrics by their full names, and figures (PNG) by name."""
MethodT = TypeVar("MethodT", bound=MethodConfig)

SEED_STRIDE = 1_000_003
"""Prime that keeps the random streams of neighbouring seeds apart."""


class MethodModule(pl.LightningModule, Generic[MethodT]):
    """A model, an objective, a decoding rule and an engine under Lightning.

    A method that trains overrides `training_step`; one without gradients overrides `answer`. Randomness inside a step
    (dropout, sampling) is seeded from (seed, step, micro batch, rank), so a resumed run draws what it would have drawn.

    Training and evaluation are done by two modules, often in different processes: the second is built around the
    weights that the first left. What training found out travels as its metrics and figures.
    """

    loss_is_progress = True
    """Whether a falling loss means learning, so that spikes and divergence can be read off it."""

    def __init__(
        self,
        config: RunConfig,
        *,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        objective: Objective,
        decoding: Decoding,
        engine: Engine,
        data: DataModule | None = None,
    ) -> None:
        super().__init__()
        self.config, self.model, self.tokenizer, self.data = config, model, tokenizer, data
        self.objective, self.decoding, self.engine = objective, decoding, engine
        # Validation is always the plain next-token loss, so that runs with different objectives compare.
        self._next_token = NextTokenObjective(NextTokenConfig(_target_="", chunk_tokens=1024))
        self.step_log: dict[str, float] = {}
        self._val_nll, self._val_count = 0.0, 0
        # The base weights are on disk already: checkpoints hold only what trains (see `on_save_checkpoint`).
        self.strict_loading = False

    @property
    def method(self) -> MethodT:
        """The config of the method."""
        method: Any = self.config.method
        return method  # type: ignore[no-any-return]

    def prepare(self, *, context: PartContext) -> None:
        """Called once before anything else, in training, in evaluation, and where a server answers."""

    def before_training(self, *, context: PartContext) -> None:
        """Called once before the first step, also of a resumed training, with the model as it starts."""

    def after_training(self) -> Measured:
        """Called once at the end of training: what is known only then, kept beside the weights."""
        return {}, {}

    def variants(self) -> Iterator[tuple[str, "MethodModule[Any]"]]:
        """Further models to evaluate on the test split after training, each with the suffix of its metrics.

        `("_direct", module)` gives `test/ppl_direct` beside `test/ppl`. One is evaluated before the next is asked for.
        """
        yield from ()

    def measurements(self) -> Measured:
        """Called once after the evaluation, around the trained model: what the method measures beside the suites."""
        return {}, {}

    def train_dataloader(self) -> "DataLoader[Batch]":
        """Micro batches from the present step on; a method that makes its own rows overrides this."""
        assert self.data is not None
        return self.data.train_batches(
            first_step=self.trainer.global_step,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            unit=self.objective.unit,
        )

    def val_dataloader(self) -> "DataLoader[Batch] | list[DataLoader[Batch]]":
        if self.data is None or self.config.data.val_split is None:
            return []
        return self.data.val_batches(rank=self.trainer.global_rank, world_size=self.trainer.world_size)

    def step_loss(self, loss: Loss, batch: Batch) -> Tensor:
        """What `training_step` returns: this micro batch's part of the mean over all targets of the optimizer step.

        Lightning divides by the number of accumulated micro batches and averages gradients over processes; both are
        undone here, since the denominator already covers the whole step. A loss that the model brings itself (the
        balance of its experts) joins here, weighted by targets. Raises `NumericalError` for a loss that is
        no number.
        """
        added = added_loss(self.model)
        if added is not None:
            loss = replace(loss, total=loss.total + loss.count * added, logs={**loss.logs, "added": added.detach()})
        if not torch.isfinite(loss.total):
            raise NumericalError(f"loss is {loss.total.item()} at step {self.global_step}")
        step_targets = batch["step_targets"]
        share = loss.total / step_targets
        self.step_log["loss"] = self.step_log.get("loss", 0.0) + share.item()
        self.step_log["targets"] = self.step_log.get("targets", 0.0) + loss.count
        for name, value in loss.logs.items():
            part = value.item() * loss.count / step_targets.item()
            self.step_log[name] = self.step_log.get(name, 0.0) + part
        for name, number in loss.counts.items():
            self.step_log[name] = self.step_log.get(name, 0.0) + number
        return share * self.config.num_accumulated * self.trainer.world_size

    def configure_model(self) -> None:
        """Under FSDP2, shard each decoder layer and then the rest; elsewhere nothing.

        The steps count as forward passes of this module: objectives call the backbone and the head one by one, and
        both need their gathered weights.
        """
        if not isinstance(self.trainer.strategy, ModelParallelStrategy) or isinstance(self, FSDPModule):
            return
        assert self.device_mesh is not None
        mesh = self.device_mesh["data_parallel"]
        for layer in backbone(causal_model(self.model)).layers:
            fully_shard(layer.module, mesh=mesh)
        fully_shard(self, mesh=mesh)
        for step in ("training_step", "validation_step"):
            register_fsdp_forward_method(self, step)

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        micro = batch_index % self.config.num_accumulated
        position = (self.global_step * self.config.num_accumulated + micro) * self.trainer.world_size + self.global_rank
        torch.manual_seed(self.config.seed * SEED_STRIDE + position)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        loss = self._next_token.loss(self.model, batch)
        self._val_nll += loss.total.item()
        self._val_count += loss.count

    def on_validation_epoch_end(self) -> None:
        sums = torch.tensor([self._val_nll, float(self._val_count)], dtype=torch.float64, device=self.device)
        if self.trainer.world_size > 1:
            sums = torch.as_tensor(self.all_gather(sums)).sum(0)
        self._val_nll, self._val_count = 0.0, 0
        nll, count = sums.tolist()
        loss = nll / count if count else math.nan
        self.log_dict({"val/loss": loss, "val/ppl": math.exp(loss)}, sync_dist=False)

    def answer(self, requests: Sequence[Request], *, progress: Callable[..., None] | None = None) -> list[Prediction]:
        """One prediction a request, in order, by the run's decoding rule on its engine."""
        return self.decoding.answer(self.engine, requests, progress=progress)

    def predict_step(self, batch: Sequence[Request], batch_index: int = 0) -> list[Prediction]:
        return self.answer(batch)

    @property
    def objective_parameters(self) -> list[nn.Parameter]:
        """What the objective trains beside the model, such as heads for later tokens; never part of an export."""
        return list(self.objective.parameters()) if isinstance(self.objective, nn.Module) else []

    def configure_optimizers(self) -> Any:
        train = self.config.train
        own = [module for module in self.modules() if isinstance(module, OwnRate)]
        at_own_rate = {parameter for module in own for parameter in module.parameters()}
        beside = [parameter for parameter in self.objective_parameters if parameter not in at_own_rate]
        optimizer = build_optimizer(self.model, train, beside=beside)
        for module in own:
            optimizer.add_param_group({"params": list(module.parameters()), "lr": module.lr, "weight_decay": 0.0})
        num_steps = train.schedule_steps or train.schedule_start + train.max_steps
        schedule = LambdaLR(optimizer, lambda step: lr_factor(train.schedule_start + step, num_steps, train=train))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trains = {name for name, parameter in self.named_parameters(remove_duplicate=False) if parameter.requires_grad}
        checkpoint["state_dict"] = {name: value for name, value in checkpoint["state_dict"].items() if name in trains}


def build_optimizer(model: torch.nn.Module, train: TrainConfig, *, beside: Iterable[nn.Parameter] = ()) -> MasterAdamW:
    """AdamW over what trains in the model, and `beside` it; matrices decay, vectors (norms, biases) do not.

    Raises `TrainingError` where nothing of the model trains.
    """
    trains = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trains:
        raise TrainingError("nothing to train: the selection left no parameter; see selection= or train.max_steps=0")
    trains += beside
    groups = [
        {"params": [p for p in trains if p.ndim >= 2], "weight_decay": train.weight_decay},
        {"params": [p for p in trains if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return MasterAdamW(groups, lr=train.lr, betas=(train.beta1, train.beta2), eps=train.adam_eps)


def lr_factor(step: int, num_steps: int, *, train: TrainConfig) -> float:
    """Learning rate of step `step` (0-based) over its peak.

    Rises linearly over the first `warmup_ratio` of the steps, the first step at 1 / warm-up, then follows the
    schedule down to `min_lr_ratio` at the end. `wsd` stays at the peak and falls linearly over the last `decay_ratio`.
    """
    warmup = math.ceil(train.warmup_ratio * num_steps)
    if step < warmup:
        return (step + 1) / warmup
    if train.schedule is Schedule.constant:
        return 1.0
    if train.schedule is Schedule.wsd:
        decay = max(1, math.ceil(train.decay_ratio * num_steps))
        progress = min(1.0, max(0.0, (step - (num_steps - decay)) / decay))
        falling = 1.0 - progress
    else:
        progress = min(1.0, (step - warmup) / max(1, num_steps - warmup))
        falling = 1.0 - progress if train.schedule is Schedule.linear else 0.5 * (1.0 + math.cos(math.pi * progress))
    return train.min_lr_ratio + (1.0 - train.min_lr_ratio) * falling
