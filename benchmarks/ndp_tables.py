"""Counting NDP's tables against plain Python dictionaries: tokens a second, memory, bytes a stored prefix.

    python benchmarks/ndp_tables.py [--tokens N] [--memory-mb N ...] [--baseline-tokens N] [--data FOLDER]

The corpus: question-and-answer rows of 100 tokens of a vocabulary of 20,000 with Zipf's frequencies, 40 of the question
and 60 of the answer, so that short prefixes are shared and long ones are not, as in text. With `--data FOLDER` (GSM8K
and po_tm below it) also real text, byte-pair encoded, once and as often as it takes to reach --tokens. Repeats are
counted by all arms (`dedup` off).

Every arm makes both tables, SUP and CLM (n = 1), of the same tokens, in a child process of its own, so that its peak
memory is its own and leaves with it:

    numpy    what `construct=ndp` does, from rows of token ids to finished files: hashing, counting, content hashes
    trie     nested dictionaries: node[token] = [count, children]; its rate is the better of two collector settings
    tuples   one dictionary keyed by tuples of the prefix's tokens; on fewer tokens, since it grows with length squared

Prints a line for each arm and ends in one JSON line with rates and ratios. Memory above the imports and the arrays of
the corpus is `built_mb`; it is measured at each --memory-mb, so that the bound shows.
"""

import argparse
import gc
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from athlos.data.encoding import Rows
from athlos.methods.ndp.building import clm_rows, sup_rows
from athlos.methods.ndp.config import NdpConstructConfig
from athlos.methods.ndp.corpora import training_rows
from athlos.methods.ndp.products import Source, data_hash, shard_size, table_product
from athlos.methods.ndp.tables import CountTable, TableIdentity
from athlos.stages import StageStore

VOCABULARY, ROW, PROMPT = 20_000, 100, 40
BPE_SIZE = 8192
TUPLE_TOKENS = 200_000
N = 1


