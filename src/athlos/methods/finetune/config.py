"""Schema of the baseline: next-token training of whatever the selection lets train."""

from dataclasses import dataclass

from athlos.config.registry import Part
from athlos.config.schema import MethodConfig


@dataclass(kw_only=True)
class FinetuneConfig(MethodConfig):
    """No switches of its own: the recipe is the objective, the selection and the trainer's settings."""


PARTS = [
    Part(
        group="method",
        name="finetune",
        schema=FinetuneConfig,
        target="athlos.methods.finetune.module.FinetuneModule",
        summary="baseline: train on next tokens, or evaluate only with train.max_steps=0",
    )
]
