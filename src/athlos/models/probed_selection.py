"""Layers chosen by how FFN neurons fire in several languages: probe, choice, and what trains in the layers.

A method brings what is read, in `probe`, and how scores become layers, in `measured`. L layers, X languages, J neurons
of a layer, B texts, T positions.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from athlos.config.compose import plain
from athlos.models import layer_selectors as rules
from athlos.models.config import SCORING, NoSurgeryConfig, ProbedConfig, Selector
from athlos.models.neuron_counts import NeuronCounts, load_blocks, save_blocks
from athlos.models.probe import ActivationProbe
from athlos.models.selection import Chosen, OfRun, modules_of, ranges
from athlos.models.sites import backbone, chosen_layers, parameters_of
from athlos.models.tokenizers import tokenizer_hash
from athlos.stages import Product, Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE_VERSION = 1
COUNTS = "counts.npz"

Batches = Iterable[tuple[Mapping[str, Tensor], Tensor]]
"""Keyword arguments of the decoder, and the mask [B, T] of the tokens that count."""


@dataclass(kw_only=True)
class Choice:
    """The chosen layers and what they were chosen by."""

    layers: list[int]
    scores: list[float] = field(default_factory=list)
    """By layer; empty where nothing was measured."""
    by_language: dict[str, list[float]] = field(default_factory=dict)
    """Language -> by layer what its score was made of."""
    used_fallback: bool = False
    jaccard: float | None = None
    """Mean over resamples of the probe's texts of the overlap with these layers."""
    frequency: list[float] = field(default_factory=list)
    """By layer: share of the resamples that chose it."""
    low: list[float] = field(default_factory=list)
    """By layer: 2.5 % of the resampled scores."""
    high: list[float] = field(default_factory=list)
    num_dead: int = 0
    """Neurons that never fired, for `specific_neurons`."""


class ProbedSelection(ABC):
    """Decoder layers, whole or matrices in them; `choice` is there after `choose`."""

    def __init__(self, config: ProbedConfig) -> None:
        self.config: Any = config
        self.choice = Choice(layers=[])

    @abstractmethod
    def measured(self, model: "PreTrainedModel", *, context: Any) -> Choice:
        """Layers by a selector that looks at the model."""

    @abstractmethod
    def expected(self, num_layers: int) -> list[int]:
        """Layers that stand for the measured ones in a dry run, which measures nothing."""

    @abstractmethod
    def metrics(self) -> dict[str, float]:
        """What is told of the choice."""

    def seed(self, context: OfRun) -> int:
        """Of random draws."""
        return context.config.seed

    def choose(self, model: "PreTrainedModel", *, context: OfRun) -> Chosen:
        config, model_sites = self.config, backbone(model)
        if config.selector in SCORING and context.data is not None:
            self.choice = self.measured(model, context=context)
        else:
            self.choice = Choice(layers=self.unmeasured(len(model_sites.layers), seed=self.seed(context)))
        choice, sites = self.choice, config.site_names
        words = f"{config.selector}: layers {ranges(choice.layers)} ({', '.join(sites) or 'whole'})"
        firm = "" if choice.jaccard is None else f", stability {choice.jaccard:.2f}"
        return Chosen(
            words=words + firm + ", by fallback" * choice.used_fallback,
            parameters=list(parameters_of(modules_of(chosen_layers(model_sites, choice.layers), sites))),
            layers=choice.layers,
            sites=sites,
            metrics=self.metrics(),
        )

    def unmeasured(self, num_layers: int, *, seed: int) -> list[int]:
        """Layers of the selectors that look at nothing."""
        selector, k = self.config.selector, self.config.k
        if selector is Selector.all:
            return list(range(num_layers))
        if selector is Selector.manual:
            return rules.manual_layers(self.config.layers, num_layers=num_layers)
        if selector is Selector.random:
            return rules.random_layers(num_layers, k=k, seed=seed)
        places = {Selector.middle: rules.middle_layers, Selector.top: rules.top_layers}
        return places[selector](num_layers, k=k) if selector in places else self.expected(num_layers)


def probe_product(
    context: OfRun, count: Callable[[], list[NeuronCounts]], *, data: str, config: Mapping[str, Any]
) -> Product:
    """Counts of firing neurons by block of texts, built once for a model, its texts and what is counted.

    `data` is the content hash of the texts, `config` says which of them and of their tokens count.
    """
    # A surgery may draw new weights by the run's seed; the model as loaded is the same for every seed.
    is_changed = type(context.config.surgery) is not NoSurgeryConfig
    stage = Stage(
        name="probe",
        version=PROBE_VERSION,
        inputs={"model": context.model_fingerprint, "data": data, "tokenizer": tokenizer_hash(context.tokenizer)},
        config={
            **config,
            "surgery": plain(context.config)["surgery"] if is_changed else None,
            "seed": context.config.seed if is_changed else None,
        },
        build=lambda folder: save_blocks(folder / COUNTS, count()),
    )
    return context.stages.get(stage)


def count_blocks(
    model: "PreTrainedModel",
    blocks: Iterable[Mapping[str, Batches]],
    *,
    languages: Sequence[str],
    with_sums: bool = True,
) -> list[NeuronCounts]:
    """Counts of blocks of texts, each a mapping from language to its batches."""
    counts = []
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    with ActivationProbe(model, languages=languages, with_sums=with_sums) as probe:
        for block in blocks:
            for language, batches in block.items():
                for inputs, mask_BT in batches:
                    probe.add(language, {name: value.to(device) for name, value in inputs.items()}, mask_BT.to(device))
            counts.append(probe.take())
    model.train(was_training)
    return counts


def blocks_of(product: Product) -> list[NeuronCounts]:
    return load_blocks(product.path / COUNTS)


def specific_neurons(config: ProbedConfig, counts: NeuronCounts) -> rules.SpecificNeurons:
    """Neurons that fire for some languages only."""
    return rules.lape(counts.share_positive(), **asdict(config.lape))


def by_layer_and_language(
    config: ProbedConfig, counts: NeuronCounts, *, values_LXJ: np.ndarray, reference: int
) -> tuple[np.ndarray, int]:
    """(float64 [L, X], dead neurons): what the selector counts. `values_LXJ` is what `activation_gap` compares."""
    if config.selector is Selector.specific_neurons:
        specific = specific_neurons(config, counts)
        return specific.counts.astype(np.float64), specific.num_dead
    if config.selector is Selector.top_active:
        active_LXJ = rules.top_active_only(counts.share_positive(), share=config.top_r, reference=reference)
        return active_LXJ.sum(-1).astype(np.float64), 0
    gaps_LX = rules.deviation_by_language(values_LXJ, reference=reference)
    return np.insert(gaps_LX, reference, 0.0, axis=1), 0
