"""`selection=plast`: probe, choose shallow layers, let them train whole; tower, projector, embeddings, head stay."""

from typing import TYPE_CHECKING

import numpy as np

from athlos.errors import DataError
from athlos.methods.plast.config import PlastSelectionConfig
from athlos.methods.plast.reading import probe, source_of
from athlos.models import layer_selectors as rules
from athlos.models.neuron_counts import NeuronCounts, merge
from athlos.models.probed_selection import Choice, ProbedSelection, blocks_of, by_layer_and_language
from athlos.parts import PartContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PlastSelection(ProbedSelection):
    """Shallow layers of the decoder that hold most of what is specific to languages."""

    config: PlastSelectionConfig

    def measured(self, model: "PreTrainedModel", *, context: PartContext) -> Choice:
        counts = merge(blocks_of(probe(self.config, model, context=context)))
        return choose_from(self.config, counts, reference=source_of(context).config.reference)

    def expected(self, num_layers: int) -> list[int]:
        """As many from below as the fallback takes."""
        fallback = rules.shallow_prefix(np.zeros(num_layers), **vars(self.config.select))
        return rules.bottom_layers(num_layers, k=self.config.k or len(fallback))

    def metrics(self) -> dict[str, float]:
        choice = self.choice
        metrics = {f"diag/specific/{layer}": score for layer, score in enumerate(choice.scores)}
        for language, counts in choice.by_language.items():
            metrics[f"diag/specific_shallow/{language}"] = float(sum(counts[layer] for layer in choice.layers))
            metrics |= {f"diag/specific_count/{language}/{layer}": float(count) for layer, count in enumerate(counts)}
        metrics["diag/num_layers"] = float(len(choice.layers))
        metrics["diag/lowest_layer"], metrics["diag/highest_layer"] = float(choice.layers[0]), float(choice.layers[-1])
        if choice.scores:
            metrics |= {"diag/num_dead": float(choice.num_dead), "diag/used_fallback": float(choice.used_fallback)}
        return metrics


def choose_from(config: PlastSelectionConfig, counts: NeuronCounts, *, reference: str) -> Choice:
    """Layers from counts. Without any specific neuron all scores are 0 and the fallback takes its layers.

    Raises `DataError` when every neuron fires alike in all languages: then the texts are the same.
    """
    probs_LXJ, at = counts.share_positive(), counts.index(reference)
    values_LX, num_dead = by_layer_and_language(config, counts, values_LXJ=probs_LXJ, reference=at)
    scores_L = rules.layer_scores(values_LX, reference=at)
    if bool((probs_LXJ == probs_LXJ[:, :1]).all()):
        raise DataError(f"probe: all neurons fire alike on {', '.join(counts.languages)}; are their texts the same?")
    rule = config.select
    layers = rules.shallow_prefix(scores_L, **vars(rule))
    threshold = scores_L.mean() + rule.std_factor * scores_L.std()
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
