"""The forward pass in two halves, hidden states and logits, so that losses need not hold all logits at once.

B batch, T positions, N chosen positions, D width, V vocabulary.
"""

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from athlos.config.schema import HardwareConfig
from athlos.errors import ModelError
from athlos.models.vector_math import settle_vector_math
from athlos.models.vision_language import decoder_inputs, has_pictures

settle_vector_math()  # here, for whatever runs a model imports this module

PROBE_TOKENS = 4
"""Tokens of the row on which logits are compared."""
SAME_LOGITS = 0.02
"""Largest difference of two ways to the same logits, over the greatest of them: a cap in 16 bits loses a percent."""


def causal_model(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside a PEFT wrapper, or the model itself."""
    if isinstance(model, PreTrainedModel):
        return model
    from peft import PeftModel  # a tenth of the start of a run, which only low-rank updates need

    assert isinstance(model, PeftModel)
    inner = model.get_base_model()
    assert isinstance(inner, PreTrainedModel)
    return inner


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, the old mode behind."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def evaluation_device(hardware: HardwareConfig) -> torch.device:
    """Where models are evaluated: this process's GPU where the run uses GPUs, else the CPU."""
    if hardware.accelerator == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def evaluation_precision(hardware: HardwareConfig) -> AbstractContextManager[Any]:
    """The number format of the forward passes outside the trainer: the same as inside it."""
    mixed = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(hardware.precision)
    if mixed is None:
        return nullcontext()
    return torch.autocast(evaluation_device(hardware).type, dtype=mixed)


def wide(values: Tensor) -> Tensor:
    """Float32, where the values are not float64."""
    return values if values.dtype is torch.float64 else values.float()


def hidden_states(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Last hidden states after the final norm, [B, T, D]. No cache is kept. A batch may carry a picture a row."""
    inner = causal_model(model)
    words = (
        {"inputs_embeds": decoder_inputs(inner, batch)} if has_pictures(batch) else {"input_ids": batch["input_ids"]}
    )
    if takes_positions(type(inner.base_model)):  # type: ignore[arg-type]  # a class can be hashed
        words["position_ids"] = batch["position_ids"]
    mask = batch["attention_mask"] if has_pictures(batch) else causal_mask(batch["attention_mask"])
    output = inner.base_model(**words, attention_mask=mask, use_cache=False)
    hidden_BTD: Tensor = output.last_hidden_state
    return hidden_BTD


def causal_mask(mask: Tensor | Mapping[str, Tensor]) -> Tensor | Mapping[str, Tensor]:
    """A mask [B, T] that says nothing where padding stands on the right, which no token of a causal decoder sees.

    Told of padding, attention computes all pairs; without, half of them: a sixth of a step at 160 tokens.
    """
    if not isinstance(mask, Tensor) or mask.dim() != 2 or bool((mask[:, 1:] > mask[:, :-1]).any()):
        return mask
    return torch.ones_like(mask)


@cache
def takes_positions(decoder: type[nn.Module]) -> bool:
    """Whether a decoder is told positions; Mamba has none, and Bloom reads them off the mask."""
    return "position_ids" in inspect.signature(decoder.forward).parameters


def project(model: nn.Module, hidden_ND: Tensor) -> Tensor:
    """Logits [N, V] in float32; of a model in float64 in that."""
    inner = causal_model(model)
    return head_rule(inner.config.get_text_config())(wide(inner.get_output_embeddings()(hidden_ND)))


def head_rule(config: PreTrainedConfig) -> Callable[[Tensor], Tensor]:
    """What a family does to the products of the output matrix: Granite and Cohere scale them, Gemma 2 caps them."""
    values = config.to_dict()
    cap, scale = values.get("final_logit_softcapping"), 1.0
    if config.model_type.startswith("granite"):
        scale = 1 / values["logits_scaling"]
    elif config.model_type.startswith("cohere"):
        scale = values["logit_scale"]

    def logits(products_NV: Tensor) -> Tensor:
        scaled_NV = products_NV if scale == 1.0 else scale * products_NV
        return scaled_NV if cap is None else cap * (scaled_NV / cap).tanh()

    return logits


@torch.no_grad()
def check_logits(model: PreTrainedModel) -> None:
    """Raises `ModelError` where the logits of a model are not those that `project` gives, on which all losses rest."""
    ids_BT = torch.arange(PROBE_TOKENS)[None]
    row = {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT), "position_ids": ids_BT}
    own_TV = model(input_ids=ids_BT, use_cache=False).logits[0].float()
    difference = (project(model, hidden_states(model, row)[0]) - own_TV).abs().max()
    if not difference <= SAME_LOGITS * own_TV.abs().max():
        raise ModelError(
            f"model.source: the logits of a {model.config.model_type} model are not its output matrix over its last "
            f"hidden states (they differ by {difference:.2g}), so no loss here would be its own"
        )
