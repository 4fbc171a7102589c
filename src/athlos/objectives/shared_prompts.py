"""Hidden states of rows that share prompts, the prompt computed once for several responses.

The rows of a group differ in their responses alone. Packed, a prompt is followed by the responses of several rows, each
of which sees the prompt and itself, at the positions it has in a row of its own: the same sums as row by row, with the
gradient of the prompt collected from all of its responses. The last token of a response is no input, since it predicts
nothing.

B rows, T positions, K packs, S columns of a pack, N targets, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from athlos.errors import ModelError
from athlos.generation.kv_cache import layer_windows
from athlos.generation.masks import Masks
from athlos.models.forward import hidden_states
from athlos.models.sites import backbone
from athlos.objectives.next_token import gather_targets

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PRODUCTS_A_TOKEN = 12
"""Weights a token meets in a layer, over the width squared: four of the attention, eight of the feed-forward part."""
EQUAL_PRODUCTS_A_TOKEN = 1500
"""What norms, gates, rotations and the fixed part of attention cost a token in a layer, in products over the width."""
PRODUCTS_A_PAIR = 3
"""What a query and a key cost, over the width; the causal kernel of torch saves its half only beyond 500 columns.

This and the number above are fitted to whole steps in float32: pairs of 110 tokens behind prompts of 30 took .95 (width
192) and .92 (576) of the time of separate rows; the count says .96 and .92. Source: ours."""
MAX_COLUMNS = 4096
"""Longest pack: its mask has the square of this many entries."""


@dataclass(frozen=True, kw_only=True)
class RowSpan:
    """A row's place in the batch, its tokens of prompt, and its tokens in all."""

    row: int
    prompt: int
    length: int


