"""Losses that a changed model brings itself, such as the balance of a mixture of experts.

A module that has one sets its attribute `added_loss`, a scalar mean, in each forward pass with gradients. The trainer
adds the mean over such modules to any objective's loss, so that no objective needs to know of them.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def added_loss(model: nn.Module) -> Tensor | None:
    """Mean of the added losses of the last forward pass, None where there is none. Taken once: they are cleared.

    Under activation checkpointing the backward pass computes them again; those copies are overwritten by the next
    forward pass and never counted.
    """
    losses = []
    for module in _modules(model):
        values = vars(module)
        loss, values["added_loss"] = values["added_loss"], None
        if isinstance(loss, Tensor):
            losses.append(loss)
    return torch.stack(losses).mean() if losses else None


def _modules(model: nn.Module) -> Iterator[nn.Module]:
    return (module for module in model.modules() if "added_loss" in vars(module))
