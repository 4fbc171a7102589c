"""The Lightning trainer of a run, from `hardware/` and `train`, and what its failures mean to a user."""

import logging
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.precision import HalfPrecision
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy

from athlos.config.schema import HardwareConfig, RunConfig
from athlos.errors import AthlosError, ConfigError, TrainingError
from athlos.training.checkpoints import FolderCheckpointIO


def set_threads(hardware: HardwareConfig) -> None:
    """Compute threads of this process."""
    if hardware.num_threads:
        torch.set_num_threads(hardware.num_threads)


def quiet_lightning() -> None:
    """Silence the tips and banners of Lightning; warnings of our own making stay."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Known noise of tested versions (ecosystem notes); everything else still shows.
    noise = ("LeafSpec", "does not have many workers", "`IterableDataset` has `__len__` defined", "GPU available")
    for text in noise:
        warnings.filterwarnings("ignore", message=f".*{text}.*")


class WholeCheckpointFSDP2(ModelParallelStrategy):
    """FSDP2 with checkpoints in our folder format, written by the first process.

    The base class refuses a folder as a path, on every process: the later ones would see the folder the first made.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, filepath)


class AdaptersInFloat32(HalfPrecision):
    """`bf16-true` casts all weights but those of LoRA, whose small updates would round away."""

    def convert_module(self, module: torch.nn.Module) -> torch.nn.Module:
        from peft.tuners.lora import LoraModel  # slow to import, and only this precision needs it here

        prefix = f".{LoraModel.prefix}"
        kept = [(parameter, parameter.data) for name, parameter in module.named_parameters() if prefix in name]
        module = super().convert_module(module)
        for parameter, data in kept:
            parameter.data = data
        return module


def build_strategy(hardware: HardwareConfig) -> Strategy | str:
    if hardware.strategy == "ddp":
        return DDPStrategy(process_group_backend="gloo" if hardware.accelerator == "cpu" else None)
    if hardware.strategy == "fsdp2":
        backend = "gloo" if hardware.accelerator == "cpu" else None
        return WholeCheckpointFSDP2(
            data_parallel_size=hardware.devices * hardware.num_nodes,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=backend,
        )
    return "auto"


def build_trainer(config: RunConfig, *, callbacks: Sequence[Callback], run_dir: Path) -> pl.Trainer:
    """A trainer without Lightning's own folders, loggers and bars: the run folder is the record."""
    hardware, train = config.hardware, config.train
    if hardware.accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError(
            "hardware.accelerator: got 'gpu', but this machine has none; use hardware=cpu or dry_run=true"
        )
    if hardware.accelerator == "cpu" and hardware.precision == "16-mixed":
        raise ConfigError("hardware.precision: got '16-mixed' on a CPU, expected 32-true, bf16-mixed or bf16-true")
    is_cast = hardware.precision == "bf16-true"
    return pl.Trainer(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        num_nodes=hardware.num_nodes,
        strategy=build_strategy(hardware),
        precision=None if is_cast else hardware.precision,  # type: ignore[arg-type]
        max_steps=config.num_steps,
        accumulate_grad_batches=config.num_accumulated,
        gradient_clip_val=train.clip_norm or None,
        val_check_interval=train.val_every * config.num_accumulated if train.val_every else None,
        check_val_every_n_epoch=None,
        limit_val_batches=1.0 if config.data.val_split is not None and train.val_every else 0,
        num_sanity_val_steps=0,
        log_every_n_steps=train.log_every,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        plugins=[FolderCheckpointIO(), *([AdaptersInFloat32("bf16-true")] if is_cast else [])],
        default_root_dir=run_dir,
        use_distributed_sampler=False,
    )


def fit(trainer: pl.Trainer, module: pl.LightningModule, *, checkpoint: Path | None) -> None:
    """Train, resuming from `checkpoint`. Failures come back as `TrainingError`s that say what to do."""
    module.train()  # models are loaded in evaluation mode
    try:
        trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
    except (RuntimeError, OSError, MemoryError) as error:
        raise explain(error, module) from error
    except SystemExit as error:  # Lightning turns ctrl-C into exit(1)
        raise KeyboardInterrupt from error


def explain(error: BaseException, module: Any) -> AthlosError:
    """The user's view of a failure in training: out of memory, disk full, or the error itself in one line."""
    text = str(error)
    train, model = module.config.train, module.config.model
    if isinstance(error, MemoryError) or re.search(r"out of memory|can't allocate memory|not enough memory", text):
        lower = [f"train.micro_batch_size (now {train.micro_batch_size})", f"train.max_length (now {train.max_length})"]
        if not model.activation_checkpointing:
            lower.append("or set model.activation_checkpointing=true")
        lower.append("or train less with tuning=lora or selection=layers")
        return TrainingError(f"out of memory: lower {', '.join(lower)}")
    if isinstance(error, OSError):
        return TrainingError(f"cannot write or read a file: {text}; free space or set results_dir / cache_dir")
    return TrainingError(f"{type(error).__name__}: {text.splitlines()[0] if text else 'no message'}")
