"""Preference optimisation: make the better answer of a pair likelier than the worse one. DPO and its kin.

A batch holds both answers of P pairs, row after row: better, worse, better, worse. Their prompt is computed once where
that costs less (`shared_prompts`); it is in no sum. The reference, which most of the losses measure against, is the
model as training starts, in evaluation mode and without low-rank updates. Its log-probabilities are computed once a
pair and kept as a stage product: no second model is in memory, and what trains, adapters or the weights themselves,
never moves the reference.

P pairs, B = 2 P rows, T positions, N answer tokens, R pairs of the training split.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from athlos.config.compose import plain
from athlos.config.part_report import PartReport
from athlos.config.schema import RunConfig
from athlos.data.batches import Unit, collate
from athlos.data.encoding import Rows, rows_hash
from athlos.errors import ConfigError
from athlos.models.config import NoSurgeryConfig
from athlos.models.forward import evaluating, evaluation_device, evaluation_precision
from athlos.models.tuning import adapters_off
from athlos.objectives.config import NextTokenConfig, Preference, PreferenceConfig
from athlos.objectives.next_token import NextTokenObjective
from athlos.objectives.policy import log_probs_of
from athlos.objectives.shared_prompts import target_states
from athlos.parts import Loss, PartContext
from athlos.stages import Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

REFERENCE_VERSION = 1
REFERENCE = "log_probs.npy"


def rows_of_pairs(context: PartContext, *, objective: str) -> Rows:
    """The rows of the training split, which are pairs. Raises `ConfigError` for data without preference pairs."""
    assert context.data is not None
    split = context.config.data.train_split
    assert split is not None
    rows = context.data.rows(split)
    if rows.pairs_R3 is None:
        raise ConfigError(
            f"objective={objective}: data={context.config.data.name} has no preference pairs; expected records of "
            "prompt, chosen and rejected"
        )
    return rows


def answer_log_probs(
    model: "PreTrainedModel", batch: Mapping[str, Tensor], *, chunk_tokens: int
) -> tuple[Tensor, Tensor]:
    """Log-probability of the answer of each row, a sum over its tokens in nats, and their number; both [B]."""
    hidden_ND, targets_N = target_states(model, batch)
    log_probs_N = log_probs_of(model, hidden_ND, targets_N, temperature=1.0, chunk_tokens=chunk_tokens)
    lengths_B = (batch["labels"][:, 1:] != -100).sum(1)
    row_N = torch.arange(len(lengths_B), device=lengths_B.device).repeat_interleave(lengths_B)
    return log_probs_N.new_zeros(len(lengths_B)).index_add(0, row_N, log_probs_N), lengths_B


def pair_log_probs(
    model: "PreTrainedModel", batch: Mapping[str, Tensor], *, chunk_tokens: int
) -> tuple[Tensor, Tensor]:
    """`answer_log_probs` as [P, 2], the better answer first."""
    sums_B, lengths_B = answer_log_probs(model, batch, chunk_tokens=chunk_tokens)
    return sums_B.view(-1, 2), lengths_B.view(-1, 2)


def preference_losses(
    log_probs_P2: Tensor, reference_P2: Tensor, lengths_P2: Tensor, *, config: PreferenceConfig
) -> tuple[Tensor, Tensor]:
    """Loss of each pair, [P], and its implicit rewards, [P, 2], the better answer first.

    The rewards are beta times the log-ratios to the reference, sums over tokens, as TRL logs them for every kind that
    has one; of `simpo`, whose reference is 0, beta times the mean log-probability. The term of `sft_weight` is a mean
    over the tokens of its own answer, not over those of the batch as in TRL: a long answer weighs no more than a short
    one, and the loss is the same however the pairs are batched. Sources: 2305.18290, eq. 7 (dpo); 2405.14734, eq. 6
    (simpo); 2310.12036, eq. 17 (ipo, of means over tokens as in TRL).
    """
    ratios_P2 = log_probs_P2 - reference_P2
    means_P2 = ratios_P2 / lengths_P2
    scores_P2 = ratios_P2 if config.kind is Preference.dpo else means_P2
    rewards_P2 = config.beta * (means_P2 if config.kind is Preference.simpo else ratios_P2)
    gap_P = scores_P2[:, 0] - scores_P2[:, 1]
    if config.kind is Preference.ipo:
        losses_P = (gap_P - 1 / (2 * config.beta)) ** 2
    else:
        margin_P = config.beta * gap_P - config.gamma
        right_P, wrong_P = functional.logsigmoid(margin_P), functional.logsigmoid(-margin_P)
        losses_P = -(1 - config.label_smoothing) * right_P - config.label_smoothing * wrong_P
    nll_P = -log_probs_P2[:, 0] / lengths_P2[:, 0]
    return losses_P + config.sft_weight * nll_P, rewards_P2


class PreferenceObjective:
    """A mean over pairs; of `sft_chosen` the next-token loss, a mean over the tokens of better answers."""

    def __init__(self, config: PreferenceConfig) -> None:
        self.config = config
        self.unit = Unit.tokens if config.kind is Preference.sft_chosen else Unit.pairs
        self._next_token = NextTokenObjective(NextTokenConfig(_target_="", chunk_tokens=config.chunk_tokens))
        self._starts_R = self._reference_R2 = torch.zeros(0)

    def prepare(self, model: "PreTrainedModel", *, context: PartContext) -> PartReport:
        """Reads the reference log-probabilities. Raises `ConfigError` for data without preference pairs."""
        rows = rows_of_pairs(context, objective="preference")
        assert rows.pairs_R3 is not None
        num_cut = int((rows.pairs_R3[:, 2] > 0).sum())
        words = f"{self.config.kind}: {len(rows)} pairs, {num_cut} prompts cut to train.max_length"
        metrics = {"data/pairs": float(len(rows)), "data/cut_prompts": float(num_cut)}
        if self.config.kind.has_reference:
            table_R2 = reference_log_probs(model, rows, chunk_tokens=self.config.chunk_tokens, context=context)
            self._starts_R, self._reference_R2 = torch.from_numpy(rows.starts_R), torch.from_numpy(table_R2)
            share = float((table_R2[:, 0] > table_R2[:, 1]).mean())
            metrics["data/reference_acc"] = share
            words += f"; before training {share:.0%} of the better answers are the likelier ones"
        return PartReport(summary=words, metrics=metrics)

    def loss(self, model: "PreTrainedModel", batch: Mapping[str, Tensor]) -> Loss:
        """Sum over pairs; `reward/accuracy` is the share of pairs whose better answer has the higher reward."""
        if self.config.kind is Preference.sft_chosen:
            return self._next_token.loss(model, batch)
        log_probs_P2, lengths_P2 = pair_log_probs(model, batch, chunk_tokens=self.config.chunk_tokens)
        reference_P2 = torch.zeros_like(log_probs_P2)
        if self.config.kind.has_reference:
            places_P = torch.searchsorted(self._starts_R, batch["row_starts"].cpu())
            reference_P2 = self._reference_R2[places_P].to(log_probs_P2)
        losses_P, rewards_P2 = preference_losses(log_probs_P2, reference_P2, lengths_P2, config=self.config)
        rewards_P2, means_2 = rewards_P2.detach(), log_probs_P2.detach().mean(0)
        logs = {
            "reward/chosen": rewards_P2[:, 0].mean(),
            "reward/rejected": rewards_P2[:, 1].mean(),
            "reward/margin": (rewards_P2[:, 0] - rewards_P2[:, 1]).mean(),
            "reward/accuracy": (rewards_P2[:, 0] > rewards_P2[:, 1]).float().mean(),
            "log_probs/chosen": means_2[0],
            "log_probs/rejected": means_2[1],
        }
        return Loss(total=losses_P.sum(), count=len(losses_P), logs=logs)


def reference_log_probs(model: "PreTrainedModel", rows: Rows, *, chunk_tokens: int, context: PartContext) -> np.ndarray:
    """Log-probabilities of all pairs under the model as it stands, float64 [R, 2], a stage product.

    Its key is the content of the weights as loaded, the surgery that they went through, and the rows; what trains and
    how is not in it, so that every tuning, beta and kind of a sweep shares it.
    """
    assert context.data is not None
    config, pad_id = context.config, context.data.pad_id
    is_plain = isinstance(config.surgery, NoSurgeryConfig)
    stage = Stage(
        name="reference_log_probs",
        version=REFERENCE_VERSION,
        inputs={"model": context.model_fingerprint, "rows": rows_hash(rows)},
        config={"precision": config.hardware.precision}
        | ({} if is_plain else {"surgery": plain(config)["surgery"], "seed": config.seed}),
        build=lambda folder: _write_reference(
            folder / REFERENCE, model, rows, pad_id=pad_id, chunk_tokens=chunk_tokens, run=config
        ),
    )
    table_R2: np.ndarray = np.load(context.stages.get(stage).path / REFERENCE, allow_pickle=False)
    return table_R2


@torch.no_grad()
def _write_reference(
    path: Path, model: "PreTrainedModel", rows: Rows, *, pad_id: int, chunk_tokens: int, run: RunConfig
) -> None:
    table_R2 = np.empty((len(rows), 2))
    by_length_R = np.argsort(rows.ends_R - rows.starts_R, kind="stable")
    home, device = next(model.parameters()).device, evaluation_device(run.hardware)
    model.to(device)  # type: ignore[arg-type]  # transformers wraps it without types
    with evaluating(model), adapters_off(model), evaluation_precision(run.hardware):
        for first in range(0, len(rows), run.train.micro_batch_size):
            indices = by_length_R[first : first + run.train.micro_batch_size]
            batch = collate(rows, indices, pad_id=pad_id, step_targets=1, with_worse=True)
            on_device = {name: value.to(device) for name, value in batch.items()}
            log_probs_P2, _ = pair_log_probs(model, on_device, chunk_tokens=chunk_tokens)
            table_R2[indices] = log_probs_P2.double().cpu().numpy()
    model.to(home)  # type: ignore[arg-type]
    np.save(path, table_R2, allow_pickle=False)
