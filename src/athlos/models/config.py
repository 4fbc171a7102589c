"""Schemas of the selections, tunings and surgeries that belong to no single method."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from athlos.config.fields import any_of, at_least, bounded
from athlos.config.registry import Part, part_names
from athlos.config.schema import MISSING, SelectionConfig, SurgeryConfig, TuningConfig

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig

SITE_NAMES = ("q", "k", "v", "o", "gate", "up", "down", "norms")
"""Names of the parts of a decoder layer; `models/sites.py` maps them to each backbone's own."""


class GGUFFormat(StrEnum):
    """How the matrices of a converted file are kept."""

    f32 = "f32"
    f16 = "f16"
    bf16 = "bf16"


@dataclass(kw_only=True)
class NoSurgeryConfig(SurgeryConfig):
    """The model stays as loaded."""


@dataclass(kw_only=True)
class AllConfig(SelectionConfig):
    """Every parameter trains."""

    @property
    def names_all(self) -> bool:
        return True


@dataclass(kw_only=True)
class LayersConfig(SelectionConfig):
    layers: list[int] = field(default_factory=list)
    """Indices of the decoder layers that train, 0-based; negative ones count from the end; empty = all where `sites`
    are named, else none."""
    sites: list[str] = any_of(*SITE_NAMES)
    """What trains in them; empty = the whole layer."""
    embeddings: bool = False
    """Also train the input embedding (and the output matrix where they are tied)."""
    head: bool = False
    """Also train the final norm and the output matrix."""
    projector: bool = False
    """Also train the projector of a vision-language model."""

    def misfits(self) -> Iterator[str]:
        yield from (f"selection.{key}=true" for key in ("embeddings", "head", "projector") if getattr(self, key))
        if "norms" in self.sites:
            yield f"selection.sites=[{','.join(self.sites)}]"


class Selector(StrEnum):
    """How layers are chosen; those of `SCORING` look at the model."""

    activation_gap = "activation_gap"
    specific_neurons = "specific_neurons"
    top_active = "top_active"
    grad = "grad"
    manual = "manual"
    random = "random"
    middle = "middle"
    top = "top"
    all = "all"


PROBING = (Selector.activation_gap, Selector.specific_neurons, Selector.top_active)
"""They look at how neurons fire."""
SCORING = (*PROBING, Selector.grad)


class Trained(StrEnum):
    """What of a chosen layer trains: the whole layer, matrices of its FFN or of its attention."""

    all = "all"
    ffn = "ffn"
    attn = "attn"
    up_down = "up_down"


SITES = {
    Trained.all: (),
    Trained.ffn: ("gate", "up", "down"),
    Trained.attn: ("q", "k", "v", "o"),
    Trained.up_down: ("up", "down"),
}
"""Names of the matrices; none for whole layers."""


@dataclass(kw_only=True)
class LapeConfig:
    """Of `selector=specific_neurons`."""

    percentile: float = bounded("(0, 100)")
    """Of the firing shares over all layers, languages and neurons."""
    entropy_share: float = bounded("(0, 1]")
    """Share of the neurons that are taken, those of lowest entropy."""
    living_only: bool = MISSING
    """Take the share of the neurons that ever fire, and the percentile between two ranks."""


@dataclass(kw_only=True)
class ProbeConfig:
    """Which texts are probed; a method says how many and which of their tokens count."""

    split: str = MISSING
    """Split of the data that they come from; never the run's test split."""
    languages: list[str] = field(default_factory=list)
    """Languages to compare, the reference among them; empty = all that there are."""
    batch_size: int = at_least(1)
    """Texts a forward pass."""


@dataclass(kw_only=True)
class ProbedConfig(SelectionConfig):
    """Base of the selections by how FFN neurons fire."""

    selector: Selector = MISSING
    k: int = at_least(0)
    """Number of layers; 0 = as many as stand out."""
    layers: list[int] = field(default_factory=list)
    """Indices for `selector=manual`, negative ones from the end."""
    parts: Trained = MISSING
    top_r: float = bounded("(0, 1]")
    """Share of all neurons that count as active in a language, for `selector=top_active`."""
    lape: LapeConfig = field(default_factory=LapeConfig)

    @property
    def names_all(self) -> bool:
        return self.selector is Selector.all

    @property
    def site_names(self) -> tuple[str, ...]:
        """Matrices of a chosen layer that train; none for the whole layer."""
        return SITES[self.parts]


