"""Cross-entropy of the next token and of tokens further on, by heads that exist in training alone.

B batch, T positions, N counted targets, D width, J heads.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from athlos.config.part_report import PartReport
from athlos.data.batches import Unit
from athlos.models.forward import causal_model, hidden_states
from athlos.objectives.config import MultiTokenConfig
from athlos.objectives.next_token import gather_targets, next_token_nll
from athlos.parts import Loss, PartContext


class MultiTokenObjective(nn.Module):
    """CE of the next token + weight * sum over heads of CE of the token `j` places behind it.

    All terms are sums over positions under one denominator, the number of next-token targets. A head maps the last
    hidden state h to h + W_j h and goes through the model's own output matrix; W_j is 0 at first, so that each head
    begins as the next token's. A module, so that the trainer trains and resumes the heads; an export holds the model.
    Source: Gloeckle et al., arXiv 2404.19737, with a layer for each head; the light heads are ours.
    """

    heads_JDD: nn.Parameter | None

    unit = Unit.tokens

    def __init__(self, config: MultiTokenConfig) -> None:
        super().__init__()
        self.config = config
        self.register_parameter("heads_JDD", None)

    def prepare(self, model: PreTrainedModel, *, context: PartContext) -> PartReport:
        """Make the heads, in float32: in 16 bits small updates would round away."""
        width = causal_model(model).get_output_embeddings().weight.shape[1]
        self.heads_JDD = nn.Parameter(torch.zeros(self.config.num_future, width, width))
        size = self.heads_JDD.numel()
        return PartReport(
            summary=f"{self.config.num_future} heads for later tokens: {size:,} parameters, dropped after training",
            metrics={"multi_token/head_params": float(size)},
        )

    def loss(self, model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Loss:
        hidden_ND, targets_N = gather_targets(hidden_states(model, batch), batch["labels"])
        assert self.heads_JDD is not None
        size = self.config.chunk_tokens
        sums = [next_token_nll(model, hidden_ND, targets_N, chunk_tokens=size)]
        later = future_targets(batch["labels"], num_future=self.config.num_future)
        for head_DD, (goes_on_N, later_M) in zip(self.heads_JDD, later, strict=True):
            ahead_MD = looked_ahead(hidden_ND[goes_on_N], head_DD)
            sums.append(next_token_nll(model, ahead_MD, later_M, chunk_tokens=size))
        count = max(1, len(targets_N))
        logs = {f"ahead_{place}": part.detach() / count for place, part in enumerate(sums[1:], start=1)}
        return Loss(
            total=sums[0] + self.config.weight * torch.stack(sums[1:]).sum(),
            count=len(targets_N),
            logs={"ce": sums[0].detach() / count, **logs},
        )


def looked_ahead(hidden_ND: Tensor, head_DD: Tensor) -> Tensor:
    """h + W h, in the format of `hidden_ND`."""
    return hidden_ND + functional.linear(hidden_ND.to(head_DD.dtype), head_DD).to(hidden_ND.dtype)


def future_targets(labels_BT: Tensor, *, num_future: int) -> Iterator[tuple[Tensor, Tensor]]:
    """For 1 .. `num_future` places behind the next token: which counted positions have a target there, and it.

    bool [N] over the positions of `gather_targets`, and int64 [M] in their order. The token must be in the answer that
    the next token is in: all labels from the one to the other count (are not -100).
    """
    next_BT = labels_BT[:, 1:]
    is_counted_BT = goes_on_BT = next_BT != -100
    for place in range(1, num_future + 1):
        later_BT = functional.pad(next_BT[:, place:], (0, min(place, next_BT.shape[1])), value=-100)
        goes_on_BT = goes_on_BT & (later_BT != -100)
        yield goes_on_BT[is_counted_BT], later_BT[goes_on_BT]
