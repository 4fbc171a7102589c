"""Contrastive decoding: logits of two streams, or of two depths, become one. Formulas: `interface.Contrast`.

B batch, L candidate layers, V vocabulary.
"""

import math

import torch
from torch import Tensor

from athlos.errors import ConfigErrors
from athlos.generation.interface import Contrast

PIECE = 8192
"""Tokens of the vocabulary that are compared at a time: in the cache of a processor this is three times as fast."""


def check_contrast(contrast: Contrast) -> None:
    """Raises `ConfigErrors` for values out of range, or several things that B could be."""
    alpha = contrast.alpha
    accepted = {
        "alpha": (alpha, alpha is None or 0 <= alpha < math.inf, "a number >= 0"),
        "max_alpha": (contrast.max_alpha, contrast.max_alpha >= 0, "a number >= 0"),
        "plausibility": (contrast.plausibility, 0 <= contrast.plausibility <= 1, "a number in [0, 1]"),
        "layers": (contrast.layers, not (contrast.layers and contrast.heads), "layers or heads, not both"),
    }
    errors = [
        f"contrast.{name}: got {value}, expected {what}" for name, (value, good, what) in accepted.items() if not good
    ]
    if errors:
        raise ConfigErrors(errors)


def contrasted(a_BV: Tensor, b_BV: Tensor, contrast: Contrast) -> Tensor:
    """The logits [B, V] of two streams."""
    if contrast.alpha == 0:
        return a_BV
    if contrast.alpha is None:
        log_a_BV, log_b_BV = a_BV.log_softmax(dim=-1), b_BV.log_softmax(dim=-1)
        entropy_B1 = -(log_a_BV.exp() * log_a_BV).sum(dim=-1, keepdim=True)
        mixed_BV = log_a_BV + entropy_B1.clamp(max=contrast.max_alpha) * (log_a_BV - log_b_BV)
    else:
        mixed_BV = a_BV + contrast.alpha * (a_BV - b_BV)
    return plausible(mixed_BV, a_BV, contrast)


def contrasted_by_depth(a_BV: Tensor, early_LBV: Tensor, contrast: Contrast) -> Tensor:
    """The logits [B, V] of the last layer against those of the early exit that is farthest from it, in each row."""
    log_a_BV, log_early_LBV = a_BV.log_softmax(dim=-1), early_LBV.log_softmax(dim=-1)
    farthest_B = jensen_shannon(log_a_BV, log_early_LBV).argmax(dim=0)
    log_b_BV = log_early_LBV[farthest_B, torch.arange(len(a_BV), device=a_BV.device)]
    return plausible(log_a_BV - log_b_BV, a_BV, contrast)


def jensen_shannon(log_a_BV: Tensor, log_b_LBV: Tensor) -> Tensor:
    """Jensen-Shannon divergence [L, B] in nats of log-probabilities, each of L with the one."""
    found_LB = log_b_LBV.new_zeros(log_b_LBV.shape[:-1])
    for of_a, of_b in zip(log_a_BV.split(PIECE, dim=-1), log_b_LBV.split(PIECE, dim=-1), strict=True):
        a, b = of_a.exp(), of_b.exp()
        # No logaddexp, which takes three times as long; what both call impossible adds nothing.
        log_middle = ((a + b) / 2).clamp_min(torch.finfo(a.dtype).tiny).log()
        found_LB += (a * (of_a - log_middle) + b * (of_b - log_middle)).sum(dim=-1) / 2
    return found_LB


def plausible(mixed_BV: Tensor, a_BV: Tensor, contrast: Contrast) -> Tensor:
    """Logits with -inf for what A gives less than `plausibility` of its greatest probability; A's best one stays."""
    if contrast.plausibility == 0:
        return mixed_BV
    least_B1 = a_BV.amax(dim=-1, keepdim=True) + math.log(contrast.plausibility)
    return mixed_BV.masked_fill(a_BV < least_B1, -torch.inf)
