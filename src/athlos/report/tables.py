"""Tidy tables of runs for notebooks, as polars frames (extra `notebooks`).

    from athlos.report import tables
    tables.runs("results")      # one row a run
    tables.seeds("results")     # one row a metric and group of runs that differ only in the seed
    tables.curves("results")    # one row a point

Each takes a folder of results, or records that `athlos.report.reading.collect` has read.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from athlos.report.comparison import differing_keys
from athlos.report.reading import collect
from athlos.report.seeds import seed_groups, seed_mean
from athlos.runs.records import RunRecord

Results = Path | str | Sequence[RunRecord]


def runs(results: Results) -> pl.DataFrame:
    """One row a run: run, study, state, seed, start, end, the config keys in which the runs differ, and all metrics.

    A metric that a run lacks is null, one without a value nan. A config key whose values have several types, or are
    lists, is a column of JSON text.
    """
    records = _records(results, with_curves=False)
    columns: dict[str, list[Any]] = {
        "run": [record.name for record in records],
        "study": [record.study for record in records],
        "state": [record.state for record in records],
        "seed": [record.seed for record in records],
        "start": [_text(record.status.get("start")) for record in records],
        "end": [_text(record.status.get("end")) for record in records],
    }
    for key in differing_keys([record.config for record in records]):
        if key not in columns:
            columns[key] = _one_type([record.config.get(key) for record in records])
    for metric in sorted({metric for record in records for metric in record.metrics}):
        columns[metric] = [record.metrics.get(metric) for record in records]
    return pl.DataFrame(columns, strict=False)


def curves(results: Results) -> pl.DataFrame:
    """One row a recorded point: run, metric, step, value (nan where undefined). No point is left out."""
    records = _records(results, with_curves=True)
    frames = [
        pl.DataFrame(
            {"step": curve.steps, "value": curve.values}, schema={"step": pl.Int64, "value": pl.Float64}
        ).select(pl.lit(record.name).alias("run"), pl.lit(metric).alias("metric"), "step", "value")
        for record in records
        for metric, curve in record.curves.items()
    ]
    empty = pl.DataFrame(schema={"run": pl.String, "metric": pl.String, "step": pl.Int64, "value": pl.Float64})
    return pl.concat([empty, *frames])


def seeds(results: Results) -> pl.DataFrame:
    """One row a metric and group of finished runs that differ only in the seed.

    Columns: runs (names), study, seeds, config keys in which the groups differ, metric, n, mean, and low and high of
    the 95 % interval by Student's t (null for one run): the variance of the seed, not of the items.
    """
    records = [record for record in _records(results, with_curves=False) if record.state == "finished"]
    keys = [key for key in differing_keys([record.config for record in records]) if key not in ("seed", "study")]
    values_of = {key: _one_type([record.config.get(key) for record in records]) for key in keys}
    rows: list[dict[str, Any]] = []
    for group in seed_groups(records):
        members = [records[position] for position in group]
        first = {
            "runs": [member.name for member in members],
            "study": members[0].study,
            "seeds": [member.seed for member in members],
            **{key: values_of[key][group[0]] for key in keys},
        }
        for metric in sorted({metric for member in members for metric in member.metrics}):
            mean = seed_mean([member.metrics[metric] for member in members if metric in member.metrics])
            rows.append({**first, "metric": metric, "n": mean.n, "mean": mean.mean, "low": mean.low, "high": mean.high})
    return pl.DataFrame(rows, infer_schema_length=None, strict=False)


def _records(results: Results, *, with_curves: bool) -> Sequence[RunRecord]:
    if isinstance(results, Path | str):
        return collect(Path(results), num_predictions=0, with_curves=with_curves)
    return results


def _one_type(values: list[Any]) -> list[Any]:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or (len(kinds) == 1 and kinds <= {str, bool}):
        return values
    return [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
