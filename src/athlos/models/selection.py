"""What a selection chooses, and the selections that belong to no method: everything, named layers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from athlos.config.schema import RunConfig
from athlos.errors import SurgeryError
from athlos.models.config import AllConfig, LayersConfig
from athlos.models.sites import Layer, backbone, chosen_layers, chosen_sites, parameters_of
from athlos.stages import StageStore

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class OfRun(Protocol):
    """What selections and tunings here use of the `PartContext`, which stands to the right of the models."""

    config: RunConfig
    stages: StageStore
    data: Any

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase": ...
    @property
    def model_fingerprint(self) -> str: ...


@dataclass(kw_only=True)
class Chosen:
    """What a selection chose; a tuning lets it train. The first is for `full`, `layers` and `sites` are for updates."""

    parameters: list[nn.Parameter]
    """Each may stand here twice."""
    layers: Sequence[int] | None = None
    """Decoder layers, None = all."""
    sites: Sequence[str] = ()
    """Names of their matrices, none = all that a layer has."""
    words: str
    """What it is, for the start panel."""
    metrics: dict[str, float] = field(default_factory=dict)
    gradient_masks: Sequence[tuple[nn.Parameter, Tensor]] = ()
    """Parameters whose gradient is multiplied by a mask that broadcasts to it. AdamW without decay leaves what is
    masked bit-identical."""


class AllSelection:
    """Every parameter."""

    def __init__(self, config: AllConfig) -> None:
        self.config = config

    def choose(self, model: "PreTrainedModel", *, context: OfRun) -> Chosen:
        return Chosen(words="all", parameters=list(model.parameters()))


class LayersSelection:
    """Named decoder layers, whole or named sites in them; embedding and head on request."""

    def __init__(self, config: LayersConfig) -> None:
        self.config = config

    def choose(self, model: "PreTrainedModel", *, context: OfRun) -> Chosen:
        sites, config = backbone(model), self.config
        layers = chosen_layers(sites, config.layers or (range(len(sites.layers)) if config.sites else ()))
        modules = modules_of(layers, config.sites)
        words = [f"layers {ranges(layer.index for layer in layers)}"] if layers else []
        if layers and config.sites:
            words.append(f"({', '.join(config.sites)})")
        if config.embeddings:
            modules.append(sites.embedding)
            words.append("embedding, which is the head as well" if sites.is_tied else "embedding")
        if config.head:
            modules += [sites.final_norm, sites.head]
            words.append("head, which is the embedding as well" if sites.is_tied else "head")
        if config.projector:
            if sites.projector is None:
                raise SurgeryError(f"selection.projector: {type(model).__name__} has no projector")
            modules.append(sites.projector)
            words.append("projector")
        return Chosen(
            words=" ".join(words),
            parameters=list(parameters_of(modules)),
            layers=[layer.index for layer in layers],
            sites=config.sites,
        )


def modules_of(layers: Iterable[Layer], sites: Sequence[str]) -> list[nn.Module]:
    """The named matrices (and `norms`) of layers; without any named, the layers whole."""
    layers = list(layers)
    if not sites:
        return [layer.module for layer in layers]
    modules = [site.module for site in chosen_sites(layers, [name for name in sites if name != "norms"])]
    if "norms" in sites:
        modules += [norm for layer in layers for norm in layer.norms.values()]
    return modules


def ranges(indices: Iterable[int]) -> str:
    """Ascending indices as `0-4, 7`."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
