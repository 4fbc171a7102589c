"""Layers by how much the translation loss wants to move them: the selector `grad`."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from athlos.data.batches import collate
from athlos.methods.slam.config import SlamConfig
from athlos.models.forward import causal_model, hidden_states
from athlos.models.sites import backbone, chosen_sites
from athlos.objectives.next_token import gather_targets, next_token_nll
from athlos.parts import PartContext

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROWS, CHUNK_TOKENS = 32, 512
"""Training rows whose gradients are averaged; positions whose logits exist at one time."""


def layer_gradients(config: SlamConfig, model: "PreTrainedModel", *, context: PartContext) -> np.ndarray:
    """[L]: mean square of the gradient of the loss, per entry of the FFN matrices that would train.

    Over the first rows of the training split, the denominator of the loss being their targets. Leaves no gradient.
    """
    assert context.data is not None
    assert context.config.data.train_split is not None
    sites = backbone(causal_model(model))
    names = config.ffn_parts or ["up", "down"]
    weights = [[site.weight for site in chosen_sites([layer], names)] for layer in sites.layers]
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    rows = context.data.rows(context.config.data.train_split)
    sums = [torch.zeros(()) for _ in weights]
    try:
        model.requires_grad_(False)
        for group in weights:
            for weight in group:
                weight.requires_grad_(True)
        indices = np.arange(min(ROWS, len(rows)))
        device = sites.embedding.weight.device
        batch = collate(rows, indices, pad_id=context.data.pad_id, step_targets=1)
        batch = {name: value.to(device) for name, value in batch.items()}
        hidden_ND, targets_N = gather_targets(hidden_states(model, batch), batch["labels"])
        loss = next_token_nll(model, hidden_ND, targets_N, chunk_tokens=CHUNK_TOKENS) / len(targets_N)
        flat = [weight for group in weights for weight in group]
        gradients = iter(torch.autograd.grad(loss, flat))
        sums = [sum((next(gradients).double().square().sum() for _ in group), torch.zeros(())) for group in weights]
    finally:
        for parameter, trains in before:
            parameter.requires_grad_(trains)
    sizes = [sum(weight.numel() for weight in group) for group in weights]
    return np.array([float(total) / size for total, size in zip(sums, sizes, strict=True)])
