"""Decoding speed of LISA against its base with eager and with SDPA attention, in one process, arms interleaved.

    python benchmarks/lisa_decode.py [--contexts 512 2048 ...] [--shared N] [--budget-mb N] [--repeats N] [--steps N]
        [--arms sdpa lisa ...] [--out FOLDER]

Shapes of SmolLM2-135M with random weights in float32: speed does not depend on their values. All arms decode over the
same kind of pre-allocated cache, greedy, one token a row and step, with the native engine's matrix products (oneDNN):

    eager, sdpa     the base through transformers' decoder, with either attention function
    written_out     the base in the native engine's own step, with SDPA
    fused           the same with the engine's compiled attention, the fastest that Athlos has without LISA
    lisa_decoder    LISA through transformers' decoder, with the compiled attention: to be compared with eager and sdpa
    lisa            LISA in the native engine's own step: to be compared with fused, and what a user gets
    lisa_unfused    the same without the compiled attention, as on a machine without a C++ compiler

Two cases a context: `budget`, each arm with as many rows as fit a fixed number of cache bytes, and `equal`, all arms
with the same rows. Caches are filled with random numbers instead of a prefill, which would take minutes; a real prefill
is timed apart.

Prints all arms and ends in one JSON line: tokens a second of each arm and ratios, each the median over the repeats of
the quotient within one round; cache bytes a token, counted and by formula. `--out` keeps all of it as a record that
`athlos report` shows and `athlos claims` reads; an interval needs `--repeats 6`.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from athlos.generation.cpu.fused_attention import fused
from athlos.generation.cpu.linear import fast_linear
from athlos.generation.kv_cache import KVCache
from athlos.generation.step import DecoderStep
from athlos.methods.lisa.surgery import LisaSurgery, shared_attentions
from athlos.models.architecture import build, hf_config
from athlos.models.memory import kv_cache_bytes
from athlos.models.sites import backbone
from athlos.report.benchmark_record import ROUNDS, write_benchmark_record

NUM_LAYERS = 30
SMOLLM2 = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
    "max_position_embeddings": 16384,
}
CONTEXTS = (512, 1024, 2048, 4096, 8192)
PREFILLS = (512, 2048)
RANK, HIDDEN = 10, 16
NUMBER_BYTES = 4
LISA = "lisa"
IN_DECODER = "lisa_decoder"
UNFUSED = "lisa_unfused"
BASES = ("eager", "sdpa", "written_out", "fused")
OURS = (IN_DECODER, LISA, UNFUSED)
ARMS = (*BASES, *OURS)
COMPILED = ("fused", IN_DECODER, LISA)
PAIRS = (
    (LISA, "eager"),
    (LISA, "sdpa"),
    (LISA, "fused"),
    (IN_DECODER, "eager"),
    (IN_DECODER, "sdpa"),
    (UNFUSED, "sdpa"),
    (UNFUSED, "written_out"),
)


def arms(
    stack: ExitStack, *, shared: int, wanted: Sequence[str] = ARMS
) -> tuple[dict[str, DecoderStep], dict[str, int]]:
    """The arms, and cache bytes a token of each by the formula of the dry run.

    LISA's last `shared` layers have an aligner with a dense head map and low-rank keys.
    """
    steps, formulas = {}, {}
    models: dict[str, Any] = {}
    for name in wanted:
        torch.manual_seed(0)
        kind = "ours" if name in OURS else "eager" if name == "eager" else "sdpa"
        if kind in models:  # one copy of the weights for all ways of running a model
            steps[name] = DecoderStep(models[kind], written_out=name not in ("sdpa", IN_DECODER))
            formulas[name] = kv_cache_bytes(backbone(models[kind]), num_rows=1, length=1, number_bytes=NUMBER_BYTES)
            continue
        models[kind] = model = build(hf_config(SMOLLM2), dtype=torch.float32).eval()
        model.set_attn_implementation("eager" if name == "eager" else "sdpa")
        if kind == "ours":
            plan: dict[str, Any] = {
                "layers": list(range(NUM_LAYERS - shared, NUM_LAYERS)),
                "share_point": "logits",
                "align": {"hidden": HIDDEN, "activation": "gelu", "residual": True, "has_mix": True},
                "low_rank": {"rank": RANK, "gate": "none", "has_bias": False},
            }
            LisaSurgery.rebuild(model, plan)
            with torch.no_grad():
                for attention in shared_attentions(model):
                    for parameter in attention.added():
                        parameter.normal_(std=0.05)
        stack.enter_context(fast_linear(model))
        steps[name] = DecoderStep(model, written_out=name not in ("eager", "sdpa", IN_DECODER))
        formulas[name] = kv_cache_bytes(backbone(model), num_rows=1, length=1, number_bytes=NUMBER_BYTES)
    return steps, formulas


def filled(step: DecoderStep, *, rows: int, context: int, new: int) -> KVCache:
    """A cache whose first `context` columns hold random keys and values."""
    cache = step.new_cache(capacity=context + new)
    step(torch.zeros(rows, 1, dtype=torch.int64), cache, pad_B=torch.zeros(rows, dtype=torch.int64), most_padding=0)
    layers: Any = cache.layers
    for layer in layers:
        for states in (layer.keys, layer.values):
            states[:, :, :context].normal_(std=0.5)
    cache.length = context
    return cache


def cache_bytes(cache: KVCache) -> float:
    """Bytes a token and row, as allocated."""
    layers: Any = cache.layers
    whole = sum(states.nbytes for layer in layers for states in (layer.keys, layer.values))
    return float(whole / (len(layers[0].keys) * cache.capacity))


def decode(step: DecoderStep, cache: KVCache, *, context: int, new: int) -> float:
    """Tokens a second."""
    keys = cache.layers[0].keys
    assert keys is not None
    rows = len(keys)
    cache.length = context
    ids_B1, pad_B = torch.zeros(rows, 1, dtype=torch.int64), torch.zeros(rows, dtype=torch.int64)
    start = time.perf_counter()
    for _ in range(new):
        ids_B1 = step(ids_B1, cache, pad_B=pad_B, most_padding=0).argmax(-1, keepdim=True)
    return rows * new / (time.perf_counter() - start)


def compare(name: str, sides: dict[str, Callable[[], float]], *, repeats: int, rows: dict[str, int]) -> dict[str, Any]:
    """Runs the arms in turn, every second round backwards; the first round warms up."""
    speeds: list[dict[str, float]] = []
    for repeat in range(repeats + 1):
        order = list(sides)[:: 1 if repeat % 2 else -1]
        measured = {arm: sides[arm]() for arm in order}
        if repeat:
            speeds.append(measured)
    result: dict[str, Any] = {"rows": rows, ROUNDS: {}}
    for arm in sides:
        result[f"{arm}_tokens_per_s"] = round(statistics.median(one[arm] for one in speeds), 2)
        print(f"{name:<16}{arm:<28}{rows[arm]:>5}{result[f'{arm}_tokens_per_s']:>12.1f}")
    for above, below in PAIRS:
        if above in sides and below in sides:
            ratios = [one[above] / one[below] for one in speeds]
            result[f"{above}_over_{below}"] = round(statistics.median(ratios), 3)
            result[ROUNDS][f"{above}_over_{below}"] = [round(ratio, 4) for ratio in ratios]
            pair = f"{above} / {below}"
            print(
                f"{name:<16}{pair:<28}{result[f'{above}_over_{below}']:>17.2f}   {min(ratios):.2f} to {max(ratios):.2f}"
            )
    sys.stdout.flush()
    return result


def decoding(
    steps: dict[str, DecoderStep], *, rows: dict[str, int], context: int, new: int, repeats: int, name: str
) -> dict[str, Any]:
    caches: dict[str, KVCache] = {}
    for side in (BASES, OURS):  # all ways of running a model read one cache
        if here := [which for which in side if which in steps]:
            cache = filled(steps[here[0]], rows=rows[here[0]], context=context, new=new)
            caches |= dict.fromkeys(here, cache)

    def arm(which: str) -> Callable[[], float]:
        def run() -> float:
            with fused(is_wanted=which in COMPILED):
                return decode(steps[which], caches[which], context=context, new=new)

        return run

    return compare(f"{name} {context}", {which: arm(which) for which in steps}, repeats=repeats, rows=rows)


def prefill(steps: dict[str, DecoderStep], *, context: int, repeats: int) -> dict[str, Any]:
    ids, pad_B = torch.randint(3, 1000, (1, context)), torch.zeros(1, dtype=torch.int64)

    def arm(name: str) -> Callable[[], float]:
        def run() -> float:
            step = steps[name]
            start = time.perf_counter()
            with fused(is_wanted=name in COMPILED):
                step(ids, step.new_cache(capacity=context), pad_B=pad_B, most_padding=0)
            return context / (time.perf_counter() - start)

        return run

    chosen = {name: arm(name) for name in ("eager", "sdpa", IN_DECODER) if name in steps}
    return compare(f"prefill {context}", chosen, repeats=repeats, rows=dict.fromkeys(chosen, 1))


def counted_bytes(steps: dict[str, DecoderStep]) -> dict[str, float]:
    """Cache bytes a token and row of each arm, as allocated."""
    return {name: cache_bytes(filled(step, rows=2, context=16, new=16)) for name, step in steps.items()}


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contexts", type=int, nargs="+", default=list(CONTEXTS))
    parser.add_argument("--prefills", type=int, nargs="*", default=list(PREFILLS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="with fewer, a run is shorter")
    parser.add_argument("--shared", type=int, default=16, help="shared layers of 30")
    parser.add_argument("--budget-mb", type=int, default=1536, help="MiB of cache an arm may fill")
    parser.add_argument("--equal-rows", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2, help="tokens a row and run")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", help="a new folder for the record")
    options = parser.parse_args(arguments)
    steps, formulas = arms(ExitStack(), shared=options.shared, wanted=options.arms)
    sizes = counted_bytes(steps)
    results: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "shared": options.shared,
        "budget_mb": options.budget_mb,
        "cache_bytes_per_token": sizes,
        "cache_bytes_by_formula": formulas,
    }
    for name in steps:
        print(f"cache bytes a token, {name}: {sizes[name]:.0f}, by formula {formulas[name]}")
    print(f"{'case':<16}{'arm, or ratio of two':<28}{'rows':>5}{'tokens/s':>12}")
    for context in options.contexts:
        length = context + options.steps
        fitting = {name: int(options.budget_mb * 2**20 // (sizes[name] * length)) for name in steps}
        cases = {"budget": fitting, "equal": dict.fromkeys(steps, options.equal_rows)}
        for name, rows in cases.items():
            results[f"{name}_{context}"] = decoding(
                steps, rows=rows, context=context, new=options.steps, repeats=options.repeats, name=name
            )
    for context in options.prefills:
        results[f"prefill_{context}"] = prefill(steps, context=context, repeats=min(3, options.repeats))
    if options.out:
        write_benchmark_record(Path(options.out), name="lisa_decode", options=vars(options), results=results)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
