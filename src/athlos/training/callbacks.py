"""What happens around a training step: the curve, the checkpoints, the guards and the progress bar."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from athlos.data.batches import Batch
from athlos.errors import NumericalError
from athlos.training.checkpoints import remove_older, step_folder
from athlos.training.module import MethodModule
from athlos.training.stability import Stability


class MetricLog(Protocol):
    def log(self, metrics: dict[str, float], *, step: int) -> None: ...


class Progress(Protocol):
    def training_step(self, done: int, loss: float, tokens_per_s: float) -> None: ...


class Curve(Callback):
    """Records the training curve every `log_every` steps: loss, learning rate, gradient norm, tokens a second.

    `seconds`, `tokens` and `rows` add up over the steps, those before a resumption included (input tokens, padding left
    out), so that the cost metrics need no second clock. A batch that is only part of what was worked on says so itself:
    `seen`, int64 [2], are its rows and tokens. `recorded_val_step` is that of the last validation in the curve that a
    killed process left: one that is done again, for its metrics, is not recorded again.
    """

    def __init__(self, tracking: MetricLog, progress: Progress, *, log_every: int, recorded_val_step: int = -1) -> None:
        self.tracking, self.progress, self.log_every = tracking, progress, log_every
        self.recorded_val_step = recorded_val_step
        self.seconds = 0.0
        self.tokens = 0
        self.rows = 0
        self.last_val_step = -1
        self.stability = Stability()
        self._start = 0.0
        self._grad_norm = 0.0
        self._lr = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Batch, batch_index: int) -> None:
        self._start = time.perf_counter()

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: Any, optimizer: torch.optim.Optimizer) -> None:
        self._lr = optimizer.param_groups[0]["lr"]
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads) if grads else torch.zeros(())
        self._grad_norm = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if not math.isfinite(self._grad_norm):
            raise NumericalError(f"gradient norm is {self._grad_norm} at step {trainer.global_step}")

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Batch, batch_index: int
    ) -> None:
        assert isinstance(module, MethodModule)
        self.seconds += time.perf_counter() - self._start
        rows, tokens = (
            batch["seen"].tolist() if "seen" in batch else (len(batch["input_ids"]), int(batch["attention_mask"].sum()))
        )
        self.tokens += tokens * trainer.world_size
        self.rows += rows * trainer.world_size
        if (batch_index + 1) % module.config.num_accumulated:
            return
        log = {name: value for name, value in module.step_log.items() if name != "targets"}
        module.step_log.clear()
        if trainer.world_size > 1:
            gathered = module.all_gather(torch.tensor(list(log.values()), device=module.device))
            summed = torch.as_tensor(gathered).sum(0)
            log = dict(zip(log, summed.tolist(), strict=True))
        step = trainer.global_step
        clip = module.config.train.clip_norm
        if module.loss_is_progress:
            self.stability.step(log["loss"], is_clipped=bool(clip) and self._grad_norm > clip)
        speed = self.tokens / self.seconds
        self.progress.training_step(step, log["loss"], speed)
        if step % self.log_every == 0 or step == module.config.num_steps:
            # A name with a group of its own keeps it: `diag/act_rms_last`.
            metrics = {name if "/" in name else f"train/{name}": value for name, value in log.items()}
            metrics["train/lr"] = self._lr
            metrics["train/grad_norm"] = self._grad_norm
            metrics["train/tokens_per_s"] = speed
            self.tracking.log(metrics, step=step)

    def state_dict(self) -> dict[str, Any]:
        return {
            "stability": self.stability.state(),
            "seconds": self.seconds,
            "tokens": self.tokens,
            "rows": self.rows,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.stability.restore(state_dict["stability"])
        self.seconds, self.tokens, self.rows = (state_dict[name] for name in ("seconds", "tokens", "rows"))

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        if self.last_val_step != trainer.global_step:
            self.last_val_step = trainer.global_step
            if self.last_val_step <= self.recorded_val_step:
                return
            metrics = {
                name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")
            }
            self.tracking.log(metrics, step=trainer.global_step)


class Clock(Callback):
    """Seconds of training, wall and processor time of this process, those before a resumption included."""

    def __init__(self) -> None:
        self.wall_s, self.cpu_s = 0.0, 0.0
        self._last = (0.0, 0.0)

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        self._last = (time.monotonic(), time.process_time())

    def on_train_end(self, trainer: pl.Trainer, module: Any) -> None:
        self._read()

    def _read(self) -> None:
        now = (time.monotonic(), time.process_time())
        self.wall_s, self.cpu_s = self.wall_s + now[0] - self._last[0], self.cpu_s + now[1] - self._last[1]
        self._last = now

    def state_dict(self) -> dict[str, Any]:
        self._read()
        return {"wall_s": self.wall_s, "cpu_s": self.cpu_s}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.wall_s, self.cpu_s = state_dict["wall_s"], state_dict["cpu_s"]


class FolderCheckpoints(Callback):
    """Saves a resumable checkpoint every `every` steps and keeps the newest ones."""

    def __init__(self, folder: Path, *, every: int, on_saved: Callable[[], None]) -> None:
        self.folder, self.every, self.on_saved = folder, every, on_saved
        self._saved = -1

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        step = trainer.global_step
        at_border = (batch_index + 1) % module.config.num_accumulated == 0
        if at_border and step != self._saved and (step % self.every == 0 or step == module.config.num_steps):
            self._saved = step
            trainer.save_checkpoint(step_folder(self.folder, step))
            if trainer.is_global_zero:
                remove_older(self.folder)
                self.on_saved()


class FailureRecord(Callback):
    """Keeps the batch on which training failed, so that a not-a-number can be looked into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._batch: Batch = {}

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Batch, batch_index: int) -> None:
        self._batch = batch

    def on_exception(self, trainer: pl.Trainer, module: Any, exception: BaseException) -> None:
        if not isinstance(exception, NumericalError) or not self._batch:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"batch-step{trainer.global_step}-rank{trainer.global_rank}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in self._batch.items()}, path)
        exception.args = (f"{exception}; the batch is in {path}",)


class SuiteEvery(Callback):
    """Runs the evaluation suites on the validation split every `every` steps: a task's own metric during training."""

    def __init__(self, evaluate: Callable[[], dict[str, float]], tracking: MetricLog, *, every: int) -> None:
        self.evaluate, self.tracking, self.every = evaluate, tracking, every
        self._done = -1

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_index: int) -> None:
        step = trainer.global_step
        if step and step % self.every == 0 and step != self._done:
            self._done = step
            module.eval()
            self.tracking.log(self.evaluate(), step=step)
            module.train()
