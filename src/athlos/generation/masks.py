"""Attention masks of left-padded rows, made once a forward pass and handed to the decoder ready for use.

B rows, T queries, K columns.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask, sdpa_mask

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


class Masks:
    """The masks of one decoder: by layer type where it has several, as it takes them.

    Attention kernels with a mask function of their own (flash, a surgery's) get the two-dimensional mask, from which
    transformers makes what they need.
    """

    def __init__(self, config: "PreTrainedConfig", windows: Sequence[int | None]) -> None:
        kernel = config._attn_implementation
        make = ALL_MASK_ATTENTION_FUNCTIONS.get(kernel)
        self.is_ready_made = make in (sdpa_mask, eager_mask)
        self.is_additive = make is eager_mask
        types = getattr(config, "layer_types", None) or ()
        self.by_type = dict(zip(types, windows, strict=False)) if len(set(types)) > 1 else None
        self.window = windows[0]

    def build(self, pad_B: Tensor, *, start: int, count: int, most_padding: int, dtype: torch.dtype) -> Any:
        """What goes into `attention_mask` for queries in columns [start, start + count).

        Row b has padding in its first `pad_B[b]` columns; `most_padding` is the greatest of them.
        """
        if not self.is_ready_made:
            return (torch.arange(start + count, device=pad_B.device) >= pad_B[:, None]).long()
        mask = partial(self._mask, pad_B, start=start, count=count, most_padding=most_padding, dtype=dtype)
        if self.by_type is None:
            return mask(window=self.window)
        return {kind: mask(window=window) for kind, window in self.by_type.items()}

    def _mask(
        self, pad_B: Tensor, *, window: int | None, start: int, count: int, most_padding: int, dtype: torch.dtype
    ) -> Tensor | None:
        """[B, 1, T, K], true or 0 where a query may look; None where the kernel needs no mask.

        A query in the padding looks at itself, for a softmax over nothing is not a number.
        """
        first = 0 if window is None else max(0, start - window + 1)
        is_one = count == 1
        is_plain_causal = start == 0 and (window is None or count <= window) and not self.is_additive
        if most_padding <= first and (is_one or is_plain_causal):
            return None
        column_K = torch.arange(first, start + count, device=pad_B.device)
        mask_B1TK = (column_K >= pad_B[:, None])[:, None, None, :]
        if not is_one:
            query_T1 = torch.arange(start, start + count, device=pad_B.device)[:, None]
            sees_TK = column_K <= query_T1
            if window is not None:
                sees_TK &= column_K > query_T1 - window
            mask_B1TK = (mask_B1TK & sees_TK) | (column_K == query_T1)
        if not self.is_additive:
            return mask_B1TK
        return torch.zeros_like(mask_B1TK, dtype=dtype).masked_fill_(~mask_B1TK, torch.finfo(dtype).min)
