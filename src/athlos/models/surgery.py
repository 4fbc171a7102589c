"""The surgery that leaves a model as it is."""

from typing import TYPE_CHECKING

from athlos.config.part_report import PartReport
from athlos.models.config import NoSurgeryConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class NoSurgery:
    def __init__(self, config: NoSurgeryConfig) -> None:
        self.config = config

    def apply(self, model: "PreTrainedModel", *, context: object) -> tuple["PreTrainedModel", PartReport]:
        return model, PartReport(summary="none")
