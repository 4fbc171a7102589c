"""Faster float32 matrix products on CPUs, for a while and without touching weights.

PyTorch hands float32 products to MKL, which on CPUs of other makers takes slow code for some shapes. Measured on the
machine of the room's record (`cpu/__init__.py`), one thread, 1 to 256 rows: oneDNN is 1.2 to 1.5 times as fast at the
output layer of SmolLM2 and 0.8 to 1.1 times at its other layers. Same numbers up to rounding.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

MIN_PRODUCTS = 2**21
"""Rows times entries of the matrix: for smaller products oneDNN's call costs more than it saves."""


def is_available() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@contextmanager
def fast_linear(model: nn.Module) -> Iterator[int]:
    """Inside, float32 `nn.Linear`s on the CPU compute large products with oneDNN. Gives their number.

    They hold on to their weights as they are at the start, and no gradient flows.
    """
    changed = []
    if is_available():
        changed = [module for module in model.modules() if type(module) is nn.Linear and _fits(module)]
    for module in changed:
        vars(module)["forward"] = _forward(module.weight, module.bias)
    try:
        yield len(changed)
    finally:
        for module in changed:
            del module.forward


def _fits(module: nn.Linear) -> bool:
    weight = module.weight
    return (
        "forward" not in vars(module)  # somebody else has changed it already
        and type(weight) is nn.Parameter  # not a shard of one
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.is_contiguous()
    )


def _forward(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    num_outputs, linear = weight.shape[0], functional.linear
    product = torch.ops.mkldnn._linear_pointwise.default

    def forward(rows: Tensor) -> Tensor:
        # Under autocast the product is in bfloat16, and PyTorch's own dispatch is right.
        is_small = rows.numel() * num_outputs < MIN_PRODUCTS
        if is_small or rows.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return linear(rows, weight, bias)
        output: Tensor = product(rows, weight, bias, "none", [], "")
        return output

    return forward
