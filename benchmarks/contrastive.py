"""Contrastive decoding against plain decoding on the same prompts, in one process, alternating.

    python benchmarks/contrastive.py [--model small/smollm2_135m] [--repeats N] [--processor-time]

Four prompts of 128 tokens, 64 new tokens each, greedy, float32, on the native engine. `prompt` contrasts with a prompt
of 32 tokens (CAD, SID), `heads` with ten silent heads (DeCoRe), `depth` with the early exits of the upper half (DoLa).
Beside them: `two_passes`, both prompts decoded one after the other, which is the least that two separate passes cost;
and the contrast that the installed transformers has itself (`guidance_scale` with a negative prompt; its DoLa is no
longer in the package). Prints the time a token of each side over that of plain decoding, median over the rounds, and
ends in one JSON line whose `..._ratio` keys are these quotients.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from transformers import GenerationConfig

from athlos.config.compose import run_config
from athlos.generation.config import NativeConfig
from athlos.generation.contrastive_decoding import early_exits
from athlos.generation.interface import Contrast, Prompt, SamplingRule
from athlos.generation.native import NativeEngine
from athlos.models.loading import LoadedModel, load_model
from athlos.models.sites import backbone
from athlos.stages import StageStore, cache_dir

ROWS, PROMPT, AGAINST, NEW = 4, 128, 32, 64
NUM_HEADS = 10
ALPHA = 0.5
GREEDY = SamplingRule()


def sides(loaded: LoadedModel) -> dict[str, Callable[[], object]]:
    """Each generates the same number of tokens once."""
    chance = torch.Generator().manual_seed(20240)
    ids = torch.randint(len(loaded.tokenizer), (ROWS, PROMPT), generator=chance)
    others = ids[:, -AGAINST:]
    engine = NativeEngine(NativeConfig(_target_="", batch_size=ROWS), model=loaded.model, tokenizer=loaded.tokenizer)
    found = backbone(loaded.model)
    rows, other_rows = ids.tolist(), others.tolist()
    prompts = [Prompt(token_ids=row, max_new_tokens=NEW) for row in rows]
    against = [Prompt(token_ids=row, max_new_tokens=NEW) for row in other_rows]
    paired = [
        Prompt(token_ids=row, against_ids=other, max_new_tokens=NEW)
        for row, other in zip(rows, other_rows, strict=True)
    ]
    heads = tuple((layer % len(found.layers), layer % found.num_heads) for layer in range(NUM_HEADS))
    layers = tuple(early_exits(len(found.layers), half="high"))
    options = GenerationConfig(max_new_tokens=NEW, do_sample=False, use_cache=True, pad_token_id=0)
    guided_options = GenerationConfig(**options.to_diff_dict(), guidance_scale=1 + ALPHA)

    def ours(asked: list[Prompt], contrast: Contrast | None = None) -> object:
        return engine.generate(asked, rule=GREEDY, end_token_ids=(), contrast=contrast)

    def guided() -> object:
        return loaded.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=guided_options,
            negative_prompt_ids=others,
        )

    return {
        "plain": lambda: ours(prompts),
        "prompt": lambda: ours(paired, Contrast(alpha=ALPHA)),
        "heads": lambda: ours(prompts, Contrast(max_alpha=2.0, heads=heads)),
        "depth": lambda: ours(prompts, Contrast(layers=layers)),
        "two_passes": lambda: (ours(prompts), ours(against)),
        "transformers_plain": lambda: loaded.model.generate(
            ids, attention_mask=torch.ones_like(ids), generation_config=options
        ),
        "transformers_guidance": guided,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small/smollm2_135m")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--processor-time", action="store_true")
    given = parser.parse_args()
    clock = time.process_time if given.processor_time else time.perf_counter
    loaded = load_model(run_config([f"model={given.model}"]).model, seed=1, stages=StageStore(cache_dir()))
    # The weights' own generation config would bring penalties and end tokens into the other side.
    loaded.model.generation_config = GenerationConfig()
    measured = sides(loaded)
    rounds: list[dict[str, float]] = []
    for repeat in range(given.repeats + 1):
        seconds = {}
        for name in list(measured)[:: 1 if repeat % 2 else -1]:
            start = clock()
            measured[name]()
            seconds[name] = clock() - start
        if repeat:  # the first round warms up
            rounds.append(seconds)
    result: dict[str, float | int | str] = {"model": given.model, "threads": torch.get_num_threads()}
    print(f"{'side':<24}{'ms/token':>10}{'/ plain':>9}   from to")
    for name in measured:
        ratios = [seconds[name] / seconds["plain"] for seconds in rounds]
        per_token = 1000 * statistics.median(seconds[name] for seconds in rounds) / NEW
        result[f"{name}_ms_per_token"] = round(per_token, 2)
        if name != "plain":
            result[f"{name}_over_plain_ratio"] = round(statistics.median(ratios), 3)
        middle = statistics.median(ratios)
        print(f"{name:<24}{per_token:>10.1f}{middle:>9.2f}   {min(ratios):.2f} to {max(ratios):.2f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
