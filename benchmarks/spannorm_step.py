"""Training step of SpanNorm against PreNorm and the untouched Llama, in one process, arms interleaved.

    python benchmarks/spannorm_step.py [--hidden N] [--layers N] [--rows N] [--length N] [--steps N] [--threads N]
        [--out FOLDER]

All arms have equal shapes: forward, backward, clipping and AdamW on one fixed batch. Arms:

    llama        transformers' own decoder layer
    prenorm      surgery=spannorm surgery.placement=prenorm: the same block class as spannorm
    spannorm     surgery=spannorm
    probe        one look at the stream, as method=spannorm takes every `probe_every` steps

Ends in one JSON line: median milliseconds of each arm; ratios of the clock and of processor time, each the median over
rounds of the quotient within a round; `probe_overhead`, one look in 50 steps over 50 steps; peak bytes that autograd
keeps, spannorm over prenorm; seconds to build 128 layers of width 2048 on the meta device. `--out` keeps it as a record
that `athlos report` shows and `athlos claims` reads.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from athlos.config.compose import run_config
from athlos.methods.spannorm.diagnose import profile
from athlos.methods.spannorm.surgery import SpanNormSurgery
from athlos.models.architecture import build, hf_config
from athlos.parts import PartContext
from athlos.report.benchmark_record import ROUNDS, write_benchmark_record
from athlos.stages import StageStore

VOCABULARY = 2048
PROBE_EVERY, PROBE_ROWS = 50, 4
LARGE = {"hidden_size": 2048, "intermediate_size": 5504, "num_hidden_layers": 128, "num_attention_heads": 16}
RATIOS = (("spannorm", "prenorm"), ("spannorm", "llama"), ("prenorm", "llama"))


def shape_of(options: argparse.Namespace) -> dict[str, Any]:
    heads = options.hidden // 16 if options.hidden < 512 else options.hidden // 64
    return {
        "hidden_size": options.hidden,
        "intermediate_size": options.hidden * 8 // 3,
        "num_attention_heads": heads,
        "num_hidden_layers": options.layers,
    }


def model_of(shape: dict[str, Any], placement: str | None) -> Any:
    """A model of the shape on torch's current device, changed unless `placement` is None."""
    torch.manual_seed(0)
    model: Any = build(
        hf_config({"model_type": "llama", "vocab_size": VOCABULARY, "tie_word_embeddings": True, **shape}),
        dtype=torch.float32,
        attn_implementation="sdpa",
    )
    if placement is None:
        return model
    config = run_config(["surgery=spannorm", f"surgery.placement={placement}", "train.max_steps=0"])
    nothing: Any = None
    context = PartContext(config=config, tokenizer=nothing, stages=StageStore(Path()), model_fingerprint="benchmark")
    surgery: Any = config.surgery
    return SpanNormSurgery(surgery).apply(model, context=context)[0]


def step_of(model: Any, ids_BT: torch.Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        model(ids_BT, labels=ids_BT, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def kept_bytes(model: Any, ids_BT: torch.Tensor) -> int:
    """Bytes of distinct activations that autograd keeps of one forward pass."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(ids_BT, labels=ids_BT, use_cache=False).loss
    del loss
    return sum(kept.values())


def seconds(function: Callable[[], Any]) -> tuple[float, float]:
    """Of the clock, and of the processor: other work on the machine moves the first far more."""
    start, start_busy = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start, time.process_time() - start_busy


def meta_seconds() -> float:
    with torch.device("meta"):
        return seconds(lambda: model_of(LARGE, "spannorm"))[0]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"hidden": 256, "layers": 12, "rows": 8, "length": 128, "steps": 20, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", help="a new folder for the record")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    ids_BT = torch.randint(3, VOCABULARY, (options.rows, options.length), generator=torch.Generator().manual_seed(0))
    models = {
        name: model_of(shape_of(options), name if name != "llama" else None)
        for name in ("llama", "prenorm", "spannorm")
    }
    batch = {
        "input_ids": ids_BT[:PROBE_ROWS],
        "attention_mask": torch.ones_like(ids_BT[:PROBE_ROWS]),
        "position_ids": torch.arange(options.length).expand_as(ids_BT[:PROBE_ROWS]),
    }
    runs = {name: step_of(model, ids_BT) for name, model in models.items()}
    runs["probe"] = lambda: profile(models["spannorm"], batch)
    times: dict[str, list[float]] = {name: [] for name in runs}
    busy: dict[str, list[float]] = {name: [] for name in runs}
    order = list(runs)
    for turn in range(options.steps + 2):
        for name in order[turn % len(order) :] + order[: turn % len(order)]:  # no arm always follows the same one
            taken, taken_busy = seconds(runs[name])
            if turn >= 2:
                times[name].append(taken)
                busy[name].append(taken_busy)
    kept = {name: kept_bytes(model, ids_BT) for name, model in models.items()}
    found: dict[str, Any] = {
        "shape": {key: value for key, value in vars(options).items() if key != "out"},
        "step_ms": {name: round(1e3 * statistics.median(values), 3) for name, values in times.items()},
        "ratio": {f"{one}/{other}": round(_ratio(times[one], times[other]), 4) for one, other in RATIOS},
        "cpu_ratio": {f"{one}/{other}": round(_ratio(busy[one], busy[other]), 4) for one, other in RATIOS},
        ROUNDS: {
            f"{name}/{one}/{other}": _quotients(clock[one], clock[other])
            for name, clock in (("ratio", times), ("cpu_ratio", busy))
            for one, other in RATIOS
        },
        "probe_overhead": round(_ratio(times["probe"], times["spannorm"]) / PROBE_EVERY, 5),
        "kept_bytes_ratio": round(kept["spannorm"] / kept["prenorm"], 4),
        "meta_build_s": round(meta_seconds(), 2),
    }
    if options.out:
        write_benchmark_record(Path(options.out), name="spannorm_step", options=vars(options), results=found)
    print(json.dumps(found))


def _quotients(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [round(mine / theirs, 4) for mine, theirs in zip(one, other, strict=True)]


def _ratio(one: Sequence[float], other: Sequence[float]) -> float:
    return statistics.median(mine / theirs for mine, theirs in zip(one, other, strict=True))


if __name__ == "__main__":
    main()
