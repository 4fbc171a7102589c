"""One forward pass of a decoder over new columns: masks and positions in, logits of the last column out.

B rows, T new columns, D width, V vocabulary.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from athlos.generation.kv_cache import KVCache, layer_windows
from athlos.generation.masks import Masks
from athlos.models.sites import backbone

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class DecoderStep:
    """Runs the decoder that `backbone` finds, which may be the text part of a larger model."""

    def __init__(self, model: "PreTrainedModel") -> None:
        found = backbone(model)
        self.decoder, self.head = found.decoder, found.head
        self.windows = layer_windows(found.config)
        self.masks = Masks(found.config, self.windows)
        self.soft_cap = getattr(found.config, "final_logit_softcapping", None)
        weight = next(found.embedding.parameters())
        self.device, self.dtype = weight.device, weight.dtype

    def new_cache(self, *, capacity: int) -> KVCache:
        return KVCache(self.windows, capacity=capacity)

    def __call__(self, ids_BT: Tensor, cache: KVCache, *, pad_B: Tensor, most_padding: int) -> Tensor:
        """Logits [B, V] in float32 of the last new column; the cache is longer by T afterwards.

        Row b has padding in its first `pad_B[b]` columns, at most `most_padding`; ids there are any valid ones.
        """
        start, count = cache.length, ids_BT.shape[1]
        column_1T = torch.arange(start, start + count, device=self.device)[None]
        position_BT = (column_1T - pad_B[:, None]).clamp_(min=0) if most_padding else column_1T
        output = self.decoder(
            input_ids=ids_BT,
            attention_mask=self.masks.build(
                pad_B, start=start, count=count, most_padding=most_padding, dtype=self.dtype
            ),
            position_ids=position_BT,
            past_key_values=cache,
            use_cache=True,
        )
        cache.length += count
        logits_BV: Tensor = self.head(output.last_hidden_state[:, -1]).float()
        return logits_BV if self.soft_cap is None else self.soft_cap * (logits_BV / self.soft_cap).tanh()
