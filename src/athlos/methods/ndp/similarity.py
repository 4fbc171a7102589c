"""The paper's premise, measured: how near are a model's own next-token distributions to each kind of target?

Cosine of the softmax with the one-hot label, with the supervised and the answer-only distribution and with their mix,
at every answer position of some training rows. Intervals resample rows, all kinds together.

N positions, V vocabulary.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from athlos.data.batches import collate
from athlos.data.encoding import Rows
from athlos.methods.ndp.config import NdpObjectiveConfig
from athlos.methods.ndp.reading import NdpTables, block_targets, positions_of, window_targets
from athlos.methods.ndp.smoothing import Distributions
from athlos.models.forward import evaluating, hidden_states, project
from athlos.objectives.next_token import gather_targets

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROWS_AT_ONCE = 4
RESAMPLES = 1000
SEED = 12345
"""Of the resampling: the same rows for every run."""


@torch.inference_mode()
def similarities(
    model: "PreTrainedModel", config: NdpObjectiveConfig, tables: NdpTables, *, num_rows: int
) -> dict[str, float]:
    """`ndp/cosine/<kind>`, means over positions of the first `num_rows` rows, and `ndp/cosine_ratio/<kind>`.

    The ratio is that of means, kind over one-hot; `_low` and `_high` are its 95 % interval.
    """
    rows, vocab_size = tables.rows, model.get_output_embeddings().weight.shape[0]
    sides = {
        "sup": replace(config, use_sup=True, use_clm=False),
        "clm": replace(config, use_sup=False, use_clm=True),
        "mix": replace(config, use_sup=True, use_clm=True),
    }
    by_kind: dict[str, list[np.ndarray]] = {}
    items = []
    for first in range(0, min(num_rows, len(rows)), ROWS_AT_ONCE):
        last = min(first + ROWS_AT_ONCE, num_rows, len(rows))
        hidden_ND, labels_N = states_of(model, rows, np.arange(first, last))
        probs_NV = project(model, hidden_ND).softmax(-1).cpu()
        by_kind.setdefault("one_hot", []).append(cosines(probs_NV, one_hot(labels_N.cpu())))
        places = positions_of(tables, first, last)
        window = window_targets(tables, first, last, vocab_size=vocab_size)
        for kind, side in sides.items():
            block = block_targets(places, side, tables, vocab_size=vocab_size, window=window)
            by_kind.setdefault(kind, []).append(cosines(probs_NV, block.target))
        items.append(np.searchsorted(rows.starts_R[first:last], places.places, side="right") - 1 + first)
    return _summary({kind: np.concatenate(parts) for kind, parts in by_kind.items()}, np.concatenate(items))


def states_of(model: "PreTrainedModel", rows: Rows, chosen_R: np.ndarray) -> tuple[Tensor, Tensor]:
    """Last hidden states [N, D] at each answer position of some rows, on the model's device, and the labels [N]."""
    batch = collate(rows, chosen_R, pad_id=0, step_targets=1)
    batch = {name: value.to(next(model.parameters()).device) for name, value in batch.items()}
    with evaluating(model):
        return gather_targets(hidden_states(model, batch), batch["labels"])


def one_hot(labels_N: Tensor) -> Distributions:
    count = len(labels_N)
    return Distributions(
        offsets=np.arange(count + 1), token_ids=labels_N.numpy(), probs=np.ones(count), leak=np.zeros(count)
    )


def cosines(probs_NV: Tensor, target: Distributions) -> np.ndarray:
    """Cosine of each row with its target over the whole vocabulary, float64 [N]."""
    count, vocab_size = probs_NV.shape
    row_of_K = np.repeat(np.arange(count), np.diff(target.offsets))
    picked_K = probs_NV[torch.from_numpy(row_of_K), torch.from_numpy(target.token_ids)].double().numpy()
    excess_K = target.probs - target.leak[row_of_K]
    dot_N = np.bincount(row_of_K, weights=excess_K * picked_K, minlength=count) + target.leak
    unseen_N = vocab_size - np.diff(target.offsets)
    square_N = np.bincount(row_of_K, weights=target.probs**2, minlength=count) + unseen_N * target.leak**2
    norm_N: np.ndarray = probs_NV.double().square().sum(1).sqrt().numpy()
    result: np.ndarray = dot_N / (norm_N * np.sqrt(square_N))
    return result


def _summary(cosines_of: dict[str, np.ndarray], item_N: np.ndarray) -> dict[str, float]:
    metrics = {f"ndp/cosine/{kind}": float(values.mean()) for kind, values in cosines_of.items()}
    sums = {kind: np.bincount(item_N, weights=values) for kind, values in cosines_of.items()}
    generator = np.random.default_rng(SEED)
    draws = generator.integers(0, len(sums["one_hot"]), size=(RESAMPLES, len(sums["one_hot"])))
    plain = sums["one_hot"][draws].sum(1)
    for kind in cosines_of:
        if kind == "one_hot":
            continue
        low, high = np.quantile(sums[kind][draws].sum(1) / plain, [0.025, 0.975])
        name = f"ndp/cosine_ratio/{kind}"
        metrics[name] = metrics[f"ndp/cosine/{kind}"] / metrics["ndp/cosine/one_hot"]
        metrics[f"{name}_low"], metrics[f"{name}_high"] = float(low), float(high)
    return metrics
