"""`selection=slam`: probe, choose layers, let their feed-forward parts train and nothing else.

L layers, X languages, J neurons of a layer.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from athlos.errors import ConfigError, SurgeryError
from athlos.methods.slam.config import Fallback, NeuronMask, Position, SlamConfig, Statistic
from athlos.methods.slam.gradients import layer_gradients
from athlos.methods.slam.probing import probe
from athlos.models import layer_selectors as rules
from athlos.models.config import Selector
from athlos.models.forward import causal_model
from athlos.models.neuron_counts import NeuronCounts, merge
from athlos.models.probed_selection import Choice, ProbedSelection, blocks_of, by_layer_and_language
from athlos.models.selection import Chosen, OfRun
from athlos.models.sites import Site, backbone, chosen_layers, chosen_sites
from athlos.parts import PartContext
from athlos.stages import Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SELECT_VERSION = 2
LAYERS = "layers.json"
MASKED_SHARE = 0.5
"""Share of the neurons of a layer that a neuron mask lets train."""
PLACES = {Position.low: rules.bottom_layers, Position.mid: rules.middle_layers, Position.high: rules.top_layers}


class SlamSelection(ProbedSelection):
    """Layers that handle language, by how FFN neurons fire."""

    config: SlamConfig

    def measured(self, model: "PreTrainedModel", *, context: PartContext) -> Choice:
        """A stage product, but for `grad`."""
        config, seed = self.config, context.config.seed
        if config.selector is Selector.grad:
            return from_scores(config, layer_gradients(config, model, context=context))
        counts = probe(config, model, context=context)
        own = asdict(config)
        kept = ("selector", "reference", "k", "k_max", "fallback", "position", "statistic", "lape", "top_r")
        stage = Stage(
            name="select",
            version=SELECT_VERSION,
            inputs={"counts": counts.key},
            config={**{name: own[name] for name in kept}, "resamples": config.probe.resamples, "seed": seed},
            build=lambda folder: (folder / LAYERS).write_text(
                json.dumps(vars(from_counts(config, blocks_of(counts), seed=seed)), indent=1), encoding="utf-8"
            ),
        )
        return Choice(**json.loads((context.stages.get(stage).path / LAYERS).read_text(encoding="utf-8")))

    def expected(self, num_layers: int) -> list[int]:
        k = self.config.k or min(self.config.k_max, rules.lower_half(num_layers))
        return placed(list(range(k)), position=self.config.position, num_layers=num_layers)

    def seed(self, context: OfRun) -> int:
        own = self.config.seed_random_layers
        return context.config.seed if own is None else own

    def metrics(self) -> dict[str, float]:
        choice = self.choice
        metrics = {f"diag/layer_gap/{index}": score for index, score in enumerate(choice.scores)}
        metrics |= {f"diag/layer_chosen/{index}": 1.0 for index in choice.layers}
        by_name = {name: getattr(choice, name) for name in ("low", "high", "frequency")}
        for name, values in (choice.by_language | by_name).items():
            metrics |= {f"diag/layer_gap_{name}/{index}": value for index, value in enumerate(values)}
        if choice.jaccard is not None:
            metrics["diag/selection_jaccard"] = choice.jaccard
        return metrics

    def choose(self, model: "PreTrainedModel", *, context: OfRun) -> Chosen:
        chosen = super().choose(model, context=context)
        if self.config.train_emb:
            chosen.parameters += backbone(model).embedding.parameters()
        if self.config.neuron_mask is not NeuronMask["none"] and context.data is not None:
            chosen.gradient_masks = self._gradient_masks(model, context=context)
        return chosen

    def _gradient_masks(self, model: "PreTrainedModel", *, context: OfRun) -> list[tuple[nn.Parameter, Tensor]]:
        """Half of the neurons of a layer train: rows of up and gate, columns of down."""
        config, sites = self.config, backbone(causal_model(model))
        kept = round(MASKED_SHARE * sites.ffn_size)
        if config.neuron_mask is NeuronMask.random50:
            generator = random.Random(self.seed(context))
            picks = {index: generator.sample(range(sites.ffn_size), kept) for index in self.choice.layers}
        else:
            counts = merge(blocks_of(probe(config, model, context=context)))
            values_LXJ, at = statistic(config.statistic, counts), counts.index(config.reference)
            change_LJ = np.mean((np.delete(values_LXJ, at, axis=1) - values_LXJ[:, [at]]) ** 2, axis=1)
            picks = {
                index: np.argsort(-change_LJ[index], kind="stable")[:kept].tolist() for index in self.choice.layers
            }
        masks = []
        for layer in chosen_layers(sites, self.choice.layers):
            mask_J = torch.zeros(sites.ffn_size, dtype=torch.bool)
            mask_J[picks[layer.index]] = True
            masks += [mask for site in chosen_sites([layer], config.site_names) for mask in site_masks(site, mask_J)]
        return masks


def site_masks(site: Site, mask_J: Tensor) -> list[tuple[nn.Parameter, Tensor]]:
    """A matrix, and its bias where it has one, with the mask of their gradients."""
    if site.is_fused:
        raise SurgeryError(f"selection.neuron_mask: {site.path} holds {', '.join(site.parts)} in one module")
    neurons_dim = 1 - site.rows_dim if site.name == "down" else site.rows_dim
    masks = [(site.weight, mask_J.reshape((1, -1) if neurons_dim == 1 else (-1, 1)))]
    if site.name != "down" and isinstance(site.module.bias, nn.Parameter):
        masks.append((site.module.bias, mask_J))
    return masks


def from_counts(config: SlamConfig, blocks: Sequence[NeuronCounts], *, seed: int) -> Choice:
    """Scores of all texts, the layers, and how firm the choice is under resampling."""

    def once(counts: NeuronCounts) -> Choice:
        reference = counts.index(config.reference)
        values_LXJ = statistic(config.statistic, counts)
        values_LX, num_dead = by_layer_and_language(config, counts, values_LXJ=values_LXJ, reference=reference)
        if config.selector is Selector.activation_gap:
            scores_L = rules.deviation(values_LXJ, reference=reference)
        else:
            scores_L = rules.layer_scores(values_LX, reference=reference)
        choice = from_scores(config, scores_L)
        others = [(at, name) for at, name in enumerate(counts.languages) if at != reference]
        choice.by_language, choice.num_dead = {name: values_LX[:, at].tolist() for at, name in others}, num_dead
        return choice

    choice = once(merge(blocks))
    stability = rules.bootstrap_stability(
        blocks,
        lambda counts: (np.array((choice := once(counts)).scores), choice.layers),
        resamples=config.probe.resamples,
        seed=seed,
    )
    low, high = np.percentile(stability.scores, [2.5, 97.5], axis=0)
    choice.jaccard, choice.frequency = stability.jaccard, stability.frequency
    choice.low, choice.high = low.tolist(), high.tolist()
    return choice


def statistic(kind: Statistic, counts: NeuronCounts) -> np.ndarray:
    """[L, X, J]: what is compared between languages."""
    if kind is Statistic.mean:
        return counts.mean()
    return counts.share_positive() if kind is Statistic.positive_share else counts.share_positive_by_text()


def from_scores(config: SlamConfig, scores_L: np.ndarray) -> Choice:
    """Layers of the lower half by their scores: the k highest, or with k = 0 the prefix that stands out.

    Raises `ConfigError` when none stands out and `fallback=none`, or when k is more than the lower half holds.
    """
    half = rules.lower_half(len(scores_L))
    layers = [] if config.k else rules.gap_prefix(scores_L, k_max=config.k_max)
    used_fallback = not (config.k or layers)
    if used_fallback and config.fallback is Fallback["none"]:
        raise ConfigError(
            "selection: no prefix of the lower layers stands out, and selection.fallback=none; set selection.k, or "
            "fallback=top_k"
        )
    layers = layers or rules.highest(scores_L, k=config.k or min(config.k_max, half), region=half)
    layers = placed(layers, position=config.position, num_layers=len(scores_L))
    return Choice(layers=layers, scores=scores_L.tolist(), used_fallback=used_fallback)


def placed(layers: list[int], *, position: Position, num_layers: int) -> list[int]:
    """As many layers at the wanted place; with `auto` these themselves."""
    return layers if position is Position.auto else PLACES[position](num_layers, k=len(layers))
