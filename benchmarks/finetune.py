"""A packed fine-tuning step of Athlos against TRL's SFTTrainer and a bare transformers loop, all three in turn.

    python benchmarks/finetune.py [--models lab smollm2] [--formats float32 bf16] [--steps N]

All sides train a copy of one Llama with random weights, of the shape of the lab base model or of SmolLM2-135M, on the
same full rows in the same order: 2,048 tokens a step in rows of 256, without padding; AdamW at one learning rate,
clipped at 1. `bf16` is the forward pass under autocast to bfloat16 on float32 weights, on all sides. Both others must
log the losses of ours, or there is no result. Activation checkpointing, TRL's default, is off: it would cost it time.

    athlos    the next-token objective (logits in blocks), and the optimizer that a run builds
    bare      `model(input_ids, labels=...)`, `backward`, `clip_grad_norm_`, `torch.optim.AdamW`
    trl       `SFTTrainer` on ready token ids; a step is timed from its own callbacks

Ends in one JSON line: tokens a second of each side, and `<model>/<format>/over_trl_ratio` and `over_bare_ratio`, the
median over rounds of their time over ours; the first round warms up.
"""

import argparse
import copy
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from datasets import disable_progress_bars as quiet_datasets
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback
from transformers.utils import logging as transformers_logging
from trl import SFTConfig, SFTTrainer
from trl_side import BARE, CLIP, InOrder, InTurn, logged_losses

from athlos.config.compose import run_config
from athlos.models.tokenizers import byte_tokenizer
from athlos.objectives.config import NextTokenConfig
from athlos.objectives.next_token import NextTokenObjective
from athlos.training.module import build_optimizer

ROWS, LENGTH = 8, 256
LR = 1e-5
SAME_LOSS = {"float32": 1e-3, "bf16": 3e-2}
FORMATS = tuple(SAME_LOSS)


def base_model(name: str) -> LlamaForCausalLM:
    """Random weights: what a step costs does not depend on them."""
    shape = run_config(["model=small/smollm2_135m" if name == "smollm2" else "experiment=lab/base"]).model.architecture
    torch.manual_seed(0)
    values = {key: value for key, value in shape.items() if key != "model_type"}
    return LlamaForCausalLM(LlamaConfig(**values)).train()


class OwnSteps:
    """Steps of Athlos and of the bare loop in turn, the next rows of the data each."""

    def __init__(self, model: LlamaForCausalLM, rows: torch.Tensor, *, is_half: bool) -> None:
        self.rows, self.is_half = rows, is_half
        self.models = {side: copy.deepcopy(model) for side in ("athlos", "bare")}
        self.objective = NextTokenObjective(NextTokenConfig(_target_="", chunk_tokens=1024))
        train = run_config(["experiment=finetune/tiny", f"train.lr={LR}", "train.weight_decay=0"]).train
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "athlos": build_optimizer(self.models["athlos"], train),
            "bare": torch.optim.AdamW(
                self.models["bare"].parameters(),
                lr=LR,
                betas=(train.beta1, train.beta2),
                eps=train.adam_eps,
                weight_decay=0.0,
            ),
        }
        self.betas, self.eps = (train.beta1, train.beta2), train.adam_eps
        self.losses: dict[str, list[float]] = {"athlos": [], "bare": []}
        self.seconds: dict[str, list[float]] = {"athlos": [], "bare": []}

    def __call__(self) -> float:
        """Seconds of our step."""
        self._step("bare", self._bare_loss)
        self._step("athlos", self._own_loss)
        return self.seconds["athlos"][-1]

    def _step(self, side: str, loss_of: Callable[[torch.Tensor], torch.Tensor]) -> None:
        first = len(self.losses[side]) * ROWS
        ids_BT = self.rows[first : first + ROWS]
        start = time.perf_counter()
        self.optimizers[side].zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.is_half):
            loss = loss_of(ids_BT)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.models[side].parameters(), CLIP)
        self.optimizers[side].step()
        self.losses[side].append(loss.item())
        self.seconds[side].append(time.perf_counter() - start)

    def _own_loss(self, ids_BT: torch.Tensor) -> torch.Tensor:
        positions_BT = torch.arange(LENGTH).expand_as(ids_BT)
        batch = {
            "input_ids": ids_BT,
            "labels": ids_BT,
            "attention_mask": torch.ones_like(ids_BT),
            "position_ids": positions_BT,
        }
        loss = self.objective.loss(self.models["athlos"], batch)
        return loss.total / loss.count

    def _bare_loss(self, ids_BT: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.models["bare"](input_ids=ids_BT, labels=ids_BT, use_cache=False).loss
        return loss


class OrderedSFT(InOrder, SFTTrainer):  # type: ignore[misc]  # trl has no types
    """TRL's trainer, its rows in the order of the data."""


def trl_trainer(model: LlamaForCausalLM, own: OwnSteps, *, steps: int, folder: str) -> Any:
    config = SFTConfig(
        output_dir=folder,
        per_device_train_batch_size=ROWS,
        max_length=LENGTH,
        learning_rate=LR,
        adam_beta1=own.betas[0],
        adam_beta2=own.betas[1],
        adam_epsilon=own.eps,
        max_steps=steps,
        bf16=own.is_half,
        logging_steps=1,
        **BARE,
    )
    data = Dataset.from_list([{"input_ids": row} for row in own.rows.tolist()])
    return OrderedSFT(model=model, args=config, processing_class=byte_tokenizer(), train_dataset=data)


def compare(name: str, number_format: str, *, steps: int) -> dict[str, float]:
    model = base_model(name)
    draw = torch.Generator().manual_seed(1)
    rows = torch.randint(model.config.vocab_size, (ROWS * (steps + 1), LENGTH), generator=draw)
    own = OwnSteps(model, rows, is_half=number_format == "bf16")
    with tempfile.TemporaryDirectory() as folder:
        turns = InTurn(own)
        trainer = trl_trainer(model, own, steps=steps + 1, folder=folder)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(turns)
        trainer.train()
    theirs = logged_losses(trainer)
    for side, losses in (("bare", own.losses["bare"]), ("trl", theirs)):
        if not np.allclose(own.losses["athlos"], losses, atol=SAME_LOSS[number_format]):
            raise SystemExit(f"{name} {number_format}: our losses and those of {side} differ: {own.losses} {losses}")
    result, place = {}, f"{name}/{number_format}"
    for side, seconds in (("athlos", turns.athlos_s), ("bare", own.seconds["bare"]), ("trl", turns.trl_s)):
        ratios = [other / ours for other, ours in zip(seconds[1:], turns.athlos_s[1:], strict=True)]
        speed = ROWS * LENGTH / statistics.median(seconds[1:])
        result[f"{place}/{side}/tokens_per_s"] = round(speed, 1)
        if side != "athlos":
            result[f"{place}/over_{side}_ratio"] = round(statistics.median(ratios), 3)
        middle = statistics.median(ratios)
        print(f"{place:<18}{side:<8}{speed:>9.0f} tokens/s{middle:>8.2f}   {min(ratios):.2f} to {max(ratios):.2f}")
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=("lab", "smollm2"), default=["lab", "smollm2"])
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each side")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    transformers_logging.set_verbosity_error()
    quiet_datasets()
    results: dict[str, Any] = {"threads": torch.get_num_threads()}
    for name in options.models:
        for number_format in options.formats:
            results |= compare(name, number_format, steps=options.steps)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
