"""Perplexity of running text by a sliding window, token by token exactly once.

All records are joined into one stream in order; `limit_tokens` cuts it. A window of `max_length` tokens moves by
`stride`, and each token is scored exactly once, in the first window that holds it with a token before it; so
`stride = max_length` moves by one token less. Where the tokenizer puts a begin-of-sequence token before a text (Llama,
Gemma), each window starts with it and the first token of the stream is scored too. `ppl = exp(sum of nll / scored
tokens)`; `bits_per_byte` compares models with different tokenizers. `unigram_nll` is what the frequencies of the
stream's own tokens give, in nats a token: a model near it has learned nothing from context.

B batch, T window.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from athlos.config.schema import RunConfig
from athlos.data.encoding import prefix_token
from athlos.data.records import Record, TextRecord
from athlos.errors import ConfigError
from athlos.evaluation.config import PerplexityConfig
from athlos.evaluation.metrics import total
from athlos.evaluation.sharding import one_by_one
from athlos.evaluation.suite import Answerer, MetricDetail, SuiteResult
from athlos.models.forward import hidden_states
from athlos.objectives.next_token import gather_targets, next_token_nll

CHUNK_TOKENS = 1024


def windows(num_tokens: int, *, length: int, stride: int, has_prefix: bool) -> Iterator[tuple[int, int, int]]:
    """(start, end, first scored position) of each window; with a prefix token a window holds one token less.

    Without a prefix, position 0 has nothing before it and is not scored. The last window is moved back to be full.
    """
    room = length - 1 if has_prefix else length
    step = min(stride, room if has_prefix else room - 1)
    scored, end = (0 if has_prefix else 1), min(room, num_tokens)
    while scored < end:
        yield max(0, end - room), end, scored
        scored, end = end, min(end + step, num_tokens)


class PerplexitySuite:
    is_seeded = False

    def __init__(self, config: PerplexityConfig, run: RunConfig) -> None:
        self.config, self.run = config, run

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        text_records = [record for record in records if isinstance(record, TextRecord)]
        if not text_records:
            raise ConfigError(f"eval.suites: perplexity needs text, data={self.run.data.name} has none")
        text = "".join(record.text for record in text_records)
        limit = self.config.limit_tokens
        tokens = token_stream(answerer.tokenizer, text, limit=limit)
        if limit and len(tokens) == limit:
            text = str(answerer.tokenizer.decode(tokens.tolist(), skip_special_tokens=True))
        nll, count = stream_nll(
            answerer.model,
            tokens,
            length=self.config.max_length,
            stride=self.config.stride,
            batch_size=self.run.eval.batch_size,
            prefix=prefix_token(answerer.tokenizer),
            progress=progress,
        )
        ppl = math.exp(nll / count) if count else math.nan
        bits = nll / math.log(2) / len(text.encode()) if count else math.nan
        window = f"{self.config.max_length}/{self.config.stride}"
        return SuiteResult(
            metrics={
                "ppl": ppl,
                "bits_per_byte": bits,
                "nll": nll / count if count else math.nan,
                "unigram_nll": unigram_entropy(tokens),
            },
            details={"ppl": MetricDetail(n=count), "bits_per_byte": MetricDetail(n=len(text.encode()))},
            signatures={"perplexity": f"window:{window}|limit:{limit or 'all'}|tokens:{count}"},
        )


def token_stream(tokenizer: Any, text: str, *, limit: int) -> Tensor:
    """Token ids of a text, int64 [N], without special tokens; at most `limit` (0 = all)."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor(ids[:limit] if limit else ids, dtype=torch.int64)


def unigram_entropy(tokens_N: Tensor) -> float:
    """Entropy of the frequencies of the tokens, in nats a token; nan for no token."""
    if not len(tokens_N):
        return math.nan
    probs = tokens_N.unique(return_counts=True)[1].double() / len(tokens_N)
    return float(-(probs * probs.log()).sum())


@torch.inference_mode()
def stream_nll(
    model: Any,
    tokens_N: Tensor,
    *,
    length: int,
    stride: int,
    batch_size: int,
    prefix: int | None = None,
    progress: Any = None,
) -> tuple[float, int]:
    """Sum of negative log-likelihoods in nats and number of scored tokens of a stream.

    All windows have one length (a stream shorter than a window is one short window), so none is padded.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    spans = list(windows(len(tokens_N), length=length, stride=stride, has_prefix=prefix is not None))

    def batch_nll(group: Sequence[tuple[int, int, int]]) -> tuple[float, int, int]:
        """Of a batch of windows: sum in nats, scored tokens, tokens read."""
        rows = torch.stack([tokens_N[start:end] for start, end, _ in group])
        labels = rows.clone()
        for row, (start, _, scored) in enumerate(group):
            labels[row, : scored - start] = -100
        if prefix is not None:
            rows = torch.cat([torch.full((len(group), 1), prefix), rows], dim=1)
            labels = torch.cat([torch.full((len(group), 1), -100), labels], dim=1)
        rows, labels = rows.to(device), labels.to(device)
        positions = torch.arange(rows.shape[1], device=device).expand_as(rows)
        batch = {"input_ids": rows, "attention_mask": torch.ones_like(rows), "position_ids": positions}
        hidden_ND, targets_N = gather_targets(hidden_states(model, batch), labels)
        nll = next_token_nll(model, hidden_ND, targets_N, chunk_tokens=CHUNK_TOKENS).item()
        return nll, len(targets_N), rows.numel()

    batches = [spans[first : first + batch_size] for first in range(0, len(spans), batch_size)]
    nll, count = total(), total()
    for of_batch, scored, _ in one_by_one(batches, batch_nll, progress=progress, num_tokens=lambda read: read[2]):
        nll.update(of_batch)
        count.update(scored)
    model.train(was_training)
    return nll.compute().item(), int(count.compute())
