"""Schedule, optimizer groups and run-folder odds and ends."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from athlos.config.compose import run_config
from athlos.config.schema import Schedule
from athlos.errors import ConfigErrors, TrainingError
from athlos.training.module import MethodModule, build_optimizer, lr_factor

TRAIN = run_config(["train.warmup_ratio=0.1", "train.decay_ratio=0.25", "train.min_lr_ratio=0"]).train


def factors(num_steps: int, **values) -> list[float]:
    train = replace(TRAIN, **values)
    return [lr_factor(step, num_steps, train=train) for step in range(num_steps)]


def test_cosine_is_the_one_of_torch_after_the_warm_up():
    found = factors(40, schedule=Schedule.cosine)
    assert found[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=36)
    expected = []
    for _ in range(36):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cosine.step()
    assert found[4:] == pytest.approx(expected, abs=1e-9)


def test_linear_and_wsd_by_hand():
    assert factors(10, schedule=Schedule.linear, warmup_ratio=0.2) == pytest.approx(
        [0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    )
    # 8 steps, decay over the last 2: 1, then half way down.
    assert factors(8, schedule=Schedule.wsd, warmup_ratio=0.0) == pytest.approx([1, 1, 1, 1, 1, 1, 1, 0.5])
    assert factors(8, schedule=Schedule.constant, warmup_ratio=0.0) == [1.0] * 8


@given(
    num_steps=st.integers(1, 200),
    schedule=st.sampled_from(list(Schedule)),
    warmup=st.floats(0, 1),
    floor=st.floats(0, 1),
)
def test_the_rate_stays_between_its_bounds_and_never_rises_after_the_warm_up(num_steps, schedule, warmup, floor):
    found = factors(num_steps, schedule=schedule, warmup_ratio=warmup, min_lr_ratio=floor)
    after = found[math.ceil(warmup * num_steps) :]
    assert all(0 < value <= 1 for value in found) or floor == 0
    assert all(value >= floor - 1e-12 for value in after)
    assert all(left >= right - 1e-12 for left, right in itertools.pairwise(after))


def test_vectors_do_not_decay_and_frozen_parameters_are_left_out():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 2))
    model[2].requires_grad_(False)
    optimizer = build_optimizer(model, run_config(["train.weight_decay=0.3"]).train)
    decay = {p.numel(): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {12: 0.3, 4: 0.0}
    beside = [torch.nn.Parameter(torch.zeros(2, 3, 3))]
    optimizer = build_optimizer(model, run_config([]).train, beside=beside)
    assert sorted(p.numel() for group in optimizer.param_groups for p in group["params"]) == [4, 4, 4, 12, 18]
    with pytest.raises(TrainingError, match="nothing to train"):
        build_optimizer(model.requires_grad_(False), run_config([]).train, beside=beside)


def test_phases_may_be_parts_of_one_schedule():
    """The rates of two phases after each other are those of one training over all steps."""
    whole = [group["lr"] for group in rates_of("train.max_steps=10")]
    first = rates_of("train.max_steps=4", "train.schedule_steps=10")
    second = rates_of("train.max_steps=6", "train.schedule_steps=10", "train.schedule_start=4")
    assert [group["lr"] for group in [*first, *second]] == pytest.approx(whole)
    assert [group["lr"] for group in rates_of("train.max_steps=6", "train.schedule_start=4")] == pytest.approx(
        whole[4:]
    )


def rates_of(*overrides: str) -> list[dict[str, float]]:
    """The optimizer's first group before each step of a training."""
    run = run_config([*overrides, "train.schedule=cosine", "train.warmup_ratio=0.2", "train.lr=0.1"])
    model = torch.nn.Linear(2, 2)
    module = MethodModule(run, model=model, tokenizer=None, objective=None, decoding=None, engine=None)  # type: ignore[arg-type]
    made = module.configure_optimizers()
    groups = []
    for _ in range(run.num_steps):
        groups.append({"lr": made["optimizer"].param_groups[0]["lr"]})
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    return groups


def test_a_schedule_shorter_than_its_steps_is_refused():
    with pytest.raises(ConfigErrors, match=r"train.schedule_steps: got 8, expected 0 or at least 9"):
        run_config(["train.max_steps=5", "train.schedule_start=4", "train.schedule_steps=8"])
