"""In which config keys runs differ."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from athlos.config.schema import OPERATIONAL_KEYS
from athlos.generation.http_config import HTTPEngineConfig, LlamaCppConfig

ABSENT = -1
ENGINES = ("engine", "generator")
"""Groups that hold an engine."""


def is_operational(key: str) -> bool:
    """Whether a dotted key says where and how a run is recorded, or how fast an engine answers, not what it computes.

    A study is shown.
    """
    group, _, rest = key.partition(".")
    if group in ENGINES:
        return rest in HTTPEngineConfig.operational or rest in LlamaCppConfig.operational
    return key != "study" and group in OPERATIONAL_KEYS


def canonical(value: Any) -> str:
    """A value as text that is equal exactly for equal values of one type: 1, 1.0, "1" and true are four values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True)


def value_columns(configs: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list[Any], list[int]]]:
    """Key -> (its distinct values, the position of each run's value in them or `ABSENT`), operational keys left out.

    Keys stand in the order in which they are first met, the values of a key too.
    """
    columns: dict[str, tuple[list[Any], list[int]]] = {}
    known: dict[str, dict[str, int]] = {}
    for run, config in enumerate(configs):
        for key, value in config.items():
            if is_operational(key):
                continue
            if key not in columns:
                columns[key], known[key] = ([], [ABSENT] * len(configs)), {}
            values, of_run = columns[key]
            text = canonical(value)
            if text not in known[key]:
                known[key][text] = len(values)
                values.append(value)
            of_run[run] = known[key][text]
    return columns


def differing_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys that do not have one value in all configs that could be read, `study` and operational keys left out."""
    readable = [config for config in configs if config]
    columns = value_columns(readable)
    return [key for key, (_, of_run) in columns.items() if key != "study" and len(set(of_run)) > 1]
