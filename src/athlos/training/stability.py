"""Whether a training run was stable: spikes of the loss, clipped steps, divergence. No torch here."""

from collections import deque

WINDOW = 20
"""Steps that a spike is measured against, and that the end of a run is judged by."""
SPIKE = 0.5
"""A step is a spike when its loss is this many nats above the mean of the last `WINDOW` steps."""


class Stability:
    """Counts over the steps of a run, resumed ones included; `train/spikes` is a number of steps."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.recent: deque[float] = deque(maxlen=WINDOW)
        self.num_spikes, self.num_clipped, self.num_steps = 0, 0, 0

    def step(self, loss: float, *, is_clipped: bool) -> None:
        self.first = loss if self.first is None else self.first
        if len(self.recent) == WINDOW and loss > sum(self.recent) / WINDOW + SPIKE:
            self.num_spikes += 1
        self.recent.append(loss)
        self.num_clipped += is_clipped
        self.num_steps += 1

    @property
    def metrics(self) -> dict[str, float]:
        """A run whose last steps are no better than its first one counts as diverged, as does one that ends in no
        number (`DIVERGED`)."""
        if self.first is None:
            return {}
        is_diverged = self.num_steps > WINDOW and sum(self.recent) / len(self.recent) >= self.first
        return {
            "train/diverged": float(is_diverged),
            "train/spikes": float(self.num_spikes),
            "train/clip_fraction": self.num_clipped / self.num_steps,
        }

    def state(self) -> dict[str, float | int | list[float] | None]:
        """Plain values for a checkpoint."""
        return {
            "first": self.first,
            "recent": list(self.recent),
            "spikes": self.num_spikes,
            "clipped": self.num_clipped,
            "steps": self.num_steps,
        }

    def restore(self, state: dict[str, float | int | list[float] | None]) -> None:
        first, recent = state["first"], state["recent"]
        assert not isinstance(first, list)
        assert isinstance(recent, list)
        self.first, self.recent = first, deque(recent, maxlen=WINDOW)
        spikes, clipped, steps = state["spikes"], state["clipped"], state["steps"]
        assert isinstance(spikes, int)
        assert isinstance(clipped, int)
        assert isinstance(steps, int)
        self.num_spikes, self.num_clipped, self.num_steps = spikes, clipped, steps


DIVERGED = {"train/diverged": 1.0}
"""Metrics of a run that ended because its loss or gradient was no number."""
