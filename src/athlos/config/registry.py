"""Finds every part by scanning for `config.py` files and data sources; adding a part edits no existing file.

A scanned module is torch-free and lists what it brings as `PARTS`. A part joins Hydra's config store as
`schema/<group>/<name>`, and its values stand in `conf/<group>/<name>.yaml`.
"""

import importlib
import os
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore

from athlos.config import schema
from athlos.errors import ConfigError, choices

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig

Check = Callable[["RunConfig"], Iterable[str]]

GROUPS = (
    "method", "surgery", "construct", "objective", "reward", "selection", "decoding", "engine", "model", "data",
    "scale", "hardware", "eval", "tracking", "sweep", "experiment",
)  # fmt: skip
ALLOWED_TARGETS_VARIABLE = "ATHLOS_ALLOWED_TARGETS"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One choice of a group.

    `schema` is its dataclass; `target` the dotted class that implements it, imported only when a run needs it;
    `check` gives one line for each reason why a whole run with this part makes no sense.
    """

    group: str
    name: str
    schema: type
    summary: str
    target: str = ""
    check: Check | None = None


@dataclass
class Registry:
    parts: dict[tuple[str, str], Part] = field(default_factory=dict)

    def add(self, part: Part) -> None:
        known = self.parts.get((part.group, part.name))
        if known is not None and known != part:
            raise ConfigError(f"{part.group}={part.name}: brought twice, by {known.schema} and {part.schema}")
        self.parts[part.group, part.name] = part

    def get(self, group: str, name: str) -> Part:
        if (group, name) not in self.parts:
            raise ConfigError(f"{group}={name}: unknown{choices(name, self.names(group))}")
        return self.parts[group, name]

    def names(self, group: str) -> list[str]:
        return sorted(name for part_group, name in self.parts if part_group == group)


BASE_SCHEMAS = (
    Part(group="model", name="base", schema=schema.ModelConfig, summary="any causal language model"),
    Part(group="hardware", name="base", schema=schema.HardwareConfig, summary="where a run computes"),
    Part(group="eval", name="base", schema=schema.EvalConfig, summary="what is measured"),
    Part(group="tracking", name="base", schema=schema.TrackingConfig, summary="where metrics are shown"),
    Part(group="scale", name="base", schema=schema.ScaleConfig, summary="lab, small or paper"),
)


def _scanned_modules() -> Iterable[str]:
    """Dotted names of the torch-free modules that may hold `PARTS`: package configs, methods, data sources."""
    root = importlib.import_module("athlos")
    for package in sorted(module.name for module in pkgutil.iter_modules(root.__path__) if module.ispkg):
        folder = importlib.import_module(f"athlos.{package}")
        for module in sorted(found.name for found in pkgutil.iter_modules(folder.__path__)):
            if package == "methods":
                yield f"athlos.methods.{module}.config"
            elif module == "config":
                yield f"athlos.{package}.config"
    sources = importlib.import_module("athlos.data.sources")
    for module in sorted(found.name for found in pkgutil.iter_modules(sources.__path__)):
        yield f"athlos.data.sources.{module}"


@cache
def registry() -> Registry:
    """The registry of this installation, scanned once a process and stored in Hydra's config store."""
    found = Registry()
    for part in BASE_SCHEMAS:
        found.add(part)
    for name in _scanned_modules():
        for part in getattr(importlib.import_module(name), "PARTS", ()):
            found.add(part)
    store = ConfigStore.instance()
    store.store(group="schema", name="run", node=schema.RunConfig, provider="athlos")
    for part in found.parts.values():
        node = part.schema(_target_=part.target) if part.target else part.schema
        store.store(group=f"schema/{part.group}", name=part.name, node=node, provider="athlos")
    return found


def allowed_targets() -> tuple[str, ...]:
    """Prefixes that `_target_` may start with: Athlos, and what the user's environment names (comma-separated).

    The list comes from the environment, not from the config: a config from elsewhere must not allow itself code.
    """
    extra = os.environ.get(ALLOWED_TARGETS_VARIABLE, "")
    return ("athlos.", *(prefix.strip() for prefix in extra.split(",") if prefix.strip()))
