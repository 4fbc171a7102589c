"""What a benchmark measured, written as a run folder: the report shows it, `athlos record` keeps it for the claims.

    write_benchmark_record(Path(options.out), name="lisa_decode", options=vars(options), results=results)

`config.yaml` holds the benchmark's name as `study` and its options, `metrics.json` every number of `results` under its
path (`budget_512/lisa_over_sdpa`), `metric_details.json` the interval of those whose rounds are there.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from scipy import stats

from athlos.errors import ConfigError
from athlos.runs.folder import now, to_json, write_atomically

ROUNDS = "rounds"
"""Key of a mapping in `results`: metric beside it -> its value in each round."""
COVERAGE = 0.95


def write_benchmark_record(folder: Path, *, name: str, options: Mapping[str, Any], results: Mapping[str, Any]) -> Path:
    """Write the record and return its folder, which must not exist or be empty.

    `results` may be nested; what is no number in it (a name, a list) is left out, `rounds` becomes intervals. The
    option `out` is left out: it says where, not what. Raises `ConfigError` where something stands already.
    """
    from athlos.runs.provenance import code_state, hardware, versions  # imports torch

    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ConfigError(f"--out: {folder} is not empty; a record is written once, give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    metrics = dict(_numbers(results))
    details = {
        metric: {"n": len(values), "undefined": 0, "low": ends[0], "high": ends[1], "over": ROUNDS}
        for metric, values in _rounds(results)
        if (ends := median_interval(values)) is not None
    }
    kept = {key: _plain(value) for key, value in options.items() if key != "out"}
    config = {"study": name, "benchmark": name, "options": kept}
    provenance = {**code_state(), "versions": versions(), "hardware": hardware()}
    write_atomically(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    write_atomically(folder / "metrics.json", to_json(metrics))
    write_atomically(folder / "metric_details.json", to_json(details))
    write_atomically(folder / "provenance.json", to_json(provenance))
    write_atomically(folder / "status.json", to_json({"state": "finished", "end": now()}))
    return folder


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Ends of the narrowest pair of order statistics that holds the median with at least 95 %; None below six values.

    Distribution-free, by the binomial distribution of how many values lie below the median.
    """
    ends = stats.quantile_test(values, p=0.5).confidence_interval(COVERAGE)
    return None if math.isnan(ends.low) else (float(ends.low), float(ends.high))


def _numbers(results: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float | None]]:
    for key, value in results.items():
        if isinstance(value, Mapping):
            if key != ROUNDS:
                yield from _numbers(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value) if math.isfinite(value) else None


def _rounds(results: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Sequence[float]]]:
    for key, value in results.items():
        if isinstance(value, Mapping):
            if key == ROUNDS:
                yield from ((f"{prefix}{metric}", values) for metric, values in value.items())
            else:
                yield from _rounds(value, f"{prefix}{key}/")


def _plain(value: Any) -> Any:
    """A value as YAML knows it."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
