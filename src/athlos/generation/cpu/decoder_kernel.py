"""The compiled kernel of one new column (`decoder_layers.cpp`): whole layers of a plain Llama, or one matrix product.

It is compiled once a machine, for all shapes (`compiled.py`). Weights and cache are float32 or bfloat16, all else is
float32; where the processor has tiles for bfloat16 (AMX), the rows of a product are rounded to it.
"""

import ctypes
import functools
from pathlib import Path

import torch
from torch import Tensor

from athlos.generation.cpu.compiled import compiled

SOURCE = Path(__file__).with_name("decoder_layers.cpp")
LANES = 16
"""Widths are multiples of this many numbers."""
WIDEST_HEAD = 8 * LANES
_MATRICES = ("q", "k", "v", "o", "gate", "up", "down")


class LayerArguments(ctypes.Structure):
    """`Layer` of the kernel's source."""

    _fields_ = tuple(
        (name, ctypes.c_void_p) for name in ("attention_norm", "ffn_norm", *_MATRICES, "keeps", "keys", "values")
    )


class StepArguments(ctypes.Structure):
    """`Step` of the kernel's source."""

    _fields_ = (
        *[(name, ctypes.c_int64) for name in ("rows", "width", "inner", "heads", "groups", "size", "threads")],
        *[(name, ctypes.c_int64) for name in ("column", "cache_row", "cache_group", "angle_row")],
        *[(name, ctypes.c_int64) for name in ("silent_step", "is_uniform")],
        *[(name, ctypes.c_void_p) for name in ("first", "cosines", "sines", "hidden")],
        ("eps", ctypes.c_float),
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernel; None, with one warning, where there is none to be had."""
    kernel = compiled(SOURCE)
    if kernel is not None:
        pointer, count = ctypes.c_void_p, ctypes.c_int64
        kernel.decoder_layers.argtypes, kernel.decoder_layers.restype = [pointer, pointer, count, count], None
        kernel.product.argtypes, kernel.product.restype = [pointer] * 3 + [count] * 5, None
    return kernel


def product(rows_BI: Tensor, weight_OI: Tensor) -> Tensor:
    """Rows in float32 times a contiguous matrix in float32 or bfloat16 of at least 16 outputs: [B, O] in float32."""
    kernel = library()
    assert kernel is not None
    rows_BI = rows_BI.contiguous()
    num_rows, (num_outputs, num_inputs) = len(rows_BI), weight_OI.shape
    found_BO = rows_BI.new_empty(num_rows, num_outputs)
    kernel.product(
        weight_OI.data_ptr(),
        rows_BI.data_ptr(),
        found_BO.data_ptr(),
        num_outputs,
        num_inputs,
        num_rows,
        torch.get_num_threads(),
        weight_OI.dtype is torch.bfloat16,
    )
    return found_BO
