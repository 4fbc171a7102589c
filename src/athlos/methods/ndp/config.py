"""Schemas of NDP's parts."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from athlos.config.registry import Part
from athlos.config.schema import MISSING, Batching, ConstructConfig, DataConfig

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig

LEAST_MEMORY_MB = 64
"""DuckDB does not work with much less."""


class Builder(StrEnum):
    """What counts. All give one table; `auto` is numpy."""

    auto = "auto"
    numpy = "numpy"
    duckdb = "duckdb"
    spark = "spark"


@dataclass(kw_only=True)
class NdpConstructConfig(ConstructConfig):
    n: int = MISSING
    """Shortest prefix of an answer that is counted, in tokens, >= 0; 0 counts first tokens too."""
    mono: DataConfig | None = None
    """Domain text that joins the answer-only table: its `train_split`. Choose it with `/data@construct.mono: ...`."""
    dedup: bool = MISSING
    """Count training rows with the same tokens and targets once."""
    builder: Builder = MISSING
    memory_mb: int = MISSING
    """Memory of counting, in MiB, >= 64; what does not fit is counted in shards and merged by ranges of keys."""
    shard_tokens: int = MISSING
    """Tokens of a shard, a product of its own that a killed build finds again, >= 1; 0 = as many as fit."""
    threads: int = MISSING
    """Threads that count, >= 1; 0 = one a core."""
    spark_master: str = ""
    """Where `builder=spark` runs, such as spark://host:7077; empty = on this machine."""
    collision_sample: int = MISSING
    """Positions whose keys are checked against exact prefixes, >= 0."""


def _construct_errors(config: "RunConfig") -> Iterable[str]:
    node = config.construct
    assert isinstance(node, NdpConstructConfig)
    least = {"n": 0, "memory_mb": LEAST_MEMORY_MB, "shard_tokens": 0, "threads": 0, "collision_sample": 0}
    for name, lowest in least.items():
        value = getattr(node, name)
        if value < lowest:
            yield f"construct.{name}: got {value}, expected an integer >= {lowest}"
    if config.train.batching is Batching.pack and config.num_steps:
        yield "train.batching: got pack, but packed rows lose where answers begin; use bucket with construct=ndp"
    if config.data.train_split is None and config.num_steps:
        yield f"construct=ndp: counts the training split, and data={config.data.name} names none"
    if node.mono is not None and node.mono.train_split is None:
        yield f"construct.mono.train_split: data={node.mono.name} names no split to count; set one"


PARTS = [
    Part(
        group="construct", name="ndp", schema=NdpConstructConfig, target="athlos.methods.ndp.construct.NdpConstruct",
        summary="tables of next-token counts by prefix, with and without the prompt", check=_construct_errors,
    )
]  # fmt: skip
