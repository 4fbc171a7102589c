"""Overrides -> one checked `RunConfig` a job. Past this file no DictConfig exists.

Every job of a sweep is composed and checked before the first one starts, so that a mistake in the last job costs
seconds, not the night.
"""

import copy
import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from athlos.config import checks
from athlos.config.caps import capped
from athlos.config.fields import wrong_values
from athlos.config.overrides import readable
from athlos.config.registry import GROUPS, chosen_parts, conf_dir, part_names, registry
from athlos.config.renamed import RENAMED, new_key
from athlos.config.schema import OPERATIONAL_KEYS, PartConfig, RunConfig
from athlos.errors import ConfigError, ConfigErrors, choices, did_you_mean


def group_options(group: str) -> list[str]:
    """Names of the YAML files of a group, nested ones as `folder/name`."""
    folder = conf_dir() / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def unknown_option(group: str, name: str, *, key: str | None = None, prefix: str = "") -> str:
    """The line for a choice that a group does not have: its new name, or the nearest one and all there are.

    `key` is the key that the choice stands in, where it is not the group; `prefix` stands before the name there.
    """
    key = key or group
    if moved := new_key(f"{group}={name}"):
        return f"{key}: '{prefix}{name}' moved to {moved}"
    if new_name := RENAMED.get(group, {}).get(name):
        return f"{key}: '{prefix}{name}' was renamed to '{prefix}{new_name}'"
    return f"{key}: got '{prefix}{name}'{choices(name, group_options(group))}"


def compose_dict(overrides: Sequence[str], *, return_hydra_config: bool = False) -> DictConfig:
    """Compose without checks. Hydra's own errors come back as one-line `ConfigError`s with the nearest match."""
    if misplaced := list(_misplaced(overrides)):
        raise ConfigErrors(misplaced)
    registry()
    overrides = readable(overrides)
    try:
        if return_hydra_config or any(item.lstrip("+~").startswith("hydra") for item in overrides):
            config = _composed(overrides, return_hydra_config=return_hydra_config)
        else:
            values, choices = _values_and_choices(overrides)
            config = copy.deepcopy(_composed_once(tuple(choices), newest=_newest_change(conf_dir())))
            ConfigLoaderImpl._apply_overrides_to_config(values, config)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_one_line(error, overrides)) from error
    leave_architecture_to_folder(config, overrides)
    return config


def _composed(overrides: Sequence[str], *, return_hydra_config: bool = False) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), job_name="athlos", version_base="1.3"):
        return compose("run", overrides=list(overrides), return_hydra_config=return_hydra_config)


@lru_cache(maxsize=128)
def _composed_once(choices: tuple[str, ...], *, newest: float) -> DictConfig:
    """The composition of choices of groups, which is what takes Hydra its time: the jobs of a sweep share it."""
    return _composed(choices)


def _newest_change(folder: Path) -> float:
    """When a file or a folder in it was changed last: an edited YAML file is read again."""
    return max(
        entry.stat().st_mtime
        for place, _, names in os.walk(folder)
        for entry in (Path(place), *(Path(place, name) for name in names))
    )


def _values_and_choices(overrides: Sequence[str]) -> tuple[list[Override], list[str]]:
    """The overrides that give a key a value, which Hydra applies when all is composed; and the others."""
    keys = {info.name for info in dataclasses.fields(RunConfig)} - set(GROUPS)
    values, choices = [], []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.key_or_group
        is_value = key in keys or ("." in key and "/" not in key)
        if is_value and override.package is None and not override.is_sweep_override():
            values.append(override)
        else:
            assert override.input_line is not None
            choices.append(override.input_line)
    return values, choices


def leave_architecture_to_folder(config: DictConfig, overrides: Sequence[str]) -> None:
    """Take away what the chosen model's file says of its architecture where the command line names another folder.

    The folder's own config file says it better; what the command line itself says of the architecture stays.
    """
    keys = [item.lstrip("+~").partition("=")[0] for item in overrides]
    if "model.source" not in keys or "model.architecture" in keys:
        return
    kind, _, path = str(OmegaConf.select(config, "model.source")).partition(":")
    if kind == "dir" and (Path(path).expanduser() / "config.json").is_file():
        said = [key.split(".")[2] for key in keys if key.startswith("model.architecture.")]
        architecture = config.model.architecture
        config.model.architecture = {name: value for name, value in architecture.items() if name in said}


def run_config(overrides: Sequence[str]) -> RunConfig:
    """The checked config of one job, within its caps on size; raises `ConfigErrors` with every error found."""
    return checked(compose_dict(overrides))


