"""Caps on size reach every declared field of a run, in proportion for steps, and nothing else."""

from dataclasses import dataclass, field, replace

import pytest

from athlos.config.caps import capped
from athlos.config.compose import run_config
from athlos.config.fields import at_least, sized, stepped
from athlos.config.schema import MethodConfig


@dataclass(kw_only=True)
class Inner:
    items: int = sized(at_least(1, default=50))
    probe: int = sized(at_least(20, default=400))
    nothing: int = sized(at_least(0, default=0))
    other: int = 70


@dataclass(kw_only=True)
class Method(MethodConfig):
    first_steps: int = stepped(at_least(1, default=120))
    no_steps: int = stepped(at_least(0, default=0))
    is_on: bool = True
    inner: Inner = field(default_factory=Inner)


def run_of(*overrides: str, **values: int):
    return replace(run_config(["train.max_steps=200", *overrides]), method=Method(_target_="x", **values))


@pytest.mark.parametrize(("cap", "first"), [(10, 6), (3, 2), (2, 1)])
def test_steps_keep_their_share_and_leave_one_for_the_rest(cap: int, first: int):
    run = run_of()
    small = capped(replace(run, hardware=replace(run.hardware, max_steps_cap=cap)))
    assert (small.num_steps, small.method.first_steps, small.method.no_steps) == (cap, first, 0)
    assert (small.method.inner, small.method.is_on) == (run.method.inner, True)
    assert capped(small) == small


def test_items_are_lowered_to_the_cap_or_to_their_least():
    run = run_of("data.limit_test=5", "data.limit_train=90")
    small = capped(replace(run, hardware=replace(run.hardware, limit_items_cap=7)))
    inner = small.method.inner
    assert (inner.items, inner.probe, inner.nothing, inner.other) == (7, 20, 0, 70)
    assert (small.data.limit_test, small.data.limit_val, small.data.limit_train) == (5, 7, 90)
    assert small.method.first_steps == 120
    assert capped(small) == small


def test_a_run_without_caps_or_within_them_stays_as_it_is():
    run = run_of()
    assert capped(run) is run
    wide = replace(run, hardware=replace(run.hardware, max_steps_cap=500))
    assert capped(wide) == wide


def test_a_composed_run_is_within_its_caps():
    run = run_config(["experiment=lisa/lab", "hardware=cpu_smoke"])
    assert run.num_steps == 2
    assert [phase.run.num_steps for phase in run.method.phases(run)] == [1, 1]
