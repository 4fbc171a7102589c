"""Two tokens that a model is told what kind of answer to give by: [POS] for a faithful one, [NEG] for another.

They stand in front of a prompt, behind its begin token, and are put there as ids: a text that spells them is no order.
Their rows in the embedding start at the mean of all others, and train at a rate of their own, whatever else trains. D
width, V vocabulary, T positions.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from athlos.data.encoding import prefix_token
from athlos.errors import DataError, ModelError
from athlos.models.own_rate import OwnRate
from athlos.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

POS, NEG = "[POS]", "[NEG]"


def has_control_tokens(tokenizer: "PreTrainedTokenizerBase") -> bool:
    return {POS, NEG} <= set(tokenizer.get_added_vocab())


def control_ids(tokenizer: "PreTrainedTokenizerBase") -> tuple[int, int]:
    """Ids of [POS] and [NEG]. Raises `ModelError` for a tokenizer that does not have each as one token."""
    pieces = [tokenizer.encode(text, add_special_tokens=False) for text in (POS, NEG)]
    if not has_control_tokens(tokenizer) or [len(ids) for ids in pieces] != [1, 1]:
        raise ModelError(
            f"control tokens: {POS} and {NEG} are {len(pieces[0])} and {len(pieces[1])} tokens of this model, expected "
            "one of their own each; a model that was trained by objective=control has them"
        )
    return pieces[0][0], pieces[1][0]


def controlled(ids: Sequence[int], control: int, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The ids of a prompt with a control token in front, behind the begin token that the model expects.

    Raises `DataError` for a prompt that holds a control token already.
    """
    if not set(control_ids(tokenizer)).isdisjoint(ids):
        raise DataError(f"a prompt spells {POS} or {NEG}, which are control tokens of this model")
    front = num_before(tokenizer)
    return [*ids[:front], control, *ids[front:]]


def num_before(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Tokens that stand before a control token: the begin token, where models expect one."""
    return int(prefix_token(tokenizer) is not None)


@torch.no_grad()
def add_control_tokens(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> tuple[int, int]:
    """Ids of the two tokens, which tokenizer and model have afterwards; nothing changes where they do already.

    Raises `ModelError` for a tokenizer that makes no single tokens of them.
    """
    from transformers import AddedToken

    if has_control_tokens(tokenizer):
        return control_ids(tokenizer)
    tokens: list[Any] = [AddedToken(text, special=True, normalized=False) for text in (POS, NEG)]
    tokenizer.add_tokens(tokens, special_tokens=True)
    ids = control_ids(tokenizer)
    embedding = cast(nn.Embedding, model.get_input_embeddings())
    if embedding.weight.shape[0] < len(tokenizer):
        with quiet_transformers():
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    head: Any = model.get_output_embeddings()
    embedding = cast(nn.Embedding, model.get_input_embeddings())  # resizing makes a new one
    matrices: dict[int, Tensor] = {id(weight): weight for weight in (embedding.weight, head.weight)}
    for matrix in matrices.values():
        matrix[list(ids)] = matrix[: min(ids)].float().mean(0).to(matrix.dtype)
    bias = dict(head.named_parameters()).get("bias")
    if bias is not None:
        bias[list(ids)] = bias[: min(ids)].mean()
    return ids


class ControlRows(OwnRate):
    """The two rows of the embedding as parameters of their own, which share its memory: it is saved as they are.

    Through hooks they take part in the forward pass where the embedding, and the output matrix if it is the same one,
    has their rows; the rest of either is frozen or trains as it would have.
    """

    def __init__(self, model: "PreTrainedModel", ids: tuple[int, int], *, lr: float) -> None:
        super().__init__(lr=lr)
        if ids[1] != ids[0] + 1:
            raise ModelError(f"control tokens: got ids {ids[0]} and {ids[1]}, expected neighbours")
        self.first = ids[0]
        embedding, head = cast(nn.Embedding, model.get_input_embeddings()), cast(Any, model.get_output_embeddings())
        if type(embedding) is not nn.Embedding:
            raise ModelError(
                f"control tokens: got a {type(embedding).__name__}, expected an embedding that scales nothing"
            )
        self._weight = [embedding.weight]  # in a list, so that it is no parameter of this module
        self.rows_2D = nn.Parameter(self._shared_2D)
        self.has_gradient = False
        self.rows_2D.register_hook(self._note)
        self.register_state_dict_post_hook(_apart)
        embedding.register_forward_hook(self._embed)
        if head.weight is embedding.weight:
            head.register_forward_hook(self._project)
        if embedding.weight.requires_grad:
            embedding.weight.register_hook(self._less_rows)

    @property
    def _shared_2D(self) -> Tensor:
        return self._weight[0].data[self.first : self.first + 2]

    def share(self) -> None:
        """Share the embedding's memory again after both were moved to another device."""
        if self.rows_2D.data_ptr() != self._shared_2D.data_ptr():
            self._shared_2D.copy_(self.rows_2D.data)
            self.rows_2D.data = self._shared_2D

    def _note(self, gradient_2D: Tensor) -> None:
        self.has_gradient |= bool((gradient_2D != 0).any(dim=1).all())

    def _less_rows(self, gradient_VD: Tensor) -> Tensor:
        places = torch.arange(self.first, self.first + 2, device=gradient_VD.device)
        return gradient_VD.index_fill(0, places, 0)

    def _embed(self, module: nn.Module, inputs: tuple[Tensor, ...], output_BTD: Tensor) -> Tensor:
        ids_BT = inputs[0] - self.first
        rows_BTD = functional.embedding(ids_BT.clamp(0, 1), self.rows_2D)
        return torch.where(((ids_BT == 0) | (ids_BT == 1))[..., None], rows_BTD.to(output_BTD.dtype), output_BTD)

    def _project(self, module: nn.Module, inputs: tuple[Tensor, ...], output_NV: Tensor) -> Tensor:
        logits_N2 = functional.linear(inputs[0], self.rows_2D.to(inputs[0].dtype)).to(output_NV.dtype)
        return torch.cat([output_NV[..., : self.first], logits_N2, output_NV[..., self.first + 2 :]], dim=-1)


def _apart(module: nn.Module, state: dict[str, Any], prefix: str, metadata: object) -> None:
    """Rows that are saved beside the embedding are a copy: safetensors takes no tensors that share memory."""
    state[f"{prefix}rows_2D"] = state[f"{prefix}rows_2D"].clone()
