"""Does a layer look at the picture, and what do the neurons of one language do for another?

B questions, T positions, H heads.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from athlos.data.records import ChoiceRecord
from athlos.methods.plast.reading import readings
from athlos.models.forward import causal_model, hidden_states
from athlos.models.sites import backbone
from athlos.objectives.next_token import gather_targets, next_token_nll

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH = 16
Questions = dict[str, list[ChoiceRecord]]


def image_attention(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", records: Sequence[ChoiceRecord]
) -> list[float]:
    """By layer: attention of the words to the picture's tokens, mean over heads and words."""
    inner = causal_model(model)
    kernel, was_training = inner.config._attn_implementation, model.training
    model.eval()
    totals, count = np.zeros(len(backbone(inner).layers)), 0
    inner.set_attn_implementation("eager")  # the fast kernels give no weights
    try:
        with torch.inference_mode():
            for reading in readings(inner, tokenizer, records, batch_size=BATCH):
                output = inner.base_model(**reading.inputs(inner), output_attentions=True, use_cache=False)
                totals += [
                    picture_mass(weights, reading.is_text_BT, reading.is_image_BT) for weights in output.attentions
                ]
                count += int(reading.is_text_BT.sum())
    finally:
        inner.set_attn_implementation(kernel)
        model.train(was_training)
    return [float(value) for value in totals / count]


def picture_mass(weights_BHTT: Tensor, is_text_BT: Tensor, is_image_BT: Tensor) -> float:
    """Sum over text queries of the attention, averaged over heads, that goes to the picture."""
    mass_BHT = (weights_BHTT.double() * is_image_BT[:, None, None]).sum(-1)
    return float((mass_BHT.mean(1) * is_text_BT).sum())


@contextmanager
def without_neurons(model: "PreTrainedModel", is_off_LJ: np.ndarray) -> Iterator[None]:
    """Inside the block these neurons of the feed-forward parts give 0."""

    def zero(index: int) -> Callable[..., Any]:
        off_J = torch.from_numpy(is_off_LJ[index])

        def before(module: Any, arguments: tuple[Tensor]) -> tuple[Tensor]:
            return (arguments[0].masked_fill(off_J.to(arguments[0].device), 0.0),)

        return before

    handles = [
        layer.sites["down"].module.register_forward_pre_hook(zero(layer.index))
        for layer in backbone(causal_model(model)).layers
        if is_off_LJ[layer.index].any()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def answer_log_prob(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", records: Sequence[ChoiceRecord]
) -> float:
    """Mean log-probability of a token of the right words, in nats."""
    inner, was_training = causal_model(model), model.training
    model.eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for reading in readings(inner, tokenizer, records, batch_size=BATCH, with_answers=True):
            hidden_ND, targets_N = gather_targets(hidden_states(inner, reading.batch), reading.batch["labels"])
            total -= float(next_token_nll(inner, hidden_ND, targets_N, chunk_tokens=1024))
            count += len(targets_N)
    model.train(was_training)
    return total / count


def mask_study(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    questions: Questions,
    is_specific: np.ndarray,
    *,
    languages: Sequence[str],
    seed: int,
) -> dict[str, float]:
    """`<masked>/<language>` -> fall of the right answer's log-probability, in nats a token; `random` is the control.

    The control masks, in each layer, as many neurons as the languages do on average. `is_specific` is bool [L, X, J].
    """
    plain = {name: answer_log_prob(model, tokenizer, records) for name, records in questions.items()}
    masks = {name: is_specific[:, at] for at, name in enumerate(languages)}
    masks["random"] = random_like(is_specific, seed=seed)
    drops = {}
    for masked, is_off_LJ in masks.items():
        with without_neurons(model, is_off_LJ):
            for name, records in questions.items():
                drops[f"{masked}/{name}"] = plain[name] - answer_log_prob(model, tokenizer, records)
    return drops


def random_like(is_specific_LXJ: np.ndarray, *, seed: int) -> np.ndarray:
    """bool [L, J]: in each layer as many neurons as a language has on average, drawn at random."""
    generator = random.Random(seed)
    num_layers, _, num_neurons = is_specific_LXJ.shape
    off_LJ = np.zeros((num_layers, num_neurons), dtype=bool)
    for layer, count in enumerate(is_specific_LXJ.sum(-1).mean(-1)):
        off_LJ[layer, generator.sample(range(num_neurons), round(float(count)))] = True
    return off_LJ
