"""Cross-entropy of the next token and divergence from a teacher, from one pass over the logits of each.

N counted targets, V vocabulary, D width, K listed tokens. The teacher is the run's model as loaded, or weights from
elsewhere.
"""

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from athlos.config.part_report import PartReport
from athlos.config.schema import ModelConfig, TokenizerConfig
from athlos.data.batches import Unit
from athlos.errors import ConfigError, ModelError
from athlos.models.forward import hidden_states, project
from athlos.models.loading import LoadedModel, load_model
from athlos.models.tokenizers import tokenizer_hash
from athlos.objectives.config import DistillConfig, DistillTopkConfig
from athlos.objectives.next_token import gather_targets
from athlos.parts import Loss, PartContext

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class DistillObjective:
    """ce * CE + kd * T^2 * KL(teacher || student), each a sum over counted targets.

    With ce = 1 - alpha and kd = alpha this is Hinton's distillation. KL is over the whole vocabulary, at temperature T
    on both sides.
    """

    unit = Unit.tokens
    topk = 0
    """Tokens of the teacher that KL lists one by one; 0 = the whole vocabulary."""

    def __init__(self, config: DistillConfig) -> None:
        self.config = config
        self.teacher: PreTrainedModel | None = None

    def prepare(self, model: PreTrainedModel, *, context: PartContext) -> PartReport:
        """Keep the teacher: frozen, in evaluation mode, never part of a checkpoint."""
        self.teacher = self._teacher(context)
        return PartReport(summary=f"teacher: {self.config.teacher}")

    def _teacher(self, context: PartContext) -> PreTrainedModel:
        if self.config.teacher != "base":
            return load_teacher(self.config.teacher, context=context).model.requires_grad_(False)
        base = context.base_model
        # A copy of what trains: the student's parameters may be the base model's own.
        shared = {id(parameter): parameter for parameter in base.parameters() if not parameter.requires_grad}
        teacher = copy.deepcopy(base, dict(shared)).requires_grad_(False)
        teacher.eval()
        return teacher

    def loss(self, model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Loss:
        hidden_ND, targets_N = gather_targets(hidden_states(model, batch), batch["labels"])
        assert self.teacher is not None
        with torch.no_grad():
            self.teacher.to(batch["labels"].device)  # type: ignore[arg-type]  # transformers wraps it without types
            teacher_ND, _ = gather_targets(hidden_states(self.teacher, batch), batch["labels"])
        return self.loss_of(model, hidden_ND, teacher_ND, targets_N)

    def loss_of(self, model: PreTrainedModel, hidden_ND: Tensor, teacher_ND: Tensor, targets_N: Tensor) -> Loss:
        """The loss from hidden states of student and teacher, for methods that need those of other layers too."""
        config, teacher = self.config, self.teacher
        assert teacher is not None
        sums = hidden_ND.sum() * 0.0 + hidden_ND.new_zeros(2, dtype=torch.float32)
        for start in range(0, len(targets_N), config.chunk_tokens):
            span = slice(start, start + config.chunk_tokens)
            arguments = (
                model,
                teacher,
                hidden_ND[span],
                teacher_ND[span],
                targets_N[span],
                config.temperature,
                self.topk,
            )
            single = len(targets_N) <= config.chunk_tokens
            sums = sums + (
                _chunk_sums(*arguments) if single else checkpoint(_chunk_sums, *arguments, use_reentrant=False)
            )
        count = max(1, len(targets_N))
        return Loss(
            total=config.ce * sums[0] + config.kd * config.temperature**2 * sums[1],
            count=len(targets_N),
            logs={"ce": sums[0].detach() / count, "kd": sums[1].detach() / count},
        )


class TopkDistillObjective(DistillObjective):
    """Distillation from the teacher's `topk` most probable tokens at each position; all others are one outcome.

    KL over these K + 1 outcomes is at most that over the vocabulary, and equal to it for K = V - 1. Nothing is said
    about how the student spreads its mass over the other tokens. Source: ours.
    """

    def __init__(self, config: DistillTopkConfig) -> None:
        super().__init__(config)
        self.topk = config.topk

    def prepare(self, model: PreTrainedModel, *, context: PartContext) -> PartReport:
        """As in the base class. Raises `ConfigError` where the vocabulary leaves no token unlisted."""
        report = super().prepare(model, context=context)
        assert self.teacher is not None
        vocab_size = self.teacher.config.get_text_config().vocab_size
        if self.topk >= vocab_size:
            raise ConfigError(
                f"objective.topk: got {self.topk}, expected less than the {vocab_size} tokens of the vocabulary; "
                "objective=distill compares all of them"
            )
        return PartReport(summary=f"{report.summary}, its {self.topk} most probable tokens")


def _chunk_sums(
    model: PreTrainedModel,
    teacher: PreTrainedModel,
    hidden_ND: Tensor,
    teacher_ND: Tensor,
    targets_N: Tensor,
    temperature: float,
    topk: int,
) -> Tensor:
    """[2]: sums over positions of the negative log-likelihood, and of KL(teacher || student)."""
    logits_NV = project(model, hidden_ND)
    with torch.no_grad():
        wanted_NV = functional.log_softmax(project(teacher, teacher_ND) / temperature, dim=-1)
    log_probs_NV = functional.log_softmax(logits_NV / temperature, dim=-1)
    divergence = divergence_sum(wanted_NV, log_probs_NV, topk=topk)
    likelihood = functional.cross_entropy(logits_NV, targets_N, reduction="sum")
    return torch.stack([likelihood, divergence])


def divergence_sum(wanted_NV: Tensor, log_probs_NV: Tensor, *, topk: int) -> Tensor:
    """Sum over positions of KL(wanted || given) in nats, both as log-probabilities [N, V]; 0 for N = 0.

    With `topk` in 1 .. V - 1 the outcomes are the wanted side's `topk` most probable tokens and, as one, the rest.
    """
    if topk:
        token_ids_NK = wanted_NV.topk(topk, dim=-1).indices
        wanted_NV, log_probs_NV = _with_rest(wanted_NV, token_ids_NK), _with_rest(log_probs_NV, token_ids_NK)
    return functional.kl_div(log_probs_NV, wanted_NV, reduction="sum", log_target=True)


def _with_rest(log_probs_NV: Tensor, token_ids_NK: Tensor) -> Tensor:
    """Log-probabilities [N, K + 1] of the listed tokens and of all others together."""
    # Summed, not 1 - the listed: a small rest would round away.
    rest_N1 = log_probs_NV.scatter(-1, token_ids_NK, -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat([log_probs_NV.gather(-1, token_ids_NK), rest_N1], dim=-1)


def load_teacher(source: str, *, context: PartContext) -> LoadedModel:
    """A teacher from elsewhere, `source` as in `model.source`; raises `ModelError` for one with another tokenizer."""
    config = ModelConfig(
        name="teacher",
        source=source,
        tokenizer=TokenizerConfig(kind="source"),
        dtype=context.config.model.dtype,
        attention=context.config.model.attention,
    )
    loaded = load_model(config, seed=context.config.seed, stages=context.stages)
    _check_tokenizers(context.tokenizer, loaded.tokenizer)
    return loaded


def _check_tokenizers(own: "PreTrainedTokenizerBase", theirs: "PreTrainedTokenizerBase") -> None:
    if tokenizer_hash(own) != tokenizer_hash(theirs):
        raise ModelError("objective.teacher: its tokenizer differs from the model's, so their logits do not compare")
