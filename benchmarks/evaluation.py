"""Perplexity by our evaluation against a plain transformers loop on the same windows, in one process, alternating.

    python benchmarks/evaluation.py [--model small/tiny_llama|small/smollm2_135m] [--tokens N] [--repeats N]

Prints both sides and ends in one JSON line: tokens a second of each, their ratio (median over the repeats), and the
relative difference of the two perplexities.
"""

import argparse
import json
import math
import statistics
import time
from typing import Any

import torch

from athlos.config.compose import run_config
from athlos.data.datamodule import build_source
from athlos.data.encoding import prefix_token
from athlos.evaluation.suites.perplexity import stream_nll, token_stream, windows
from athlos.models.loading import load_model
from athlos.stages import StageStore, cache_dir

LENGTH, STRIDE, BATCH_SIZE = 256, 128, 8


def plain_loop(model: Any, tokens: torch.Tensor, *, prefix: int | None) -> float:
    """What a transformers user writes: one window at a time, all logits, `labels` with -100."""
    total = 0.0
    for start, end, first in windows(len(tokens), length=LENGTH, stride=STRIDE, has_prefix=prefix is not None):
        ids = tokens[start:end]
        labels = ids.clone()
        labels[: first - start] = -100
        if prefix is not None:
            ids = torch.cat([torch.tensor([prefix]), ids])
            labels = torch.cat([torch.tensor([-100]), labels])
        with torch.no_grad():
            total += model(ids[None], labels=labels[None]).loss.item() * (end - first)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small/smollm2_135m")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    config = run_config([f"model={options.model}"])
    loaded = load_model(config.model, seed=1, stages=StageStore(cache_dir()))
    text = "".join(record.text for record in build_source(config).records("test"))
    tokens = token_stream(loaded.tokenizer, text, limit=options.tokens)
    prefix = prefix_token(loaded.tokenizer)
    ours, theirs, ratios = [], [], []
    count, nll, plain_nll = 0, 0.0, 0.0
    for repeat in range(options.repeats + 1):
        start = time.perf_counter()
        nll, count = stream_nll(
            loaded.model, tokens, length=LENGTH, stride=STRIDE, batch_size=BATCH_SIZE, prefix=prefix
        )
        middle = time.perf_counter()
        plain_nll = plain_loop(loaded.model, tokens, prefix=prefix)
        end = time.perf_counter()
        if repeat:  # the first round warms up
            ours.append(count / (middle - start))
            theirs.append(count / (end - middle))
            ratios.append(ours[-1] / theirs[-1])
            print(f"round {repeat}: athlos {ours[-1]:.0f} tokens/s, plain loop {theirs[-1]:.0f} tokens/s")
    result = {
        "model": options.model,
        "tokens": count,
        "athlos_tokens_per_s": round(statistics.median(ours), 1),
        "plain_tokens_per_s": round(statistics.median(theirs), 1),
        "ratio": round(statistics.median(ratios), 3),
        "ppl": math.exp(nll / count),
        "relative_difference": abs(math.expm1((nll - plain_nll) / count)),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
