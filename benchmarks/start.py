"""What START saves where it samples answers and scores them, in one process, the two ways in turn.

    python benchmarks/start.py [--rounds N] [--answers N] [--out FOLDER]

A Llama of some two million parameters with random weights and bytes for tokens; five documents make a prompt of about
512 tokens, answers have 64.

    prefill   N answers of a prompt that is read once, over N answers each of which reads it (bar: at most .5)
    robust    both likelihoods of N answers, over the longer one alone, each row with its own prompt
              (bar: at most 1.2)

Ends in one JSON line: `prefill_ratio` and `robust_ratio`, medians over rounds. `--out` keeps it as a record that
`athlos report` shows.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from athlos.data.records import LongAnswerRecord, Passage
from athlos.generation.config import NativeConfig
from athlos.generation.interface import Prompt, SamplingRule
from athlos.generation.native import NativeEngine
from athlos.methods.start.config import Normalise
from athlos.methods.start.likelihood import CHUNK_TOKENS, batch_of, set_robust
from athlos.methods.start.rewards import Sampled, read_sample
from athlos.models.forward import hidden_states
from athlos.models.tokenizers import byte_tokenizer
from athlos.objectives.next_token import gather_targets
from athlos.objectives.policy import log_probs_of
from athlos.report.benchmark_record import ROUNDS, write_benchmark_record
from athlos.text.prompts import build_prompt, completion

STYLE, NUM_DOCUMENTS, DOCUMENT_LETTERS, ANSWER_TOKENS = "start_bare", 5, 96, 64
NO_END = ()


def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        max_position_embeddings=1024,
    )
    return LlamaForCausalLM(config).eval()


def question() -> LongAnswerRecord:
    passages = [
        Passage(title="", text="".join(chr(97 + (place + 7 * number) % 26) for place in range(DOCUMENT_LETTERS)))
        for number in range(NUM_DOCUMENTS)
    ]
    return LongAnswerRecord(identifier="q", question="who is it?", answer="", passages=passages)


def samples(record: LongAnswerRecord, number: int) -> list[Sampled]:
    """Answers of two sentences that cite one document or two."""
    texts = [
        f"{chr(97 + place % 26) * 25} [{place % NUM_DOCUMENTS + 1}]. {'z' * 25} [{place % 3 + 1}]."
        for place in range(number)
    ]
    return [read_sample(text, finished=True, record=record) for text in texts]


def text_of(record: LongAnswerRecord) -> tuple[str, str]:
    return build_prompt(record, shots=(), style=STYLE), completion(record, STYLE)


@torch.no_grad()
def longer_alone(network: Any, tokenizer: Any, record: LongAnswerRecord, answers: list[Sampled]) -> None:
    batch = batch_of(tokenizer, [text_of(replace(record, answer=answer.text)) for answer in answers])
    hidden_ND, targets_N = gather_targets(hidden_states(network, batch), batch["labels"])
    log_probs_of(network, hidden_ND, targets_N, temperature=1.0, chunk_tokens=CHUNK_TOKENS)


def ratios(ours: Callable[[], Any], other: Callable[[], Any], *, rounds: int) -> list[float]:
    """The time of ours over that of the other, one after the other in each round."""
    found = []
    for _ in range(rounds + 1):  # the first warms up
        times = []
        for call in (ours, other):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
        found.append(round(times[0] / times[1], 4))
    return found[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--answers", type=int, default=16)
    parser.add_argument("--out", help="a new folder for the record")
    options = parser.parse_args()
    network, tokenizer, record = model(), byte_tokenizer(), question()
    prompt = tokenizer.encode(text_of(record)[0], add_special_tokens=False)
    rule = SamplingRule(temperature=1.0)

    def engine(share: bool) -> NativeEngine:
        config = NativeConfig(_target_="", batch_size=options.answers, share_prefixes=share)
        return NativeEngine(config, model=network, tokenizer=tokenizer)

    def asked(seed: int) -> Prompt:
        """The prompt but for its first token: the engine reads equal ones once, whatever it is told."""
        return Prompt(token_ids=[97 + seed, *prompt[1:]], max_new_tokens=ANSWER_TOKENS, seed=seed)

    def together() -> Any:
        return engine(True).generate([asked(0)], rule=rule, num_samples=options.answers, end_token_ids=NO_END)

    def apart() -> Any:
        return engine(False).generate([asked(seed) for seed in range(options.answers)], rule=rule, end_token_ids=NO_END)

    answers = samples(record, options.answers)
    rounds = {
        "prefill_ratio": ratios(together, apart, rounds=options.rounds),
        "robust_ratio": ratios(
            lambda: set_robust(network, tokenizer, record, answers, text_of=text_of, normalise=Normalise.per_token),
            lambda: longer_alone(network, tokenizer, record, answers),
            rounds=options.rounds,
        ),
    }
    results = {
        "prompt_tokens": len(prompt),
        "answers": options.answers,
        "threads": torch.get_num_threads(),
        **{name: round(statistics.median(values), 3) for name, values in rounds.items()},
        ROUNDS: rounds,
    }
    if options.out:
        write_benchmark_record(Path(options.out), name="start", options=vars(options), results=results)
    print(json.dumps({name: value for name, value in results.items() if name != ROUNDS}))


if __name__ == "__main__":
    main()
