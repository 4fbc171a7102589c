"""`objective=kmkc`: the loss of GRPO, and with `reward.entropy_term=loss` the entropy of responses in it.

    loss = mean over responses of [ clipped policy loss + beta k3 + mu s mean_t H(p_t) ],  s = +1 right, -1 wrong

So a gradient makes right answers surer and wrong ones less sure. N generated tokens, V vocabulary.
"""

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from athlos.config.part_report import PartReport
from athlos.generation.rollouts import entropies_of
from athlos.methods.kmkc.config import (
    CalibrationRewardConfig,
    EntropyDirection,
    EntropyTerm,
    KmkcPolicyConfig,
)
from athlos.models.forward import project
from athlos.objectives.policy import PolicyObjective
from athlos.parts import PartContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def entropy_signs(is_right_B: Tensor, direction: EntropyDirection) -> Tensor:
    """+1 for right responses, -1 for wrong ones, 0 where the direction is not; float32 [B]."""
    signs_B = torch.where(is_right_B, 1.0, -1.0)
    if direction is EntropyDirection.right_only:
        return signs_B * is_right_B
    return signs_B * ~is_right_B if direction is EntropyDirection.wrong_only else signs_B


class KmkcPolicyObjective(PolicyObjective):
    """The divergence is from the weights that the phase starts from, not from the run's model."""

    advantage_eps = 1e-4  # as TRL

    def __init__(self, config: KmkcPolicyConfig) -> None:
        super().__init__(config)
        self.entropy, self.direction = 0.0, EntropyDirection.both

    def prepare(self, model: "PreTrainedModel", *, context: PartContext) -> PartReport | None:
        config, reward = self.config, context.config.reward
        assert isinstance(config, KmkcPolicyConfig)
        if isinstance(reward, CalibrationRewardConfig) and reward.entropy_term is EntropyTerm.loss:
            self.entropy, self.direction = config.entropy, reward.direction
        if config.kl == 0:
            return None
        assert context.start is not None
        self.reference = copy.deepcopy(context.start.model)
        self.reference.requires_grad_(False).eval()
        return PartReport(summary=f"reference: the weights at the start, for a KL term of weight {config.kl}")

    def is_active(self, advantages_B: Tensor) -> Tensor:
        """All rows where entropy counts: a response of advantage 0 has a gradient too."""
        return torch.ones_like(advantages_B, dtype=torch.bool) if self.entropy else super().is_active(advantages_B)

    def further_losses(
        self, model: "PreTrainedModel", hidden_ND: Tensor, batch: Mapping[str, Tensor], row_N: Tensor
    ) -> Tensor:
        if not self.entropy:
            return super().further_losses(model, hidden_ND, batch, row_N)
        signs_N = entropy_signs(batch["is_right"], self.direction)[row_N]
        return self.entropy * signs_N * entropies_of(project(model, hidden_ND))
