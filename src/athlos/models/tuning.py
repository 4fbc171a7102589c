"""How the chosen trains: itself, or low-rank updates beside its matrices, through PEFT; everything else is frozen."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from athlos.config.part_report import PartReport
from athlos.errors import SurgeryError
from athlos.models.config import FullConfig, LoraConfig, LoraEqualConfig
from athlos.models.freeze import freeze_all_but, trainable_share
from athlos.models.selection import Chosen, OfRun, ranges
from athlos.models.sites import (
    ATTENTION_MATRICES,
    MATRIX_NAMES,
    backbone,
    chosen_layers,
    chosen_sites,
    knows_sites,
    linear_paths,
)

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer
    from transformers import PreTrainedModel

ADAPTER_NAME = "default"


class FullTuning:
    """The chosen parameters train."""

    def __init__(self, config: FullConfig) -> None:
        self.config = config

    def apply(
        self, model: "PreTrainedModel", chosen: Chosen, *, context: OfRun
    ) -> tuple["PreTrainedModel", PartReport]:
        freeze_all_but(model, chosen.parameters)
        for parameter, mask in chosen.gradient_masks:
            parameter.register_hook(lambda gradient, mask=mask: gradient * mask.to(gradient.device))
        return model, _report(model, chosen, words=chosen.words)

    def merge(self, model: "PreTrainedModel") -> "PreTrainedModel":
        return model


class LoraTuning:
    """Low-rank updates beside the chosen matrices.

    PEFT's layers are put into the model itself, so it keeps its class, its `generate` and its module names.
    """

    def __init__(self, config: LoraConfig | LoraEqualConfig) -> None:
        self.config = config

    def updates(self, model: "PreTrainedModel", chosen: Chosen) -> tuple[list[str], int, float, str]:
        """Names of the matrices, rank, alpha, and all of it in words."""
        assert isinstance(self.config, LoraConfig)
        paths, words = matrices(model, layers=chosen.layers, sites=chosen.sites)
        rank = self.config.rank
        return paths, rank, self.config.alpha, f"{chosen.words}: LoRA rank {rank} on {words}"

    def apply(
        self, model: "PreTrainedModel", chosen: Chosen, *, context: OfRun
    ) -> tuple["PreTrainedModel", PartReport]:
        import peft
        from transformers.pytorch_utils import Conv1D

        paths, rank, alpha, words = self.updates(model, chosen)
        settings = peft.LoraConfig(
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT only divides it
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
        return model, _report(model, chosen, words=words)

    def merge(self, model: "PreTrainedModel") -> "PreTrainedModel":
        """Add the updates to their matrices and take PEFT's layers out, in place; training it further is over."""
        for name, module in list(model.named_modules()):
            if isinstance(module, _lora_layer()):
                module.merge(safe_merge=True)
                parent, _, attribute = name.rpartition(".")
                setattr(model.get_submodule(parent), attribute, module.get_base_layer())
        return model


class LoraEqualTuning(LoraTuning):
    """Low-rank updates beside all matrices of all layers, in sum about as large as what was chosen: a control."""

    def updates(self, model: "PreTrainedModel", chosen: Chosen) -> tuple[list[str], int, float, str]:
        assert isinstance(self.config, LoraEqualConfig)
        paths, words = matrices(model)
        unique = {id(parameter): parameter for parameter in chosen.parameters}.values()
        rank = equal_rank(model, paths, num_parameters=sum(parameter.numel() for parameter in unique))
        alpha = self.config.alpha_over_rank * rank
        return paths, rank, alpha, f"LoRA rank {rank} on {words}, the size of {chosen.words}"


def matrices(
    model: "PreTrainedModel", *, layers: Iterable[int] | None = None, sites: Sequence[str] = ()
) -> tuple[list[str], str]:
    """Dotted names of the matrices that get an update, sorted, and what they are in words.

    With no sites named these are all of a layer, without the experts of a mixture, which are no linear layers; in a
    model whose sites are unknown, all linear layers below the output matrix.
    """
    if layers is None and not knows_sites(model):
        paths = sorted(linear_paths(model))
        return paths, f"{len(paths)} linear layers"
    model_sites = backbone(model)
    chosen = chosen_layers(model_sites, range(len(model_sites.layers)) if layers is None else layers)
    names, words = list(sites), ", ".join(sites or ["all matrices"])
    if not names and any(layer.has_experts for layer in chosen):
        names, words = list(ATTENTION_MATRICES), "q, k, v, o (the experts get none)"
    wanted = chosen_sites(chosen, names or MATRIX_NAMES)
    if of_experts := [site.path for site in wanted if site.is_of_experts]:
        raise SurgeryError(f"lora: {of_experts[0]} holds experts, no linear layer; name sites among q, k, v, o")
    return sorted({site.path for site in wanted}), f"{words} of layers {ranges(layer.index for layer in chosen)}"


def equal_rank(model: nn.Module, paths: Iterable[str], *, num_parameters: int) -> int:
    """The rank at which updates beside these matrices come nearest to a number of parameters, at least 1."""
    per_rank = sum(sum(model.get_parameter(f"{path}.weight").shape) for path in paths)
    return max(1, round(num_parameters / per_rank))


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """The model without its low-rank updates inside."""
    layers = [module for module in model.modules() if isinstance(module, _lora_layer())]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _lora_layer() -> "type[LoraLayer]":
    from peft.tuners.lora import LoraLayer

    return LoraLayer


def _report(model: "PreTrainedModel", chosen: Chosen, *, words: str) -> PartReport:
    share = trainable_share(model)
    return PartReport(summary=f"{words}: {share}", metrics={**share.metrics, **chosen.metrics})
