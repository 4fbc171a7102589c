"""How much dearer is a training step on n-gram targets than one on one-hot labels? Data loading included.

    python benchmarks/ndp_step.py                              # vocabularies of 49,152 and 262,144
    python benchmarks/ndp_step.py --vocab 49152 --steps 20 --out FOLDER

One JSON line a vocabulary. Arms take turns in one process on the same rows; each step reads its batch from the
memory-mapped rows, runs forward and backward through a decoder of the given shape, clips and updates. Arms: `one_hot`
(objective=next_token), `ndp` (softmax, mix, no leak) and `ndp_leak` (temp_batch, z = 0.05: every token of the
vocabulary has mass). `ratio` is the median over turns of an arm's step over the one-hot step of the same turn.
`read_share`: time to read the targets of a batch over its step; `read_ms_32x512`: that time for a batch of 32 x 512.
Times are CPU times. `--out` keeps a record that `athlos report` shows and `athlos claims` reads.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from athlos.config.compose import run_config
from athlos.config.schema import Batching
from athlos.data.batches import Batch, BatchPlan, TrainStream
from athlos.data.encoding import Rows
from athlos.methods.ndp import building, positions
from athlos.methods.ndp.building import Corpus
from athlos.methods.ndp.counting import count
from athlos.methods.ndp.objective import NdpObjective
from athlos.methods.ndp.reading import NdpTables, write_targets
from athlos.methods.ndp.tables import CountTable, TableIdentity, TableWriter
from athlos.objectives.config import NextTokenConfig
from athlos.objectives.next_token import NextTokenObjective
from athlos.report.benchmark_record import ROUNDS, write_benchmark_record

PROMPT = 8
"""Tokens of a row that are not trained on."""
OPENERS = 16
"""Beginnings that answers share; each is a quarter of a row."""
WIDTHS = {49152: 576, 262144: 640}
"""Widths of SmolLM2-135M and Gemma-3-270M; other vocabularies have the first."""
ARMS = {
    "ndp": [],
    "ndp_leak": ["objective.smooth=temp_batch", "objective.zero_prob=0.05"],
}


def rows_of(*, num: int, length: int, vocab: int, seed: int) -> Rows:
    """Answers of Zipf-distributed tokens after short questions; their beginnings recur, as those of answers do."""
    rng = np.random.default_rng(seed)
    tokens = np.minimum(rng.zipf(1.3, size=(num, length)), vocab - 1).astype(np.int32)
    openers = tokens[:OPENERS, PROMPT : PROMPT + length // 4].copy()
    tokens[:, PROMPT : PROMPT + length // 4] = openers[rng.integers(0, OPENERS, num)]
    is_target = np.ones((num, length), dtype=bool)
    is_target[:, :PROMPT] = False
    ends = np.arange(1, num + 1) * length
    return Rows(
        tokens_T=tokens.reshape(-1),
        is_target_T=is_target.reshape(-1),
        starts_R=ends - length,
        ends_R=ends,
        num_targets_R=np.full(num, length - PROMPT),
    )


def table_of(rows: Rows, folder: Path, *, kind: str, vocab: int) -> CountTable:
    lengths = rows.ends_R - rows.starts_R
    is_predicted = positions.predicted(rows.is_target_T, lengths)
    corpus = Corpus(tokens_N=rows.tokens_T, is_predicted_N=is_predicted, lengths_R=lengths)
    entries = building.sup_rows(corpus) if kind == "sup" else building.clm_rows(corpus, n=1)
    identity = TableIdentity(kind=kind, n=1, vocab_size=vocab, tokenizer="", template="", data="")
    with TableWriter(folder / kind, identity=identity) as writer:
        writer.add(count(entries))
    return CountTable.open(folder / kind)


def objective_of(rows: Rows, folder: Path, *, name: str, vocab: int) -> NdpObjective:
    config: Any = run_config(["objective=ndp", "train.batching=bucket", "train.max_steps=0", *ARMS[name]]).objective
    target_folder = folder / f"targets-{name}"
    target_folder.mkdir()
    sup, clm = (table_of(rows, folder, kind=kind, vocab=vocab) for kind in ("sup", "clm"))
    tables = NdpTables(rows=rows, sup=sup, clm=clm, n=1, joins_first=False, sup_key="", clm_key="")
    write_targets(target_folder, tables, config, vocab_size=vocab)
    objective = NdpObjective(config)
    objective.read(target_folder)
    return objective


def batches_of(rows: Rows, *, batch: int) -> Iterator[Batch]:
    plan = BatchPlan(lengths_R=rows.ends_R - rows.starts_R, batch_size=batch, batching=Batching.bucket, seed=0)
    stream = TrainStream(
        rows,
        plan,
        micro_batch_size=batch,
        rank=0,
        world_size=1,
        pad_id=0,
        first_step=0,
        last_step=plan.steps_per_epoch,
    )
    return (one for _ in cycle([0]) for one in stream)


def step_of(objective: Any, model: Any, optimizer: Any, batches: Iterator[Batch]) -> Callable[[], None]:
    def step() -> None:
        batch = next(batches)
        optimizer.zero_grad()
        loss = objective.loss(model, batch)
        (loss.total / loss.count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def seconds(function: Callable[[], Any]) -> float:
    """CPU time of this process, so that other work on the machine does not count; on an idle machine, with one thread,
    the time of the clock."""
    start = time.process_time()
    function()
    return time.process_time() - start


def measure(options: argparse.Namespace, vocab: int, folder: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    width = options.width or WIDTHS.get(vocab, WIDTHS[49152])
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=vocab,
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=options.layers,
            num_attention_heads=width // 64,
            num_key_value_heads=width // 64,
            tie_word_embeddings=True,
        ),
        attn_implementation="sdpa",
    ).train()
    # One optimizer for all arms: the model is the same, and so are its steps' costs.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    rows = rows_of(num=options.num_rows, length=options.length, vocab=vocab, seed=0)
    objectives: dict[str, Any] = {
        "one_hot": NextTokenObjective(NextTokenConfig(_target_="", chunk_tokens=options.chunk)),
        **{name: objective_of(rows, folder, name=name, vocab=vocab) for name in ARMS},
    }
    for name in ARMS:
        objectives[name].config.chunk_tokens = options.chunk
    runs = {
        name: step_of(objective, model, optimizer, batches_of(rows, batch=options.rows))
        for name, objective in objectives.items()
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    order = list(runs)
    for turn in range(options.steps + 1):
        for name in order[turn % len(order) :] + order[: turn % len(order)]:  # no arm always follows the same one
            taken = seconds(runs[name])
            if turn:
                times[name].append(taken)
    return {
        "vocab": vocab,
        "shape": {name: getattr(options, name) for name in ("rows", "length", "layers", "steps", "threads", "chunk")},
        "width": width,
        "step_ms": {name: round(1e3 * statistics.median(values), 2) for name, values in times.items()},
        "ratio": {name: round(statistics.median(_quotients(times[name], times["one_hot"])), 4) for name in ARMS},
        ROUNDS: {f"ratio/{name}": _quotients(times[name], times["one_hot"]) for name in ARMS},
        "read_share": {
            name: round(
                _read_seconds(objectives[name], batches_of(rows, batch=options.rows)) / statistics.median(times[name]),
                5,
            )
            for name in ARMS
        },
        "read_ms_32x512": round(1e3 * _read_32x512(folder, vocab), 2),
        "multi_candidate_share": round(objectives["ndp"].targets.seen["diag/multi_candidate_share"], 4),
    }


def _quotients(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [round(mine / theirs, 4) for mine, theirs in zip(one, other, strict=True)]


def _read_seconds(objective: NdpObjective, batches: Iterator[Batch]) -> float:
    store = objective.targets
    assert store is not None
    times = []
    for _ in range(20):
        batch = next(batches)
        times.append(seconds(partial(store.of_batch, batch)))
    return statistics.median(times)


def _read_32x512(folder: Path, vocab: int) -> float:
    rows = rows_of(num=128, length=512, vocab=vocab, seed=1)
    objective = objective_of(rows, _made(folder / "long"), name="ndp", vocab=vocab)
    return _read_seconds(objective, batches_of(rows, batch=32))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=int, nargs="+", default=list(WIDTHS))
    defaults = {"rows": 8, "length": 64, "layers": 4, "steps": 12, "threads": 1, "num_rows": 512, "width": 0}
    for name, default in {**defaults, "chunk": 1024}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", help="a new folder for the record")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    found: dict[str, Any] = {}
    for vocab in options.vocab:
        with tempfile.TemporaryDirectory() as folder:
            found[f"vocab_{vocab}"] = measure(options, vocab, Path(folder))
        print(json.dumps(found[f"vocab_{vocab}"]), flush=True)
    if options.out:
        write_benchmark_record(Path(options.out), name="ndp_step", options=vars(options), results=found)


if __name__ == "__main__":
    main()
