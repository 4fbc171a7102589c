"""`selection=slam`: probe, choose layers, let their feed-forward parts train and nothing else.

J neurons of a layer.
"""

import random
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from athlos.config.part_report import PartReport
from athlos.errors import SurgeryError
from athlos.methods.slam.config import NeuronMask, SlamConfig, Trained
from athlos.methods.slam.probing import COUNTS, Choice, chosen, probe_product, statistic
from athlos.models.config import LoraConfig
from athlos.models.forward import causal_model
from athlos.models.freeze import freeze_all_but, trainable_share
from athlos.models.neuron_counts import load_blocks, merge
from athlos.models.selection import LoraSelection
from athlos.models.sites import Layer, Site, backbone, chosen_layers, chosen_sites, parameters_of
from athlos.parts import PartContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTENTION_SITES = ("q", "k", "v", "o")
ALL_SITES = (*ATTENTION_SITES, "gate", "up", "down")
MASKED_SHARE = 0.5
"""Share of the neurons of a layer that a neuron mask lets train."""


class SlamSelection:
    """Layers that handle language, by how FFN neurons fire; `choice` is there after `apply`."""

    def __init__(self, config: SlamConfig) -> None:
        self.config = config
        self.choice: Choice | None = None

    def apply(self, model: "PreTrainedModel", *, context: PartContext) -> tuple["PreTrainedModel", PartReport]:
        config, found = self.config, backbone(model)
        self.choice = chosen(config, model, num_layers=len(found.layers), context=context)
        layers = chosen_layers(found, self.choice.layers)
        if config.lora.enabled:
            lora = LoraConfig(
                _target_="",
                rank=config.lora.rank,
                alpha=config.lora.alpha,
                sites=list(self._site_names()),
                layers=[layer.index for layer in layers],
            )
            model, _ = LoraSelection(lora).apply(model, context=context)
        else:
            modules = [layer.module for layer in layers]
            if config.parts is not Trained.all:
                modules = [site.module for site in chosen_sites(layers, self._site_names())]
            if config.train_emb:
                modules.append(found.embedding)
            freeze_all_but(model, parameters_of(modules))
            if config.neuron_mask is not NeuronMask["none"]:
                self._mask_neurons(model, layers, context=context)
        share = trainable_share(model)
        return model, PartReport(
            summary=self._summary(layers) + str(share),
            metrics={
                **share.metrics,
                "cost/trainable_share_without_embeddings": share.share_without_embeddings,
                **self.choice.metrics,
            },
        )

    def merge(self, model: "PreTrainedModel") -> "PreTrainedModel":
        if not self.config.lora.enabled:
            return model
        lora = LoraConfig(_target_="", rank=self.config.lora.rank, alpha=self.config.lora.alpha)
        return LoraSelection(lora).merge(model)

    def _site_names(self) -> tuple[str, ...]:
        if self.config.parts is Trained.ffn:
            return tuple(self.config.ffn_parts)
        return ATTENTION_SITES if self.config.parts is Trained.attn else ALL_SITES

    def _summary(self, layers: list[Layer]) -> str:
        assert self.choice is not None
        names = "whole" if self.config.parts is Trained.all else ", ".join(self._site_names())
        indices = ", ".join(str(layer.index) for layer in layers)
        firm = "" if self.choice.jaccard is None else f", stability {self.choice.jaccard:.2f}"
        fallback = ", by fallback" if self.choice.used_fallback else ""
        lora = f" through LoRA of rank {self.config.lora.rank}" if self.config.lora.enabled else ""
        return f"{self.config.selector.value}: layers {indices} ({names}){lora}{firm}{fallback}: "

    def _mask_neurons(self, model: "PreTrainedModel", layers: list[Layer], *, context: PartContext) -> None:
        """Zero the gradients of the neurons that are left out: rows of up and gate, columns of down.

        AdamW without decay then leaves them bit-identical, which the config's check sees to.
        """
        if context.data is None:  # a dry run, where nothing trains
            return
        masks = self._neuron_masks(model, layers, context=context)
        for layer in layers:
            for site in chosen_sites([layer], self._site_names()):
                _mask_gradients(site, masks[layer.index])

    def _neuron_masks(
        self, model: "PreTrainedModel", layers: list[Layer], *, context: PartContext
    ) -> dict[int, Tensor]:
        """Layer index -> bool [J], half of it true."""
        num_neurons = backbone(causal_model(model)).ffn_size
        kept = round(MASKED_SHARE * num_neurons)
        if self.config.neuron_mask is NeuronMask.random50:
            own = self.config.seed_random_layers
            generator = random.Random(context.config.seed if own is None else own)
            picks = {layer.index: generator.sample(range(num_neurons), kept) for layer in layers}
        else:
            product = probe_product(self.config, model, context=context)
            counts = merge(load_blocks(product.path / COUNTS))
            values_LXJ, at = statistic(self.config.statistic, counts), counts.index(self.config.reference)
            change_LJ = np.mean((np.delete(values_LXJ, at, axis=1) - values_LXJ[:, [at]]) ** 2, axis=1)
            order_LJ = np.argsort(-change_LJ, axis=1, kind="stable")
            picks = {layer.index: order_LJ[layer.index, :kept].tolist() for layer in layers}
        masks = {}
        for index, neurons in picks.items():
            masks[index] = torch.zeros(num_neurons, dtype=torch.bool)
            masks[index][neurons] = True
        return masks


def _mask_gradients(site: Site, mask_J: Tensor) -> None:
    if site.is_fused:
        raise SurgeryError(f"selection.neuron_mask: {site.path} holds {', '.join(site.parts)} in one module")
    weight, bias = site.weight, site.module.bias
    neurons_dim = 1 - site.rows_dim if site.name == "down" else site.rows_dim
    shape = (1, -1) if neurons_dim == 1 else (-1, 1)
    weight.register_hook(lambda gradient: gradient * mask_J.to(gradient.device).reshape(shape))
    if site.name != "down" and isinstance(bias, torch.nn.Parameter):
        bias.register_hook(lambda gradient: gradient * mask_J.to(gradient.device))
