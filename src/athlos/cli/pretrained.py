"""`model.source=run:<experiment>`: a model that Athlos trains itself, once, as a stage product shared by all runs.

The lab base model is one. Its experiment is composed like any other; where both it and the run speak of a lab world,
it is trained on the run's world, so a dial of the world is one override for both.
"""

import dataclasses
import logging
import shutil
from pathlib import Path

from athlos.config.compose import group_options, identity, run_config, unknown_option
from athlos.config.schema import ModelConfig, RunConfig
from athlos.data.datamodule import build_source
from athlos.errors import ConfigError
from athlos.models.loading import parse_source
from athlos.models.wheels import LICENSE_NAME_FILE
from athlos.stages import Stage, StageStore, content_hash

log = logging.getLogger(__name__)

BASE_RUN_VERSION = 2
"""Raised when the same config trains to other weights: a change of trainer, data or initialisation."""
RECORD = ("config.yaml", "metrics.json", "metric_details.json", "provenance.json")
"""Files of the base's run folder that stay beside its weights."""
LICENSE = "none (weights trained here on generated text)"
GENERATED = ("lab", "lab_sums", "lab_pictures")
"""Data sources whose text nobody has written."""


def is_trained_here(config: ModelConfig) -> bool:
    return parse_source(config.source).kind == "run"


def base_run(config: RunConfig) -> RunConfig:
    """The run that makes the model of a config; raises `ConfigError` for an unknown experiment or a model of models."""
    name = parse_source(config.model.source).reference
    if name not in group_options("experiment"):
        raise ConfigError(unknown_option("experiment", name, key="model.source", prefix="run:"))
    base = run_config([f"experiment={name}"])
    if is_trained_here(base.model):
        raise ConfigError(
            f"model.source: run:{name} starts from run:{parse_source(base.model.source).reference} itself"
        )
    if not base.num_steps:
        raise ConfigError(f"model.source: run:{name} trains nothing (train.max_steps=0)")
    own, other = _world(base), _world(config)
    if own is not None and other is not None:
        base.data = dataclasses.replace(base.data, world=other)
    if type(base.data) is type(config.data) and base.data.dir is None:
        base.data = dataclasses.replace(base.data, dir=config.data.dir)  # the files that the run itself reads
    hardware = dataclasses.replace(base.hardware, max_steps_cap=config.hardware.max_steps_cap)
    hardware.limit_items_cap = config.hardware.limit_items_cap
    return dataclasses.replace(
        base,
        hardware=hardware,
        cache_dir=config.cache_dir,
        progress=config.progress,
        tracking=dataclasses.replace(base.tracking, sinks=[]),
    )


def _world(config: RunConfig) -> object | None:
    """`data.world` of a run, where its data source is a lab one."""
    return vars(config.data).get("world")


def trained_model(config: RunConfig, *, stages: StageStore) -> ModelConfig:
    """The model config with `run:` replaced by the folder of the finished weights, trained now if they are not there.

    Training resumes after a stop, like any run. Raises `ConfigError` in a run of several processes that would have to
    train first.
    """
    base = base_run(config)
    key = content_hash(identity(base))[:20]
    base.run_dir = str(stages.root / "base_run" / f"{key}.run")
    stage = Stage(
        name="base_run",
        version=BASE_RUN_VERSION,
        config=identity(base),
        inputs={"data": build_source(base).fingerprint(base.data.train_split or "")},
        build=lambda folder: _build(folder, base, source=config.model.source),
    )
    if config.num_devices > 1 and not stages.ready(stage):
        raise ConfigError(
            f"model.source: {config.model.source} is not trained yet, which one process must do: "
            f"first run the same command with hardware=cpu train.max_steps=0"
        )
    product = stages.get(stage)
    return dataclasses.replace(config.model, source=f"dir:{product.path / 'model'}")


def _build(folder: Path, base: RunConfig, *, source: str) -> None:
    from athlos.cli.export import export_run
    from athlos.cli.run import execute

    log.info("%s is trained once and then kept in the cache", source)
    run = execute(base)
    export_run(run, out=folder / "model")
    if base.model.source == "random" and base.data.name in GENERATED:
        (folder / "model" / LICENSE_NAME_FILE).write_text(LICENSE + "\n", encoding="utf-8")
    for name in RECORD:
        shutil.copyfile(run / name, folder / name)
    shutil.rmtree(run)
