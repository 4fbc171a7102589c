"""Which rows go into which optimizer step, micro batch and process: a pure function of the seed and the step.

So a resumed run sees the rows it would have seen, and every process knows how many targets the whole step has. That
count is the denominator of the loss: 4 micro batches of 2 rows give the gradient of 1 batch of 8 (and so do 2
processes), whatever the lengths.

B rows a step, M rows a micro batch, W processes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from athlos.config.schema import Batching
from athlos.data.encoding import Rows

BUCKET_STEPS = 50
"""Steps whose rows are sorted by length together: short enough to stay random, long enough to save padding."""

Batch = dict[str, Tensor]


class Unit(StrEnum):
    """What a loss counts, and so what an optimizer step is divided by: target tokens, rows, or preference pairs."""

    tokens = "tokens"
    sequences = "sequences"
    pairs = "pairs"


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """The order of rows. An epoch leaves out the (number of rows mod B) last rows of its own random order; a split
    with fewer than B rows repeats them within a step.
    """

    lengths_R: np.ndarray
    batch_size: int
    batching: Batching
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return max(1, len(self.lengths_R) // self.batch_size)

    def epoch_order(self, epoch: int) -> np.ndarray:
        """Row indices of an epoch, int64 [steps_per_epoch, B]."""
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(len(self.lengths_R))
        num_rows = self.steps_per_epoch * self.batch_size
        order = np.resize(order, num_rows) if len(order) < num_rows else order[:num_rows]
        if self.batching is Batching.pack:
            return order.reshape(self.steps_per_epoch, self.batch_size)
        steps: list[np.ndarray] = []
        for start in range(0, num_rows, BUCKET_STEPS * self.batch_size):
            chunk = order[start : start + BUCKET_STEPS * self.batch_size]
            chunk = chunk[np.argsort(self.lengths_R[chunk], kind="stable")]
            steps.extend(chunk.reshape(-1, self.batch_size))
        return np.stack(steps)[rng.permutation(len(steps))]

    def steps(self, *, first: int, last: int) -> Iterator[np.ndarray]:
        """Row indices [B] of the steps first .. last - 1, counted over all epochs."""
        epoch, order = -1, np.empty(0)
        for step in range(first, last):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                order = self.epoch_order(epoch)
            yield order[step % self.steps_per_epoch]


def collate(rows: Rows, indices: np.ndarray, *, pad_id: int, step_targets: int, with_worse: bool = False) -> Batch:
    """Pad rows on the right: input_ids, labels, attention_mask, position_ids int64 [M, longest].

    Rows with pictures bring theirs under `rows.picture_key`, float32 [M, ...].
    `num_targets` counts the targets of this batch; by `step_targets` the whole optimizer step is divided (scalars).
    `row_starts` [M] is where each row begins in the split's tokens, for objectives with targets of their own.
    Of preference pairs the row is the better answer behind its prompt; `with_worse`, the worse one stands below it, and
    `seen` [2] is the number of pairs and of their tokens, prompts counted once.
    """
    sides = (False, True) if with_worse else (False,)
    encoded = [rows.row(int(index), worse=worse) for index in indices for worse in sides]
    longest = max(len(ids) for ids, _ in encoded)
    shape = (len(encoded), longest)
    input_ids, labels = np.full(shape, pad_id, dtype=np.int64), np.full(shape, -100, dtype=np.int64)
    attention_mask = np.zeros(shape, dtype=np.int64)
    for position, (ids, row_labels) in enumerate(encoded):
        input_ids[position, : len(ids)] = ids
        labels[position, : len(ids)] = row_labels
        attention_mask[position, : len(ids)] = 1
    extra: Batch = {}
    if rows.picture_values is not None and rows.pictures_R is not None:
        extra[rows.picture_key] = torch.from_numpy(np.array(rows.picture_values[rows.pictures_R[indices]]))
    if with_worse:
        num_tokens = int((rows.ends_R[indices] - rows.starts_R[indices]).sum())
        extra["seen"] = torch.tensor([len(indices), num_tokens])
    return {
        **extra,
        "input_ids": torch.from_numpy(input_ids),
        "labels": torch.from_numpy(labels),
        "attention_mask": torch.from_numpy(attention_mask),
        "position_ids": torch.arange(longest).expand(shape).contiguous(),
        "num_targets": torch.tensor(int((labels != -100).sum())),
        "step_targets": torch.tensor(step_targets),
        "row_starts": torch.from_numpy(rows.starts_R[indices].astype(np.int64)),
    }


class TrainStream(IterableDataset[Batch]):
    """Micro batches of one process for the steps `first_step` .. `last_step` - 1, in order.

    `step_targets` of a batch is what the whole optimizer step holds of `unit`: target tokens, rows, or pairs, of which
    it then has both answers.
    """

    def __init__(
        self,
        rows: Rows,
        plan: BatchPlan,
        *,
        micro_batch_size: int,
        rank: int,
        world_size: int,
        pad_id: int,
        first_step: int,
        last_step: int,
        unit: Unit = Unit.tokens,
    ) -> None:
        self.rows, self.plan, self.pad_id, self.unit = rows, plan, pad_id, unit
        self.micro_batch_size, self.rank, self.world_size = micro_batch_size, rank, world_size
        self.first_step, self.last_step = first_step, last_step

    def __iter__(self) -> Iterator[Batch]:
        for indices in self.plan.steps(first=self.first_step, last=self.last_step):
            is_tokens, with_worse = self.unit is Unit.tokens, self.unit is Unit.pairs
            step_targets = int(self.rows.num_targets_R[indices].sum()) if is_tokens else len(indices)
            mine = indices.reshape(-1, self.world_size, self.micro_batch_size)[:, self.rank]
            for micro in mine:
                yield collate(self.rows, micro, pad_id=self.pad_id, step_targets=step_targets, with_worse=with_worse)


class EvalRows(IterableDataset[Batch]):
    """Rows in order, `batch_size` at a time, each process its share; `step_targets` is the batch's own count."""

    def __init__(
        self, rows: Rows, *, batch_size: int, rank: int, world_size: int, pad_id: int, max_batches: int = 0
    ) -> None:
        self.rows, self.batch_size, self.pad_id = rows, batch_size, pad_id
        self.rank, self.world_size, self.max_batches = rank, world_size, max_batches

    def __iter__(self) -> Iterator[Batch]:
        starts = range(0, len(self.rows), self.batch_size)
        starts = starts[: self.max_batches] if self.max_batches else starts
        for start in starts[self.rank :: self.world_size]:
            indices = np.arange(start, min(start + self.batch_size, len(self.rows)))
            step_targets = int(self.rows.num_targets_R[indices].sum())
            yield collate(self.rows, indices, pad_id=self.pad_id, step_targets=step_targets)
