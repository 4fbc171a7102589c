"""A lab run of PLAST so small that it opens in a second: an untrained model, sixty pictures."""

from pathlib import Path
from typing import Any

from athlos.cli import assemble
from athlos.config.compose import run_config
from athlos.config.parts import PartContext
from athlos.config.schema import RunConfig

OVERRIDES = (
    "experiment=plast/lab", "model=lab/plast", "data.num_train=60", "data.num_val=8", "data.num_test=4",
    "selection.probe.items=6", "method.attention_items=4", "method.mask_items=4", "construct.pairs_per_language=10",
    "eval.base=false", "eval.bootstrap=0", "progress=false", "tracking=none", "train.max_steps=3",
    "train.batch_size=4", "train.micro_batch_size=4", "train.checkpoint_every=2",
)  # fmt: skip


def config_of(*overrides: str) -> RunConfig:
    return run_config([*OVERRIDES, *overrides])


config_of.overrides = OVERRIDES  # type: ignore[attr-defined]


def opened(cache: Path, *overrides: str) -> Any:
    return assemble.open_run(config_of(f"cache_dir={cache}", *overrides))


def context_of(assembly: Any) -> PartContext:
    return PartContext(
        config=assembly.data.config, tokenizer=assembly.loaded.tokenizer, stages=assembly.stages,
        model_fingerprint=assembly.loaded.fingerprint, data=assembly.data, base_model=assembly.loaded.model,
    )  # fmt: skip
