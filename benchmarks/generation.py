"""The native engine against `transformers.generate` on the same prompts, in one process, alternating.

    python benchmarks/generation.py [--model small/tiny_llama|small/smollm2_135m] [--repeats N] [--plain-linear]

Two cases a model. `group`: 8 samples of one prompt of 256 tokens, 64 new tokens each; transformers gets it as one call
with `num_return_sequences=8`. `ragged`: 16 prompts of 8 to 128 tokens whose answers end after 8 to 256 tokens, spread
geometrically; transformers gets all rows in one call, left-padded, and a stopping criterion ends each at its length.
Only useful tokens count: those up to a row's own end. Prints both sides and ends in one JSON line: useful tokens a
second of each side, their ratio (median over the repeats, each the quotient of two runs side by side).

Both sides compute in float32 with the same weights and threads. `--plain-linear` leaves out what the native engine
gains from oneDNN's matrix products (`engine.onednn=false`), so that the loop alone is compared.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation import StoppingCriteria, StoppingCriteriaList

from athlos.config.compose import run_config
from athlos.generation.config import NativeConfig
from athlos.generation.interface import Prompt, SamplingRule
from athlos.generation.native import NativeEngine
from athlos.models.loading import LoadedModel, load_model
from athlos.stages import StageStore, cache_dir

MODELS = ("small/tiny_llama", "small/smollm2_135m")
GROUP_SIZE, GROUP_PROMPT, GROUP_NEW = 8, 256, 64
RAGGED_ROWS, RAGGED_PROMPTS, RAGGED_NEW = 16, (8, 128), (8, 256)
PROMPT_SEED = 20240

Side = Callable[[], int]
"""Generates once; returns the number of useful tokens."""


class OwnLength(StoppingCriteria):
    """Ends each row at its own number of new tokens."""

    def __init__(self, *, width: int, limits: Sequence[int]) -> None:
        self.width, self.limits = width, torch.tensor(limits)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return input_ids.shape[1] - self.width >= self.limits


def spread(low: int, high: int, count: int) -> list[int]:
    """`count` whole numbers from `low` to `high`, each about the same multiple of the one before."""
    return [round(low * (high / low) ** (step / (count - 1))) for step in range(count)]


def token_rows(lengths: Sequence[int], *, vocab_size: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(PROMPT_SEED)
    return [torch.randint(vocab_size, (length,), generator=generator).tolist() for length in lengths]


def group(loaded: LoadedModel, engine: NativeEngine) -> tuple[Side, Side]:
    [row] = token_rows([GROUP_PROMPT], vocab_size=len(loaded.tokenizer))
    ids = torch.tensor([row])
    options = GenerationConfig(
        max_new_tokens=GROUP_NEW, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, use_cache=True,
        num_return_sequences=GROUP_SIZE, pad_token_id=0,
    )  # fmt: skip
    rule = SamplingRule(temperature=1.0)

    def native() -> int:
        prompt = Prompt(token_ids=row, max_new_tokens=GROUP_NEW)
        [samples] = engine.generate([prompt], rule=rule, num_samples=GROUP_SIZE, end_token_ids=())
        return sum(sample.num_tokens for sample in samples)

    def plain() -> int:
        out = loaded.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=options)
        return out[:, GROUP_PROMPT:].numel()

    return native, plain


def ragged(loaded: LoadedModel, engine: NativeEngine) -> tuple[Side, Side]:
    limits = spread(*RAGGED_NEW, RAGGED_ROWS)
    lengths = spread(*RAGGED_PROMPTS, RAGGED_ROWS)
    lengths = [lengths[(5 * row) % RAGGED_ROWS] for row in range(RAGGED_ROWS)]  # long answers to short prompts too
    rows = token_rows(lengths, vocab_size=len(loaded.tokenizer))
    width = max(lengths)
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    options = GenerationConfig(max_new_tokens=max(limits), do_sample=False, use_cache=True, pad_token_id=0)

    def native() -> int:
        prompts = [Prompt(token_ids=row, max_new_tokens=limit) for row, limit in zip(rows, limits, strict=True)]
        answers = engine.generate(prompts, rule=SamplingRule(), end_token_ids=())
        return sum(sample.num_tokens for [sample] in answers)

    def plain() -> int:
        stopping = StoppingCriteriaList([OwnLength(width=width, limits=limits)])
        loaded.model.generate(ids, attention_mask=mask, generation_config=options, stopping_criteria=stopping)
        return sum(limits)

    return native, plain


def compare(name: str, sides: tuple[Side, Side], *, repeats: int) -> dict[str, float]:
    """Runs both sides in turn; the first round warms up."""
    speeds: list[tuple[float, float]] = []
    for repeat in range(repeats + 1):
        measured = []
        for side in sides if repeat % 2 else sides[::-1]:
            start = time.perf_counter()
            num_tokens = side()
            measured.append(num_tokens / (time.perf_counter() - start))
        native, plain = measured if repeat % 2 else measured[::-1]
        if repeat:
            speeds.append((native, plain))
    ratios = [native / plain for native, plain in speeds]
    result = {
        "native_tokens_per_s": round(statistics.median(native for native, _ in speeds), 1),
        "transformers_tokens_per_s": round(statistics.median(plain for _, plain in speeds), 1),
        "ratio": round(statistics.median(ratios), 2),
    }
    print(
        f"{name:<24}{result['native_tokens_per_s']:>12.0f}{result['transformers_tokens_per_s']:>14.0f}"
        f"{result['ratio']:>8.2f}   {min(ratios):.2f} to {max(ratios):.2f}"
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--plain-linear", action="store_true")
    options = parser.parse_args()
    print(f"{'useful tokens a second':<24}{'native':>12}{'transformers':>14}{'ratio':>8}   from to")
    results: dict[str, Any] = {"threads": torch.get_num_threads(), "onednn": not options.plain_linear}
    for model in options.model or MODELS:
        loaded = load_model(run_config([f"model={model}"]).model, seed=1, stages=StageStore(cache_dir()))
        # The weights' own generation config would bring penalties and end tokens into the other side.
        loaded.model.generation_config = GenerationConfig()
        config = NativeConfig(_target_="", batch_size=RAGGED_ROWS, onednn=not options.plain_linear)
        engine = NativeEngine(config, model=loaded.model, tokenizer=loaded.tokenizer)
        for case in (group, ragged):
            name = f"{model}/{case.__name__}"
            results[name] = compare(name, case(loaded, engine), repeats=options.repeats)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