@dataclass(kw_only=True)
class FullConfig(TuningConfig):
    """What was chosen trains itself."""


@dataclass(kw_only=True)
class LoraConfig(TuningConfig):
    """Low-rank updates beside the chosen matrices; without named sites, beside all of the chosen layers."""

    rank: int = at_least(1, default=8)
    """Rank of the update."""
    alpha: float = 16.0
    """The update is scaled by alpha / rank."""
    dropout: float = bounded("[0, 1)", default=0.0)


@dataclass(kw_only=True)
class LoraEqualConfig(TuningConfig):
    """Low-rank updates beside all matrices of all layers, in sum of as many parameters as were chosen."""

    alpha_over_rank: float = 2.0
    """The update is scaled by it."""
    dropout: float = bounded("[0, 1)", default=0.0)


def _layers_errors(config: "RunConfig") -> Iterable[str]:
    node = config.selection
    assert isinstance(node, LayersConfig)
    if not (node.layers or node.sites or node.embeddings or node.head or node.projector):
        yield "selection.layers: got [], expected at least one layer (or selection.embeddings / selection.head)"


def probed_errors(config: "RunConfig") -> Iterator[str]:
    """What is wrong with the layers of any selection by probe."""
    node = config.selection
    assert isinstance(node, ProbedConfig)
    is_manual = node.selector is Selector.manual
    if is_manual != bool(node.layers):
        yield f"selection.layers: got {node.layers} with selector={node.selector}; they go with selector=manual"
    if len(set(node.layers)) < len(node.layers):
        yield f"selection.layers: got {node.layers}, which names a layer twice"
    if is_manual and node.k:
        yield f"selection.k: got {node.k} with selector=manual, expected 0: the named layers are all"
    if node.selector in (Selector.random, Selector.middle, Selector.top) and not node.k:
        yield f"selection.k: got 0 with selector={node.selector}, expected an integer >= 1: nothing is measured"


def _lora_errors(config: "RunConfig") -> Iterator[str]:
    name = part_names(config)["tuning"]
    for misfit in config.selection.misfits():
        yield f"tuning: got {name} with {misfit}, expected full: low-rank updates stand beside matrices of layers alone"


def _lora_equal_errors(config: "RunConfig") -> Iterator[str]:
    yield from _lora_errors(config)
    if config.selection.names_all:
        yield "tuning: got lora_equal, expected full or lora: it takes the size of some layers, and all are chosen"


PARTS = [
    Part(
        group="surgery",
        name="none",
        schema=NoSurgeryConfig,
        target="athlos.models.surgery.NoSurgery",
        summary="the model as loaded",
    ),
    Part(
        group="selection",
        name="all",
        schema=AllConfig,
        target="athlos.models.selection.AllSelection",
        summary="every parameter trains",
    ),
    Part(
        group="selection",
        name="layers",
        schema=LayersConfig,
        target="athlos.models.selection.LayersSelection",
        summary="named layers (or sites in them) train",
        check=_layers_errors,
    ),
    Part(
        group="tuning",
        name="full",
        schema=FullConfig,
        target="athlos.models.tuning.FullTuning",
        summary="what was chosen trains itself",
    ),
    Part(
        group="tuning",
        name="lora",
        schema=LoraConfig,
        target="athlos.models.tuning.LoraTuning",
        summary="low-rank updates, through PEFT, beside the chosen matrices",
        check=_lora_errors,
    ),
    Part(
        group="tuning",
        name="lora_equal",
        schema=LoraEqualConfig,
        target="athlos.models.tuning.LoraEqualTuning",
        summary="low-rank updates beside all matrices, of as many parameters as were chosen",
        check=_lora_equal_errors,
    ),
]
