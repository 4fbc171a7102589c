"""Which layers handle language: counts of firing neurons on the same questions in every language, and a choice.

L layers, X languages, J neurons of a layer.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from athlos.errors import DataError
from athlos.methods.plast.config import SCORING, PlastSelectionConfig, Selector
from athlos.methods.plast.reading import parallel_questions, readings, source_of
from athlos.models import layer_selectors as rules
from athlos.models.neuron_counts import NeuronCounts, load_blocks, save_blocks
from athlos.models.probe import ActivationProbe
from athlos.parts import PartContext
from athlos.stages import Product, Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE_VERSION = 1
COUNTS = "counts.npz"


@dataclass(kw_only=True)
class Choice:
    """Chosen layers, and why."""

    layers: list[int]
    scores: list[float] = field(default_factory=list)
    """By layer, 1 in sum; empty where nothing was measured."""
    by_language: dict[str, list[float]] = field(default_factory=dict)
    """Language -> specific neurons by layer (or the score of another selector)."""
    num_dead: int = 0
    used_fallback: bool = False

    @property
    def metrics(self) -> dict[str, float]:
        found = {f"diag/specific/{layer}": score for layer, score in enumerate(self.scores)}
        for language, counts in self.by_language.items():
            found[f"diag/specific_shallow/{language}"] = float(sum(counts[layer] for layer in self.layers))
            found |= {f"diag/specific_count/{language}/{layer}": float(one) for layer, one in enumerate(counts)}
        found["diag/num_layers"] = float(len(self.layers))
        found["diag/lowest_layer"], found["diag/highest_layer"] = float(self.layers[0]), float(self.layers[-1])
        if self.scores:
            found |= {"diag/num_dead": float(self.num_dead), "diag/used_fallback": float(self.used_fallback)}
        return found


def probe_product(config: PlastSelectionConfig, model: "PreTrainedModel", *, context: PartContext) -> Product:
    """Counts of firing neurons by layer and language, built once for a model, its questions and what is counted."""
    source = source_of(context)
    languages = config.probe.languages or list(source.config.languages)

    def build(folder: Path) -> None:
        questions = parallel_questions(context, split=config.probe.split, languages=languages, items=config.probe.items)
        was_training = model.training
        model.eval()
        with ActivationProbe(model, languages=languages, with_sums=False) as probe:
            for language, records in questions.items():
                for one in readings(model, context.tokenizer, records, batch_size=config.probe.batch_size):
                    probe.add(language, one.inputs(model), one.mask(config.tokens))
            counts = probe.take()
        model.train(was_training)
        save_blocks(folder / COUNTS, [counts])
        (folder / "items.json").write_text(
            json.dumps(
                {language: [record.identifier for record in records] for language, records in questions.items()}
            ),
            encoding="utf-8",
        )

    stage = Stage(
        name="plast_probe",
        version=PROBE_VERSION,
        build=build,
        inputs={"model": context.model_fingerprint, "data": source.fingerprint(config.probe.split)},
        config={
            "probe": asdict(config.probe),
            "tokens": config.tokens.value,
            "languages": languages,
        },
    )
    return context.stages.get(stage)


def counts_of(product: Product) -> NeuronCounts:
    return load_blocks(product.path / COUNTS)[0]


def by_layer_and_language(
    config: PlastSelectionConfig, counts: NeuronCounts, *, reference: str
) -> tuple[np.ndarray, int]:
    """(float64 [L, X], dead neurons): specific neurons, or what another selector counts."""
    probs_LXJ, at = counts.share_positive(), counts.index(reference)
    if config.selector is Selector.specific_neurons:
        found = rules.lape(probs_LXJ, **asdict(config.lape))
        return found.counts.astype(np.float64), found.num_dead
    if config.selector is Selector.top_active:
        active_LXJ = rules.top_active_only(probs_LXJ, share=config.top_r, reference=at)
        return active_LXJ.sum(-1).astype(np.float64), 0
    gaps_LX = np.insert(rules.deviation_by_language(probs_LXJ, reference=at), at, 0.0, axis=1)
    return gaps_LX, 0


def choose_from(config: PlastSelectionConfig, counts: NeuronCounts, *, reference: str) -> Choice:
    """Layers from counts. Without any specific neuron all scores are 0 and the fallback takes its layers.

    Raises `DataError` when every neuron fires alike in all languages: then the texts are the same.
    """
    values_LX, num_dead = by_layer_and_language(config, counts, reference=reference)
    scores_L = rules.layer_scores(values_LX, reference=counts.index(reference))
    probs_LXJ = counts.share_positive()
    if bool((probs_LXJ == probs_LXJ[:, :1]).all()):
        raise DataError(f"probe: all neurons fire alike on {', '.join(counts.languages)}; are their texts the same?")
    rule = config.select
    settings = {"std_factor": rule.std_factor, "region": rule.region}
    prefix = rules.shallow_prefix(scores_L, **settings, fallback_share=rule.fallback_share)
    threshold = scores_L.mean() + rule.std_factor * scores_L.std()
    layers = prefix
    if config.k:
        lowest = max(config.k, int(rule.region * len(scores_L) + 1e-6))
        layers = rules.highest(scores_L, k=config.k, region=min(lowest, len(scores_L)))
    return Choice(
        layers=layers,
        scores=scores_L.tolist(),
        num_dead=num_dead,
        by_language={name: values_LX[:, at].tolist() for at, name in enumerate(counts.languages)},
        used_fallback=not config.k and bool(scores_L[0] <= threshold),
    )


def chosen(config: PlastSelectionConfig, model: "PreTrainedModel", *, num_layers: int, context: PartContext) -> Choice:
    """The layers of a selection. A dry run, which measures nothing, takes as many from below as the fallback does."""
    if config.selector is Selector.manual:
        return Choice(layers=rules.manual_layers(config.layers, num_layers=num_layers))
    if config.selector is Selector.random:
        return Choice(layers=rules.random_layers(num_layers, k=config.k, seed=context.config.seed))
    if config.selector in (Selector.middle, Selector.top):
        rule = rules.middle_layers if config.selector is Selector.middle else rules.top_layers
        return Choice(layers=rule(num_layers, k=config.k))
    assert config.selector in SCORING
    if context.data is None:
        nothing = np.zeros(num_layers)
        prefix = rules.shallow_prefix(nothing, **asdict(config.select))
        return Choice(layers=rules.bottom_layers(num_layers, k=config.k or len(prefix)), used_fallback=True)
    counts = counts_of(probe_product(config, model, context=context))
    return choose_from(config, counts, reference=source_of(context).config.reference)
