"""What ClueAnchor's exploration saves over as many independent generations, in one process, the two ways in turn.

    python benchmarks/exploration.py [--rounds N] [--questions N] [--draws N] [--out FOLDER]

A Llama of some two million parameters with random weights and bytes for tokens. A question has four passages, about
850 tokens with its instruction; a reply has 64 tokens, a clue and its check 32.

    together   all questions under way at once: a round of calls is one batch, equal prompts and the passages that
               several prompts begin with are read once, and all draws of a path start from one prefill
    apart      the same calls, each alone and from its first token

Ends in one JSON line: `exploration_ratio`, together over apart, the median over rounds (bar: at most .7). `--out` keeps
it as a record that `athlos report` shows.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from start import model, ratios

from athlos.config.compose import run_config
from athlos.data.records import Passage, QuestionRecord
from athlos.generation.config import NativeConfig
from athlos.generation.interface import Prompt, Request, Sample
from athlos.generation.native import NativeEngine
from athlos.generation.pipeline import solve_together
from athlos.methods.clueanchor.construct import solver_of
from athlos.models.tokenizers import byte_tokenizer
from athlos.report.benchmark_record import ROUNDS, write_benchmark_record
from athlos.retrieval.config import NoIndexConfig
from athlos.retrieval.none import NoIndex
from athlos.stages import StageStore

NUM_PASSAGES, PASSAGE_LETTERS, REPLY_TOKENS, CLUE_TOKENS = 4, 128, 64, 32


class Apart(NativeEngine):
    """Asked one prompt at a time; nothing is left of the one before."""

    def generate(self, prompts: Sequence[Prompt], **how: Any) -> list[list[Sample]]:
        return [super(Apart, self).generate([prompt], **how)[0] for prompt in prompts]


def questions(number: int) -> list[QuestionRecord]:
    def letters(start: int) -> str:
        return "".join(chr(97 + (place * place + start) % 26) for place in range(PASSAGE_LETTERS))

    return [
        QuestionRecord(
            identifier=str(place),
            question=f"who is {letters(place)[:20]}?",
            answers=["abc"],
            passages=[
                Passage(title="", text=letters(place + 31 * one), is_supporting=one < 2) for one in range(NUM_PASSAGES)
            ],
        )
        for place in range(number)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--questions", type=int, default=4)
    parser.add_argument("--draws", type=int, default=1, help="replies on each path")
    parser.add_argument("--out", help="a new folder for the record")
    options = parser.parse_args()
    run = run_config(
        [
            "method=clueanchor",
            "construct=clueanchor",
            "objective=preference",
            "train.batching=bucket",
            "prompt_style=clueanchor",
            "data=hotpotqa",
            "eval=clueanchor",
            f"construct.explore.num_draws={options.draws}",
            f"construct.explore.max_new_tokens={REPLY_TOKENS}",
            f"construct.explore.clue_tokens={CLUE_TOKENS}",
        ]
    )
    tokenizer, records = byte_tokenizer(), questions(options.questions)
    requests = [Request(identifier=record.identifier, prompt="", record=record) for record in records]
    network = model()
    assert isinstance(run.index, NoIndexConfig)
    no_index = NoIndex(run.index, corpus=None, stages=StageStore(Path()))

    def explored(engine: NativeEngine) -> list[int]:
        """Calls of each question."""
        found = solve_together(requests, solver_of(run), generator=engine, index=no_index, in_flight=len(requests))
        return [len(prediction.trace) for _, prediction in found]

    config = NativeConfig(_target_="", batch_size=64)
    together = NativeEngine(config, model=network, tokenizer=tokenizer)
    apart = Apart(config, model=network, tokenizer=tokenizer)
    num_calls = sum(explored(together))
    rounds = ratios(lambda: explored(together), lambda: explored(apart), rounds=options.rounds)
    results = {
        "threads": torch.get_num_threads(),
        "calls": num_calls,
        "exploration_ratio": round(statistics.median(rounds), 3),
        ROUNDS: {"exploration_ratio": rounds},
    }
    if options.out:
        write_benchmark_record(Path(options.out), name="exploration", options=vars(options), results=results)
    print(json.dumps({name: value for name, value in results.items() if name != ROUNDS}))


if __name__ == "__main__":
    main()
