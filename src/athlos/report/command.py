"""The command of a run, found again from its config: an experiment or group choices, and the values that differ."""

import json
import math
import re
import shlex
from collections.abc import Mapping
from functools import cache
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from athlos.config.compose import compose_dict, group_options
from athlos.config.registry import registry
from athlos.config.schema import OPERATIONAL_KEYS
from athlos.errors import ConfigError
from athlos.training.run_folder import flat

CHOSEN_GROUPS = (
    "method",
    "surgery",
    "construct",
    "objective",
    "reward",
    "selection",
    "decoding",
    "model",
    "data",
    "eval",
    "scale",
)
"""Groups whose choice a config tells."""
FREE_MAPPINGS = ("model.architecture.", "data.files.", "data.codes.", "data.split_shares.")
"""Keys below these may be added with `+` and left out with `~`; all others have a schema."""
PLAIN_WORD = re.compile(r"(?:[A-Za-z_/]|\.{1,2}/)[\w/.:@=+-]*", re.ASCII)
WORDS_WITH_MEANING = {"null", "true", "false", "nan", "inf"}


def run_command(config: Mapping[str, Any], *, is_older: bool = False) -> str | None:
    """The shortest `athlos run ...` found for a config of dotted keys, with the same values in every key that counts.

    None for a config that cannot be said on a command line of this version: a key it does not know, or an
    interpolation. With `is_older` keys that the config lacks have come since and keep what the command gives them.
    """
    wanted = _identity(config)
    found = []
    for choices in _candidates(wanted):
        base = _composed(choices)
        if base is not None and (overrides := _overrides(base, wanted, is_older=is_older)) is not None:
            found.append([*choices, *overrides])
    if not found:
        return None
    return shlex.join(["athlos", "run", *min(found, key=_length)])


def _length(words: list[str]) -> tuple[int, bool]:
    """An experiment says more than as many words without it."""
    return len(words), not any(word.startswith("experiment=") for word in words)


@cache
def _options(group: str) -> tuple[str, ...]:
    return tuple(group_options(group))


def _identity(config: Mapping[str, Any]) -> dict[str, Any]:
    left_out = set(OPERATIONAL_KEYS) - {"study"}
    return {key: value for key, value in config.items() if key.partition(".")[0] not in left_out}


def _candidates(wanted: Mapping[str, Any]) -> list[tuple[str, ...]]:
    choices = tuple(
        f"{group}={option}" for group in CHOSEN_GROUPS if (option := _option(group, wanted)) is not None
    )  # defaults, too: what they leave to be said is counted, and said once
    needed = tuple(choice for choice in choices if not _is_default(choice))
    candidates = [needed]
    if (study := str(wanted.get("study"))) in _options("experiment"):
        candidates.append((f"experiment={study}",))
        candidates.append((f"experiment={study}", *(choice for choice in choices if _is_news(choice, study))))
    return candidates


def _option(group: str, wanted: Mapping[str, Any]) -> str | None:
    """The YAML file of a group that a config most likely chose."""
    options = _options(group)
    suites = wanted.get("eval.suites")
    names = [
        wanted.get(f"{group}.name"),
        suites[0] if group == "eval" and isinstance(suites, list) and suites else None,
        *(part.name for part in registry().parts.values() if part.group == group and part.target and
          part.target == wanted.get(f"{group}._target_")),
    ]  # fmt: skip
    return next((str(name) for name in names if name in options), None)


def _is_default(choice: str) -> bool:
    return _gives(choice, ())


def _is_news(choice: str, experiment: str) -> bool:
    """Whether a choice says what its experiment does not."""
    return not _gives(choice, (f"experiment={experiment}",))


def _gives(choice: str, choices: tuple[str, ...]) -> bool:
    group, _, option = choice.partition("=")
    base = _composed(choices)
    return base is not None and _option(group, base) == option


@cache
def _composed(choices: tuple[str, ...]) -> Mapping[str, Any] | None:
    """The config that choices give, with dotted keys; None where they do not compose."""
    try:
        node = OmegaConf.to_container(compose_dict(choices), resolve=True, enum_to_str=True)
    except (ConfigError, OmegaConfBaseException):
        return None
    assert isinstance(node, dict)
    return _identity(flat({str(key): value for key, value in node.items()}))


def _overrides(base: Mapping[str, Any], wanted: Mapping[str, Any], *, is_older: bool) -> list[str] | None:
    """What must be said to get from one config to the other; None where that cannot be said."""
    words = []
    for key in [*wanted, *(key for key in base if key not in wanted)]:
        if key in base and key in wanted and _same(base[key], wanted[key]):
            continue
        is_free = key.startswith(FREE_MAPPINGS)
        if key not in wanted:
            if not is_free and is_older:
                continue
            if not is_free:
                return None
            words.append(f"~{key}")
            continue
        value = _hydra_value(wanted[key])
        if value is None or (key not in base and not is_free):
            return None
        words.append(f"{'' if key in base else '+'}{key}={value}")
    return words


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _hydra_value(value: Any) -> str | None:
    """A value in Hydra's grammar, or None for an interpolation, which would be resolved."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return None if "${" in value else _hydra_string(value)
    if isinstance(value, list):
        inner = [_hydra_value(one) for one in value]
        return None if None in inner else f"[{','.join(str(one) for one in inner)}]"
    if isinstance(value, dict):
        pairs = {key: _hydra_value(one) for key, one in value.items()}
        if None in pairs.values() or not all(PLAIN_WORD.fullmatch(key) for key in pairs):
            return None
        return f"{{{','.join(f'{key}:{one}' for key, one in pairs.items())}}}"
    return None


def _hydra_string(text: str) -> str:
    if PLAIN_WORD.fullmatch(text) and text.lower() not in WORDS_WITH_MEANING:
        return text
    # Backslashes double only where they stand before a quote or at the end, as in Hydra's grammar.
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"
