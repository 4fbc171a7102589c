"""Streams of a known source, row by row: how far a model is from the source's own entropy.

Each record's `meta.log_prob` is the true log-probability of its symbols after the first, in nats. A row is scored from
its second token on, without the rows before it, so `gap_to_floor` = (model's nll - true nll) / scored tokens is exact:
0 for the source itself, and not below it but by chance.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

from athlos.config.schema import RunConfig
from athlos.data.records import Record, TextRecord
from athlos.errors import ConfigError
from athlos.evaluation.config import StreamsConfig
from athlos.evaluation.metrics import total
from athlos.evaluation.sharding import one_by_one
from athlos.evaluation.suite import Answerer, MetricDetail, SuiteResult
from athlos.models.forward import hidden_states
from athlos.objectives.next_token import gather_targets, next_token_nll

CHUNK_TOKENS = 1024


class StreamsSuite:
    is_seeded = False

    def __init__(self, config: StreamsConfig, run: RunConfig) -> None:
        self.config, self.run = config, run

    @torch.inference_mode()
    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        rows = [record for record in records if isinstance(record, TextRecord) and "log_prob" in record.meta]
        if not rows:
            raise ConfigError(f"eval.suites: streams needs data=lab_streams, data={self.run.data.name} knows no truth")
        model, size = answerer.model, self.run.eval.batch_size
        was_training, device = model.training, next(model.parameters()).device
        model.eval()

        def batch_sums(batch_rows: Sequence[TextRecord]) -> tuple[float, int, float]:
            """Of a batch: the model's nll in nats, scored tokens, the source's own nll."""
            ids = [answerer.tokenizer(row.text, add_special_tokens=False)["input_ids"] for row in batch_rows]
            if len({len(row) for row in ids}) != 1 or len(ids[0]) != len(batch_rows[0].text):
                raise ConfigError("eval.suites: streams needs one token a symbol; set model.tokenizer.kind=byte")
            ids_BT = torch.tensor(ids, device=device)
            batch = {
                "input_ids": ids_BT,
                "attention_mask": torch.ones_like(ids_BT),
                "position_ids": torch.arange(ids_BT.shape[1], device=device).expand_as(ids_BT),
            }
            hidden_ND, targets_N = gather_targets(hidden_states(model, batch), ids_BT)
            nll = next_token_nll(model, hidden_ND, targets_N, chunk_tokens=CHUNK_TOKENS).item()
            return nll, len(targets_N), -sum(row.meta["log_prob"] for row in batch_rows)

        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        sums = total(), total(), total()
        for of_batch in one_by_one(batches, batch_sums, progress=progress, num_tokens=lambda batch: batch[1]):
            for metric, value in zip(sums, of_batch, strict=True):
                metric.update(value)
        model.train(was_training)
        nll, tokens, floor = (metric.compute().item() for metric in sums)
        count = int(tokens)
        mean = nll / count
        return SuiteResult(
            metrics={"nll": mean, "ppl": math.exp(mean), "gap_to_floor": mean - floor / count, "floor": floor / count},
            details={"gap_to_floor": MetricDetail(n=count), "ppl": MetricDetail(n=count)},
            signatures={"streams": f"rows:{len(rows)}|tokens:{count}"},
        )
