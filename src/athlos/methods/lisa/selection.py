"""Exactly what the surgery added trains; the backbone stays as loaded, bit for bit."""

from typing import TYPE_CHECKING

from athlos.config.part_report import PartReport
from athlos.methods.lisa.config import LisaSelectionConfig
from athlos.methods.lisa.surgery import shared_attentions
from athlos.models.freeze import freeze_all_but, trainable_share
from athlos.parts import PartContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LisaSelection:
    def __init__(self, config: LisaSelectionConfig) -> None:
        self.config = config

    def apply(self, model: "PreTrainedModel", *, context: PartContext) -> tuple["PreTrainedModel", PartReport]:
        freeze_all_but(model, [parameter for one in shared_attentions(model) for parameter in one.added()])
        share = trainable_share(model)
        return model, PartReport(summary=f"what LISA added: {share}", metrics=share.metrics)

    def merge(self, model: "PreTrainedModel") -> "PreTrainedModel":
        return model
