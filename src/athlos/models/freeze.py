"""Which parameters train, exactly: everything else is frozen, and the shares are counted, not estimated."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from athlos.errors import SurgeryError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class TrainableShare:
    """Counts of entries; a tied matrix counts once."""

    total: int
    trainable: int
    embedding: int
    """Entries of the input embedding and, where it is a matrix of its own, the output matrix."""
    trainable_embedding: int
    """Those of them that train."""

    @property
    def share(self) -> float:
        """Trainable over all entries, in [0, 1]."""
        return self.trainable / self.total

    @property
    def share_without_embeddings(self) -> float:
        """The same without embedding and output matrix on either side: large vocabularies hide the rest."""
        return (self.trainable - self.trainable_embedding) / (self.total - self.embedding)

    @property
    def metrics(self) -> dict[str, float]:
        return {
            "cost/trainable_params": float(self.trainable),
            "cost/trainable_share": self.share,
            "cost/trainable_share_without_embeddings": self.share_without_embeddings,
        }

    def __str__(self) -> str:
        return f"{self.trainable:,} of {self.total:,} parameters train ({self.share:.2%})"


def freeze_all_but(model: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
    """Let exactly these parameters train. Raises `SurgeryError` when there are none, or one is not of the model.

    A frozen parameter has no gradient, so an optimizer that is given trainable parameters only leaves it bit-identical.
    """
    chosen = {id(parameter) for parameter in parameters}
    own = {id(parameter) for parameter in model.parameters()}
    if not chosen:
        raise SurgeryError("no parameter would train; the selection is empty")
    if not chosen <= own:
        raise SurgeryError(f"{len(chosen - own)} of {len(chosen)} chosen parameters are not of this model")
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in chosen)
        parameter.grad = None


def trainable_share(model: "PreTrainedModel") -> TrainableShare:
    """Count a model's parameters, tied ones once; works on the meta device."""
    unique = list(model.parameters())  # nn.Module gives a shared parameter once
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    matrices = [module.get_parameter("weight") for module in ends if module is not None]
    outer = {id(weight): weight for weight in matrices}
    return TrainableShare(
        total=sum(parameter.numel() for parameter in unique),
        trainable=sum(parameter.numel() for parameter in unique if parameter.requires_grad),
        embedding=sum(weight.numel() for weight in outer.values()),
        trainable_embedding=sum(weight.numel() for weight in outer.values() if weight.requires_grad),
    )
