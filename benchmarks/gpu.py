"""What `engine.dtype=bfloat16` does to the native engine on a GPU; without CUDA it says "not measured", no more.

    python benchmarks/gpu.py [--repeats N]

Generates on SmolLM2-135M the cases of `generation.py` in float32 and in bfloat16 in turn; the first round warms up.
Ends in one JSON line: tokens a second of both, and the median ratio. It has not run on a GPU yet.
"""

import argparse
import json
import statistics
import time
from typing import Any

import torch

from athlos.config.compose import run_config
from athlos.generation.config import NativeConfig, NumberFormat
from athlos.generation.interface import Prompt, SamplingRule
from athlos.generation.native import NativeEngine
from athlos.models.loading import load_model
from athlos.stages import StageStore, cache_dir
from generation import MODELS, RAGGED_ROWS, tasks


def tokens_per_s(engine: NativeEngine, task: dict[str, Any]) -> float:
    asked = zip(task["prompts"], task["limits"], strict=True)
    prompts = [Prompt(token_ids=row, max_new_tokens=limit) for row, limit in asked]
    rule = SamplingRule(temperature=task["temperature"])
    start = time.perf_counter()  # answers come as lists, so all work is done when they do
    answers = engine.generate(prompts, rule=rule, num_samples=task["num_samples"], end_token_ids=())
    return sum(sample.num_tokens for samples in answers for sample in samples) / (time.perf_counter() - start)


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
    model: Any = loaded.model
    model.cuda()
    engines = {
        number_format: NativeEngine(
            NativeConfig(_target_="", batch_size=RAGGED_ROWS, dtype=number_format),
            model=model,
            tokenizer=loaded.tokenizer,
        )
        for number_format in (NumberFormat.float32, NumberFormat.bfloat16)
    }
    for case, task in tasks(len(loaded.tokenizer)).items():
        rounds = [
            {number_format: tokens_per_s(engine, task) for number_format, engine in engines.items()}
            for _ in range(options.repeats + 1)
        ][1:]
        for number_format in engines:
            speed = statistics.median(speeds[number_format] for speeds in rounds)
            results[f"{name}/{case}/{number_format}/tokens_per_s"] = round(speed, 1)
        ratios = [speeds[NumberFormat.bfloat16] / speeds[NumberFormat.float32] for speeds in rounds]
        results[f"{name}/{case}/over_float32_ratio"] = round(statistics.median(ratios), 3)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
