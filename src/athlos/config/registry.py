"""Finds every part by scanning for `config.py` files and data sources; adding a part edits no existing file.

A scanned module is torch-free and lists what it brings as `PARTS`. A part joins Hydra's config store as
`schema/<group>/<name>`, and its values stand in `conf/<group>/<name>.yaml`. Prompt styles have no config; they stand as
`PROMPT_STYLES` in modules named `prompt_styles`.
"""

import importlib
import importlib.util
import os
import pkgutil
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore

from athlos.config import schema
from athlos.config.prompt_style import PromptStyle
from athlos.errors import ConfigError, choices

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig

Check = Callable[["RunConfig"], Iterable[str]]

ALLOWED_TARGETS_VARIABLE = "ATHLOS_ALLOWED_TARGETS"


def conf_dir() -> Path:
    """The folder of YAML values: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent.parent / "conf"):
        if (folder / "run.yaml").is_file():
            return folder
    raise ConfigError(f"conf/run.yaml: not found beside {package}; the installation is incomplete")


def _groups() -> Iterator[str]:
    """What is filled by a choice: fields of the run with a dataclass, and entries of a mapping to parts in one of them.

    A group has a folder of its own in conf/; that of a mapping is named by one entry: `suite` of `eval.suites`.
    """
    folder = conf_dir()
    for name, kind in typing.get_type_hints(schema.RunConfig).items():
        if not is_dataclass(kind):
            continue
        entries = [key.removesuffix("s") for key, hint in typing.get_type_hints(kind).items() if _maps_to_parts(hint)]
        yield from (group for group in (name, *entries) if (folder / group).is_dir())


def _maps_to_parts(hint: Any) -> bool:
    entry = typing.get_args(hint)[1] if typing.get_origin(hint) is dict else None
    return isinstance(entry, type) and issubclass(entry, schema.PartConfig)


GROUPS = (*_groups(), "sweep", "experiment")
"""Folders of conf/: a new group is a field of `RunConfig` and a folder. The last two hold overrides of all groups."""


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
    styles: dict[type, dict[str, PromptStyle[Any]]] = field(default_factory=dict)
    """Type of record -> name -> style; the first of a type is its default."""

    def add(self, part: Part) -> None:
        known = self.parts.get((part.group, part.name))
        if known is not None and known != part:
            raise ConfigError(f"{part.group}={part.name}: brought twice, by {known.schema} and {part.schema}")
        self.parts[part.group, part.name] = part

    def add_style(self, style: PromptStyle[Any]) -> None:
        of_type = self.styles.setdefault(style.record_type, {})
        kind = style.record_type.__name__
        if style.name == schema.DEFAULT_STYLE:
            raise ConfigError(f"prompt_style={style.name}: no name for a style of {kind}; it stands for the first one")
        if style.name in of_type:
            raise ConfigError(f"prompt_style={style.name}: brought twice for {kind}; give one of them another name")
        of_type[style.name] = style

    def style_names(self) -> list[str]:
        """Names of the prompt styles of all types of record."""
        return sorted({name for of_type in self.styles.values() for name in of_type})

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
        for module in sorted(entry.name for entry in pkgutil.iter_modules(folder.__path__)):
            if package == "methods":
                yield f"athlos.methods.{module}.config"
            elif module == "config":
                yield f"athlos.{package}.config"
    sources = importlib.import_module("athlos.data.sources")
    for module in sorted(entry.name for entry in pkgutil.iter_modules(sources.__path__)):
        yield f"athlos.data.sources.{module}"


def _style_modules() -> Iterable[str]:
    """Modules that may hold `PROMPT_STYLES`: Athlos's own, which has the defaults and so comes first, and methods'."""
    yield "athlos.text.prompt_styles"
    methods = importlib.import_module("athlos.methods")
    for slug in sorted(module.name for module in pkgutil.iter_modules(methods.__path__)):
        name = f"athlos.methods.{slug}.prompt_styles"
        if importlib.util.find_spec(name) is not None:
            yield name


@cache
def registry() -> Registry:
    """The registry of this installation, scanned once a process and stored in Hydra's config store."""
    parts = Registry()
    for part in BASE_SCHEMAS:
        parts.add(part)
    for name in _scanned_modules():
        for part in getattr(importlib.import_module(name), "PARTS", ()):
            parts.add(part)
    for name in _style_modules():
        for style in importlib.import_module(name).PROMPT_STYLES:
            parts.add_style(style)
    store = ConfigStore.instance()
    store.store(group="schema", name="run", node=schema.RunConfig, provider="athlos")
    for part in parts.parts.values():
        node = part.schema(_target_=part.target) if part.target else part.schema
        store.store(group=f"schema/{part.group}", name=part.name, node=node, provider="athlos")
    return parts


def allowed_targets() -> tuple[str, ...]:
    """Prefixes that `_target_` may start with: Athlos, and what the user's environment names (comma-separated).

    The list comes from the environment, not from the config: a config from elsewhere must not allow itself code.
    """
    extra = os.environ.get(ALLOWED_TARGETS_VARIABLE, "")
    return ("athlos.", *(prefix.strip() for prefix in extra.split(",") if prefix.strip()))


def chosen_parts(config: "RunConfig") -> list[Part]:
    """The registered parts of a run, its suites included, found by group and class of their config."""
    nodes = {(name, type(node)) for name, node in vars(config).items() if isinstance(node, schema.PartConfig)}
    nodes |= {("suite", type(suite)) for suite in config.eval.suites.values()}
    return [part for part in registry().parts.values() if (part.group, part.schema) in nodes]


def part_names(config: "RunConfig") -> dict[str, str]:
    """Group -> name of the part that a run has in it: `{"method": "lisa", ...}`."""
    return {part.group: part.name for part in chosen_parts(config)}
