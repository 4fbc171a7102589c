"""A whole DPO step of Athlos against one of TRL's DPOTrainer, in one process, steps of the two in turn.

    python benchmarks/preference_step.py [--cases short long answers] [--steps N] [--pairs N] [--out FOLDER]

Both sides train a copy of one tiny Llama with random weights on the same pairs in the same order and batches, by the
same optimizer and learning rate: the loss, its gradient, clipping and the update. Both must log the same losses, or
there is no result. Activation checkpointing, TRL's default, is off: it would cost it time.

    athlos      `PreferenceObjective`, fused AdamW as TRL has it. The reference is a table, made before the first step:
                `table_s` says in what time, over all pairs, and every epoch and every run of a sweep shares it.
    trl         `DPOTrainer` as it is by default: a reference model beside the one that trains, asked in every step. A
                step is timed from its own callbacks, so neither the trainer's start nor its end counts.
    trl_table   the same with `precompute_ref_log_probs`, so that its steps ask no reference either.

Cases, in tokens: `short` prompts of about 64 and answers of about 32; `long` prompts of 256 and answers of 32, as with
passages; `answers` of 128 behind prompts of 32.

Prints each case and ends in one JSON line with our time over TRL's, the median over rounds: `ratio_<case>` of trl, and
`over_table_<case>` of trl_table. `--out` keeps it as a record that `athlos report` shows.
"""

import argparse
import copy
import json
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from datasets import disable_progress_bars as quiet_datasets
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback
from transformers.utils import logging as transformers_logging
from trl import DPOConfig, DPOTrainer
from trl_side import BARE, CLIP, InOrder, InTurn, logged_losses

from athlos.config.compose import run_config
from athlos.data.batches import collate
from athlos.data.encoding import encode_preference, pair_rows
from athlos.data.records import PreferenceRecord
from athlos.models.loading import LoadedModel
from athlos.models.tokenizers import byte_tokenizer
from athlos.objectives.config import Preference, PreferenceConfig
from athlos.objectives.preference import PreferenceObjective
from athlos.parts import PartContext
from athlos.report.benchmark_record import ROUNDS, write_benchmark_record
from athlos.stages import StageStore

PAD, END = 256, 258
LENGTHS = {"short": (64, 32), "long": (256, 32), "answers": (32, 128)}
"""Most tokens of a prompt and of an answer; each is up to a quarter shorter."""
LR, BETA = 1e-5, 0.1
SAME_LOSS = 1e-3
CHUNK_TOKENS = 4096
"""All positions of a step at once, as TRL takes them: logits over 259 words need no chunks."""
SIZES = {
    "vocab_size": 259,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "max_position_embeddings": 512,
    "eos_token_id": END,
    "pad_token_id": PAD,
    "bos_token_id": 257,
}
"""1.9 M parameters."""


def base_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=False))


