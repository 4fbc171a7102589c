"""Speed of generation on fixed synthetic prompts: tokens a second while reading prompts and while writing answers.

The prompts are random token ids from a fixed seed, so two models with one vocabulary get the same work. Reading is the
time to the first token; writing is the further time of the answer. The median of the repetitions is reported.
"""

import math
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from athlos.config.compose import engine_signature
from athlos.config.schema import RunConfig
from athlos.data.records import Record
from athlos.evaluation.config import ThroughputConfig
from athlos.evaluation.suite import Answerer, MetricDetail, SuiteResult
from athlos.generation.interface import Prompt, SamplingRule
from athlos.generation.local import LocalEngine, context_length

PROMPT_TOKENS = 128
NEW_TOKENS = 32
REPETITIONS = 3
PROMPT_SEED = 20240


class ThroughputSuite:
    is_seeded = True

    def __init__(self, config: ThroughputConfig, run: RunConfig) -> None:
        self.config, self.run = config, run

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        """Reads no record: the work is the same on all data."""
        rows = self.run.eval.batch_size
        context = context_length(answerer.model)
        num_prompt = min(PROMPT_TOKENS, context // 2)
        num_new = max(2, min(NEW_TOKENS, context - num_prompt))
        generator = torch.Generator().manual_seed(PROMPT_SEED)
        token_ids = torch.randint(len(answerer.tokenizer), (rows, num_prompt), generator=generator).tolist()
        self._seconds(answerer, token_ids, max_new_tokens=2)  # first calls allocate and choose kernels
        prefill, decode = [], []
        for repetition in range(1, REPETITIONS + 1):
            reading = self._seconds(answerer, token_ids, max_new_tokens=1)
            whole = self._seconds(answerer, token_ids, max_new_tokens=num_new)
            prefill.append(rows * num_prompt / reading)
            writing = whole - reading
            decode.append(rows * (num_new - 1) / writing if writing > 0 else math.nan)  # a disturbed run shows no time
            if progress:
                progress(repetition, REPETITIONS, repetition * rows * (num_new + 1))
        result = SuiteResult(
            signatures={
                "throughput": f"rows:{rows}|prompt:{num_prompt}|new:{num_new}|median of {REPETITIONS}",
                "throughput_engine": engine_signature(self.run),
            }
        )
        for name, values in {"prefill_tokens_per_s": prefill, "decode_tokens_per_s": decode}.items():
            known = [value for value in values if not math.isnan(value)]
            result.metrics[name] = statistics.median(known) if known else math.nan
            result.details[name] = MetricDetail(
                n=len(values),
                undefined=len(values) - len(known),
                low=min(known, default=None),
                high=max(known, default=None),
            )
        return result

    def _seconds(self, answerer: Answerer, token_ids: list[list[int]], *, max_new_tokens: int) -> float:
        prompts = [Prompt(token_ids=row, max_new_tokens=max_new_tokens) for row in token_ids]
        start = time.perf_counter()
        assert isinstance(answerer.engine, LocalEngine)
        answerer.engine.generate(prompts, rule=SamplingRule(), end_token_ids=())
        return time.perf_counter() - start
