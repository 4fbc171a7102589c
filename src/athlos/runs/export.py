"""Hugging Face weights of a finished run, and the config of a run folder, typed again."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from athlos.config.compose import checked
from athlos.config.registry import registry
from athlos.config.schema import RunConfig
from athlos.errors import ConfigError
from athlos.runs.folder import RunFolder
from athlos.stages import StageStore, cache_dir

log = logging.getLogger(__name__)


def stored_config(run: Path) -> RunConfig:
    """The config of a run folder, typed again by the schemas of its parts."""
    path = run / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"{run}: no config.yaml; expected a run folder of Athlos")
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    typed = OmegaConf.merge(
        OmegaConf.structured(RunConfig),
        {key: _typed(value, group=key, place=f"{path}: {key}") for key, value in values.items()},
    )
    assert isinstance(typed, DictConfig)
    config = checked(typed)
    config.run_dir = str(run)
    return config


def _typed(value: Any, *, group: str | None, place: str) -> Any:
    """A stored value with the schemas of the parts in it, at any depth; `place` is its file and key.

    A part inside another value, such as a suite, may be of any group: `group` is None.
    """
    if not isinstance(value, dict):
        return value
    values = {key: _typed(inner, group=None, place=f"{place}.{key}") for key, inner in value.items()}
    target = value.get("_target_")
    if target is None:
        return values
    parts = [part for part in registry().parts.values() if part.target == target]
    schemas = [part.schema for part in parts if group in (None, part.group)]
    if not schemas:
        raise ConfigError(f"{place}._target_: no part '{target}' is installed")
    return OmegaConf.merge(OmegaConf.structured(schemas[0]), values)


def export_run(run: Path, *, out: Path) -> Path:
    """Write config, tokenizer and safetensors to `out`; returns it.

    A run whose evaluation failed has trained, and its weights are written. Raises `ConfigError` for one that has not,
    or an `out` that holds something already.
    """
    config = stored_config(run)
    folder = RunFolder(config)
    if not folder.is_finished and not folder.is_trained:
        raise ConfigError(f"{run}: the run is not finished (state: {folder.status.get('state', 'none')})")
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"--out: {out} is not empty")
    scratch = out.with_name(f".{out.name}.writing")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        if config.num_steps:
            shutil.copytree(folder.final_model, scratch)
        else:
            _write_untrained(config, scratch)
        if out.exists():
            out.rmdir()
        scratch.rename(out)
    except OSError as error:
        raise ConfigError(f"--out: cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    from athlos.models.surgical import SURGERIES_KEY

    if json.loads((out / "config.json").read_text(encoding="utf-8")).get(SURGERIES_KEY):
        log.info("a surgery changed this model: write `import athlos.hf` before AutoModelForCausalLM.from_pretrained")
    return out


def _write_untrained(config: RunConfig, folder: Path) -> None:
    """The run's model as loaded, its surgery applied: what a run without training evaluated."""
    from athlos.runs import assemble, chain

    stages = StageStore(cache_dir(config.cache_dir))
    start = chain.start_of(config, stages=stages)
    loaded = assemble.load(config, start.model, stages=stages)
    assembly = assemble.for_evaluation(config, loaded, applies_surgery=True, load_base=None, stages=stages)
    assembly.module.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