def checked(config: DictConfig) -> RunConfig:
    """Turn a composed config into dataclasses, after every check; raises `ConfigErrors` with all that is wrong."""
    errors = list(checks.unknown_keys(config, schema=RunConfig))
    broken = list(checks.bad_interpolations(config))
    errors += broken or checks.missing_values(config)
    if not errors:
        errors += checks.denied_targets(OmegaConf.to_container(config, resolve=True))
    if errors:
        raise ConfigErrors(errors)
    try:
        typed = OmegaConf.to_object(config)
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(_one_line(error)) from error
    assert isinstance(typed, RunConfig)
    errors += wrong_values(typed)
    if errors:  # checks of values against each other count on each being right by itself
        raise ConfigErrors(errors)
    errors += checks.contradictions(typed)
    for part in chosen_parts(typed):
        errors += list(part.check(typed)) if part.check else []
    if errors:
        raise ConfigErrors(errors)
    return capped(typed)


def engine_signature(config: RunConfig) -> str:
    """What answers came from: the name of the engine, and the model that a server was asked for or was given."""
    name = part_names(config).get("engine", type(config.engine).__name__)
    if not config.engine.is_remote:
        return name
    values = vars(config.engine)
    return f"{name}:{values.get('model') or values.get('source') or 'its only model'}"


