"""The selections that belong to no method: everything, named layers, low-rank updates."""

import re
from typing import TYPE_CHECKING, Protocol

import torch

from athlos.config.part_report import PartReport
from athlos.config.schema import RunConfig
from athlos.errors import SurgeryError
from athlos.models.config import AllConfig, LayersConfig, LoraConfig
from athlos.models.freeze import freeze_all_but, trainable_share
from athlos.models.sites import (
    ATTENTION_MATRICES,
    MATRIX_NAMES,
    Layer,
    backbone,
    chosen_layers,
    chosen_sites,
    knows_sites,
    linear_paths,
    parameters_of,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER_NAME = "default"


class OfRun(Protocol):
    """What is used here of the `PartContext`, which stands to the right of the models."""

    @property
    def config(self) -> RunConfig: ...


class AllSelection:
    """Every parameter trains."""

    def __init__(self, config: AllConfig) -> None:
        self.config = config

    def apply(self, model: "PreTrainedModel", *, context: OfRun) -> tuple["PreTrainedModel", PartReport]:
        freeze_all_but(model, model.parameters())
        return model, _report(model, chosen="all")

    def merge(self, model: "PreTrainedModel") -> "PreTrainedModel":
        return model


class LayersSelection:
    """Named decoder layers train, whole or in named sites; embedding and head on request."""

    def __init__(self, config: LayersConfig) -> None:
        self.config = config

    def apply(self, model: "PreTrainedModel", *, context: OfRun) -> tuple["PreTrainedModel", PartReport]:
        found = backbone(model)
        layers = chosen_layers(found, self.config.layers)
        modules = list(self._modules(layers))
        words = [f"layers {_ranges(layers)}"] if layers else []
        if layers and self.config.sites:
            words.append(f"({', '.join(self.config.sites)})")
        if self.config.embeddings:
            modules.append(found.embedding)
            words.append("embedding, which is the head as well" if found.is_tied else "embedding")
        if self.config.head:
            modules += [found.final_norm, found.head]
            words.append("head, which is the embedding as well" if found.is_tied else "head")
        if self.config.projector:
            if found.projector is None:
                raise SurgeryError(f"selection.projector: {type(model).__name__} has no projector")
            modules.append(found.projector)
            words.append("projector")
        freeze_all_but(model, parameters_of(modules))
        return model, _report(model, chosen=" ".join(words))

    def _modules(self, layers: list[Layer]) -> list[torch.nn.Module]:
        if not self.config.sites:
            return [layer.module for layer in layers]
        matrices = [name for name in self.config.sites if name != "norms"]
        modules = [site.module for site in chosen_sites(layers, matrices)]
        if "norms" in self.config.sites:
            modules += [norm for layer in layers for norm in layer.norms.values()]
        return modules

    def merge(self, model: "PreTrainedModel") -> "PreTrainedModel":
        return model


class LoraSelection:
    """Low-rank updates beside the chosen matrices, through PEFT; everything else is frozen.

    PEFT's layers are put into the model itself, so it keeps its class, its `generate` and its module names. With no
    sites named these are all matrices of a layer, without the experts of a mixture, which are no linear layers; in a
    model whose sites are unknown, all linear layers below the output matrix.
    """

    def __init__(self, config: LoraConfig) -> None:
        self.config = config

    def apply(self, model: "PreTrainedModel", *, context: OfRun) -> tuple["PreTrainedModel", PartReport]:
        import peft
        from transformers.pytorch_utils import Conv1D

        paths, words = self._chosen(model)
        settings = peft.LoraConfig(
            r=self.config.rank,
            lora_alpha=self.config.alpha,
            lora_dropout=self.config.dropout,
            # One pattern that matches these names in full: PEFT takes names in a list as endings, which also fit the
            # vision tower of a vision-language model.
            target_modules="|".join(re.escape(path) for path in paths),
            fan_in_fan_out=isinstance(model.get_submodule(paths[0]), Conv1D),
            bias="none",
        )
        on_meta = next(model.parameters()).is_meta
        # PEFT draws from torch's global state; the fork gives it the run's seed and leaves the caller's state alone.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.config.seed)
            peft.inject_adapter_in_model(settings, model, adapter_name=ADAPTER_NAME, low_cpu_mem_usage=on_meta)
        for parameter in model.parameters():
            if parameter.requires_grad:  # in 16 bits small updates would round away; PEFT's own wrapper does the same
                parameter.data = parameter.data.float()
        adapted = sorted(name for name, module in model.named_modules() if isinstance(module, _lora_layer()))
        if adapted != paths:
            raise SurgeryError(
                f"lora: wanted updates at {len(paths)} matrices, PEFT made {len(adapted)}; examples wanted: "
                f"{', '.join(paths[:3])}; examples made: {', '.join(adapted[:3]) or 'none'}"
            )
        return model, _report(model, chosen=f"LoRA rank {self.config.rank} on {words}")

    def _chosen(self, model: "PreTrainedModel") -> tuple[list[str], str]:
        """Dotted names of the matrices, sorted, and what they are in words."""
        if not (self.config.sites or self.config.layers or knows_sites(model)):
            paths = sorted(linear_paths(model))
            return paths, f"{len(paths)} linear layers"
        found = backbone(model)
        layers = chosen_layers(found, self.config.layers or range(len(found.layers)))
        names, words = self.config.sites, ", ".join(self.config.sites or ["all matrices"])
        if not names and any(layer.has_experts for layer in layers):
            names, words = list(ATTENTION_MATRICES), "q, k, v, o (the experts get none)"
        sites = chosen_sites(layers, names or MATRIX_NAMES)
        if of_experts := [site.path for site in sites if site.is_of_experts]:
            raise SurgeryError(f"lora: {of_experts[0]} holds experts, no linear layer; name sites among q, k, v, o")
        return sorted({site.path for site in sites}), f"{words} of layers {_ranges(layers)}"

    def merge(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """Add the updates to their matrices and take PEFT's layers out, in place; training it further is over."""
        for name, module in list(model.named_modules()):
            if isinstance(module, _lora_layer()):
                module.merge(safe_merge=True)
                parent, _, attribute = name.rpartition(".")
                setattr(model.get_submodule(parent), attribute, module.get_base_layer())
        return model


def _lora_layer() -> type:
    from peft.tuners.lora import LoraLayer

    return LoraLayer


def _report(model: "PreTrainedModel", *, chosen: str) -> PartReport:
    share = trainable_share(model)
    return PartReport(summary=f"{chosen}: {share}", metrics=share.metrics)


def _ranges(layers: list[Layer]) -> str:
    """Layer indices as `0-4, 7`."""
    runs: list[list[int]] = []
    for index in (layer.index for layer in layers):
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
