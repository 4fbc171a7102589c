"""Schemas of the selections and surgeries that belong to no single method."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from athlos.config.fields import any_of, at_least, bounded
from athlos.config.registry import Part
from athlos.config.schema import SelectionConfig, SurgeryConfig

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig

SITE_NAMES = ("q", "k", "v", "o", "gate", "up", "down", "norms")
"""Names of the parts of a decoder layer; `models/sites.py` maps them to each backbone's own."""


@dataclass(kw_only=True)
class NoSurgeryConfig(SurgeryConfig):
    """The model stays as loaded."""


@dataclass(kw_only=True)
class AllConfig(SelectionConfig):
    """Every parameter trains."""


@dataclass(kw_only=True)
class LayersConfig(SelectionConfig):
    layers: list[int] = field(default_factory=list)
    """Indices of the decoder layers that train, 0-based; negative ones count from the end."""
    sites: list[str] = any_of(*SITE_NAMES)
    """What trains in them; empty = the whole layer."""
    embeddings: bool = False
    """Also train the input embedding (and the output matrix where they are tied)."""
    head: bool = False
    """Also train the final norm and the output matrix."""
    projector: bool = False
    """Also train the projector of a vision-language model."""


@dataclass(kw_only=True)
class LoraConfig(SelectionConfig):
    rank: int = at_least(1, default=8)
    """Rank of the update."""
    alpha: float = 16.0
    """The update is scaled by alpha / rank."""
    dropout: float = bounded("[0, 1)", default=0.0)
    sites: list[str] = any_of(*SITE_NAMES[:-1])
    """What gets an update; empty = all that a layer has, but the experts of a mixture. Where sites are unknown, empty
    alone is accepted, for all linear layers."""
    layers: list[int] = field(default_factory=list)
    """Decoder layers with an update; empty = all."""


def _layers_errors(config: "RunConfig") -> Iterable[str]:
    node = config.selection
    assert isinstance(node, LayersConfig)
    if not (node.layers or node.embeddings or node.head or node.projector):
        yield "selection.layers: got [], expected at least one layer (or selection.embeddings / selection.head)"


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
        group="selection",
        name="lora",
        schema=LoraConfig,
        target="athlos.models.selection.LoraSelection",
        summary="low-rank updates through PEFT",
    ),
]
