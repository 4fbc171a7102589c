"""Exactly what the surgery added is chosen; the backbone stays as loaded, bit for bit."""

from typing import TYPE_CHECKING

from athlos.methods.lisa.config import LisaSelectionConfig
from athlos.methods.lisa.surgery import shared_attentions
from athlos.models.selection import Chosen
from athlos.parts import PartContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LisaSelection:
    def __init__(self, config: LisaSelectionConfig) -> None:
        self.config = config

    def choose(self, model: "PreTrainedModel", *, context: PartContext) -> Chosen:
        added = [parameter for attention in shared_attentions(model) for parameter in attention.added()]
        return Chosen(words="what LISA added", parameters=added)
