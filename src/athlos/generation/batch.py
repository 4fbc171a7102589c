"""The rows under way: a cache and the tables beside it, and how they are copied when rows leave or join.

Everything is kept by column. Tables have one column more than the cache: the newest token, not yet read, stands in
column `cache.length` of every row. B rows, C columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

from athlos.generation.kv_cache import KVCache, Span, gathered_columns, padded_ids
from athlos.generation.prefill import Prefilled
from athlos.generation.rules import PAD

GROWTH = 128
"""Columns allocated ahead: most answers end long before their limit."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One sample to make: index of the prompt, number of the sample."""

    prompt: int
    sample: int


@dataclass(kw_only=True)
class Row:
    """One sample under way. Columns are those of its batch."""

    job: Job
    limit: int
    generator: torch.Generator | None
    """Draws its tokens; None at temperature 0."""
    pad: int
    """Columns of padding before the prompt."""
    first: int
    """Column of the first generated token."""
    is_against: bool = False
    """Whether it is the second stream of the row before it, whose tokens it is fed and with which it ends."""
    is_done: bool = False

    @property
    def last(self) -> int:
        """Column of the last token it may have."""
        return self.first + self.limit - 1

    def moved(self, by: int) -> "Row":
        return replace(self, pad=self.pad + by, first=self.first + by)


class Batch:
    def __init__(self, rows: Sequence[Row], cache: KVCache, ids_BC: Tensor, log_probs_BC: Tensor) -> None:
        self.rows, self.cache, self.ids_BC, self.log_probs_BC = list(rows), cache, ids_BC, log_probs_BC
        pads = [row.pad for row in rows]
        self.pad_B, self.most_padding = torch.tensor(pads, device=ids_BC.device), max(pads)
        self.note_limits()

    @property
    def column(self) -> int:
        """Column of the newest token."""
        return self.cache.length

    @property
    def is_full(self) -> bool:
        return self.cache.length == self.cache.capacity

    @property
    def num_done(self) -> int:
        return sum(row.is_done for row in self.rows)

    @property
    def num_alive(self) -> int:
        """Samples that are not done."""
        return sum(not (row.is_done or row.is_against) for row in self.rows)

    def note_limits(self) -> None:
        """`next_limit` is the first column at which a row ends by its length."""
        self.next_limit = min((row.last for row in self.rows if not row.is_done), default=-1)

    @classmethod
    def started(cls, rows: Sequence[Row], prefilled: Sequence[Prefilled], prompts: Sequence[Sequence[int]]) -> "Batch":
        """Prompts that were read, a row each; their first tokens are to be chosen. `pad` and `first` count from 0."""
        length = max(map(len, prompts))
        capacity = length + min(GROWTH, max(row.limit for row in rows))
        device = prefilled[0].logits_V.device
        spans = []
        for _, run in groupby(prefilled, key=lambda prefill: id(prefill.cache)):
            neighbours = list(run)
            cache, chosen = neighbours[0].cache, [prefill.row for prefill in neighbours]
            spans.append(Span(cache=cache, rows=torch.tensor(chosen, device=device), end=cache.length))
        whole = KVCache.gathered(spans, length=length, capacity=capacity)
        ids_BC = torch.full((len(rows), capacity + 1), PAD, device=device)
        ids_BC[:, :length] = padded_ids(prompts, width=length, fill=PAD, device=device)
        placed = [row.moved(length - len(prompt)) for row, prompt in zip(rows, prompts, strict=True)]
        return cls(placed, whole, ids_BC, torch.zeros(ids_BC.shape, device=device))

    @classmethod
    def packed(cls, batches: Sequence["Batch"]) -> "Batch":
        """The rows that are not done, of all batches, in a cache no longer than they need and with room to grow."""
        alive = [(batch, [index for index, row in enumerate(batch.rows) if not row.is_done]) for batch in batches]
        alive = [(batch, kept) for batch, kept in alive if kept]
        length = max(batch.column - batch.rows[index].pad for batch, kept in alive for index in kept)
        to_read = max(batch.rows[index].last - batch.column for batch, kept in alive for index in kept)
        capacity = length + min(GROWTH, to_read)
        spans, ids, log_probs, rows = [], [], [], []
        for batch, kept in alive:
            chosen = None if len(kept) == len(batch.rows) else torch.tensor(kept, device=batch.ids_BC.device)
            spans.append(Span(cache=batch.cache, rows=chosen, end=batch.column))
            ids.append((batch.ids_BC, chosen, batch.column + 1))
            log_probs.append((batch.log_probs_BC, chosen, batch.column + 1))
            rows += [batch.rows[index].moved(length - batch.column) for index in kept]
        return cls(
            rows,
            KVCache.gathered(spans, length=length, capacity=capacity),
            gathered_columns(ids, length=length + 1, capacity=capacity + 1, fill=PAD),
            gathered_columns(log_probs, length=length + 1, capacity=capacity + 1, fill=0.0),
        )
