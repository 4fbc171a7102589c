"""Layers chosen by how FFN neurons fire in several languages: probe, choice, and what trains in the layers.

A method brings what is read, in `probe`, and how scores become layers, in `measured`. L layers, X languages, J neurons
of a layer, B texts, T positions.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from torch import Tensor

from athlos.config.compose import plain
from athlos.config.schema import RunConfig
from athlos.models import layer_selectors as rules
from athlos.models.config import SCORING, NoSurgeryConfig, ProbedConfig, Selector
from athlos.models.neuron_counts import NeuronCounts, load_blocks, merge, save_blocks
from athlos.models.probe import ActivationProbe
from athlos.models.selection import Chosen, modules_of, ranges
from athlos.models.sites import backbone, chosen_layers, parameters_of
from athlos.models.tokenizers import tokenizer_hash
from athlos.stages import Product, Stage, StageStore

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROBE_VERSION = 1
COUNTS = "counts.npz"

Batches = Iterable[tuple[Mapping[str, Tensor], Tensor]]
"""Keyword arguments of the decoder, and the mask [B, T] of the tokens that count."""
Config = TypeVar("Config", bound=ProbedConfig)
Context = TypeVar("Context", bound="OfRun")


class OfRun(Protocol):
    """What is used here of the `PartContext`, which stands to the right of the models."""

    stages: StageStore

    @property
    def config(self) -> RunConfig: ...
    @property
    def data(self) -> object | None: ...
    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase": ...
    @property
    def model_fingerprint(self) -> str: ...


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


class ProbedSelection(Generic[Config, Context]):
    """Decoder layers, whole or matrices in them; `choice` is there after `choose`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.choice = Choice(layers=[])

    def measured(self, model: "PreTrainedModel", *, context: Context) -> Choice:
        """Layers by a selector that looks at the model."""
        raise NotImplementedError

    def expected(self, num_layers: int) -> list[int]:
        """Layers that stand for the measured ones in a dry run, which measures nothing."""
        raise NotImplementedError

    def metrics(self) -> dict[str, float]:
        """What is told of the choice."""
        raise NotImplementedError

    def seed(self, context: Context) -> int:
        """Of random draws."""
        return context.config.seed

    def choose(self, model: "PreTrainedModel", *, context: Context) -> Chosen:
        config, found = self.config, backbone(model)
        if config.selector in SCORING and context.data is not None:
            self.choice = self.measured(model, context=context)
        else:
            self.choice = Choice(layers=self.unmeasured(len(found.layers), seed=self.seed(context)))
        layers = chosen_layers(found, self.choice.layers)
        words = f"{config.selector}: layers {ranges(self.choice.layers)} ({', '.join(config.site_names) or 'whole'})"
        if self.choice.jaccard is not None:
            words += f", stability {self.choice.jaccard:.2f}"
        return Chosen(
            words=words + ", by fallback" * self.choice.used_fallback,
            parameters=list(parameters_of(modules_of(layers, config.site_names))),
            layers=self.choice.layers,
            sites=config.site_names,
            metrics=self.metrics(),
        )

    def unmeasured(self, num_layers: int, *, seed: int) -> list[int]:
        """Layers of the selectors that look at nothing."""
        config = self.config
        if config.selector is Selector.all:
            return list(range(num_layers))
        if config.selector is Selector.manual:
            return rules.manual_layers(config.layers, num_layers=num_layers)
        if config.selector is Selector.random:
            return rules.random_layers(num_layers, k=config.k, seed=seed)
        if config.selector is Selector.middle:
            return rules.middle_layers(num_layers, k=config.k)
        if config.selector is Selector.top:
            return rules.top_layers(num_layers, k=config.k)
        return self.expected(num_layers)


def probe_product(
    context: OfRun,
    count: Callable[[], list[NeuronCounts]],
    *,
    data: str,
    config: Mapping[str, Any],
) -> Product:
    """Counts of firing neurons by block of texts, built once for a model, its texts and what is counted.

    `data` is the content hash of the texts, `config` says which of them and of their tokens count.
    """

    def build(folder: Path) -> None:
        save_blocks(folder / COUNTS, count())

    # A surgery may draw new weights by the run's seed; the model as loaded is the same for every seed.
    is_changed = type(context.config.surgery) is not NoSurgeryConfig
    stage = Stage(
        name="probe",
        version=PROBE_VERSION,
        inputs={
            "model": context.model_fingerprint,
            "data": data,
            "tokenizer": tokenizer_hash(context.tokenizer),
        },
        config={
            **config,
            "surgery": plain(context.config)["surgery"] if is_changed else None,
            "seed": context.config.seed if is_changed else None,
        },
        build=build,
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
    found = []
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    with ActivationProbe(model, languages=languages, with_sums=with_sums) as probe:
        for block in blocks:
            for language, batches in block.items():
                for inputs, mask_BT in batches:
                    probe.add(language, {name: value.to(device) for name, value in inputs.items()}, mask_BT.to(device))
            found.append(probe.take())
    model.train(was_training)
    return found


def blocks_of(product: Product) -> list[NeuronCounts]:
    return load_blocks(product.path / COUNTS)


def counts_of(product: Product) -> NeuronCounts:
    return merge(blocks_of(product))


def specific_neurons(config: ProbedConfig, counts: NeuronCounts) -> rules.SpecificNeurons:
    """Neurons that fire for some languages only."""
    return rules.lape(counts.share_positive(), **asdict(config.lape))


def by_layer_and_language(
    config: ProbedConfig, counts: NeuronCounts, *, values_LXJ: np.ndarray, reference: int
) -> tuple[np.ndarray, int]:
    """(float64 [L, X], dead neurons): what the selector counts. `values_LXJ` is what `activation_gap` compares."""
    if config.selector is Selector.specific_neurons:
        found = specific_neurons(config, counts)
        return found.counts.astype(np.float64), found.num_dead
    if config.selector is Selector.top_active:
        active_LXJ = rules.top_active_only(counts.share_positive(), share=config.top_r, reference=reference)
        return active_LXJ.sum(-1).astype(np.float64), 0
    gaps_LX = rules.deviation_by_language(values_LXJ, reference=reference)
    return np.insert(gaps_LX, reference, 0.0, axis=1), 0
