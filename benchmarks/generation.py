"""The native engine against `transformers.generate`, and against vLLM and llama.cpp, on the same prompts, alternating.

    python benchmarks/generation.py [--model small/tiny_llama|small/smollm2_135m] [--repeats N]
        [--cases single group ragged] [--without onednn fused written_out] [--processor-time]
    python benchmarks/generation.py --peers [--repeats N]

Three cases a model. `single`: one prompt of 8 tokens, 128 new ones, the likeliest. `group`: 8 samples of one prompt of
256 tokens, 64 new tokens each; transformers gets it as one call with `num_return_sequences=8`. `ragged`: 16 prompts of
8 to 128 tokens whose answers end after 8 to 256 tokens, spread geometrically; transformers gets all rows in one call,
left-padded, and a stopping criterion ends each at its length.
A third side of `ragged`, `batch_1`, is the native engine with a prompt at a time.
Only useful tokens count: those up to a row's own end. Prints all sides and ends in one JSON line: useful tokens a
second of each side, and the ratio of the native engine to each other one (median over the repeats, each the quotient of
two runs of one round).

All sides compute in float32 with the same weights and threads. `--without` adds the native engine without one of its
kernels for CPUs as a side of its own: what is removed from the engine by `engine.<name>=false`. `--processor-time`
counts the seconds that this process computed, for a machine on which others compute too (with one thread).

`--peers` (`make peers` first) runs the engine, transformers, vLLM and llama.cpp in float32 and in bfloat16 (llama.cpp:
in f16 too, and the better of both counts), each in a process of its own (`generation_peers.py`), all with the same
weights and token ids; a side that is not installed or does not start is told and left out. It ends in one JSON line of
medians over the rounds, keys `<model>/<case>/<format>/over_<side>_ratio` and `<side>/tokens_per_s`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation import StoppingCriteria, StoppingCriteriaList

from athlos.config.compose import run_config
from athlos.generation.config import NativeConfig
from athlos.generation.interface import Prompt, SamplingRule
from athlos.generation.native import NativeEngine
from athlos.models.config import GGUFFormat
from athlos.models.gguf_files import gguf_file
from athlos.models.loading import LoadedModel, load_model
from athlos.stages import StageStore, cache_dir

MODELS = ("small/tiny_llama", "small/smollm2_135m")
SINGLE_PROMPT, SINGLE_NEW = 8, 128
GROUP_SIZE, GROUP_PROMPT, GROUP_NEW = 8, 256, 64
KERNELS = ("onednn", "fused", "written_out")
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


def engines(loaded: LoadedModel, *, without: Sequence[str]) -> dict[str, NativeEngine]:
    """The engine as a user gets it, and without each of the kernels."""
    left_out: dict[str, dict[str, Any]] = {"native": {}, **{f"without_{name}": {name: False} for name in without}}
    return {
        side: NativeEngine(
            NativeConfig(_target_="", batch_size=RAGGED_ROWS, **values), model=loaded.model, tokenizer=loaded.tokenizer
        )
        for side, values in left_out.items()
    }


def single(loaded: LoadedModel, native: dict[str, NativeEngine]) -> dict[str, Side]:
    [row] = token_rows([SINGLE_PROMPT], vocab_size=len(loaded.tokenizer))
    ids = torch.tensor([row])
    options = GenerationConfig(max_new_tokens=SINGLE_NEW, do_sample=False, use_cache=True, pad_token_id=0)

    def ours(engine: NativeEngine) -> int:
        prompt = Prompt(token_ids=row, max_new_tokens=SINGLE_NEW)
        [[sample]] = engine.generate([prompt], rule=SamplingRule(), end_token_ids=())
        return sample.num_tokens

    def plain() -> int:
        out = loaded.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=options)
        return out[:, SINGLE_PROMPT:].numel()

    return {**{name: partial(ours, engine) for name, engine in native.items()}, "transformers": plain}


def group(loaded: LoadedModel, native: dict[str, NativeEngine]) -> dict[str, Side]:
    [row] = token_rows([GROUP_PROMPT], vocab_size=len(loaded.tokenizer))
    ids = torch.tensor([row])
    options = GenerationConfig(
        max_new_tokens=GROUP_NEW,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        use_cache=True,
        num_return_sequences=GROUP_SIZE,
        pad_token_id=0,
    )
    rule = SamplingRule(temperature=1.0)

    def ours(engine: NativeEngine) -> int:
        prompt = Prompt(token_ids=row, max_new_tokens=GROUP_NEW)
        [samples] = engine.generate([prompt], rule=rule, num_samples=GROUP_SIZE, end_token_ids=())
        return sum(sample.num_tokens for sample in samples)

    def plain() -> int:
        out = loaded.model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=options)
        return out[:, GROUP_PROMPT:].numel()

    return {**{name: partial(ours, engine) for name, engine in native.items()}, "transformers": plain}


def ragged_rows(vocab_size: int) -> tuple[list[list[int]], list[int]]:
    """Prompts and the lengths of their answers."""
    lengths = spread(*RAGGED_PROMPTS, RAGGED_ROWS)
    lengths = [lengths[(5 * row) % RAGGED_ROWS] for row in range(RAGGED_ROWS)]  # long answers to short prompts too
    return token_rows(lengths, vocab_size=vocab_size), spread(*RAGGED_NEW, RAGGED_ROWS)


def ragged(loaded: LoadedModel, native: dict[str, NativeEngine]) -> dict[str, Side]:
    rows, limits = ragged_rows(len(loaded.tokenizer))
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    options = GenerationConfig(max_new_tokens=max(limits), do_sample=False, use_cache=True, pad_token_id=0)

    def ours(engine: NativeEngine) -> int:
        prompts = [Prompt(token_ids=row, max_new_tokens=limit) for row, limit in zip(rows, limits, strict=True)]
        answers = engine.generate(prompts, rule=SamplingRule(), end_token_ids=())
        return sum(sample.num_tokens for [sample] in answers)

    def plain() -> int:
        stopping = StoppingCriteriaList([OwnLength(width=width, limits=limits)])
        loaded.model.generate(ids, attention_mask=mask, generation_config=options, stopping_criteria=stopping)
        return sum(limits)

    alone = NativeEngine(NativeConfig(_target_="", batch_size=1), model=loaded.model, tokenizer=loaded.tokenizer)
    sides = {**native, "batch_1": alone}
    return {**{name: partial(ours, engine) for name, engine in sides.items()}, "transformers": plain}


CASES = {"single": single, "group": group, "ragged": ragged}


def compare(name: str, sides: dict[str, Side], *, repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """Runs the sides in turn, every second round backwards; the first round warms up."""
    rounds: list[dict[str, float]] = []
    for repeat in range(repeats + 1):
        speeds = {}
        for side in list(sides)[:: 1 if repeat % 2 else -1]:
            start = clock()
            num_tokens = sides[side]()
            speeds[side] = num_tokens / (clock() - start)
        if repeat:
            rounds.append(speeds)
    result = {f"{side}_tokens_per_s": round(statistics.median(speeds[side] for speeds in rounds), 1) for side in sides}
    for side in sides:
        ratios = [speeds["native"] / speeds[side] for speeds in rounds]
        if side != "native":
            key = "ratio" if side == "transformers" else f"over_{side}_ratio"
            result[key] = round(statistics.median(ratios), 3)
        print(
            f"{name:<28}{side:<24}{result[f'{side}_tokens_per_s']:>10.0f}{statistics.median(ratios):>8.2f}"
            f"   {min(ratios):.2f} to {max(ratios):.2f}"
        )
    return result


FORMATS = {"float32": ("f32",), "bfloat16": ("bf16", "f16")}
"""Number format of the engines -> those of llama.cpp."""
PEERS_PYTHON = Path(__file__).parents[1] / ".venv-peers" / "bin" / "python"


def tasks(vocab_size: int) -> dict[str, dict[str, Any]]:
    """The cases as every process reads them."""
    [one], [asked] = (token_rows([length], vocab_size=vocab_size) for length in (SINGLE_PROMPT, GROUP_PROMPT))
    rows, limits = ragged_rows(vocab_size)
    return {
        "single": {"prompts": [one], "limits": [SINGLE_NEW], "num_samples": 1, "temperature": 0.0},
        "group": {"prompts": [asked], "limits": [GROUP_NEW], "num_samples": GROUP_SIZE, "temperature": 1.0},
        "ragged": {"prompts": rows, "limits": limits, "num_samples": 1, "temperature": 0.0},
    }


class Peer:
    """A side in a process of its own, which waits while the others compute."""

    def __init__(self, side: str, number_format: str, folder: Path) -> None:
        python = sys.executable if side in ("athlos", "transformers") else str(PEERS_PYTHON)
        program = str(Path(__file__).with_name("generation_peers.py"))
        self.process = subprocess.Popen(
            [python, program, side, number_format, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        )
        self.is_ready = self._line() == "ready"

    def tokens_per_s(self, task: dict[str, Any]) -> float:
        assert self.process.stdin is not None
        print(json.dumps(task), file=self.process.stdin, flush=True)
        answer = json.loads(self._line())
        return float(answer["tokens"] / answer["seconds"])

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def compare_peers(loaded: LoadedModel, *, name: str, repeats: int, cases: Sequence[str]) -> dict[str, float]:
    """All sides of each format in turn, every second round backwards; the first round warms up."""
    result: dict[str, float] = {}
    asked = tasks(len(loaded.tokenizer))
    with tempfile.TemporaryDirectory() as folder:
        loaded.model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
        for number_format, of_llama_cpp in FORMATS.items():
            wanted = {side: (side, number_format, Path(folder)) for side in ("athlos", "transformers")}
            if PEERS_PYTHON.is_file():
                wanted["vllm"] = ("vllm", number_format, Path(folder))
                for kind in of_llama_cpp:
                    file = gguf_file(
                        f"dir:{folder}", number_format=GGUFFormat(kind), stages=StageStore(cache_dir())
                    ).path
                    wanted[f"llama_cpp_{kind}"] = ("llama_cpp", kind, file)
            peers = {side: Peer(*words) for side, words in wanted.items()}
            try:
                for side in [side for side, peer in peers.items() if not peer.is_ready]:
                    print(f"{name} {number_format}: {side} does not start and is left out", flush=True)
                    peers.pop(side).stop()
                for case in cases:
                    place = f"{name}/{case}/{number_format}"
                    result |= _peer_rounds(peers, asked[case], place=place, repeats=repeats)
            finally:
                for peer in peers.values():
                    peer.stop()
    return result


def _peer_rounds(peers: dict[str, Peer], task: dict[str, Any], *, place: str, repeats: int) -> dict[str, float]:
    rounds: list[dict[str, float]] = []
    for repeat in range(repeats + 1):
        order = list(peers)[:: 1 if repeat % 2 else -1]
        speeds = {side: peers[side].tokens_per_s(task) for side in order}
        if of_llama_cpp := [speed for side, speed in speeds.items() if side.startswith("llama_cpp")]:
            speeds["llama_cpp"] = max(of_llama_cpp)
        if repeat:
            rounds.append(speeds)
    result = {}
    for side in rounds[0]:
        speed = statistics.median(speeds[side] for speeds in rounds)
        ratios = [speeds["athlos"] / speeds[side] for speeds in rounds]
        result[f"{place}/{side}/tokens_per_s"] = round(speed, 1)
        if side in ("transformers", "vllm", "llama_cpp"):
            result[f"{place}/over_{side}_ratio"] = round(statistics.median(ratios), 3)
        middle = statistics.median(ratios)
        print(f"{place:<40}{side:<20}{speed:>8.1f}{middle:>8.2f}   {min(ratios):.2f} to {max(ratios):.2f}", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, action="append")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--without", nargs="+", choices=KERNELS, default=())
    options = parser.parse_args()
    print(f"{'case':<28}{'side':<24}{'tokens/s':>10}{'native/':>8}   from to")
    clock = time.process_time if options.processor_time else time.perf_counter
    results: dict[str, Any] = {"threads": torch.get_num_threads()}
    for model in options.model or MODELS:
        loaded = load_model(run_config([f"model={model}"]).model, seed=1, stages=StageStore(cache_dir()))
        # The weights' own generation config would bring penalties and end tokens into the other side.
        loaded.model.generation_config = GenerationConfig()
        if options.peers:
            results |= compare_peers(loaded, name=model, repeats=options.repeats, cases=options.cases)
            continue
        native = engines(loaded, without=options.without)
        for case in options.cases:
            name = f"{model}/{case}"
            results[name] = compare(name, CASES[case](loaded, native), repeats=options.repeats, clock=clock)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
