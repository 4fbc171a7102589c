"""Faithfulness-aware tuning: the better answer of a pair is learned behind [POS], the worse one behind [NEG].

    L = - log p(y+ | [POS], x) - log p(y- | [NEG], x)

Each term is a mean over the tokens of its own answer; the two weigh alike. P pairs, B = 2 P rows, T positions, N answer
tokens.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from athlos.config.part_report import PartReport
from athlos.data.batches import Unit
from athlos.errors import DataError, TrainingError
from athlos.models.control_tokens import NEG, POS, ControlRows, add_control_tokens, num_before
from athlos.models.forward import hidden_states
from athlos.objectives.config import ControlConfig
from athlos.objectives.next_token import gather_targets
from athlos.objectives.policy import log_probs_of
from athlos.objectives.preference import rows_of_pairs
from athlos.parts import Loss, PartContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def with_control(batch: Mapping[str, Tensor], ids: tuple[int, int], *, front: int) -> dict[str, Tensor]:
    """A batch of pairs, better and worse answers row after row, each behind its token: [B, T + 1].

    The token stands behind the first `front` tokens; it is no target.
    """
    input_ids_BT = batch["input_ids"]
    num_rows = len(input_ids_BT)
    control_B1 = input_ids_BT.new_tensor(ids).repeat(num_rows // 2 + 1)[:num_rows, None]

    def inserted(name: str, values_B1: Tensor) -> Tensor:
        table_BT = batch[name]
        return torch.cat([table_BT[:, :front], values_B1.to(table_BT.dtype), table_BT[:, front:]], dim=1)

    positions_BT = batch["position_ids"]
    return {
        "input_ids": inserted("input_ids", control_B1),
        "labels": inserted("labels", torch.full_like(control_B1, -100)),
        "attention_mask": inserted("attention_mask", torch.ones_like(control_B1)),
        "position_ids": torch.cat([positions_BT, positions_BT[:, -1:] + 1], dim=1),
    }


class ControlObjective(nn.Module):
    """A mean over pairs of half the sum of both terms. The embedding rows of the tokens train at `control_lr`."""

    unit = Unit.pairs

    def __init__(self, config: ControlConfig) -> None:
        super().__init__()
        self.config = config
        self.rows: ControlRows | None = None
        self.ids, self.front, self.has_stepped = (0, 0), 0, False

    def prepare(self, model: "PreTrainedModel", *, context: PartContext) -> PartReport:
        """Adds the tokens. Raises `ConfigError` for data without pairs, `DataError` for texts that spell a token."""
        rows = rows_of_pairs(context, objective="control")
        self.ids = add_control_tokens(model, context.tokenizer)
        if np.isin(rows.tokens_T, self.ids).any():
            raise DataError(f"data={context.config.data.name}: a training text spells {POS} or {NEG}")
        self.front = num_before(context.tokenizer)
        self.rows = ControlRows(model, self.ids, lr=self.config.control_lr)
        return PartReport(
            summary=f"control: {len(rows)} pairs behind {POS} {self.ids[0]} and {NEG} {self.ids[1]}, whose rows train "
            f"at {self.config.control_lr:g}",
            metrics={"data/pairs": float(len(rows))},
        )

    def loss(self, model: "PreTrainedModel", batch: Mapping[str, Tensor]) -> Loss:
        """Sum over pairs. Raises `TrainingError` where the first step gave the rows of the tokens no gradient."""
        assert self.rows is not None
        if self.has_stepped and not self.rows.has_gradient:
            raise TrainingError(
                f"objective=control: the embedding rows of {POS} and {NEG} had no gradient in the first step, so "
                "nothing would tell the two kinds of answers apart"
            )
        self.has_stepped = torch.is_grad_enabled()
        self.rows.share()
        asked = with_control(batch, self.ids, front=self.front)
        hidden_ND, targets_N = gather_targets(hidden_states(model, asked), asked["labels"])
        log_probs_N = log_probs_of(model, hidden_ND, targets_N, temperature=1.0, chunk_tokens=self.config.chunk_tokens)
        nll_P2 = side_means(log_probs_N, asked["labels"]).neg()
        means_2 = nll_P2.detach().mean(0)
        logs = {"nll/pos": means_2[0], "nll/neg": means_2[1]}
        return Loss(total=nll_P2.mean(dim=1).sum(), count=len(nll_P2), logs=logs)


def side_means(log_probs_N: Tensor, labels_BT: Tensor) -> Tensor:
    """Mean log-probability of each answer's tokens, [P, 2], the better one first."""
    lengths_B = (labels_BT[:, 1:] != -100).sum(1)
    row_N = torch.arange(len(lengths_B), device=lengths_B.device).repeat_interleave(lengths_B)
    sums_B = log_probs_N.new_zeros(len(lengths_B)).index_add(0, row_N, log_probs_N)
    return (sums_B / lengths_B).view(-1, 2)
