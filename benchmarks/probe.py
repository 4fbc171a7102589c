"""What the activation probe costs on a forward pass, interleaved in one process.

    python benchmarks/probe.py [--rows N] [--length N] [--repeats N] [--models smollm2 gemma3 llava]

Shapes of SmolLM2-135M, of Gemma-3-270M and of a small model in LLaVA form, random weights in float32: speed does not
depend on their values. All layers are hooked; a tenth of the positions is padding and left out by the mask. Arms:

    plain     the decoder alone, without the head
    positive  with the probe, counts of gates above zero
    both      with the probe, those counts and the mean activation

Prints all arms and ends in one JSON line: milliseconds of processor time a pass, which other programs on the machine
disturb less than the clock, and each arm over plain, the median over the repeats of the quotient within one round.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from athlos.models.architecture import build, hf_config
from athlos.models.probe import ActivationProbe

SMOLLM2 = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
GEMMA3 = {
    "model_type": "gemma3_text",
    "hidden_size": 640,
    "intermediate_size": 2048,
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "vocab_size": 8192,
    "tie_word_embeddings": True,
}
"""Its vocabulary is cut: the decoder alone runs, and 262,144 random rows only take memory."""
IMAGE_TOKEN, NUM_PATCHES = 8191, 16
LLAVA = {
    "model_type": "llava",
    "text_config": GEMMA3 | {"model_type": "llama"},
    "image_token_index": IMAGE_TOKEN,
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
    },
}
MODELS = {"smollm2": SMOLLM2, "gemma3": GEMMA3, "llava": LLAVA}
LANGUAGE = "x"


def case(name: str, *, rows: int, length: int) -> tuple[Any, dict[str, torch.Tensor], torch.Tensor]:
    """Model, batch and the mask of the counted positions."""
    torch.manual_seed(0)
    model = build(hf_config(MODELS[name]), dtype=torch.float32).eval()
    ids_BT = torch.randint(3, 8000, (rows, length))
    real_BT = torch.ones_like(ids_BT)
    real_BT[:, length - length // 10 :] = 0
    batch = {"input_ids": ids_BT, "attention_mask": real_BT}
    mask_BT = real_BT.bool()
    if name == "llava":
        ids_BT[:, :NUM_PATCHES] = IMAGE_TOKEN
        batch["pixel_values"] = torch.randn(rows, 3, 32, 32)
        mask_BT = mask_BT & (ids_BT != IMAGE_TOKEN)
    return model, batch, mask_BT


def measure(name: str, *, rows: int, length: int, repeats: int) -> dict[str, float]:
    model, batch, mask_BT = case(name, rows=rows, length=length)

    def plain() -> None:
        with torch.inference_mode():
            model.base_model(**batch, use_cache=False)

    def with_probe(probe: ActivationProbe) -> None:
        with probe:
            probe.add(LANGUAGE, batch, mask_BT)

    arms: dict[str, Callable[[], None]] = {"plain": plain}
    for arm, with_sums in (("positive", False), ("both", True)):
        probe = ActivationProbe(model, languages=[LANGUAGE], with_sums=with_sums)
        arms[arm] = lambda probe=probe: with_probe(probe)
    times: dict[str, list[float]] = {arm: [] for arm in arms}
    for repeat in range(repeats + 1):
        for arm in list(arms)[:: 1 if repeat % 2 else -1]:
            start = time.process_time()
            arms[arm]()
            if repeat:  # the first round warms up
                times[arm].append(time.process_time() - start)
    result = {f"{arm}_ms": round(1000 * statistics.median(times[arm]), 1) for arm in arms}
    for arm in list(arms)[1:]:
        ratios = [mine / plain_time for mine, plain_time in zip(times[arm], times["plain"], strict=True)]
        result[f"{arm}_over_plain"] = round(statistics.median(ratios), 3)
    print(f"{name:<10}" + "  ".join(f"{key} {value}" for key, value in result.items()), flush=True)
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    options = parser.parse_args(arguments)
    results = {
        name: measure(name, rows=options.rows, length=options.length, repeats=options.repeats)
        for name in options.models
    }
    print(json.dumps({"threads": torch.get_num_threads(), "rows": options.rows, "length": options.length} | results))


if __name__ == "__main__":
    main()
