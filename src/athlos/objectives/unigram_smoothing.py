"""Cross-entropy with a share of the target spread by how often the training answers have each token.

T tokens of a split, R rows, N counted targets, D width, V vocabulary.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from athlos.config.part_report import PartReport
from athlos.data.batches import Unit
from athlos.data.encoding import Rows, rows_hash
from athlos.errors import DataError
from athlos.models.forward import causal_model, hidden_states
from athlos.objectives.config import UnigramSmoothingConfig
from athlos.objectives.next_token import gather_targets, next_token_nll
from athlos.parts import Loss, PartContext
from athlos.stages import Stage

COUNTS_VERSION = 1
"""Raised when the same rows give other counts."""
COUNTS_FILE = "counts.npy"
BLOCK_ROWS = 1 << 14
"""Rows whose targets are counted at a time."""


class UnigramSmoothingObjective:
    """Mean over targets of the cross-entropy with (1 - e) one-hot + e * unigram distribution.

    As label smoothing, with the relative frequency of each token among the training split's targets in place of 1 / V;
    a token that is no target there gets nothing. Repeats of a row count, whatever rows a method leaves out later.
    Source: Pereyra et al., arXiv 1701.06548, the unigram variant; our counts and form.
    """

    unit = Unit.tokens

    def __init__(self, config: UnigramSmoothingConfig) -> None:
        self.config = config
        self.prior_V: Tensor | None = None

    def prepare(self, model: PreTrainedModel, *, context: PartContext) -> PartReport:
        """Count the training split's targets; a stage product that a sweep of the share counts once."""
        assert context.data is not None
        split = context.config.data.train_split
        assert split is not None
        rows = context.data.rows(split)
        vocab_size = len(causal_model(model).get_output_embeddings().weight)
        stage = Stage(
            name="unigram_counts",
            version=COUNTS_VERSION,
            config={"vocab_size": vocab_size},
            inputs={"rows": rows_hash(rows)},
            build=lambda folder: _write_counts(folder, rows, vocab_size=vocab_size),
        )
        counts_V = np.load(context.stages.get(stage).path / COUNTS_FILE, allow_pickle=False)
        probs_V = counts_V / counts_V.sum()
        self.prior_V = torch.from_numpy(probs_V).float()
        seen = probs_V[probs_V > 0]
        entropy = float(-(seen * np.log(seen)).sum())
        return PartReport(
            summary=f"unigrams: {counts_V.sum()} targets, {len(seen)} of {vocab_size} tokens, "
            f"entropy {entropy:.2f} of {math.log(vocab_size):.2f} nats",
            metrics={"diag/unigram_entropy": entropy, "diag/unigram_tokens": float(len(seen))},
        )

    def loss(self, model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Loss:
        hidden_ND, targets_N = gather_targets(hidden_states(model, batch), batch["labels"])
        assert self.prior_V is not None
        self.prior_V = self.prior_V.to(hidden_ND.device)
        total = next_token_nll(
            model,
            hidden_ND,
            targets_N,
            label_smoothing=self.config.smoothing,
            prior_V=self.prior_V,
            chunk_tokens=self.config.chunk_tokens,
        )
        return Loss(total=total, count=len(targets_N))


def unigram_counts(rows: Rows, *, vocab_size: int) -> np.ndarray:
    """How often each token is a target, int64 [V]. A row's first token has nothing before it and is none.

    Raises `DataError` for a token beyond the vocabulary.
    """
    counts_V = np.zeros(vocab_size, dtype=np.int64)
    for first in range(0, len(rows), BLOCK_ROWS):
        block = slice(first, first + BLOCK_ROWS)
        spans = [slice(start + 1, end) for start, end in zip(rows.starts_R[block], rows.ends_R[block], strict=True)]
        targets = np.concatenate([rows.tokens_T[span][rows.is_target_T[span]] for span in spans])
        if len(targets) and targets.max() >= vocab_size:
            raise DataError(
                f"unigram counts: token {targets.max()} is beyond the model's vocabulary of {vocab_size} tokens"
            )
        counts_V += np.bincount(targets, minlength=vocab_size)
    return counts_V


def _write_counts(folder: Path, rows: Rows, *, vocab_size: int) -> None:
    np.save(folder / COUNTS_FILE, unigram_counts(rows, vocab_size=vocab_size), allow_pickle=False)
