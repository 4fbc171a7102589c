"""Attention weights in decode steps alone against eager attention throughout, in one process, alternating.

    python benchmarks/head_scores.py [--model small/smollm2_135m] [--length N] [--steps N] [--repeats N]

A random prompt of 2,048 tokens is read, then 16 tokens are decoded one by one with attention weights, as the detection
of retrieval heads does it: the prompt by the kernel that the model has (`ours`), or by the eager one as well (`eager`).
Prints the seconds of each, median over the rounds, whether both point at the same keys, and ends in one JSON line whose
`..._ratio` key is ours / eager.
"""

import argparse
import json
import statistics
import time
from typing import TYPE_CHECKING

import torch

from athlos.config.compose import run_config
from athlos.models.head_scores import NeedlePrompt, eager_attention, generated
from athlos.models.loading import load_model
from athlos.stages import StageStore, cache_dir

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def detection(
    model: "PreTrainedModel", prompt: NeedlePrompt, *, steps: int, is_eager: bool
) -> tuple[float, torch.Tensor]:
    """Seconds, and the keys that heads point at."""
    start = time.perf_counter()
    if is_eager:
        with eager_attention(model):
            keys, _ = generated(model, prompt, max_new_tokens=steps, ends=lambda token: False)
    else:
        keys, _ = generated(model, prompt, max_new_tokens=steps, ends=lambda token: False)
    return time.perf_counter() - start, keys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small/smollm2_135m")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    run = run_config([f"model={options.model}", "train.max_steps=0"])
    loaded = load_model(run.model, seed=1, stages=StageStore(cache_dir()))
    chance = torch.Generator().manual_seed(20240)
    ids = torch.randint(len(loaded.tokenizer), (options.length,), generator=chance).tolist()
    prompt = NeedlePrompt(ids=ids, start=100, end=120, length=options.length, depth=0.0, needle=0)
    seconds: dict[str, list[float]] = {"ours": [], "eager": []}
    same = []
    for _ in range(options.repeats):
        spent, ours = detection(loaded.model, prompt, steps=options.steps, is_eager=False)
        seconds["ours"].append(spent)
        spent, eager = detection(loaded.model, prompt, steps=options.steps, is_eager=True)
        seconds["eager"].append(spent)
        same.append(float((ours == eager).float().mean()))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        print(f"{name:6} {value:7.2f} s")
    print(f"keys alike: {min(same):.4f}")
    print(
        json.dumps(
            {
                "model": options.model,
                "length": options.length,
                **{f"{name}_s": round(value, 3) for name, value in medians.items()},
                "same_keys": round(min(same), 4),
                "detection_ratio": round(medians["ours"] / medians["eager"], 3),
            }
        )
    )


if __name__ == "__main__":
    main()
