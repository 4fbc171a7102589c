"""The objective: cross-entropy with n-gram targets that were made once, before training.

B batch, T positions, N counted targets, D width.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from athlos.config.part_report import PartReport
from athlos.data.batches import Unit
from athlos.data.encoding import rows_hash
from athlos.errors import ConfigError
from athlos.methods.ndp.config import Divergence, NdpObjectiveConfig
from athlos.methods.ndp.loss import ndp_nll
from athlos.methods.ndp.reading import NdpTables, TargetStore, write_targets
from athlos.models.forward import causal_model, hidden_states
from athlos.objectives.next_token import gather_targets
from athlos.parts import Loss, PartContext
from athlos.stages import Stage

log = logging.getLogger(__name__)

TARGETS_VERSION = 1
"""Raised when the same tables and switches give other targets."""
NOT_IN_TARGETS = ("_target_", "loss", "chunk_tokens")
"""Switches that do not decide the targets."""


class NdpObjective:
    """Mean over answer positions of the cross-entropy (or the divergence) from the position's n-gram target."""

    unit = Unit.tokens

    def __init__(self, config: NdpObjectiveConfig) -> None:
        self.config = config
        self.targets: TargetStore | None = None

    def prepare(self, model: PreTrainedModel, *, context: PartContext) -> PartReport:
        """Make the targets of the training rows from the tables that `construct=ndp` counted; a stage product."""
        tables = context.made.product if context.made is not None else None
        if not isinstance(tables, NdpTables):
            raise ConfigError("construct: objective=ndp reads n-gram tables, expected construct=ndp")
        slide, vocab_size = tables.slide, causal_model(model).get_output_embeddings().weight.shape[0]
        settings = {name: value for name, value in asdict(self.config).items() if name not in NOT_IN_TARGETS}
        if slide is not None:
            settings |= {"slide": slide.key, "backoff": slide.backoff, "additive": slide.additive}
        stage = Stage(
            name="ndp_targets",
            version=TARGETS_VERSION,
            config={**settings, "vocab_size": vocab_size, "n": tables.n},
            inputs={"rows": rows_hash(tables.rows), "sup": tables.sup_key, "clm": tables.clm_key},
            build=lambda folder: write_targets(folder, tables, self.config, vocab_size=vocab_size),
        )
        return self.read(context.stages.get(stage).path)

    def read(self, folder: Path) -> PartReport:
        """Use finished targets."""
        self.targets = TargetStore(folder)
        seen = self.targets.seen
        if seen["diag/smooth_fallbacks"]:
            log.warning("objective=ndp: %d rows fell back to relative frequency", seen["diag/smooth_fallbacks"])
        summary = (
            f"n-gram targets: {seen['diag/target_positions']:.0f} positions, "
            f"{100 * seen['diag/multi_candidate_share']:.1f} % with several candidates, answer prefixes found "
            f"{100 * seen['diag/clm_hit_rate']:.1f} %"
        )
        return PartReport(summary=summary, metrics=seen)

    def loss(self, model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Loss:
        hidden_ND, labels_N = gather_targets(hidden_states(model, batch), batch["labels"])
        assert self.targets is not None
        targets, entropy_N = self.targets.of_batch(batch)
        total = ndp_nll(model, hidden_ND, targets, chunk_tokens=self.config.chunk_tokens)
        if self.config.loss is Divergence.kl:
            total = total - torch.dot(targets.weights_N, entropy_N)
        return Loss(total=total, count=len(labels_N), logs={"target_entropy": entropy_N.mean()})
