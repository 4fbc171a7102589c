"""Training step of SLAM's selection against full fine-tuning, interleaved in one process: time and memory.

    python benchmarks/selective_step.py [--shapes smollm2 gemma3] [--rows N] [--length N] [--targets N] [--rounds N]
        [--out FOLDER]

Shapes of SmolLM2-135M (5 of 30 layers) and Gemma-3-270M (3 of 18), random weights in float32: neither time nor memory
depends on their values. A step is forward, backward, clipping and AdamW on one fixed batch of translation pairs, whose
last `--targets` positions are trained on. Arms:

    transformers  everything trains, loss by transformers' own forward pass with labels: logits at every position
    full          everything trains, Athlos's next-token objective: logits at target positions only
    layers        all layers train, embedding and head frozen
    slam          up and down of the lowest layers train
    lora          low-rank updates of as many parameters on all matrices of all layers

Time is processor time, which other programs disturb less than the clock; ratios are medians over rounds of the
quotient within a round. Memory is the highest resident size in two
steps from a fresh optimizer less that before them: activations, gradients and optimizer state, beside the weights
(Linux). `two_stage_over_slam` is arithmetic: the two-stage recipe of the paper
makes 2.6 times the passes, each a `full` step. Ends in one JSON line; `--out` keeps a record for `athlos claims`.
"""

import argparse
import ctypes
import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from athlos.config.schema import TrainConfig
from athlos.methods.slam.config import SlamConfig
from athlos.models.architecture import build, hf_config
from athlos.models.config import AllConfig, LoraConfig
from athlos.models.freeze import freeze_all_but
from athlos.models.selection import AllSelection
from athlos.models.sites import backbone, chosen_sites, parameters_of
from athlos.models.tuning import LoraTuning
from athlos.objectives.config import NextTokenConfig
from athlos.objectives.next_token import NextTokenObjective
from athlos.report.benchmark_record import ROUNDS, write_benchmark_record
from athlos.runs.provenance import reset_peak
from athlos.training.module import build_optimizer

SHAPES: dict[str, tuple[int, int, dict[str, Any]]] = {
    "smollm2": (
        5,
        27,
        {
            "model_type": "llama",
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "vocab_size": 49152,
            "tie_word_embeddings": True,
        },
    ),
    "gemma3": (
        3,
        33,
        {
            "model_type": "gemma3_text",
            "hidden_size": 640,
            "intermediate_size": 2048,
            "num_hidden_layers": 18,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "vocab_size": 262144,
            "tie_word_embeddings": True,
        },
    ),
}
"""Trained layers, the LoRA rank of about as many parameters, architecture."""
ARMS = ("transformers", "full", "layers", "slam", "lora")
PASSES = 2.6
"""(66K questions + 395K problems) x 3 epochs over 2 x 66K pairs x 4 epochs."""
PASSES_OF_PAPER = f"two-stage passes / SLAM's passes: {PASSES}"
CLIP = 1.0


class Arm:
    """A model, its optimizer and one step."""

    def __init__(self, name: str, shape: str, batch: dict[str, torch.Tensor]) -> None:
        num_layers, rank, values = SHAPES[shape]
        torch.manual_seed(0)
        self.model: Any = build(hf_config(values), dtype=torch.float32, attn_implementation="sdpa").train()
        self.is_plain, self.batch = name == "transformers", batch
        self.objective = NextTokenObjective(NextTokenConfig(_target_=""))
        found = backbone(self.model)
        if name == "layers":
            freeze_all_but(self.model, parameters_of(layer.module for layer in found.layers))
        elif name == "slam":
            sites = chosen_sites(found.layers[:num_layers], SlamConfig(ffn_parts=["up", "down"]).ffn_parts)
            freeze_all_but(self.model, parameters_of(site.module for site in sites))
        elif name == "lora":
            context: Any = SimpleNamespace(config=SimpleNamespace(seed=1))
            everything = AllSelection(AllConfig()).choose(self.model, context=context)
            LoraTuning(LoraConfig(rank=rank, alpha=2.0 * rank)).apply(self.model, everything, context=context)
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.start_anew()

    def start_anew(self) -> None:
        """No gradients, no optimizer state."""
        train = TrainConfig(lr=1e-5, weight_decay=0.0, beta1=0.9, beta2=0.95, adam_eps=1e-8)
        self.optimizer = build_optimizer(self.model, train)
        self.optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        if self.is_plain:
            inputs = {name: self.batch[name] for name in ("input_ids", "attention_mask", "position_ids", "labels")}
            loss = self.model(**inputs, use_cache=False).loss
        else:
            found = self.objective.loss(self.model, self.batch)
            loss = found.total / found.count
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def peak_bytes(self) -> int:
        """Most bytes that two steps from a fresh optimizer hold at one time, beyond what stands before them."""
        self.start_anew()
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free goes back to the system, or it would hide the step's own
        reset_peak()
        before = status_bytes("VmRSS")
        self.step()
        self.step()
        return status_bytes("VmHWM") - before


