"""Attention over a cache in one pass on a CPU, by a kernel that is compiled here for each shape of model.

PyTorch computes the scores of a shared layer, their alignment, softmax and mixing in passes of their own, each of which
writes numbers for all heads and columns; the kernel (`fused_attention.cpp`) goes through the cache once. It is compiled
on first use, a few seconds a shape (`compiled.py`); without a compiler PyTorch's operations do the work: same numbers
up to rounding.

The kernel is used inside `fused()` alone, in float32 without gradients.

B rows, T query rows, N columns, H heads, G key-value heads, r numbers a key, d numbers a value.
"""

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from athlos.generation.cpu.compiled import compiled
from athlos.generation.kv_cache import COLUMN_BLOCK

SOURCE = Path(__file__).with_suffix(".cpp")
ACTIVATIONS = ("gelu", "silu", "relu", "none")
"""As the kernel counts them."""
LANES = 16
"""A value's numbers come in whole registers of this many."""
LEAST_WORK = 2**20
"""Rows times queries times columns times heads times numbers a value, below which a call costs more than it saves."""
_STATE = {"is_on": False}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a kernel is compiled for."""

    heads: int
    groups: int
    rank: int
    """Numbers a key; 0 = the layer has no scores of its own."""
    value: int
    hidden: int = 0
    has_below: int = 0
    has_mix: int = 0
    has_residual: int = 0
    act: int = 3

    @property
    def flags(self) -> list[str]:
        return [f"-D{field.name.upper()}={getattr(self, field.name)}" for field in fields(self)]


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Scores of the layer below, and the weights that align them: mix s + outer act(inner s + inner_bias) + outer_bias.

    Without `mix` and with `is_added` the scores come in as they are.
    """

    below_BHTN: Tensor
    may_be_overwritten: bool = False
    """Whether the scores of this layer, where they are wanted, may take the place of those below."""
    is_added: bool = False
    mix_HH: Tensor | None = None
    inner_mH: Tensor | None = None
    inner_bias_m: Tensor | None = None
    outer_mH: Tensor | None = None
    """Transposed, contiguous."""
    outer_bias_H: Tensor | None = None
    activation: str = "none"


class _Arguments(ctypes.Structure):
    """`Arguments` of the kernel's source."""

    _fields_ = (
        *[(name, ctypes.c_int64) for name in ("rows", "queries", "columns", "threads")],
        *[(name, ctypes.c_void_p) for name in ("query", "key", "value", "below")],
        *[(name, ctypes.c_int64) for name in ("query_row", "query_head", "query_step")],
        *[(name, ctypes.c_int64) for name in ("key_row", "key_group", "key_column", "key_number")],
        *[(name, ctypes.c_int64) for name in ("value_row", "value_group", "value_column")],
        *[(name, ctypes.c_int64) for name in ("below_row", "below_head", "below_step")],
        ("mask", ctypes.c_void_p),
        ("mask_row", ctypes.c_int64),
        ("mask_step", ctypes.c_int64),
        *[(name, ctypes.c_void_p) for name in ("mix", "inner", "inner_bias", "outer", "outer_bias", "scores")],
        *[(name, ctypes.c_int64) for name in ("scores_row", "scores_head", "scores_step")],
        ("output", ctypes.c_void_p),
    )


@contextmanager
def fused(*, is_wanted: bool = True) -> Iterator[None]:
    """Inside, attention that can be fused is; not across threads."""
    before, _STATE["is_on"] = _STATE["is_on"], is_wanted
    try:
        yield
    finally:
        _STATE["is_on"] = before


def is_on() -> bool:
    return _STATE["is_on"] and not torch.is_grad_enabled()


