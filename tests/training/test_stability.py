"""Spikes, clipped steps and divergence, by hand."""

import pytest

from athlos.training.stability import WINDOW, Stability


def run_of(losses: list[float], clipped: int = 0) -> Stability:
    stability = Stability()
    for step, loss in enumerate(losses):
        stability.step(loss, is_clipped=step < clipped)
    return stability


def test_a_falling_loss_is_stable() -> None:
    metrics = run_of([5 - 0.05 * step for step in range(60)], clipped=15).metrics
    assert metrics == {"train/diverged": 0.0, "train/spikes": 0.0, "train/clip_fraction": 0.25}


def test_a_spike_stands_half_a_nat_above_the_steps_before() -> None:
    losses = [4.0] * WINDOW
    assert run_of([*losses, 4.6, *losses, 4.4]).metrics["train/spikes"] == 1.0
    assert run_of([4.0] * (WINDOW - 1) + [9.0]).metrics["train/spikes"] == 0.0  # too early to tell


def test_a_run_that_ends_no_better_than_it_began_has_diverged() -> None:
    assert run_of([5.0] + [3.0] * 30 + [6.0] * WINDOW).metrics["train/diverged"] == 1.0
    assert run_of([5.0] + [6.0] * 10 + [3.0] * WINDOW).metrics["train/diverged"] == 0.0
    assert run_of([5.0, 6.0]).metrics["train/diverged"] == 0.0  # a smoke test says nothing
    assert Stability().metrics == {}


def test_a_resumed_run_counts_on() -> None:
    losses = [5.0] + [4.0] * WINDOW + [5.0, 6.0, 4.0]
    whole, first, second = run_of(losses, clipped=3), run_of(losses[:15], clipped=3), Stability()
    second.restore(first.state())
    for loss in losses[15:]:
        second.step(loss, is_clipped=False)
    assert second.metrics == pytest.approx(whole.metrics)
    assert second.state() == whole.state()