def status_bytes(field: str) -> int:
    """A field of this process's status: resident memory, or its highest value since the last reset."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])


def batch_of(shape: str, *, rows: int, length: int, targets: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    ids_BT = torch.randint(3, SHAPES[shape][2]["vocab_size"], (rows, length))
    labels_BT = ids_BT.clone()
    labels_BT[:, : length - targets] = -100
    positions_BT = torch.arange(length).expand(rows, length).contiguous()
    return {
        "input_ids": ids_BT,
        "labels": labels_BT,
        "attention_mask": torch.ones_like(ids_BT),
        "position_ids": positions_BT,
    }


def measure(shape: str, names: Sequence[str], options: argparse.Namespace) -> dict[str, Any]:
    batch = batch_of(shape, rows=options.rows, length=options.length, targets=options.targets)
    arms = {name: Arm(name, shape, batch) for name in names}
    result: dict[str, Any] = {}
    for name, arm in arms.items():
        result[f"{name}_peak_mb"] = round(arm.peak_bytes() / 2**20, 1)
        result[f"{name}_trained"] = sum(parameter.numel() for parameter in arm.trained)
    times: dict[str, list[float]] = {name: [] for name in arms}
    for index in range(options.rounds):
        for name in list(arms)[:: 1 if index % 2 else -1]:
            times[name].append(processor_seconds(arms[name].step))
    rounds: dict[str, list[float]] = {}
    for name in arms:
        result[f"{name}_ms"] = round(1000 * statistics.median(times[name]), 1)
        print(f"{shape:<9}{name:<14}{result[f'{name}_ms']:>10.1f} ms{result[f'{name}_peak_mb']:>10.1f} MiB", flush=True)
    for other in arms:
        if other != "slam":
            rounds[f"slam_over_{other}"] = [mine / its for mine, its in zip(times["slam"], times[other], strict=True)]
            result[f"slam_over_{other}_memory"] = round(result["slam_peak_mb"] / result[f"{other}_peak_mb"], 3)
    if "full" in arms:
        rounds["two_stage_over_slam"] = [PASSES / ratio for ratio in rounds["slam_over_full"]]
    result |= {name: round(statistics.median(values), 3) for name, values in rounds.items()}
    for name in (*rounds, *(key for key in result if key.endswith("_memory"))):
        print(f"{shape:<9}{name:<32}{result[name]:.3f}")
    return {**result, ROUNDS: rounds}


def processor_seconds(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--targets", type=int, default=24, help="positions of a row that are trained on")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--out", default="", help="folder of a record, new or empty")
    options = parser.parse_args(arguments)
    names = [name for name in ARMS if name in {*options.arms, "slam"}]
    results: dict[str, Any] = {"threads": torch.get_num_threads(), "assumed": PASSES_OF_PAPER}
    for shape in options.shapes:
        results[shape] = measure(shape, names, options)
        gc.collect()
    if options.out:
        write_benchmark_record(Path(options.out), name="selective_step", options=vars(options), results=results)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