def expand_sweep(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each job of a multirun, by Hydra's own basic sweeper, `sweep=` files included."""
    overrides = readable(overrides)
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        # A swept group choice cannot be composed as it stands; the sweep's parameters do not depend on it.
        fixed = [item for item, override in zip(overrides, parsed, strict=True) if not override.is_sweep_override()]
        hydra_node = compose_dict(fixed, return_hydra_config=True).hydra
        params = [f"{key}={value}" for key, value in (hydra_node.sweeper.get("params") or {}).items()]
        named = {override.key_or_group for override in parsed}
        params = [item for item in params if item.split("=", 1)[0] not in named]
        batches = BasicSweeper.split_arguments(
            OverridesParser.create().parse_overrides([*params, *overrides]), max_batch_size=None
        )
    except HydraException as error:
        raise ConfigError(_one_line(error)) from error
    return [list(job) for batch in batches for job in batch]


def sweep_configs(overrides: Sequence[str]) -> list[RunConfig]:
    """Checked configs of all jobs; the errors of all jobs are shown together, each named by its overrides."""
    configs, errors = [], []
    for job in expand_sweep(overrides):
        try:
            configs.append(run_config(job))
        except ConfigErrors as error:
            errors += [f"[{' '.join(job)}] {line}" for line in error.errors]
        except ConfigError as error:
            errors.append(f"[{' '.join(job)}] {error}")
    if errors:
        raise ConfigErrors(list(dict.fromkeys(errors)))
    return configs


def plain(config: Any) -> dict[str, Any]:
    """Plain nested values of a config: what `config.yaml` holds.

    Equal to OmegaConf's container of it, which takes a hundred times as long, and a run asks often.
    """
    return {info.name: _plain(getattr(config, info.name)) for info in dataclasses.fields(config)}


def _plain(node: Any) -> Any:
    if dataclasses.is_dataclass(node):
        return plain(node)
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    return node.name if isinstance(node, Enum) else node


def identity(config: RunConfig) -> dict[str, Any]:
    """The part of `plain` that decides what is computed: what resuming compares and the run's hash covers."""
    return identifying(plain(config), run=config)


def identifying(values: dict[str, Any], *, run: RunConfig) -> dict[str, Any]:
    """`values` of a `config.yaml` without what says where and how only: for a run with these engines."""
    kept = {key: value for key, value in values.items() if key not in OPERATIONAL_KEYS}
    return {key: decisive(value, config=vars(run).get(key)) for key, value in kept.items()}


def decisive(values: Any, *, config: Any) -> Any:
    """Plain values of a part without the operational keys of it and of the parts below it, such as a judge's engine."""
    if not isinstance(values, dict) or not (isinstance(config, dict) or dataclasses.is_dataclass(config)):
        return values
    left_out = config.operational if isinstance(config, PartConfig) else ()
    below = config if isinstance(config, dict) else vars(config)
    return {key: decisive(value, config=below.get(key)) for key, value in values.items() if key not in left_out}


def _misplaced(overrides: Sequence[str]) -> Iterator[str]:
    """One line for each override that names an old key, or gives a suite as if it were a value."""
    for item in overrides:
        key, _, value = item.lstrip("+").partition("=")
        if moved := new_key(key):
            yield f"{key}: moved to {moved}"
        elif moved := new_key(f"{key}={value}"):
            yield f"{key}={value}: moved to {moved}"
        elif re.fullmatch(r"suite|eval\.suites(\.\w+)?", key) and not value.startswith("{"):
            name = key.removeprefix("eval.suites.") if key.count(".") == 2 else "<name>"
            yield f"{key}: got '{value}'; {_adding('suite', path=f'eval.suites.{name}')}"


def _adding(group: str, *, path: str) -> str:
    """How the command line puts a part into a mapping of parts."""
    return f"to add a {group} write +{group}@{path}=<{group}>, one of {', '.join(group_options(group))}"


def _one_line(error: Exception, overrides: Sequence[str] = ()) -> str:
    """Hydra's and OmegaConf's messages, told in Athlos's words: key, value, nearest accepted."""
    chain: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        chain.append(str(cause))
        cause = cause.__cause__
    text = "\n".join(filter(None, chain))
    if match := re.search(r"Could not find '((?:hydra/)?\w+)/([^']*)'", text):
        return unknown_option(match.group(1), match.group(2))
    if match := re.search(r"In '([^']+)': Could not override '\w+@([^']+)'", text):
        return _set_in_vain(match.group(2), file=match.group(1), overrides=overrides)
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match.group(1)
        return f"{key}: unknown key{_nearest_key(key, overrides)}"
    if match := re.search(r"Value '(.*?)' of type '(\w+)' could not be converted to (\w+)", text, re.S):
        key = re.search(r"full_key: (\S+)", text)
        return f"{key.group(1) if key else '?'}: got '{match.group(1)}' ({match.group(2)}), expected {match.group(3)}"
    if match := re.search(r"Invalid value '(.*?)', expected one of (\[.*?\])", text, re.S):
        key = re.search(r"full_key: (\S+)", text)
        return f"{key.group(1) if key else '?'}: got '{match.group(1)}', expected one of {match.group(2)}"
    if match := re.search(
        r"override \+?(\S+?)=.* is not a subclass of \w+\. value: (.*)\n\s+full_key: \1\n", text, re.S
    ):
        return f"{match.group(1)}: got '{match.group(2)}', but it holds keys; set one of these"
    if match := re.search(r"Error merging override \+?([^=\s]+)=", text):
        return f"{match.group(1)}: unknown key{_nearest_key(match.group(1), overrides)}"
    key = re.search(r"full_key: (\S+)", text)
    if key and (moved := new_key(key.group(1))):
        return f"{key.group(1)}: moved to {moved}"
    if key and (match := re.search(r"In '([^']+)': ConfigKeyError raised while composing config", text)):
        return _set_in_vain(key.group(1), file=match.group(1), overrides=overrides)
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    return f"{key.group(1)}: {first}" if key else first


def _set_in_vain(key: str, *, file: str, overrides: Sequence[str]) -> str:
    """The line for a key that a file of `conf/` sets below a group for which another part was chosen."""
    group = key.partition(".")[0]
    chosen = next((item for item in reversed(overrides) if item.startswith(f"{group}=")), f"the chosen {group}")
    return f"{key}: conf/{file}.yaml sets it, but {chosen} has no such key"


def _nearest_key(key: str, overrides: Sequence[str]) -> str:
    """Suggest the nearest key of the config that the group choices give; in a free mapping, how to add an entry."""
    groups = [item for item in overrides if re.split("[@=]", item.lstrip("+~"))[0] in GROUPS]
    if groups == list(overrides):
        return ""  # the choices of groups contradict each other, so there is no config to find a key in
    config = compose_dict(groups)
    parent, _, name = key.rpartition(".")
    grandparent = parent.rpartition(".")[0]
    for owner in (key, parent, grandparent):
        node = OmegaConf.select(config, owner) if owner else None
        if isinstance(node, DictConfig) and OmegaConf.get_type(node) is dict:
            if group := _group_of_entries(node):
                entry = key.removeprefix(f"{owner}.").partition(".")[0]
                if entry in node:
                    break
                return f"; {_adding(group, path=f'{owner}.{entry}')}"
            near = did_you_mean(name, [str(entry) for entry in node])
            return f"{near or ''}; to add an entry write +{key}=..."
    known = list(_paths(OmegaConf.to_container(config, resolve=False)))
    if near := did_you_mean(key, known):
        return near
    siblings = [path for path in known if path.rpartition(".")[0] == parent]
    return f"; accepted: {', '.join(siblings)}" if siblings else ""


def _group_of_entries(node: DictConfig) -> str | None:
    """The group of the parts that a mapping holds; None for a mapping to other values."""
    kind = node._metadata.element_type
    if not (isinstance(kind, type) and issubclass(kind, PartConfig)):
        return None
    return next(part.group for part in registry().parts.values() if issubclass(part.schema, kind))


def _paths(node: Any, prefix: str = "") -> Iterator[str]:
    """Dotted paths of all keys of nested mappings."""
    for name, value in node.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{name}.")
