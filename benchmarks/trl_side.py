"""What the benchmarks against TRL share: its trainers without what would cost them time, and steps in turn."""

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback

CLIP = 1.0
"""Largest norm of a step's gradients, on both sides."""
BARE = {
    "lr_scheduler_type": "constant",
    "max_grad_norm": CLIP,
    "weight_decay": 0.0,
    "use_cpu": True,
    "gradient_checkpointing": False,
    "report_to": [],
    "save_strategy": "no",
    "disable_tqdm": True,
    "dataloader_num_workers": 0,
    "seed": 0,
}
"""Arguments of any of TRL's trainers: no activation checkpointing, its default, no files, no schedule."""


class InTurn(TrainerCallback):
    """Times TRL's steps and runs one of Athlos after each, outside of what is timed."""

    def __init__(self, other: Callable[[], float]) -> None:
        self.other, self.trl_s, self.athlos_s, self.start = other, [], [], 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.start = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.trl_s.append(time.perf_counter() - self.start)
        self.athlos_s.append(self.other())


class InOrder:
    """Mixed into a trainer: no shuffle, so that all sides have the same rows in a step."""

    train_dataset: Any

    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def logged_losses(trainer: Any) -> list[float]:
    """The loss of each step, with `logging_steps=1`."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
