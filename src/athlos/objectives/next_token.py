"""Cross-entropy of the next token, as a sum, with logits in chunks.

B batch, T positions, D width, N counted targets, V vocabulary.
"""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from athlos.config.parts import Loss, PartContext
from athlos.models.forward import hidden_states, project
from athlos.objectives.config import NextTokenConfig


def gather_targets(hidden_BTD: Tensor, labels_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden states that predict a counted target, [N, D], and those targets, [N]. Labels of -100 do not count."""
    predicted_BT = labels_BT[:, 1:]
    is_counted_BT = predicted_BT != -100
    return hidden_BTD[:, :-1][is_counted_BT], predicted_BT[is_counted_BT]


def next_token_nll(
    model: PreTrainedModel, hidden_ND: Tensor, targets_N: Tensor, *, label_smoothing: float = 0.0, chunk_tokens: int
) -> Tensor:
    """Sum of the negative log-likelihoods of `targets_N`, in nats; 0 for N = 0.

    With label smoothing e the target is (1 - e) on the token and e / V on every token. Logits of at most
    `chunk_tokens` positions exist at one time: a chunk is computed again in the backward pass.
    """
    total = hidden_ND.sum() * 0.0  # keeps the graph for an all-masked batch
    for start in range(0, len(targets_N), chunk_tokens):
        span = slice(start, start + chunk_tokens)
        arguments = (model, hidden_ND[span], targets_N[span], label_smoothing)
        single = len(targets_N) <= chunk_tokens
        total = total + (_chunk_nll(*arguments) if single else checkpoint(_chunk_nll, *arguments, use_reentrant=False))
    return total


def _chunk_nll(model: PreTrainedModel, hidden_ND: Tensor, targets_N: Tensor, label_smoothing: float) -> Tensor:
    logits_NV = project(model, hidden_ND)
    return functional.cross_entropy(logits_NV, targets_N, reduction="sum", label_smoothing=label_smoothing)


class NextTokenObjective:
    """The loss of ordinary language modelling; the denominator is the number of targets of the optimizer step."""

    def __init__(self, config: NextTokenConfig) -> None:
        self.config = config

    def prepare(self, *, context: PartContext) -> None:
        """The targets are the labels: nothing to prepare."""

    def loss(self, model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Loss:
        hidden_ND, targets_N = gather_targets(hidden_states(model, batch), batch["labels"])
        total = next_token_nll(
            model,
            hidden_ND,
            targets_N,
            label_smoothing=self.config.label_smoothing,
            chunk_tokens=self.config.chunk_tokens,
        )
        return Loss(total=total, count=len(targets_N))
