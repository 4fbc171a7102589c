"""The curve of a resumed run: a validation that is done again for its metrics is not recorded again."""

from types import SimpleNamespace
from typing import Any

import pytest

from athlos.training.callbacks import Curve


class Kept:
    def __init__(self) -> None:
        self.points: list[tuple[int, dict[str, float]]] = []

    def log(self, metrics: dict[str, float], *, step: int) -> None:
        self.points.append((step, metrics))


@pytest.mark.parametrize(("recorded", "steps"), [(-1, [5, 10]), (5, [10]), (10, [])])
def test_a_validation_is_recorded_once(recorded: int, steps: list[int]) -> None:
    kept = Kept()
    progress: Any = None
    curve = Curve(kept, progress, log_every=1, recorded_val_step=recorded)
    for step in (5, 5, 10):
        trainer: Any = SimpleNamespace(global_step=step, callback_metrics={"val/loss": step / 4, "lr": 1.0})
        curve.on_validation_end(trainer, None)
        assert curve.last_val_step == step
    assert kept.points == [(step, {"val/loss": step / 4}) for step in steps]