def attend(
    query_BHTr: Tensor | None,
    key_BGNr: Tensor | None,
    value_BGNd: Tensor,
    *,
    num_heads: int,
    mask: Tensor | None = None,
    alignment: Alignment | None = None,
    has_scores: bool = False,
) -> tuple[Tensor, Tensor | None] | None:
    """Output [B, T, H, d] and, if wanted, the unmasked scores [B, H, T, N]; None where the kernel is not for this.

    Queries are scaled. The last column is the last query's own, and none sees beyond itself; `mask` [B, 1, T, N] is
    True where a query may look.
    """
    batch, _, columns, width = value_BGNd.shape
    queries = query_BHTr.shape[2] if query_BHTr is not None else alignment.below_BHTN.shape[2] if alignment else 0
    rows = [
        tensor for tensor in (query_BHTr, value_BGNd, alignment.below_BHTN if alignment else None) if tensor is not None
    ]
    tensors = [*rows, *([] if key_BGNr is None else [key_BGNr])]
    fits = (
        is_on()
        and width % LANES == 0
        and batch * queries * columns * num_heads * width >= LEAST_WORK
        and (mask is None or mask.dtype is torch.bool)
        and all(tensor.dtype is torch.float32 and tensor.device.type == "cpu" for tensor in tensors)
        and all(tensor.stride(-1) == 1 for tensor in rows)
        and (key_BGNr is None or key_BGNr.stride(3) == 1 or _is_in_blocks(key_BGNr))
    )
    if not fits:
        return None
    kernel = _kernel(_shape(query_BHTr, value_BGNd, num_heads=num_heads, alignment=alignment))
    if kernel is None:
        return None
    output = value_BGNd.new_empty(batch, queries, num_heads, width)
    arguments = _Arguments(
        rows=batch, queries=queries, columns=columns, threads=torch.get_num_threads(), output=output.data_ptr()
    )
    kept = [output]
    _place(arguments, "value", value_BGNd, ("row", "group", "column"))
    if query_BHTr is not None and key_BGNr is not None:
        _place(arguments, "query", query_BHTr, ("row", "head", "step"))
        _place(arguments, "key", key_BGNr, ("row", "group", "column", "number"))
    if mask is not None:
        mask = mask[..., mask.shape[-1] - columns :].expand(batch, 1, queries, columns)
        if mask.stride(-1) != 1:
            mask = mask.contiguous()
        arguments.mask, arguments.mask_row, arguments.mask_step = mask.data_ptr(), mask.stride(0), mask.stride(2)
    if alignment is not None:
        _place(arguments, "below", alignment.below_BHTN, ("row", "head", "step"))
        for name, weight in _weights(alignment).items():
            if weight is not None:
                kept.append(weight.contiguous())
                setattr(arguments, name, kept[-1].data_ptr())
    scores = None
    if has_scores:
        # Each score takes the place of the one below that it was made of: no memory is asked for, layer after layer.
        if alignment is not None and alignment.may_be_overwritten:
            scores = alignment.below_BHTN
        else:
            scores = value_BGNd.new_empty(batch, num_heads, queries, columns)
        _place(arguments, "scores", scores, ("row", "head", "step"))
    kernel(ctypes.byref(arguments))
    return output, scores


def _is_in_blocks(key_BGNr: Tensor) -> bool:
    """Whether columns lie side by side, with room for whole blocks of them, as in the engine's cache of narrow keys."""
    return key_BGNr.stride(2) == 1 and key_BGNr.stride(3) % COLUMN_BLOCK == 0 and key_BGNr.storage_offset() == 0


def _place(arguments: _Arguments, name: str, tensor: Tensor, dims: tuple[str, ...]) -> None:
    setattr(arguments, name, tensor.data_ptr())
    for dim, stride in zip(dims, tensor.stride(), strict=False):
        setattr(arguments, f"{name}_{dim}", stride)


def _weights(alignment: Alignment) -> dict[str, Tensor | None]:
    return {
        "mix": alignment.mix_HH,
        "inner": alignment.inner_mH,
        "inner_bias": alignment.inner_bias_m,
        "outer": alignment.outer_mH,
        "outer_bias": alignment.outer_bias_H,
    }


def _shape(query: Tensor | None, value: Tensor, *, num_heads: int, alignment: Alignment | None) -> Shape:
    rank = 0 if query is None else query.shape[3]
    base = Shape(heads=num_heads, groups=value.shape[1], rank=rank, value=value.shape[3])
    if alignment is None:
        return base
    inner = alignment.inner_mH
    return Shape(
        heads=base.heads,
        groups=base.groups,
        rank=rank,
        value=base.value,
        hidden=0 if inner is None else len(inner),
        has_below=1,
        has_mix=int(alignment.mix_HH is not None),
        has_residual=int(alignment.is_added),
        act=ACTIVATIONS.index(alignment.activation),
    )


@functools.cache
def _kernel(shape: Shape) -> "ctypes._NamedFuncPointer | None":
    """The compiled kernel of a shape; None, with one warning, where there is none to be had."""
    library = compiled(SOURCE, shape.flags)
    if library is None:
        return None
    library.attend.restype = None
    return library.attend
