"""Checks of a composed config. All errors are collected and shown at once, each as `key: got, accepted`."""

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from athlos.config.registry import ALLOWED_TARGETS_VARIABLE, allowed_targets, registry
from athlos.config.schema import DEFAULT_STYLE, RunConfig
from athlos.errors import did_you_mean

MOST_SEED = 2**32 - 1
"""The largest seed: the trainer multiplies it by a stride and by the number of processes, within torch's 64 bits."""
MOST_INTEGER = 2**63 - 1
"""The largest integer that numpy and torch hold."""


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
    found = [option for option in options if isinstance(option, type) and dataclasses.is_dataclass(option)]
    return found[0] if found else None


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


def not_finite(config: RunConfig) -> Iterator[str]:
    """One line for each number that is nan or infinite; no other check can judge it.

    Every comparison with nan is false, so nan passes a range check that asks for what is wrong. Infinity is accepted in
    plain mappings: their keys belong to a library, and Mamba's architecture has an infinite limit.
    """
    for key, value, is_free in _leaves(config):
        if isinstance(value, float) and (math.isnan(value) or (math.isinf(value) and not is_free)):
            yield f"{key}: got {value}, expected a finite number"


def _leaves(node: Any, *, path: str = "", is_free: bool = False) -> Iterator[tuple[str, Any, bool]]:
    """(dotted key, value, whether it lies in a plain mapping) of each value that holds no others."""
    if dataclasses.is_dataclass(node):
        children: Iterable[tuple[Any, Any]] = [
            (info.name, getattr(node, info.name)) for info in dataclasses.fields(node)
        ]
        is_free = False
    elif isinstance(node, dict):
        children, is_free = node.items(), True
    elif isinstance(node, list):
        children = enumerate(node)
    else:
        yield path, node, is_free
        return
    for name, child in children:
        yield from _leaves(child, path=f"{path}.{name}" if path else str(name), is_free=is_free)


def wrong_values(config: RunConfig) -> Iterator[str]:
    """One line for each value outside its range, and for each pair of values that contradict each other."""
    yield from _beyond_libraries(config)
    yield from _below_least(config)
    yield from _outside_shares(config)
    yield from _not_accepted(config)
    yield from _contradictions(config)
    yield from _without_model(config)
    for name, suite in config.eval.suites.items():
        yield from suite.errors(f"eval.suites.{name}", run=config)


def _beyond_libraries(config: RunConfig) -> Iterator[str]:
    for key, value, _ in _leaves(config):
        if not isinstance(value, int):
            continue
        if key.endswith("seed") and not 0 <= value <= MOST_SEED:
            yield f"{key}: got {value}, expected an integer in [0, {MOST_SEED}]"
        elif abs(value) > MOST_INTEGER:
            yield f"{key}: got {value}, expected an integer of at most 64 bits"


def _below_least(config: RunConfig) -> Iterator[str]:
    train, evaluation, hardware = config.train, config.eval, config.hardware
    at_least: dict[str, tuple[float, int]] = {
        "train.max_steps": (train.max_steps, 0),
        "train.batch_size": (train.batch_size, 1),
        "train.micro_batch_size": (train.micro_batch_size, 1),
        "train.rows_start": (train.rows_start, 0),
        "train.schedule_start": (train.schedule_start, 0),
        "train.schedule_steps": (train.schedule_steps, 0),
        "train.max_length": (train.max_length, 2),
        "train.weight_decay": (train.weight_decay, 0),
        "train.clip_norm": (train.clip_norm, 0),
        "train.val_every": (train.val_every, 0),
        "train.val_batches": (train.val_batches, 0),
        "train.checkpoint_every": (train.checkpoint_every, 1),
        "train.log_every": (train.log_every, 1),
        "eval.batch_size": (evaluation.batch_size, 1),
        "eval.shots": (evaluation.shots, 0),
        "eval.every": (evaluation.every, 0),
        "eval.bootstrap": (evaluation.bootstrap, 0),
        "hardware.devices": (hardware.devices, 1),
        "hardware.num_nodes": (hardware.num_nodes, 1),
        "hardware.num_threads": (hardware.num_threads, 0),
        "hardware.max_steps_cap": (hardware.max_steps_cap, 0),
        "hardware.limit_items_cap": (hardware.limit_items_cap, 0),
        "decoding.max_new_tokens": (config.decoding.max_new_tokens, 1),
    }
    for key, (value, least) in at_least.items():
        if value < least:
            yield f"{key}: got {value}, expected a number >= {least}"
    data = config.data
    limits = {"train": data.limit_train, "val": data.limit_val, "test": data.limit_test}
    for name, limit in limits.items():
        if limit is not None and limit < 1:
            yield f"data.limit_{name}: got {limit}, expected a number >= 1, or null for all"


def _outside_shares(config: RunConfig) -> Iterator[str]:
    train = config.train
    for name in ("warmup_ratio", "decay_ratio", "min_lr_ratio", "beta1", "beta2"):
        value = getattr(train, name)
        if not 0 <= value <= 1:
            yield f"train.{name}: got {value}, expected a number in [0, 1]"
    for name in ("lr", "adam_eps"):
        value = getattr(train, name)
        if value <= 0:
            yield f"train.{name}: got {value}, expected a number > 0"


def _not_accepted(config: RunConfig) -> Iterator[str]:
    hardware = config.hardware
    accepted = {
        "hardware.strategy": (hardware.strategy, ("auto", "ddp", "fsdp2")),
        "hardware.accelerator": (hardware.accelerator, ("cpu", "gpu", "auto")),
        "hardware.precision": (hardware.precision, ("32-true", "bf16-mixed", "bf16-true", "16-mixed")),
        "tracking.wandb_mode": (config.tracking.wandb_mode, ("offline", "online", "disabled")),
        "model.tokenizer.kind": (config.model.tokenizer.kind, ("source", "byte", "bpe", "words", "trimmed")),
        "prompt_style": (config.prompt_style, (DEFAULT_STYLE, *registry().style_names())),
    }
    for sink in config.tracking.sinks:
        accepted[f"tracking.sinks[{sink}]"] = (sink, ("wandb", "tensorboard", "trackio"))
    for key, (chosen, choices) in accepted.items():
        if chosen not in choices:
            yield f"{key}: got '{chosen}', expected one of {', '.join(choices)}{did_you_mean(chosen, choices)}"


def _contradictions(config: RunConfig) -> Iterator[str]:
    train, evaluation, data = config.train, config.eval, config.data
    rows = train.micro_batch_size * config.num_devices
    if rows >= 1 and train.batch_size >= 1 and train.batch_size % rows:
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


def _without_model(config: RunConfig) -> Iterator[str]:
    """What a run needs of the model that a server does not give."""
    if not config.engine.is_remote:
        return
    reason = "with an engine over HTTP this run loads no model"
    if config.train.max_steps > 0:
        yield f"train.max_steps: got {config.train.max_steps}, expected 0: {reason}"
    for name, suite in config.eval.suites.items():
        if suite.reads_model:
            yield f"eval.suites.{name}: it reads the model itself, but {reason}; engine=native"
    if config.eval.base:
        yield f"eval.base: got true, expected false: {reason}, and its one model is the base"
    if type(config.surgery) is not registry().get("surgery", "none").schema:
        yield f"surgery: got {type(config.surgery).__name__}, expected surgery=none: {reason}"
