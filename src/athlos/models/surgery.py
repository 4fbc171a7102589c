"""The surgery that leaves a model as it is."""

from typing import TYPE_CHECKING

from athlos.config.parts import PartContext, PartReport
from athlos.models.config import NoSurgeryConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class NoSurgery:
    def __init__(self, config: NoSurgeryConfig) -> None:
        self.config = config

    def apply(self, model: "PreTrainedModel", *, context: PartContext) -> tuple["PreTrainedModel", PartReport]:
        return model, PartReport(summary="none")
