"""`selection=plast`: probe, choose shallow layers, let them train whole; tower, projector, embeddings, head stay."""

from typing import TYPE_CHECKING

from athlos.config.part_report import PartReport
from athlos.errors import SurgeryError
from athlos.methods.plast.config import Arm, PlastSelectionConfig, Trained
from athlos.methods.plast.probing import Choice, chosen
from athlos.models.config import LoraConfig
from athlos.models.freeze import freeze_all_but, trainable_share
from athlos.models.selection import LoraSelection
from athlos.models.sites import MATRIX_NAMES, Layer, backbone, chosen_layers, chosen_sites, parameters_of
from athlos.parts import PartContext

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

SITES = {
    Trained.all: MATRIX_NAMES,
    Trained.ffn: ("gate", "up", "down"),
    Trained.attn: ("q", "k", "v", "o"),
    Trained.up_down: ("up", "down"),
}


class PlastSelection:
    """Chosen layers of the decoder; `choice` is there after `apply`."""

    def __init__(self, config: PlastSelectionConfig) -> None:
        self.config = config
        self.choice: Choice | None = None
        self._lora: LoraConfig | None = None

    def apply(self, model: "PreTrainedModel", *, context: PartContext) -> tuple["PreTrainedModel", PartReport]:
        config, found = self.config, backbone(model)
        every = list(range(len(found.layers)))
        self.choice = Choice(layers=every)
        if config.arm is not Arm.full:
            self.choice = chosen(config, model, num_layers=len(every), context=context)
        layers = chosen_layers(found, self.choice.layers)
        sites = list(SITES[config.parts])
        modules = self._modules(layers)
        if config.lora.enabled:
            self._lora = LoraConfig(
                _target_="", rank=config.lora.rank, alpha=config.lora.alpha, sites=sites, layers=self.choice.layers
            )
        elif config.arm is Arm.lora_equal:
            wanted = sum(parameter.numel() for parameter in parameters_of(modules))
            rank = equal_rank(list(found.layers), num_parameters=wanted)
            self._lora = LoraConfig(_target_="", rank=rank, alpha=2.0 * rank, sites=list(MATRIX_NAMES), layers=every)
        if self._lora is None:
            freeze_all_but(model, parameters_of(modules))
        else:
            model, _ = LoraSelection(self._lora).apply(model, context=context)
        share = trainable_share(model)
        if not share.trainable:
            raise SurgeryError("selection=plast: no parameter would train")
        return model, PartReport(
            summary=f"{self._summary()}: {share}", metrics={**share.metrics, **self.choice.metrics}
        )

    def merge(self, model: "PreTrainedModel") -> "PreTrainedModel":
        return model if self._lora is None else LoraSelection(self._lora).merge(model)

    def _modules(self, layers: list[Layer]) -> list["nn.Module"]:
        """Whole layers, norms and all, or the named matrices."""
        if self.config.parts is Trained.all:
            return [layer.module for layer in layers]
        sites = chosen_sites(layers, SITES[self.config.parts])
        return list({site.path: site.module for site in sites}.values())

    def _summary(self) -> str:
        assert self.choice is not None
        indices = ", ".join(map(str, self.choice.layers))
        fallback = ", by fallback" if self.choice.used_fallback else ""
        if self._lora is not None:
            where = (
                f"of layers {indices}" if self.config.lora.enabled else f"of all layers, the size of layers {indices}"
            )
            return f"{self.config.selector}{fallback}: LoRA rank {self._lora.rank} {where}"
        how = "all" if self.config.arm is Arm.full else self.config.selector.value
        return f"{how}{fallback}: layers {indices} ({self.config.parts})"


def equal_rank(layers: list[Layer], *, num_parameters: int) -> int:
    """The rank at which updates of all matrices of all layers come nearest to a number of parameters, at least 1."""
    per_rank = sum(sum(site.weight.shape) for layer in layers for site in chosen_sites([layer], MATRIX_NAMES))
    return max(1, round(num_parameters / per_rank))
