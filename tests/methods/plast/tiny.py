"""A lab run of PLAST so small that it opens in a second: an untrained model, sixty pictures."""

from pathlib import Path

from tests.assembled import context_as_loaded

from athlos.config.compose import run_config
from athlos.config.schema import RunConfig
from athlos.parts import PartContext

OVERRIDES = (
    "experiment=plast/lab",
    "model=lab/plast",
    "data.num_train=60",
    "data.num_val=8",
    "data.num_test=4",
    "selection.probe.items=6",
    "method.attention_items=4",
    "method.mask_items=4",
    "construct.pairs_per_language=10",
    "eval.base=false",
    "eval.bootstrap=0",
    "progress=false",
    "tracking=none",
    "train.max_steps=3",
    "train.batch_size=4",
    "train.micro_batch_size=4",
    "train.checkpoint_every=2",
)


def config_of(*overrides: str) -> RunConfig:
    return run_config([*OVERRIDES, *overrides])


config_of.overrides = OVERRIDES  # type: ignore[attr-defined]


def opened(cache: Path, *overrides: str) -> PartContext:
    """What parts may use of the run, before any of them is applied."""
    return context_as_loaded(config_of(f"cache_dir={cache}", *overrides))
