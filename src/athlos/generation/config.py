"""Schemas of the decoding rules that belong to no single method."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from athlos.config.registry import Part
from athlos.config.schema import DecodingConfig

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig


@dataclass(kw_only=True)
class GreedyConfig(DecodingConfig):
    """The most probable token at each step."""


@dataclass(kw_only=True)
class SamplingConfig(DecodingConfig):
    temperature: float = 1.0
    """> 0."""
    top_p: float = 1.0
    """Keep the smallest set of tokens with at least this probability, in (0, 1]."""
    top_k: int = 0
    """Keep the k most probable tokens; 0 = all."""


def _sampling_errors(config: "RunConfig") -> Iterable[str]:
    node = config.decoding
    assert isinstance(node, SamplingConfig)
    if node.temperature <= 0:
        yield f"decoding.temperature: got {node.temperature}, expected a number > 0 (or decoding=greedy)"
    if not 0 < node.top_p <= 1:
        yield f"decoding.top_p: got {node.top_p}, expected a number in (0, 1]"
    if node.top_k < 0:
        yield f"decoding.top_k: got {node.top_k}, expected an integer >= 0"


PARTS = [
    Part(group="decoding", name="greedy", schema=GreedyConfig, target="athlos.generation.decoding.Greedy",
         summary="the most probable token"),
    Part(group="decoding", name="sampling", schema=SamplingConfig, target="athlos.generation.decoding.Sampling",
         summary="temperature, top-k and top-p sampling", check=_sampling_errors),
]  # fmt: skip
