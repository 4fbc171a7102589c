"""PLAST's speed bars: a step of the chosen layers, cached picture features, selection from counts; one process.

    python benchmarks/plast_step.py [--rows N] [--length N] [--rounds N] [--out FOLDER]

Gemma-3-270M's shape (vocabulary of 8,192) and EfficientNet-Lite0 in LLaVA form, random weights in float32: neither time
nor memory depends on their values. A step is forward, backward and AdamW on one fixed batch, with a picture in a row:

    full      all 18 decoder layers train, features cached
    selected  the 3 lowest train, features cached
    encoding  as `selected`, and the tower reads the pictures in each step

Times are processor time, ratios medians over rounds of the quotient within a round. Optimizer memory is the size of its
state. `selection_s` is the choice of layers from counts of 32 layers x 6 languages x 11,008 neurons. Ends in one JSON
line; `--out` keeps a record for `athlos claims`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from athlos.config.schema import TrainConfig
from athlos.models.architecture import build, hf_config
from athlos.models.freeze import freeze_all_but
from athlos.models.layer_selectors import lape, layer_scores, shallow_prefix
from athlos.models.sites import backbone, parameters_of
from athlos.models.vision_language import FEATURES, encode_pictures
from athlos.objectives.config import NextTokenConfig
from athlos.objectives.next_token import NextTokenObjective
from athlos.report.benchmark_record import ROUNDS, write_benchmark_record
from athlos.training.module import build_optimizer

IMAGE_TOKEN, NUM_IMAGE_TOKENS, NUM_SELECTED = 8191, 4, 3
SHAPE = {
    "model_type": "llava",
    "image_token_index": IMAGE_TOKEN,
    "image_seq_length": NUM_IMAGE_TOKENS,
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "full",
    "tie_word_embeddings": True,
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 640,
        "intermediate_size": 2048,
        "num_hidden_layers": 18,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "vocab_size": 8192,
        "tie_word_embeddings": True,
    },
    "vision_config": {
        "model_type": "athlos_vision",
        "encoder": "efficientnet_lite0",
        "image_size": 128,
        "num_tokens_a_side": 2,
        "hidden_size": 1280,
    },
}


class Arm:
    """A model, its optimizer and one step."""

    def __init__(self, name: str, batch: dict[str, torch.Tensor], pictures: list[np.ndarray]) -> None:
        torch.manual_seed(0)
        self.model: Any = build(hf_config(SHAPE), dtype=torch.float32, attn_implementation="sdpa")
        layers = backbone(self.model).layers
        freeze_all_but(
            self.model, parameters_of(layer.module for layer in (layers if name == "full" else layers[:NUM_SELECTED]))
        )
        self.encodes, self.pictures = name == "encoding", pictures
        self.batch = {**batch, FEATURES: encode_pictures(self.model.eval(), pictures)}
        self.objective = NextTokenObjective(NextTokenConfig(_target_=""))
        train = TrainConfig(lr=1e-5, weight_decay=0.0, beta1=0.9, beta2=0.95, adam_eps=1e-8)
        self.optimizer = build_optimizer(self.model, train)
        self.loss = 0.0

    def step(self) -> None:
        if self.encodes:
            self.batch[FEATURES] = encode_pictures(self.model, self.pictures)
        found = self.objective.loss(self.model, self.batch)
        (found.total / found.count).backward()
        self.loss = float(found.total / found.count)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state_mb(self) -> float:
        return sum(value.nbytes for one in self.optimizer.state.values() for value in one.values()) / 2**20


def batch_of(*, rows: int, length: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    ids_BT = torch.randint(3, IMAGE_TOKEN, (rows, length))
    ids_BT[:, :NUM_IMAGE_TOKENS] = IMAGE_TOKEN
    labels_BT = ids_BT.clone()
    labels_BT[:, : length // 2] = -100
    positions_BT = torch.arange(length).expand(rows, length).contiguous()
    return {
        "input_ids": ids_BT,
        "labels": labels_BT,
        "attention_mask": torch.ones_like(ids_BT),
        "position_ids": positions_BT,
    }


def processor_seconds(work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def select() -> None:
    probs = np.random.default_rng(0).random((32, 6, 11008))
    counts = lape(probs, percentile=95, entropy_share=0.01).counts.astype(np.float64)
    shallow_prefix(layer_scores(counts, reference=0), std_factor=0.5, region=1 / 3, fallback_share=0.15)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--out", default="", help="folder of a record, new or empty")
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, size=(32, 32, 3), dtype=np.uint8) for _ in range(options.rows)]
    batch = batch_of(rows=options.rows, length=options.length)
    arms = {name: Arm(name, batch, pictures) for name in ("full", "selected", "encoding")}
    losses = {}
    for name, arm in arms.items():  # the first step allocates
        arm.step()
        losses[name] = arm.loss
    times: dict[str, list[float]] = {name: [] for name in arms}
    for index in range(options.rounds):
        for name in list(arms)[:: 1 if index % 2 else -1]:
            times[name].append(processor_seconds(arms[name].step))
    pairs = {"selected_over_full": ("selected", "full"), "encoding_over_cached": ("encoding", "selected")}
    rounds = {
        ratio: [mine / its for mine, its in zip(times[left], times[right], strict=True)]
        for ratio, (left, right) in pairs.items()
    }
    result: dict[str, Any] = {f"{name}_ms": round(1000 * statistics.median(times[name]), 1) for name in arms}
    result |= {ratio: round(statistics.median(values), 3) for ratio, values in rounds.items()}
    result["optimizer_memory_ratio"] = round(arms["selected"].state_mb() / arms["full"].state_mb(), 3)
    result["trained_ratio"] = round(NUM_SELECTED / 18, 3)
    result["loss_difference"] = abs(losses["selected"] - losses["encoding"])
    result["selection_s"] = round(processor_seconds(select), 2)
    for key, value in result.items():
        print(f"{key:<28}{value}")
    if options.out:
        write_benchmark_record(
            Path(options.out), name="plast_step", options=vars(options), results={**result, ROUNDS: rounds}
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