def pairs_of(case: str, *, count: int) -> list[dict[str, str]]:
    rng = random.Random(0)

    def words(most: int) -> str:
        return "".join(rng.choices("abcdefghij ", k=most - rng.randint(0, most // 4)))

    prompt, answer = LENGTHS[case]
    return [{"prompt": words(prompt), "chosen": words(answer), "rejected": words(answer)} for _ in range(count)]


class AthlosSide:
    """One step a call: the next `num_pairs` of the pairs, in order."""

    def __init__(self, model: LlamaForCausalLM, pairs: Sequence[dict[str, str]], *, num_pairs: int, cache: str) -> None:
        self.model, self.num_pairs = model, num_pairs
        tokenizer = byte_tokenizer()
        records = [PreferenceRecord(identifier=str(place), **pair) for place, pair in enumerate(pairs)]
        self.rows = pair_rows([encode_preference(record, tokenizer=tokenizer, max_length=512) for record in records])
        self.objective = PreferenceObjective(
            PreferenceConfig(_target_="", kind=Preference.dpo, beta=BETA, sft_weight=0.0, chunk_tokens=CHUNK_TOKENS)
        )
        data: Any = SimpleNamespace(rows=lambda split: self.rows, pad_id=PAD)
        sizes = [f"train.batch_size={num_pairs}", f"train.micro_batch_size={num_pairs}"]
        context = PartContext(
            config=run_config(["objective=preference", "train.batching=bucket", *sizes]),
            stages=StageStore(Path(cache)),
            data=data,
            start=LoadedModel(model=model, tokenizer=tokenizer, fingerprint="tiny", license="none", source="random"),
        )
        start = time.perf_counter()
        self.objective.prepare(model, context=context)
        self.table_s = time.perf_counter() - start
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0, fused=True)
        self.losses: list[float] = []

    def __call__(self) -> float:
        """Seconds of a step."""
        start = time.perf_counter()
        first = len(self.losses) * self.num_pairs
        indices = np.arange(first, first + self.num_pairs)
        batch = collate(self.rows, indices, pad_id=PAD, step_targets=self.num_pairs, with_worse=True)
        self.model.train()
        loss = self.objective.loss(self.model, batch)
        mean = loss.total / batch["step_targets"]
        self.optimizer.zero_grad(set_to_none=True)
        mean.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        self.losses.append(mean.item())
        return time.perf_counter() - start


def trl_trainer(model: Any, pairs: Sequence[dict[str, str]], *, num_pairs: int, has_table: bool, folder: str) -> Any:
    config = DPOConfig(
        output_dir=folder,
        per_device_train_batch_size=num_pairs,
        max_length=None,
        beta=BETA,
        learning_rate=LR,
        max_steps=len(pairs) // num_pairs,
        precompute_ref_log_probs=has_table,
        bf16=False,
        logging_steps=1,
        **BARE,
    )
    tokenizer = byte_tokenizer()
    return OrderedDPO(
        model=model,
        ref_model=None if has_table else copy.deepcopy(model),
        args=config,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(list(pairs)),
    )


class OrderedDPO(InOrder, DPOTrainer):  # type: ignore[misc]  # trl has no types
    """TRL's trainer, its pairs in the order of the data."""


def steps_in_turn(case: str, *, num_pairs: int, steps: int, has_table: bool) -> dict[str, Any]:
    """Seconds of a step on both sides, and ours over theirs, round by round; the first step warms up."""
    pairs = pairs_of(case, count=num_pairs * (steps + 1))
    model = base_model()
    with tempfile.TemporaryDirectory() as folder:
        athlos = AthlosSide(copy.deepcopy(model), pairs, num_pairs=num_pairs, cache=folder)
        turns = InTurn(athlos)
        trainer = trl_trainer(model, pairs, num_pairs=num_pairs, has_table=has_table, folder=folder)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(turns)
        trainer.train()
    theirs = logged_losses(trainer)
    if not np.allclose(athlos.losses, theirs, atol=SAME_LOSS):
        raise SystemExit(f"{case}: the losses differ: {athlos.losses} and {theirs}")
    ratios = [own / other for own, other in zip(turns.athlos_s[1:], turns.trl_s[1:], strict=True)]
    return {
        "athlos_s": statistics.median(turns.athlos_s[1:]),
        "trl_s": statistics.median(turns.trl_s[1:]),
        "table_s": athlos.table_s,
        "ratios": ratios,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(LENGTHS), default=list(LENGTHS))
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each side")
    parser.add_argument("--pairs", type=int, default=8, help="pairs a step")
    parser.add_argument("--out", help="a new folder for the record")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    transformers_logging.set_verbosity_error()
    quiet_datasets()
    results: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "pairs": options.pairs,
        "parameters": sum(parameter.numel() for parameter in base_model().parameters()),
        ROUNDS: {},
    }
    for case in options.cases:
        for side, key, has_table in (("trl", f"ratio_{case}", False), ("trl_table", f"over_table_{case}", True)):
            measured = steps_in_turn(case, num_pairs=options.pairs, steps=options.steps, has_table=has_table)
            ratios = measured.pop("ratios")
            results[key] = round(statistics.median(ratios), 3)
            results |= {f"{name}_{case}_{side}": round(value, 4) for name, value in measured.items()}
            results[ROUNDS][key] = [round(ratio, 4) for ratio in ratios]
            print(
                f"{case:<8} athlos {measured['athlos_s']:.3f} s   {side:<9} {measured['trl_s']:.3f} s   "
                f"ours / theirs {results[key]:.2f}   ({min(ratios):.2f} to {max(ratios):.2f})"
            )
            sys.stdout.flush()
    if options.out:
        write_benchmark_record(Path(options.out), name="preference_step", options=vars(options), results=results)
    print(json.dumps({name: value for name, value in results.items() if name != ROUNDS}))


if __name__ == "__main__":
    main()
