"""What a run tells while it works. The command line shows it; this one shows nothing."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from athlos.config.schema import RunConfig
from athlos.stages import Product


class Watcher:
    """Told what a run does. The base class keeps quiet."""

    def run_starts(self, run: RunConfig, *, run_dir: Path) -> None:
        """A run that is not finished yet begins."""

    def training_starts(
        self,
        run: RunConfig,
        *,
        phase: str,
        parts: Sequence[str],
        total_params: int,
        trainable_params: int,
        license: str,
        resumed_from: int | None,
    ) -> None:
        """A phase trains now; `resumed_from` is the step that it goes on from, None for a fresh start."""

    def training_step(self, done: int, loss: float, tokens_per_s: float) -> None:
        """One more optimizer step of the phase that trains; `loss` in nats."""

    def training_stops(self) -> None:
        """The phase trains no more, for whatever reason."""

    def trained(self, phase: str, product: Product) -> None:
        """The weights of a phase are there, trained just now or found ready."""

    def suite_starts(self, suite: str) -> Callable[[int, int, int], None] | None:
        """A suite evaluates; the callback, if any, is called with (items done, all items, tokens so far)."""
        return None

    def run_ends(self, metrics: Mapping[str, float], *, run_dir: Path, next_steps: Sequence[str]) -> None:
        """The run is finished."""
