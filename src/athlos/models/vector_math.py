"""Torch's vectorised functions, settled before several threads call them.

Each function of MKL's vector mathematics chooses its kernel in its first call. Where that is made by several threads at
once, one of them may compute its share of this one call with a coarse kernel: the cosines of the first forward pass
were off by 1.5e-4 in one process of ten, so that the same command gave two results. A call on one number is made by
one thread. Source: pytorch issue 188792, open in torch 2.13.
"""

import torch

FUNCTIONS = (
    *("acos", "asin", "atan", "cos", "cosh", "erf", "erfc", "erfinv", "exp", "expm1", "lgamma"),
    *("log", "log10", "log1p", "log2", "rsqrt", "sin", "sinh", "sqrt", "tan", "tanh"),
)
"""What torch hands to that library, by its name in torch."""


def settle_vector_math() -> None:
    """Calls each function once on one number in either precision; a millisecond. Later calls change nothing."""
    for dtype in (torch.float32, torch.float64):
        number = torch.full((1,), 0.5, dtype=dtype)
        for name in FUNCTIONS:
            getattr(torch, name)(number)
