"""The GRPO family: advantages within groups of answers, the clipped loss, and its denominators.

Rows are prompt and response padded on the right, with labels of -100 everywhere but on generated tokens, so what stands
in a prompt (a hint, for one) is never in the loss. Log-probabilities are those of the sampling temperature.

P prompts, G samples a prompt, B rows, T positions, N generated tokens, D width, V vocabulary.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

from athlos.config.part_report import PartReport
from athlos.data.batches import Unit
from athlos.errors import ConfigError
from athlos.models.forward import hidden_states, project
from athlos.objectives.config import AdvantageStd, Denominator, PolicyConfig
from athlos.objectives.next_token import gather_targets
from athlos.objectives.shared_prompts import target_states
from athlos.parts import Loss, PartContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from athlos.generation.rollouts import Rollouts

ADVANTAGE_EPS = 1e-6
"""Keeps a division by a very small deviation finite."""
SAME_REWARD = 4
"""Rewards of a group that differ by at most so many units in the last place are the same number, rounded on different
ways: without this, a rounding residue over a rounding residue becomes an advantage of any size."""
MAX_LOG_RATIO = 10.0
"""Cap on |log ratio| before its exponential, so that a token whose probability changed beyond measure cannot overflow
to infinity; a token beyond it has no gradient. Far outside of what clipping leaves. Source: torchtitan's loss of
DAPO, which has this value."""


def group_advantages(rewards_PG: Tensor, *, std: AdvantageStd, eps: float = ADVANTAGE_EPS) -> Tensor:
    """(r - mean) / (std + eps) within each row, [P, G]; `none` leaves out the division. Source: 2402.03300, section 4.

    A row of equal rewards is exactly 0, whatever their rounding. Raises `ConfigError` for groups of one, whose
    advantage is always 0.
    """
    if rewards_PG.shape[1] < 2:
        raise ConfigError(f"objective.group_size: got {rewards_PG.shape[1]}, expected an integer >= 2")
    rounding_P1 = SAME_REWARD * torch.finfo(rewards_PG.dtype).eps * rewards_PG.abs().amax(dim=1, keepdim=True)
    range_P1 = rewards_PG.amax(dim=1, keepdim=True) - rewards_PG.amin(dim=1, keepdim=True)
    centred_PG = (rewards_PG - rewards_PG.mean(dim=1, keepdim=True)).masked_fill(range_P1 <= rounding_P1, 0.0)
    if std is AdvantageStd["none"]:
        return centred_PG
    spread_P1 = rewards_PG.std(dim=1, keepdim=True, correction=1 if std is AdvantageStd["sample"] else 0)
    return centred_PG / (spread_P1 + eps)


def capped_ratio(log_probs_N: Tensor, old_log_probs_N: Tensor) -> Tensor:
    """New over old probability of each token, [N], in [exp(-MAX_LOG_RATIO), exp(MAX_LOG_RATIO)]."""
    return (log_probs_N - old_log_probs_N).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def clipped_loss(
    log_probs_N: Tensor, old_log_probs_N: Tensor, advantages_N: Tensor, *, clip_low: float, clip_high: float
) -> Tensor:
    """-min(ratio A, clip(ratio, 1 - low, 1 + high) A) of each token, [N]. Source: 1707.06347, eq. 7."""
    ratio_N = capped_ratio(log_probs_N, old_log_probs_N)
    clipped_N = ratio_N.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(ratio_N * advantages_N, clipped_N * advantages_N)


def token_weights(row_N: Tensor, length_B: Tensor, *, denominator: Denominator, constant: int) -> Tensor:
    """What each token of row `row_N` weighs before the division by `step_denominator`, float32 [N].

    `sequence`: 1 / the row's tokens. `token`: 1. `constant`: 1 / `constant`, whatever the row's length.
    """
    if denominator is Denominator.sequence:
        return 1.0 / length_B[row_N].float()
    share = 1.0 if denominator is Denominator.token else 1.0 / constant
    return torch.full_like(row_N, 1, dtype=torch.float32) * share


def step_denominator(num_rows: int, num_tokens: int, *, denominator: Denominator) -> int:
    """What the weighted sum over a mini-batch is divided by: its tokens, or its rows; skipped rows count in both."""
    return num_tokens if denominator is Denominator.token else num_rows


@dataclass(kw_only=True)
class PolicyRows:
    """Rollouts as rows to train on, of which any subset makes a batch. `old_log_probs_BT` and `labels_BT` line up."""

    input_ids_BT: Tensor
    labels_BT: Tensor
    attention_mask_BT: Tensor
    old_log_probs_BT: Tensor
    advantages_B: Tensor
    is_right_B: Tensor
    """bool: whether the reward calls the response right."""

    @property
    def num_tokens_B(self) -> Tensor:
        """Generated tokens of each row that can be learned from: drawn with a probability that is a number."""
        return ((self.labels_BT != -100) & self.old_log_probs_BT.isfinite()).sum(dim=1)

    def batch(self, rows: list[int], *, step_targets: int) -> dict[str, Tensor]:
        """The chosen rows, perhaps none, without columns that are padding in all of them."""
        index = torch.tensor(rows, dtype=torch.int64, device=self.input_ids_BT.device)
        width = int(self.attention_mask_BT[index].sum(dim=1).max()) if rows else 0
        shape = (len(index), width)
        return {
            "input_ids": self.input_ids_BT[index, :width],
            "labels": self.labels_BT[index, :width],
            "attention_mask": self.attention_mask_BT[index, :width],
            "position_ids": torch.arange(width, device=index.device).expand(shape).contiguous(),
            "old_log_probs": self.old_log_probs_BT[index, :width],
            "advantages": self.advantages_B[index],
            "is_right": self.is_right_B[index],
            "step_targets": torch.tensor(step_targets, device=index.device),
        }


def policy_rows(
    rollouts: "Rollouts", advantages_B: Tensor, *, pad_id: int, is_right_B: Tensor | None = None
) -> PolicyRows:
    """Left-padded prompts and right-padded responses as rows padded on the right, so that positions begin at 0.

    Without `is_right_B` no response is right, which GRPO's own loss does not read.
    """
    size = rollouts.group_size
    ids_BT = torch.cat([rollouts.prompt_ids.repeat_interleave(size, 0), rollouts.response_ids], dim=1)
    prompt_BL = rollouts.prompt_mask.repeat_interleave(size, 0)
    mask_BT = torch.cat([prompt_BL, rollouts.response_mask], dim=1)
    is_generated_BT = torch.cat([torch.zeros_like(prompt_BL), rollouts.response_mask], dim=1)
    old_BT = torch.cat([torch.zeros_like(prompt_BL, dtype=torch.float32), rollouts.log_probs], dim=1)
    # A stable sort by "is padding" moves every row's tokens to its front and keeps their order.
    order_BT = torch.argsort(1 - mask_BT, dim=1, stable=True)
    ids_BT, mask_BT, is_generated_BT, old_BT = (
        table.gather(1, order_BT) for table in (ids_BT, mask_BT, is_generated_BT, old_BT)
    )
    return PolicyRows(
        input_ids_BT=torch.where(mask_BT == 1, ids_BT, pad_id),
        labels_BT=torch.where(is_generated_BT == 1, ids_BT, -100),
        attention_mask_BT=mask_BT,
        old_log_probs_BT=old_BT,
        advantages_B=advantages_B,
        is_right_B=torch.zeros_like(advantages_B, dtype=torch.bool) if is_right_B is None else is_right_B,
    )


def joined_rows(parts: Sequence[PolicyRows], *, pad_id: int) -> PolicyRows:
    """Rows of several batches of rollouts below each other, padded to the longest."""
    width = max(part.input_ids_BT.shape[1] for part in parts)
    fills = {"input_ids_BT": pad_id, "labels_BT": -100, "attention_mask_BT": 0, "old_log_probs_BT": 0.0}
    tables = {
        name: torch.cat([pad(table := getattr(part, name), (0, width - table.shape[1]), value=fill) for part in parts])
        for name, fill in fills.items()
    }
    return PolicyRows(
        **tables,
        advantages_B=torch.cat([part.advantages_B for part in parts]),
        is_right_B=torch.cat([part.is_right_B for part in parts]),
    )


def log_probs_of(
    model: "PreTrainedModel", hidden_ND: Tensor, targets_N: Tensor, *, temperature: float, chunk_tokens: int
) -> Tensor:
    """Log-probability of each target under softmax(logits / temperature), float32 [N], in nats.

    Logits of at most `chunk_tokens` positions exist at one time: a chunk is computed again in the backward pass.
    """
    if len(targets_N) <= chunk_tokens:
        return _chunk_log_probs(model, hidden_ND, targets_N, temperature)
    chunks: list[Tensor] = [
        checkpoint(
            _chunk_log_probs,
            model,
            hidden_ND[start : start + chunk_tokens],
            targets_N[start : start + chunk_tokens],
            temperature,
            use_reentrant=False,
        )
        for start in range(0, len(targets_N), chunk_tokens)
    ]
    return torch.cat(chunks)


def _chunk_log_probs(model: "PreTrainedModel", hidden_ND: Tensor, targets_N: Tensor, temperature: float) -> Tensor:
    logits_NV = project(model, hidden_ND) / temperature
    return logits_NV.gather(1, targets_N[:, None]).squeeze(1) - logits_NV.logsumexp(dim=-1)


class PolicyObjective:
    """The loss of GRPO and its kin on rollouts; which rewards and prompts made them is the method's business."""

    unit = Unit.tokens
    advantage_eps = ADVANTAGE_EPS

    def __init__(self, config: PolicyConfig) -> None:
        self.config = config
        self.reference: PreTrainedModel | None = None

    def prepare(self, model: "PreTrainedModel", *, context: PartContext) -> PartReport | None:
        """Keep a copy of the model as the reference of the KL term; at weight 0 there is none."""
        if self.config.kl == 0:
            return None
        self.reference = copy.deepcopy(context.base_model)
        assert self.reference is not None
        self.reference.requires_grad_(False).eval()
        return PartReport(summary=f"reference model for a KL term of weight {self.config.kl}")

    def is_active(self, advantages_B: Tensor) -> Tensor:
        """Rows that have a gradient, bool [B]: all where nothing is to be skipped or a KL term reaches every row."""
        if not self.config.skip_zero or self.config.kl:
            return torch.ones_like(advantages_B, dtype=torch.bool)
        return advantages_B != 0

    def loss(self, model: "PreTrainedModel", batch: Mapping[str, Tensor]) -> Loss:
        """Sum over generated tokens, weighted by the denominator's rule; `count` is this batch's part of it.

        A token whose log-probability, then or now, is no finite number is dropped and counted, since it has no ratio;
        the mean over a response leaves it out. A batch in which nothing is left gives every parameter that trains the
        gradient 0, which processes that wait for each other and optimizers with a memory need.
        """
        if not len(batch["input_ids"]):
            return self._no_loss(model, num_dropped=0)
        config = self.config
        if config.share_prompts:
            hidden_ND, targets_N = target_states(model, batch)
        else:
            hidden_ND, targets_N = gather_targets(hidden_states(model, batch), batch["labels"])
        is_target_BT = batch["labels"][:, 1:] != -100
        log_probs_N = log_probs_of(
            model, hidden_ND, targets_N, temperature=config.temperature, chunk_tokens=config.chunk_tokens
        )
        old_N = batch["old_log_probs"][:, 1:][is_target_BT]
        is_kept_N = log_probs_N.isfinite() & old_N.isfinite()
        num_dropped = int((~is_kept_N).sum())
        if num_dropped == len(is_kept_N):
            return self._no_loss(model, num_dropped=num_dropped)
        log_probs_N, old_N = log_probs_N[is_kept_N], old_N[is_kept_N]
        row_N = is_target_BT.nonzero()[:, 0][is_kept_N]
        length_B = torch.bincount(row_N, minlength=len(is_target_BT))
        losses_N = clipped_loss(
            log_probs_N, old_N, batch["advantages"][row_N], clip_low=config.clip_low, clip_high=config.clip_high
        )
        if self.reference is not None:
            gap_N = self._reference_log_probs(batch, is_target_BT, targets_N)[is_kept_N] - log_probs_N
            losses_N = losses_N + config.kl * (gap_N.exp() - gap_N - 1)
        losses_N = losses_N + self.further_losses(model, hidden_ND[is_kept_N], batch, row_N)
        weights_N = token_weights(row_N, length_B, denominator=config.denominator, constant=config.max_new_tokens)
        count = step_denominator(int((length_B > 0).sum()), len(row_N), denominator=config.denominator)
        ratio_N = capped_ratio(log_probs_N.detach(), old_N)
        is_clipped_N = (ratio_N < 1 - config.clip_low) | (ratio_N > 1 + config.clip_high)
        logs = {"clipped_tokens": is_clipped_N.float().mean(), "ratio_gap": (ratio_N - 1).abs().mean()}
        total = (losses_N * weights_N).sum()
        return Loss(total=total, count=count, logs=logs, counts={"dropped_tokens": num_dropped})

    def further_losses(
        self, model: "PreTrainedModel", hidden_ND: Tensor, batch: Mapping[str, Tensor], row_N: Tensor
    ) -> Tensor:
        """What a kindred objective adds to the loss of each token, [N]; `row_N` is the row of each in the batch."""
        return torch.zeros_like(row_N, dtype=hidden_ND.dtype)

    def _no_loss(self, model: "PreTrainedModel", *, num_dropped: int) -> Loss:
        zero = sum(
            (parameter.sum() * 0.0 for parameter in model.parameters() if parameter.requires_grad), torch.zeros(())
        )
        logs = {"clipped_tokens": zero.detach(), "ratio_gap": zero.detach()}
        return Loss(total=zero, count=0, logs=logs, counts={"dropped_tokens": num_dropped})

    @torch.no_grad()
    def _reference_log_probs(self, batch: Mapping[str, Tensor], is_target_BT: Tensor, targets_N: Tensor) -> Tensor:
        """Log-probability of each token under the reference, [N]; the loss takes Schulman's k3 estimate of it."""
        assert self.reference is not None
        self.reference.to(targets_N.device)  # type: ignore[arg-type]  # transformers wraps it without types
        hidden_ND = hidden_states(self.reference, batch)[:, :-1][is_target_BT]
        return log_probs_of(
            self.reference,
            hidden_ND,
            targets_N,
            temperature=self.config.temperature,
            chunk_tokens=self.config.chunk_tokens,
        )
