"""A pre-allocated cache of keys and values that transformers' attention layers write into.

All rows end in the same column: a shorter row is padded on the left, so that one slice takes a step's keys and the
columns of a row have no gap, as local attention needs. Layers with a sliding window keep all columns and show the last
ones. The cache has one length for all layers, moved on by the engine after a forward pass (`length`); a layer that
never writes (one that shares another's attention) stays empty.

B rows, H key-value heads, C columns, D head size.
"""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from athlos.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

ATTENTION_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)
"""Layers that keep keys and values by column and nothing else; others (convolutions, states) cannot be kept so."""
COLUMN_BLOCK = 64
"""Columns that the fused attention reads at a time."""
LAYER_TYPES = ("full_attention", "sliding_attention")


def layer_windows(config: "PreTrainedConfig") -> list[int | None]:
    """The sliding window of each layer in tokens, None for full attention.

    Raises `ModelError` for a decoder with any other kind of layer.
    """
    layers = DynamicCache(config=config).layers
    strange = {type(layer).__name__ for layer in layers if type(layer) not in ATTENTION_LAYERS}
    strange |= set(getattr(config, "layer_types", None) or ()) - set(LAYER_TYPES)
    if strange:
        raise ModelError(
            f"engine=native: {config.model_type} has layers that are neither full nor sliding attention "
            f"({', '.join(sorted(strange))}); use engine=transformers"
        )
    return [layer.sliding_window if isinstance(layer, DynamicSlidingWindowLayer) else None for layer in layers]


class KVLayer(CacheLayerMixin):
    """Keys and values of one layer, [B, H, capacity, D] each, from the first write on."""

    keys: Tensor
    values: Tensor

    def __init__(self, cache: "KVCache", window: int | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # transformers gives it none
        # A cycle of cache and layers would keep gigabytes until Python looks for cycles, which few objects make it do.
        self.cache: KVCache = weakref.proxy(cache)
        self.window, self.is_sliding = window, window is not None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = self.cache.dtype or key_states.dtype, key_states.device
        is_turned = key_states.shape[3] < value_states.shape[3]
        rows, capacity = len(key_states), self.cache.capacity
        self.keys = _zeros(key_states.to(self.dtype), rows=rows, capacity=capacity, is_turned=is_turned)
        self.values = _zeros(value_states.to(self.dtype), rows=rows, capacity=capacity)
        self.is_initialized = True

    def first_visible(self, length: int) -> int:
        """First column that the next query sees when `length` columns are filled."""
        return 0 if self.window is None else max(0, length - self.window + 1)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.cache.length
        end = start + key_states.shape[2]
        assert end <= self.cache.capacity
        self.keys[:, :, start:end] = key_states
        self.values[:, :, start:end] = value_states
        first = self.first_visible(start)
        keys, values = self.keys[:, :, first:end], self.values[:, :, first:end]
        return keys.to(key_states.dtype), values.to(value_states.dtype)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        first = self.first_visible(self.cache.length)
        return self.cache.length + query_length - first, first

    def get_seq_length(self) -> int:
        return self.cache.length

    def get_max_length(self) -> int:
        return self.cache.capacity


@dataclass(kw_only=True)
class Span:
    """Rows of a cache (None = all, in order) and the column their content ends at."""

    cache: "KVCache"
    rows: Tensor | None
    end: int


class KVCache(Cache):
    """One layer a decoder layer; `length` of `capacity` columns are filled.

    Keys and values are kept in `dtype`, None = as they come; a layer is handed them in the format of its own.
    """

    def __init__(
        self, windows: Sequence[int | None], *, capacity: int, length: int = 0, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__(layers=[KVLayer(self, window) for window in windows])
        self.windows, self.capacity, self.length, self.dtype = tuple(windows), capacity, length, dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values, those of columns not yet filled too."""
        layers = cast(list[KVLayer], self.layers)
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers if layer.is_initialized)

    @classmethod
    def gathered(cls, spans: Sequence[Span], *, length: int, capacity: int) -> "KVCache":
        """The rows of all spans in order, each with its last `length` columns, zeros before those it does not have."""
        first = spans[0].cache
        cache = cls(first.windows, capacity=capacity, length=length, dtype=first.dtype)
        for index, layer in enumerate(cast(list[KVLayer], cache.layers)):
            layers = [cast(KVLayer, span.cache.layers[index]) for span in spans]
            if not layers[0].is_initialized:
                continue
            layer.dtype, layer.device, layer.is_initialized = layers[0].dtype, layers[0].device, True
            layer.keys = _gather([source.keys for source in layers], spans, length=length, capacity=capacity)
            layer.values = _gather([source.values for source in layers], spans, length=length, capacity=capacity)
        return cache


def _zeros(like: Tensor, *, rows: int, capacity: int, is_turned: bool = False) -> Tensor:
    """[rows, H, capacity, D] of zeros with the heads and size of `like`.

    Turned, the columns of a number lie side by side, in whole blocks of the fused attention: so it takes keys that are
    too narrow to fill a register by themselves.
    """
    _, heads, _, width = like.shape
    if not is_turned:
        return like.new_zeros(rows, heads, capacity, width)
    whole = (capacity + COLUMN_BLOCK - 1) // COLUMN_BLOCK * COLUMN_BLOCK
    return like.new_zeros(rows, heads, width, whole).transpose(2, 3)[:, :, :capacity]


def _gather(sources: Sequence[Tensor], spans: Sequence[Span], *, length: int, capacity: int) -> Tensor:
    """[B, H, capacity, D]: the rows of the spans, their columns moved so that all end at `length`."""
    counts = [len(source) if span.rows is None else len(span.rows) for source, span in zip(sources, spans, strict=True)]
    like = sources[0]
    whole = _zeros(like, rows=sum(counts), capacity=capacity, is_turned=like.stride(3) > like.stride(2) > 0)
    row = 0
    for source, span, count in zip(sources, spans, counts, strict=True):
        num_columns = min(length, span.end)
        columns = source[:, :, span.end - num_columns : span.end]
        target = whole[row : row + count, :, length - num_columns : length]
        target.copy_(columns if span.rows is None else columns.index_select(0, span.rows))
        row += count
    return whole


def gathered_columns(
    sources: Sequence[tuple[Tensor, Tensor | None, int]], *, length: int, capacity: int, fill: float
) -> Tensor:
    """The same for tables that run beside a cache: (table [B, C], rows, end column) of each part -> [B, capacity]."""
    parts = []
    for table, rows, end in sources:
        num_columns = min(length, end)
        columns = table[:, end - num_columns : end]
        if rows is not None:
            columns = columns.index_select(0, rows)
        whole = table.new_full((len(columns), capacity), fill)
        whole[:, length - num_columns : length] = columns
        parts.append(whole)
    return torch.cat(parts)


def padded_ids(rows: Sequence[Sequence[int]], *, width: int, fill: int, device: torch.device) -> Tensor:
    """[B, width] int64: each row at the right end (its last `width` entries), `fill` before it."""
    table = [[fill] * (width - len(row)) + list(row[max(0, len(row) - width) :]) for row in rows]
    return torch.tensor(table, dtype=torch.int64, device=device).reshape(len(rows), width)
