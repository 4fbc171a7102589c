"""Checks of a composed config, each error as `key: got, accepted`.

All errors of a kind are shown at once: keys, then values that are wrong by themselves, then values against each other.
"""

import dataclasses
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from athlos.config.registry import ALLOWED_TARGETS_VARIABLE, allowed_targets, part_names, registry
from athlos.config.schema import DEFAULT_STYLE, RunConfig
from athlos.errors import did_you_mean


def unknown_keys(node: Any, *, schema: type, path: str = "") -> Iterator[str]:
    """One line for each key of `node` that `schema` does not know; OmegaConf lets `+key=` add such keys silently."""
    fields = {field.name: field for field in dataclasses.fields(schema)}
    hints = typing.get_type_hints(schema)
    for key in map(str, node):
        full = f"{path}{key}"
        if key not in fields:
            near = did_you_mean(key, list(fields))
            yield f"{full}: unknown key{near or '; accepted: ' + ', '.join(sorted(fields))}"
            continue
        child = node._get_node(key)
        if not isinstance(child, DictConfig) or child._is_none() or child._is_missing():
            continue
        inner = OmegaConf.get_type(child)
        if inner in (dict, None):
            inner = _dataclass_of(hints[key])
        if inner is None:
            yield from _unknown_keys_of_parts(child, path=f"{full}.")
        if inner is not None and dataclasses.is_dataclass(inner):
            yield from unknown_keys(child, schema=inner, path=f"{full}.")


def _unknown_keys_of_parts(node: DictConfig, *, path: str) -> Iterator[str]:
    """`unknown_keys` of the parts in a mapping from names to parts; in other mappings there are none to look at."""
    for name in map(str, node):
        child = node._get_node(name)
        kind = OmegaConf.get_type(child) if isinstance(child, DictConfig) and not child._is_missing() else None
        if kind is not None and dataclasses.is_dataclass(kind):
            yield from unknown_keys(child, schema=kind, path=f"{path}{name}.")


def _dataclass_of(hint: Any) -> type | None:
    """The dataclass inside a type hint such as `X | None`, or nothing for plain containers."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    schemas = [option for option in options if isinstance(option, type) and dataclasses.is_dataclass(option)]
    return schemas[0] if schemas else None


def missing_values(config: DictConfig) -> Iterator[str]:
    for key in sorted(str(key) for key in OmegaConf.missing_keys(config)):
        yield f"{key}: no value; give one with {key}=..."


def bad_interpolations(node: Any, *, path: str = "") -> Iterator[str]:
    """One line for each `${...}` that cannot be resolved."""
    keys: Iterable[Any] = node.keys() if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        full = f"{path}{key}"
        child = node._get_node(key)
        if child is None or child._is_missing() or child._is_none():
            continue
        if isinstance(child, DictConfig | ListConfig) and not child._is_interpolation():
            yield from bad_interpolations(child, path=f"{full}.")
            continue
        try:
            node[key]
        except OmegaConfBaseException as error:
            yield f"{full}: {str(error).splitlines()[0]}"


def denied_targets(node: Any, *, path: str = "") -> Iterator[str]:
    """One line for each `_target_` outside the allow-list, at any depth."""
    prefixes = allowed_targets()
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        full = f"{path}{key}"
        if key == "_target_" and not str(value).startswith(prefixes):
            yield (
                f"{full}: '{value}' is not allowed; accepted: names starting with {', '.join(prefixes)} "
                f"(add your package to the environment variable {ALLOWED_TARGETS_VARIABLE})"
            )
        yield from denied_targets(value, path=f"{full}.")


def contradictions(config: RunConfig) -> Iterator[str]:
    """One line for each pair of values, right by themselves, that do not go together."""
    styles = (DEFAULT_STYLE, *registry().style_names())
    if config.prompt_style not in styles:
        near = did_you_mean(config.prompt_style, styles)
        yield f"prompt_style: got '{config.prompt_style}', expected one of {', '.join(styles)}{near}"
    yield from _steps_and_splits(config)
    yield from _without_model(config)
    yield from _without_records(config)
    for name, suite in config.eval.suites.items():
        yield from suite.errors(f"eval.suites.{name}", run=config)


def _steps_and_splits(config: RunConfig) -> Iterator[str]:
    train, evaluation, data = config.train, config.eval, config.data
    rows = train.micro_batch_size * config.num_devices
    if train.batch_size % rows:
        yield (
            f"train.batch_size: got {train.batch_size}, "
            f"expected a multiple of train.micro_batch_size x devices = {rows}"
        )
    done = train.schedule_start + train.max_steps
    if train.schedule_steps and train.schedule_steps < done:
        yield f"train.schedule_steps: got {train.schedule_steps}, expected 0 or at least {done}, the steps done by it"
    if train.max_steps > 0 and data.train_split is None and not config.dry_run:
        yield f"data.train_split: data={data.name} names no training split; set one, or train.max_steps=0"
    if evaluation.every and config.hardware.strategy == "fsdp2":
        yield f"eval.every: got {evaluation.every}, expected 0: hardware=fsdp2 has no whole weights during the training"
    if evaluation.every and data.val_split is None:
        yield f"eval.every: got {evaluation.every}, but data={data.name} names no validation split; set data.val_split"


def _without_records(config: RunConfig) -> Iterator[str]:
    """Suites that the data have no records for. `Record` stands for any type: such a source is not judged by it."""
    source: Any = get_class(config.data._target_)
    kind: str = source.record_type.__name__
    schemas: dict[str, Any] = {name: registry().get("suite", name).schema for name in registry().names("suite")}
    fitting = [name for name, schema in schemas.items() if kind in schema.asks]
    for name, suite in config.eval.suites.items():
        if kind != "Record" and suite.asks and kind not in suite.asks:
            yield (
                f"eval.suites.{name}: it needs a {' or '.join(suite.asks)}, data={config.data.name} has a {kind}; "
                f"use eval={' or '.join(fitting) or 'none'}"
            )


def _without_model(config: RunConfig) -> Iterator[str]:
    """What a run needs of the model that a server, or llama.cpp, does not give."""
    if not config.engine.is_remote:
        return
    reason = f"with engine={part_names(config).get('engine', 'own')} this run loads no model"
    if config.train.max_steps > 0:
        yield f"train.max_steps: got {config.train.max_steps}, expected 0: {reason}"
    for name, suite in config.eval.suites.items():
        if suite.reads_model:
            yield f"eval.suites.{name}: it reads the model itself, but {reason}; engine=native"
    if config.eval.base:
        yield f"eval.base: got true, expected false: {reason}, and its one model is the base"
    if type(config.surgery) is not registry().get("surgery", "none").schema:
        yield f"surgery: got {type(config.surgery).__name__}, expected surgery=none: {reason}"