def target_states(model: "PreTrainedModel", batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Hidden states [N, D] that predict the targets [N] of a batch padded on the right, row by row.

    Packs are used where they cost less by a count of products and the decoder takes ready-made masks.
    """
    masks = _masks(model)
    packs = _packs(batch, width=backbone(model).config.hidden_size) if masks is not None else None
    if packs is None:
        return gather_targets(hidden_states(model, batch), batch["labels"])
    assert masks is not None
    return packed_states(model, batch, packs, masks=masks)


def _masks(model: "PreTrainedModel") -> Masks | None:
    """The masks of a decoder that takes them ready-made; None for other kernels, unknown and attention-free layers."""
    try:
        config = backbone(model).config
        masks = Masks(config, layer_windows(config))
    except ModelError:
        return None
    return masks if masks.is_ready_made else None


def _packs(batch: Mapping[str, Tensor], *, width: int) -> list[list[RowSpan]] | None:
    """Rows that go together; None where nothing is saved."""
    groups = row_groups(batch)
    packs = [pack for group in groups for pack in _cheapest(group, width=width)]
    return packs if len(packs) < sum(map(len, groups)) else None


def row_groups(batch: Mapping[str, Tensor]) -> list[list[RowSpan]]:
    """Neighbouring rows with the same prompt. A prompt ends before the first target."""
    is_target_BT = batch["labels"] != -100
    firsts = is_target_BT.int().argmax(dim=1).tolist()
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    has_target = is_target_BT.any(dim=1).tolist()
    groups: list[list[RowSpan]] = []
    for row, (prompt, length) in enumerate(zip(firsts, lengths, strict=True)):
        if not has_target[row]:
            continue
        span = RowSpan(row=row, prompt=prompt, length=length)
        before = groups[-1][-1] if groups else None
        ids = batch["input_ids"]
        if before and before.prompt == prompt and torch.equal(ids[before.row, :prompt], ids[row, :prompt]):
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups


def _cheapest(group: list[RowSpan], *, width: int) -> list[list[RowSpan]]:
    """A group cut into packs of the size with the fewest products; of one row each where that is cheapest."""
    choices = []
    for size in range(1, len(group) + 1):
        packs = [group[start : start + size] for start in range(0, len(group), size)]
        if max(map(_columns, packs)) <= MAX_COLUMNS or size == 1:
            choices.append((sum(_cost(pack, width=width) for pack in packs), size, packs))
    return min(choices, key=lambda choice: choice[:2])[2]


def _columns(pack: list[RowSpan]) -> int:
    return pack[0].prompt + sum(span.length - span.prompt - 1 for span in pack)


def _cost(pack: list[RowSpan], *, width: int) -> int:
    """Products of a layer, over the width."""
    columns = _columns(pack)
    return (PRODUCTS_A_TOKEN * width + EQUAL_PRODUCTS_A_TOKEN + PRODUCTS_A_PAIR * columns) * columns


def packed_states(
    model: "PreTrainedModel", batch: Mapping[str, Tensor], packs: list[list[RowSpan]], *, masks: Masks
) -> tuple[Tensor, Tensor]:
    """`target_states` through packs."""
    ids_BT, device = batch["input_ids"], batch["input_ids"].device
    columns = max(map(_columns, packs))
    ids_KS = torch.zeros(len(packs), columns, dtype=torch.int64, device=device)
    position_KS, segment_KS = torch.zeros_like(ids_KS), torch.full_like(ids_KS, -1)
    states: dict[int, Tensor] = {}
    targets: dict[int, Tensor] = {}
    for number, pack in enumerate(packs):
        prompt = pack[0].prompt
        ids_KS[number, :prompt] = ids_BT[pack[0].row, :prompt]
        position_KS[number, :prompt] = torch.arange(prompt, device=device)
        segment_KS[number, :prompt] = 0
        column = prompt
        for index, span in enumerate(pack, start=1):
            size = span.length - prompt - 1
            end = column + size
            ids_KS[number, column:end] = ids_BT[span.row, prompt : span.length - 1]
            position_KS[number, column:end] = torch.arange(prompt, span.length - 1, device=device)
            segment_KS[number, column:end] = index
            predicting = torch.cat([torch.tensor([prompt - 1]), torch.arange(column, end)]).to(device)
            labels = batch["labels"][span.row, prompt : span.length]
            states[span.row] = (number * columns + predicting)[labels != -100]
            targets[span.row] = labels[labels != -100]
            column = end
    packed = {"input_ids": ids_KS, "position_ids": position_KS}
    packed["attention_mask"] = _mask(segment_KS, position_KS, masks=masks, dtype=_dtype(model))
    hidden_KSD = hidden_states(model, packed)
    rows = sorted(states)
    where_N = torch.cat([states[row] for row in rows])
    return hidden_KSD.flatten(0, 1).index_select(0, where_N), torch.cat([targets[row] for row in rows])


def _dtype(model: "PreTrainedModel") -> torch.dtype:
    return next(backbone(model).embedding.parameters()).dtype


def _mask(segment_KS: Tensor, position_KS: Tensor, *, masks: Masks, dtype: torch.dtype) -> Tensor:
    """What the decoder takes: [K, 1, S, S], true or 0 where a query may look; by layer type where it has several."""
    columns = segment_KS.shape[1]
    order_S = torch.arange(columns, device=segment_KS.device)
    is_same = segment_KS[:, :, None] == segment_KS[:, None, :]
    sees_KSS = (is_same | (segment_KS[:, None, :] == 0)) & (order_S <= order_S[:, None])
    distance_KSS = position_KS[:, :, None] - position_KS[:, None, :]
    is_self = torch.eye(columns, dtype=torch.bool, device=segment_KS.device)

    def windowed(window: int | None) -> Tensor:
        # Padding looks at itself, for a softmax over nothing is not a number.
        inside = sees_KSS if window is None else sees_KSS & (distance_KSS < window)
        mask = (inside | is_self)[:, None]
        if not masks.is_additive:
            return mask
        return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)

    if masks.by_type is None:
        return windowed(masks.window)
    return {kind: windowed(window) for kind, window in masks.by_type.items()}  # type: ignore[return-value]
