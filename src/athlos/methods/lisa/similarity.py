"""How alike the attention of neighbouring layers is, measured once on a model and text: a stage product.

L layers, H heads. Entry l compares layer l with layer l - 1; entry 0 is undefined (NaN). Averages are over valid query
rows with two keys or more, and over heads.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from athlos.data.batches import collate
from athlos.errors import ConfigError
from athlos.methods.lisa.attention import ARGUMENT, LayerScores, hand_on
from athlos.models.sites import backbone
from athlos.stages import Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from athlos.methods.lisa.config import LisaSurgeryConfig
    from athlos.parts import PartContext

SIMILARITY_VERSION = 1
TINY = 1e-12


@dataclass(kw_only=True)
class Similarity:
    """Sums over calibration rows, turned into averages."""

    cosine_LHH: np.ndarray
    """[l, h, h']: cosine of the attention rows of head h of layer l and head h' of layer l - 1."""
    divergence_LHH: np.ndarray
    """Jensen-Shannon divergence of the same, in bits, in [0, 1]."""
    gram_LHH: np.ndarray
    """Mean of S_{l-1} S_{l-1}^T over unmasked entries."""
    cross_LHH: np.ndarray
    """Mean of S_l S_{l-1}^T over unmasked entries."""

    def matched(self, layer: int) -> np.ndarray:
        """The head of layer l - 1 for each head of layer l, one to one, of greatest total cosine: int [H]."""
        rows, columns = linear_sum_assignment(self.cosine_LHH[layer], maximize=True)
        matches: np.ndarray = columns[np.argsort(rows)]
        return matches

    def least_squares(self, layer: int) -> np.ndarray:
        """The M [H, H] that minimises ||S_l - M S_{l-1}||^2 over unmasked entries."""
        solution: np.ndarray = np.linalg.lstsq(self.gram_LHH[layer].T, self.cross_LHH[layer].T, rcond=None)[0]
        return solution.T

    def adjacent(self, *, with_matching: bool) -> np.ndarray:
        """1 - JSD of each layer with the one below, mean over heads: [L], entry 0 NaN."""
        values = np.full(len(self.cosine_LHH), np.nan)
        for layer in range(1, len(values)):
            heads = np.arange(self.cosine_LHH.shape[1])
            partners = self.matched(layer) if with_matching else heads
            values[layer] = 1 - self.divergence_LHH[layer][heads, partners].mean()
        return values

    def save(self, path: Path) -> None:
        np.savez(path, **vars(self))

    @staticmethod
    def load(path: Path) -> "Similarity":
        with np.load(path, allow_pickle=False) as stored:
            return Similarity(**{name: stored[name] for name in stored.files})


def similarity(model: "PreTrainedModel", *, context: "PartContext", config: "LisaSurgeryConfig") -> Similarity:
    """Measure on the front of the training split, once for a model, a text and a number of tokens."""
    num_tokens = config.calibration.tokens
    data, split = context.data, context.config.data.train_split
    if data is None or split is None:
        raise ConfigError("surgery.calibration: similarity is measured on the training split, and this run has none")

    def build(folder: Path) -> None:
        rows, batches, taken = data.rows(split), [], 0
        for index in range(len(rows)):
            if taken >= num_tokens:
                break
            batches.append(collate(rows, np.array([index]), pad_id=data.pad_id, step_targets=1))
            taken += int(rows.ends_R[index] - rows.starts_R[index])
        measured(model, batches).save(folder / "similarity.npz")

    stage = Stage(
        name="lisa_similarity",
        version=SIMILARITY_VERSION,
        config={
            "tokens": num_tokens,
            "max_length": context.config.train.max_length,
            "batching": context.config.train.batching.value,
            "prompt": context.config.prompt_style,
            **({"shuffle_heads": config.shuffle_heads} if config.shuffle_heads else {}),
        },
        inputs={"model": context.model_fingerprint, "data": data.source.fingerprint(split)},
        build=build,
    )
    return Similarity.load(context.stages.get(stage).path / "similarity.npz")


def handing_on(model: "PreTrainedModel") -> "PreTrainedModel":
    """A model over the same parameters whose layers all hand their scores on."""
    copied = with_parameters_of(model)
    for layer in backbone(copied).layers:
        hand_on(layer.attention)
    return copied


@torch.no_grad()
def measured(model: "PreTrainedModel", batches: Iterable[dict[str, Tensor]]) -> Similarity:
    """Averages over batches of input_ids, attention_mask, position_ids [B, T]."""
    sites, count, entries = backbone(handing_on(model)), 0.0, 0.0
    sums: dict[tuple[str, int], Tensor] = {}
    for batch in batches:
        layer_scores = LayerScores(is_kept=True, probabilities={})
        sites.decoder(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            position_ids=batch["position_ids"],
            use_cache=False,
            **{ARGUMENT: layer_scores},
        )
        valid = batch["attention_mask"].bool() & (batch["position_ids"] > 0)
        seen = valid[:, :, None] & batch["attention_mask"].bool()[:, None]
        seen &= batch["position_ids"][:, :, None] >= batch["position_ids"][:, None]
        assert layer_scores.probabilities is not None
        for layer in range(1, len(sites.layers)):
            above, below = layer_scores.probabilities[layer], layer_scores.probabilities[layer - 1]
            found_here = _compared(above, below, valid) | _products(
                layer_scores.by_layer[layer], layer_scores.by_layer[layer - 1], seen
            )
            for name, value in found_here.items():
                sums[name, layer] = sums.get((name, layer), 0.0) + value
        count += float(valid.sum())
        entries += float(seen.sum())
    shape = (len(sites.layers), sites.num_heads, sites.num_heads)
    averages: dict[str, Any] = {}
    for name, total in (
        ("cosine_LHH", count),
        ("divergence_LHH", count),
        ("gram_LHH", entries),
        ("cross_LHH", entries),
    ):
        averages[name] = np.full(shape, np.nan)
        for layer in range(1, shape[0]):
            averages[name][layer] = (sums[name, layer] / total).numpy()
    return Similarity(**averages)


def _compared(above_BHTN: Tensor, below_BHTN: Tensor, valid_BT: Tensor) -> dict[str, Tensor]:
    """Sums over valid rows of cosine and Jensen-Shannon divergence for all pairs of heads, float64 [H, H]."""
    above, below = (weights.double().transpose(1, 2)[valid_BT] for weights in (above_BHTN, below_BHTN))  # [R, H, N]
    unit_above, unit_below = (rows / rows.norm(dim=-1, keepdim=True).clamp_min(TINY) for rows in (above, below))
    cosine = torch.einsum("rhn,rgn->hg", unit_above, unit_below)
    divergence = torch.zeros_like(cosine)
    entropy_below = _entropy(below).sum(0)
    for head in range(above.shape[1]):
        middle = (above[:, head, None] + below) / 2
        divergence[head] = _entropy(middle).sum(0) - (_entropy(above[:, head]).sum() + entropy_below) / 2
    return {"cosine_LHH": cosine, "divergence_LHH": divergence / np.log(2.0)}


def _entropy(weights: Tensor) -> Tensor:
    entropy: Tensor = -torch.special.xlogy(weights, weights).sum(-1)
    return entropy


def _products(above_BHTN: Tensor, below_BHTN: Tensor, seen_BTN: Tensor) -> dict[str, Tensor]:
    above, below = (scores.double().permute(0, 2, 3, 1)[seen_BTN] for scores in (above_BHTN, below_BHTN))  # [E, H]
    return {"gram_LHH": below.T @ below, "cross_LHH": above.T @ below}


def with_parameters_of(model: "PreTrainedModel") -> "PreTrainedModel":
    """A copy whose modules are its own and whose parameters are the model's: a teacher at no cost in memory."""
    memo: dict[int, Any] = {id(parameter): parameter for parameter in model.parameters()}
    return copy.deepcopy(model, memo)