def zipf_corpus(folder: Path, tokens: int) -> None:
    probs = 1 / np.arange(1, VOCABULARY + 1)
    drawn = np.random.default_rng(0).choice(VOCABULARY, size=tokens // ROW * ROW, p=probs / probs.sum())
    lengths = np.full(tokens // ROW, ROW)
    save_corpus(folder, drawn, np.arange(len(drawn)) % ROW >= PROMPT, lengths)


def save_corpus(folder: Path, tokens_N: np.ndarray, is_target_N: np.ndarray, lengths_R: np.ndarray) -> None:
    folder.mkdir()
    tokens_N.astype(np.int32).tofile(folder / "tokens.bin")
    is_target_N.astype(bool).tofile(folder / "targets.bin")
    np.save(folder / "ends.npy", np.cumsum(lengths_R), allow_pickle=False)


def load_corpus(folder: Path, *, limit: int = 0) -> Rows:
    """The first rows of a saved corpus, about `limit` tokens, or all, mapped into memory."""
    ends = np.load(folder / "ends.npy", allow_pickle=False)
    ends = ends[: int(np.searchsorted(ends, limit)) + 1] if limit else ends
    return Rows(
        tokens_T=np.memmap(folder / "tokens.bin", dtype=np.int32, mode="r"),
        is_target_T=np.memmap(folder / "targets.bin", dtype=np.bool_, mode="r"),
        starts_R=np.concatenate([[0], ends[:-1]]),
        ends_R=ends,
        num_targets_R=np.diff(ends, prepend=0),
    )


def text_corpus(folder: Path, data: Path, repeats: int) -> None:
    """GSM8K's training questions with answers, and po_tm's pairs, byte-pair encoded; the whole `repeats` times."""
    from athlos.models.tokenizers import bpe_tokenizer

    pairs = [
        (row["question"], row["answer"])
        for line in (data / "gsm8k/train.jsonl").read_text("utf-8").splitlines()
        for row in [json.loads(line)]
    ]
    for path in sorted((data / "po_tm").glob("en-*.tsv")):
        cells = [line.split("\t") for line in path.read_text("utf-8").splitlines()[1:]]
        pairs += [(row[1], row[2]) for row in cells if len(row) > 2]
    tokenizer = bpe_tokenizer(lambda: (text for pair in pairs[::10] for text in pair), vocab_size=BPE_SIZE)
    end = tokenizer.eos_token_id
    encoded = [tokenizer(list(side), add_special_tokens=False)["input_ids"] for side in zip(*pairs, strict=True)]
    rows = [(prompt, [*answer, end]) for prompt, answer in zip(*encoded, strict=True) if prompt]
    tokens = np.array([token for prompt, answer in rows for token in (*prompt, *answer)])
    targets = np.concatenate([np.arange(len(p) + len(a)) >= len(p) for p, a in rows])
    lengths = np.array([len(p) + len(a) for p, a in rows])
    save_corpus(folder, np.tile(tokens, repeats), np.tile(targets, repeats), np.tile(lengths, repeats))


def memory_mb(field: str) -> float:
    """`VmRSS` now or `VmHWM` at most, of this process. (`ru_maxrss` begins with the parent's.)"""
    [line] = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith(f"{field}:")]
    return int(line.split()[1]) / 1024


def tables_arm(folder: Path, *, setting_mb: int, threads: int, limit: int = 0) -> dict[str, Any]:
    rows = load_corpus(folder, limit=limit)
    config = NdpConstructConfig(
        _target_="",
        n=N,
        dedup=False,
        memory_mb=setting_mb,
        shard_tokens=0,
        threads=threads,
        collision_sample=0,
    )
    before = memory_mb("VmRSS")
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        start, cpu = time.perf_counter(), time.process_time()
        found = training_rows(rows, shard_tokens=shard_size(config), dedup=False)
        tables = []
        for kind, make, settings in (("sup", sup_rows, {}), ("clm", partial(clm_rows, n=N), {"n": N})):
            sources = [Source(rows=found, make=make, settings=settings)]
            identity = TableIdentity(
                kind=kind, n=N, vocab_size=1 << 20, tokenizer="", template="", data=data_hash(sources)
            )
            product = table_product(sources, config, identity=identity, stages=StageStore(Path(cache)))
            tables.append(CountTable.open(product.path))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        built = memory_mb("VmHWM") - before
        prefixes, size = sum(table.num_rows for table in tables), sum(table.num_bytes for table in tables)
    return {
        "tokens_per_s": found.num_tokens / seconds,
        "tokens_per_cpu_s": found.num_tokens / cpu,
        "prefixes": prefixes,
        "bytes_per_prefix": size / prefixes,
        "built_mb": built,
        "shards": len(found),
    }


def lists_of(rows: Rows) -> list[tuple[list[int], int]]:
    """Tokens of each row and where its answer begins."""
    found = []
    for start, stop in zip(rows.starts_R.tolist(), rows.ends_R.tolist(), strict=True):
        found.append((rows.tokens_T[start:stop].tolist(), int(np.argmax(rows.is_target_T[start:stop]))))
    return found


Node = dict[int, list[Any]]


def trie_of(rows: list[tuple[list[int], int]]) -> list[Node]:
    """Both tries. A node maps a token to [how often it came next, the node after it]."""
    sup: Node = {}
    clm: Node = {}
    for tokens, answer in rows:
        node = sup
        for token in tokens[:answer]:
            entry = node.get(token)
            if entry is None:
                entry = node[token] = [0, {}]
            node = entry[1]
        for token in tokens[answer:]:
            entry = node.get(token)
            if entry is None:
                entry = node[token] = [0, {}]
            entry[0] += 1
            node = entry[1]
        node = clm
        for token in tokens[answer:]:
            entry = node.get(token)
            if entry is None:
                entry = node[token] = [0, {}]
            entry[0] += 1
            node = entry[1]
    return [sup, clm]


def tuples_of(rows: list[tuple[list[int], int]]) -> list[dict[tuple[int, ...], dict[int, int]]]:
    sup: dict[tuple[int, ...], dict[int, int]] = {}
    clm: dict[tuple[int, ...], dict[int, int]] = {}
    for tokens, answer in rows:
        for index in range(answer, len(tokens)):
            token = tokens[index]
            for table, first in ((sup, 0), (clm, answer)):
                if table is clm and index - answer < N:
                    continue
                counts = table.setdefault(tuple(tokens[first:index]), {})
                counts[token] = counts.get(token, 0) + 1
    return [sup, clm]


def python_arm(folder: Path, *, kind: str, limit: int, collects: bool) -> dict[str, Any]:
    """A baseline; `collects`: with Python's cyclic garbage collector on, as it is by default."""
    rows = lists_of(load_corpus(folder, limit=limit))
    num_tokens = sum(len(tokens) for tokens, _ in rows)
    gc.collect()
    if not collects:
        gc.disable()
    before = memory_mb("VmRSS")
    start, cpu = time.perf_counter(), time.process_time()
    made = trie_of(rows) if kind == "trie" else tuples_of(rows)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    built = memory_mb("VmHWM") - before
    prefixes = num_prefixes(made) if kind == "trie" else sum(len(table) for table in made)
    return {
        "tokens_per_s": num_tokens / seconds,
        "tokens_per_cpu_s": num_tokens / cpu,
        "prefixes": prefixes,
        "bytes_per_prefix": built * (1 << 20) / prefixes,
        "built_mb": built,
        "tokens": num_tokens,
    }


def num_prefixes(tries: list[Any]) -> int:
    """Nodes with a counted token, as the tables count prefixes; the empty prefix of CLM (n = 1) is none."""
    found, waiting = -1, list(tries)
    while waiting:
        node = waiting.pop()
        found += any(count for count, _ in node.values())
        waiting += [child for _, child in node.values() if child]
    return found


def in_child(arm: Callable[..., dict[str, Any]], *args: Any, **values: Any) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(arm, args, values)


def shown(name: str, found: dict[str, Any]) -> dict[str, Any]:
    wall, cpu = found["tokens_per_s"] / 1e6, found["tokens_per_cpu_s"] / 1e6
    print(
        f"{name:26} {wall:7.2f} M tokens/s, {cpu:5.2f} a CPU second; {found['built_mb']:6.0f} MiB; "
        f"{found['prefixes']:>10,} prefixes of {found['bytes_per_prefix']:.1f} bytes",
        flush=True,
    )
    return found


def compare(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All arms on one corpus; ratios of wall-clock rates in this run."""
    print(name, flush=True)
    threads, largest = options.threads, max(options.memory_mb)
    found = {
        f"numpy_{memory}mb": shown(
            f"  numpy, {memory} MiB",
            in_child(tables_arm, folder, setting_mb=memory, threads=threads),
        )
        for memory in options.memory_mb
    }
    tries = [
        shown(
            f"  trie, collector {'on' if collects else 'off'}",
            in_child(python_arm, folder, kind="trie", limit=options.baseline_tokens, collects=collects),
        )
        for collects in (True, False)
    ]
    found["trie"] = max(tries, key=lambda one: one["tokens_per_s"])
    found["tuples"] = shown("  tuples", in_child(python_arm, folder, kind="tuples", limit=TUPLE_TOKENS, collects=True))
    found["numpy_same_tokens_as_tuples"] = shown(
        "  numpy, tokens of tuples",
        in_child(tables_arm, folder, setting_mb=largest, threads=threads, limit=TUPLE_TOKENS),
    )
    best = found[f"numpy_{largest}mb"]
    ratios = {
        "numpy_over_trie": best["tokens_per_s"] / found["trie"]["tokens_per_s"],
        "numpy_over_trie_collector_on": best["tokens_per_s"] / tries[0]["tokens_per_s"],
        "numpy_over_trie_cpu": best["tokens_per_cpu_s"] / found["trie"]["tokens_per_cpu_s"],
        "numpy_over_tuples": best["tokens_per_s"] / found["tuples"]["tokens_per_s"],
        "bytes_over_trie": best["bytes_per_prefix"] / found["trie"]["bytes_per_prefix"],
    }
    print("  " + "  ".join(f"{key} {value:.3g}" for key, value in ratios.items()), flush=True)
    return {**found, **ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=10_000_000)
    parser.add_argument("--baseline-tokens", type=int, default=0, help="tokens of the trie; 0 = all")
    parser.add_argument("--memory-mb", type=int, nargs="+", default=[256, 2048])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp)
        zipf_corpus(folder / "zipf", options.tokens)
        results = {"zipf": compare("Zipf's frequencies", folder / "zipf", options)}
        if options.data is not None:
            text_corpus(folder / "text", options.data, 1)
            results["text"] = compare("GSM8K and po_tm", folder / "text", options)
            size = load_corpus(folder / "text").ends_R[-1]
            text_corpus(folder / "repeated", options.data, max(1, round(options.tokens / size)))
            results["repeated"] = compare("the same, repeated", folder / "repeated", options)
    print(json.dumps({"tokens": options.tokens, "threads": options.threads, **results}))


if __name__ == "__main__":
    main()
