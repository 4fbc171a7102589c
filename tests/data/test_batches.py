"""The order of rows and the denominators: exact, resumable, independent of how a step is split."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from athlos.config.compose import run_config
from athlos.config.schema import Batching
from athlos.data.batches import BatchPlan, EvalRows, TrainStream, Unit, collate
from athlos.data.datamodule import DataModule
from athlos.data.encoding import Rows
from athlos.models.tokenizers import byte_tokenizer
from athlos.stages import StageStore


def make_rows(lengths: list[int], *, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    total = sum(lengths)
    ends = np.cumsum(lengths)
    is_target = rng.random(total) < 0.7
    is_target[ends - 1] = True
    starts = ends - lengths
    counts = np.array([is_target[s + 1 : e].sum() for s, e in zip(starts, ends, strict=True)])
    return Rows(
        tokens_T=rng.integers(1, 50, total).astype(np.int32),
        is_target_T=is_target,
        starts_R=starts,
        ends_R=ends,
        num_targets_R=counts,
    )


def plan_of(rows: Rows, **changes) -> BatchPlan:
    values = {"batch_size": 4, "batching": Batching.pack, "seed": 3, **changes}
    return BatchPlan(lengths_R=rows.ends_R - rows.starts_R, **values)


def stream(rows: Rows, plan: BatchPlan, **changes) -> TrainStream:
    values = {"micro_batch_size": 2, "rank": 0, "world_size": 1, "pad_id": 0, "first_step": 0, "last_step": 5}
    return TrainStream(rows, plan, **(values | changes))


@given(
    num_rows=st.integers(1, 40),
    batch_size=st.integers(1, 9),
    batching=st.sampled_from(list(Batching)),
    seed=st.integers(0, 99),
)
def test_an_epoch_uses_each_row_at_most_once_unless_the_split_is_smaller_than_a_step(
    num_rows, batch_size, batching, seed
):
    lengths = np.random.default_rng(seed).integers(2, 30, num_rows)
    plan = BatchPlan(lengths_R=lengths, batch_size=batch_size, batching=batching, seed=seed)
    order = plan.epoch_order(0)
    assert order.shape == (plan.steps_per_epoch, batch_size)
    if num_rows >= batch_size:
        assert len(set(order.ravel().tolist())) == order.size
        assert num_rows - order.size < batch_size
    else:
        assert set(order.ravel().tolist()) == set(range(num_rows))


def test_a_step_of_pairs_has_both_answers_and_counts_pairs():
    """Pairs of prompt 2, better answer 1 to 3 and worse answer the rest; two processes share four of them a step."""
    rows = make_rows([6, 9, 7, 8, 12])
    rows.pairs_R3 = np.array([[2, 1 + index % 3, 0] for index in range(5)])
    plan = plan_of(rows, batching=Batching.bucket)
    seen = []
    for rank in (0, 1):
        for batch in stream(rows, plan, rank=rank, world_size=2, last_step=1, unit=Unit.pairs):
            assert batch["step_targets"] == 4
            assert batch["input_ids"].shape[0] == 2 * len(batch["row_starts"]) == 4
            indices = np.searchsorted(rows.starts_R, batch["row_starts"].numpy())
            lengths = [len(rows.row(int(index), worse=worse)[0]) for index in indices for worse in (False, True)]
            assert batch["attention_mask"].sum(1).tolist() == lengths
            assert batch["seen"].tolist() == [2, int((rows.ends_R - rows.starts_R)[indices].sum())]
            seen += indices.tolist()
    assert sorted(seen) == sorted(plan.epoch_order(0)[0].tolist())


def test_a_resumed_stream_gives_the_rows_that_come_next():
    rows = make_rows([5, 9, 3, 7, 8, 2, 6, 4, 9, 5])
    whole = list(stream(rows, plan_of(rows)))
    resumed = list(stream(rows, plan_of(rows), first_step=3))
    assert len(whole) == 10
    for left, right in zip(whole[6:], resumed, strict=True):
        assert all(torch.equal(left[name], right[name]) for name in left)


def test_epochs_differ_and_seeds_differ():
    rows = make_rows([4] * 40)
    orders = [plan_of(rows, seed=seed).epoch_order(epoch) for seed in (1, 2) for epoch in (0, 1)]
    assert len({order.tobytes() for order in orders}) == 4


def test_processes_share_a_step_without_overlap_and_with_one_denominator():
    rows = make_rows([5, 9, 3, 7, 8, 2, 6, 4])
    plan = plan_of(rows, batch_size=8)
    one = list(stream(rows, plan, micro_batch_size=8, last_step=1))
    two = [list(stream(rows, plan, micro_batch_size=2, rank=rank, world_size=2, last_step=1)) for rank in (0, 1)]
    assert {int(batch["step_targets"]) for part in two for batch in part} == {int(one[0]["num_targets"])}
    assert sum(int(batch["num_targets"]) for part in two for batch in part) == int(one[0]["num_targets"])


def test_a_loss_over_sequences_is_divided_by_the_rows_of_the_step():
    rows = make_rows([5, 3, 9, 4, 7, 6, 8, 3])
    plan = plan_of(rows)
    for world_size in (1, 2):
        batches = list(stream(rows, plan, unit=Unit.sequences, world_size=world_size, last_step=2))
        assert [int(batch["step_targets"]) for batch in batches] == [4] * len(batches)
    by_token = [int(batch["step_targets"]) for batch in stream(rows, plan, last_step=2)]
    assert min(by_token) > 4


def test_bucketing_saves_padding():
    lengths = np.random.default_rng(0).integers(2, 100, 400).tolist()
    rows = make_rows(lengths)

    def padding(batching: Batching) -> float:
        batches = list(stream(rows, plan_of(rows, batch_size=8, batching=batching), micro_batch_size=8, last_step=50))
        return 1 - float(sum(b["attention_mask"].sum() for b in batches)) / sum(b["input_ids"].numel() for b in batches)

    assert padding(Batching.bucket) < 0.5 * padding(Batching.pack)


def test_collate_pads_right_and_counts_targets_without_the_first_token():
    rows = make_rows([3, 6, 2])
    batch = collate(rows, np.array([1, 0]), pad_id=0, step_targets=9)
    assert batch["input_ids"].shape == (2, 6)
    assert batch["attention_mask"].sum(1).tolist() == [6, 3]
    assert (batch["labels"][:, 0] == -100).all()
    assert (batch["labels"][1, 3:] == -100).all()
    assert int(batch["num_targets"]) == int((batch["labels"] != -100).sum()) == rows.num_targets_R[[0, 1]].sum()


@pytest.mark.parametrize("world_size", [1, 3])
def test_evaluation_reads_every_row_once(world_size: int):
    rows = make_rows([4, 5, 6, 7, 8, 9, 3])
    parts = [
        list(EvalRows(rows, batch_size=2, rank=rank, world_size=world_size, pad_id=0)) for rank in range(world_size)
    ]
    assert sum(len(batch["input_ids"]) for part in parts for batch in part) == 7
    assert sum(int(batch["num_targets"]) for part in parts for batch in part) == rows.num_targets_R.sum()


def test_rows_that_earlier_phases_drew_are_passed_over(tmp_path):
    """The batches of a second phase are those that one training over all steps would have had there."""
    overrides = ["train.batch_size=4", "train.micro_batch_size=4", "train.max_length=64"]

    def batches(*more: str) -> list[list[list[int]]]:
        run = run_config([*overrides, *more])
        data = DataModule(
            run, tokenizer=byte_tokenizer(), stages=StageStore(tmp_path), text_of=lambda record: ("", record.text)
        )
        return [batch["input_ids"].tolist() for batch in data.train_batches(first_step=0, rank=0, world_size=1)]

    whole = batches("train.max_steps=5")
    assert batches("train.max_steps=2", "train.rows_start=3") == whole[3:]
    assert batches("train.max_steps=3") == whole[:3]
