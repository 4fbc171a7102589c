"""What `engine.dtype` and bf16-mixed do on a GPU, in minutes; without CUDA it says "not measured" and nothing else.

    python benchmarks/gpu.py [--repeats N]

Generation: the native engine in float32 and in bfloat16 against `transformers.generate` on the cases of `generation.py`,
SmolLM2-135M. Ends in one JSON line. That bf16-mixed training equals float32 is a test: `pytest -m gpu`.
"""

import argparse
import json
import time
from typing import Any

import torch
from transformers import GenerationConfig

from athlos.config.compose import run_config
from athlos.generation.config import NativeConfig, NumberFormat
from athlos.generation.native import NativeEngine
from athlos.models.loading import load_model
from athlos.stages import StageStore, cache_dir
from generation import CASES, MODELS, RAGGED_ROWS, compare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print(json.dumps({"gpu": "not measured"}))
        return
    results: dict[str, Any] = {"gpu": torch.cuda.get_device_name()}
    name = MODELS[-1]
    loaded = load_model(run_config([f"model={name}"]).model, seed=1, stages=StageStore(cache_dir()))
    loaded.model.generation_config = GenerationConfig()
    loaded.model.cuda()
    torch.set_default_device("cuda")
    for number_format in (NumberFormat.float32, NumberFormat.bfloat16):
        config = NativeConfig(_target_="", batch_size=RAGGED_ROWS, dtype=number_format)
        native = {"native": NativeEngine(config, model=loaded.model, tokenizer=loaded.tokenizer)}
        for case, sides in CASES.items():
            place = f"{name}/{case}/{number_format}"
            results[place] = compare(place, sides(loaded, native), repeats=options.repeats, clock=_after_all_work)
    print(json.dumps(results))


def _after_all_work() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
