"""Schemas of the decoding rules that belong to no single method, and of the engines that carry them out."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from athlos.config.registry import Part
from athlos.config.schema import MISSING, DecodingConfig, EngineConfig
from athlos.generation.http_config import HTTP_PARTS

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
    min_p: float = 0.0
    """Keep tokens of at least this share of the greatest probability, in [0, 1)."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens seen in prompt or answer, > 0; 1 = off."""


@dataclass(kw_only=True)
class LocalEngineConfig(EngineConfig):
    """Base of the engines that compute in the run's own process."""

    batch_size: int = MISSING
    """Most samples under way at once, >= 1."""


@dataclass(kw_only=True)
class NativeConfig(LocalEngineConfig):
    share_prefixes: bool = True
    """Read a beginning that several prompts share once."""
    onednn: bool = True
    """Large float32 matrix products on a CPU by oneDNN in place of PyTorch's default."""
    fused: bool = True
    """Attention over long float32 caches on a CPU by a kernel compiled on first use; without a compiler by PyTorch."""
    written_out: bool = True
    """Decode a plain float32 Llama by a step written out here; false = by transformers' forward pass, like the rest."""


@dataclass(kw_only=True)
class TransformersConfig(LocalEngineConfig):
    """The loop of transformers."""


@dataclass(kw_only=True)
class SelfGeneratorConfig(EngineConfig):
    """The model itself writes, by the native engine: in a phase the weights that the phase starts from."""


def _sampling_errors(config: "RunConfig") -> Iterable[str]:
    node = config.decoding
    assert isinstance(node, SamplingConfig)
    if node.temperature <= 0:
        yield f"decoding.temperature: got {node.temperature}, expected a number > 0 (or decoding=greedy)"
    if not 0 < node.top_p <= 1:
        yield f"decoding.top_p: got {node.top_p}, expected a number in (0, 1]"
    if node.top_k < 0:
        yield f"decoding.top_k: got {node.top_k}, expected an integer >= 0"
    if not 0 <= node.min_p < 1:
        yield f"decoding.min_p: got {node.min_p}, expected a number in [0, 1)"
    if node.repetition_penalty <= 0:
        yield f"decoding.repetition_penalty: got {node.repetition_penalty}, expected a number > 0"


def _local_engine_errors(config: "RunConfig") -> Iterable[str]:
    node = config.engine
    assert isinstance(node, LocalEngineConfig)
    if node.batch_size < 1:
        yield f"engine.batch_size: got {node.batch_size}, expected a number >= 1"


PARTS = [
    Part(group="decoding", name="greedy", schema=GreedyConfig, target="athlos.generation.decoding.Greedy",
         summary="the most probable token"),
    Part(group="decoding", name="sampling", schema=SamplingConfig, target="athlos.generation.decoding.Sampling",
         summary="temperature, top-k, top-p and min-p sampling", check=_sampling_errors),
    Part(group="engine", name="native", schema=NativeConfig, target="athlos.generation.native.NativeEngine",
         summary="Athlos's own decode loop: prompts read once, finished rows dropped", check=_local_engine_errors),
    Part(group="engine", name="transformers", schema=TransformersConfig,
         target="athlos.generation.transformers_engine.TransformersEngine",
         summary="the loop of transformers, to compare with", check=_local_engine_errors),
    Part(group="generator", name="self", schema=SelfGeneratorConfig, target="athlos.generation.native.NativeEngine",
         summary="the model itself, by the weights that a phase starts from"),
    *HTTP_PARTS,
]  # fmt: skip
