"""kNN targets: what follows the training positions whose hidden states are nearest, mixed with the label. A baseline.

A kNN language model looks its datastore up when it is asked (Khandelwal et al., arXiv 1911.00172); here the lookup
happens once, before training, each position leaving itself out, and its distribution is the target.

N counted positions of the training rows, K neighbours, Q queries of a block, D width.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from athlos.config.compose import plain
from athlos.config.part_report import PartReport
from athlos.data.batches import Unit
from athlos.data.encoding import Rows, rows_hash
from athlos.errors import DataError
from athlos.methods.ndp.config import NeighbourObjectiveConfig
from athlos.methods.ndp.loss import ndp_nll
from athlos.methods.ndp.reading import TargetStore, TargetWriter
from athlos.methods.ndp.similarity import one_hot, states_of
from athlos.methods.ndp.smoothing import Distributions, Floats, Ints
from athlos.methods.ndp.targets import entropies, mixed
from athlos.models.forward import causal_model, hidden_states
from athlos.objectives.distillation import load_teacher
from athlos.objectives.next_token import gather_targets
from athlos.parts import Loss, PartContext
from athlos.stages import Stage

NEIGHBOURS_VERSION = 1
"""Raised when the same rows, model and switches give other targets."""
ROWS_AT_ONCE = 32
BLOCK = 256
"""Positions that are compared with all others at a time."""


class NeighbourObjective:
    """Mean over answer positions of the cross-entropy with share * label + (1 - share) * neighbours' next tokens."""

    unit = Unit.tokens

    def __init__(self, config: NeighbourObjectiveConfig) -> None:
        self.config = config
        self.targets: TargetStore | None = None

    def prepare(self, model: "PreTrainedModel", *, context: PartContext) -> PartReport:
        """Find the neighbours of all training positions and keep the targets as a stage product."""
        assert context.data is not None
        split = context.config.data.train_split
        assert split is not None
        rows = context.data.rows(split)
        teacher, fingerprint, settings = context.base_model, context.model_fingerprint, {}
        if self.config.teacher == "base":
            settings = {"surgery": plain(context.config)["surgery"]}  # one in place changes the model as loaded
        else:
            loaded = load_teacher(self.config.teacher, context=context)
            teacher, fingerprint = loaded.model, loaded.fingerprint
        vocab_size = len(causal_model(model).get_output_embeddings().weight)
        values = {name: value for name, value in asdict(self.config).items() if name not in _NOT_IN_TARGETS}
        stage = Stage(
            name="knn_targets",
            version=NEIGHBOURS_VERSION,
            config={**values, **settings, "vocab_size": vocab_size},
            inputs={"rows": rows_hash(rows), "model": fingerprint},
            build=lambda folder: write_targets(folder, rows, self.config, model=teacher, vocab_size=vocab_size),
        )
        self.targets = TargetStore(context.stages.get(stage).path)
        seen = self.targets.seen
        return PartReport(
            summary=f"kNN targets: {seen['diag/target_positions']:.0f} positions, the neighbours give the label "
            f"{100 * seen['ndp/neighbours_label_share']:.1f} % of their mass",
            metrics=seen,
        )

    def loss(self, model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Loss:
        hidden_ND, labels_N = gather_targets(hidden_states(model, batch), batch["labels"])
        assert self.targets is not None
        targets, _ = self.targets.of_batch(batch)
        total = ndp_nll(model, hidden_ND, targets, chunk_tokens=self.config.chunk_tokens)
        return Loss(total=total, count=len(labels_N))


_NOT_IN_TARGETS = ("_target_", "chunk_tokens", "teacher")
"""Switches that do not decide the targets; the teacher does by its fingerprint."""


def write_targets(
    folder: Path, rows: Rows, config: NeighbourObjectiveConfig, *, model: PreTrainedModel, vocab_size: int
) -> None:
    """Targets of all rows as a folder that `TargetStore` reads. The hidden states of all positions are in memory.

    Raises `DataError` where there are not more positions than neighbours.
    """
    writer = TargetWriter(folder, rows)
    states_ND, labels_N, places_N = answer_states(model, rows)
    if len(labels_N) <= config.num_neighbours:
        raise DataError(
            f"objective.num_neighbours: got {config.num_neighbours}, but the training rows have {len(labels_N)} "
            "positions, and none is a neighbour of itself"
        )
    distances_NK, indices_NK = nearest(states_ND, num=config.num_neighbours)
    distributions = neighbour_distributions(distances_NK, labels_N[indices_NK], temperature=config.temperature)
    target = mixed(
        one_hot(torch.from_numpy(labels_N)), distributions, sup_share=config.label_share, vocab_size=vocab_size
    )
    entropy = entropies(target, vocab_size=vocab_size)
    writer.add(places_N, target, weights=np.ones(len(labels_N)), entropy=entropy)
    is_label = distributions.token_ids == np.repeat(labels_N, np.diff(distributions.offsets))
    writer.finish(
        {
            "diag/target_entropy": float(entropy.mean()),
            "diag/multi_candidate_share": float((np.diff(target.offsets) > 1).mean()),
            "diag/target_positions": float(len(labels_N)),
            "ndp/neighbours_label_share": float(distributions.probs[is_label].sum()) / len(labels_N),
        }
    )


@torch.inference_mode()
def answer_states(model: PreTrainedModel, rows: Rows) -> tuple[Tensor, Ints, Ints]:
    """Last hidden states of all counted positions, float32 [N, D], their labels and those labels' places, both [N]."""
    states, labels, places = [], [], []
    for first in range(0, len(rows), ROWS_AT_ONCE):
        chosen_R = np.arange(first, min(first + ROWS_AT_ONCE, len(rows)))
        hidden_ND, labels_N = states_of(model, rows, chosen_R)
        states.append(hidden_ND.float())
        labels.append(labels_N.cpu().numpy())
        places += [int(rows.starts_R[row]) + np.flatnonzero(rows.row(row)[1] != -100) for row in chosen_R.tolist()]
    return torch.cat(states), np.concatenate(labels), np.concatenate(places)


def nearest(states_ND: Tensor, *, num: int) -> tuple[Floats, Ints]:
    """Squared distances and indices of each row's `num` nearest other rows, both [N, num], nearest first.

    Exact: every row is compared with every other one, so time grows with N^2. Of rows at one distance any may be left
    out. Needs N > `num`.
    """
    states_ND = states_ND - states_ND.mean(0)  # a common offset would cost digits below
    squares_N = states_ND.square().sum(-1)
    distances, indices = [], []
    for start in range(0, len(states_ND), BLOCK):
        queries_QD = states_ND[start : start + BLOCK]
        # Less the query's own square, which does not change the order.
        compared_QN = squares_N - 2 * queries_QD @ states_ND.T
        compared_QN[:, start:].fill_diagonal_(torch.inf)
        chosen_QK = compared_QN.topk(num, largest=False).indices
        # Once more as a difference: equal states are at distance 0, not at a rounding error.
        exact_QK = torch.stack([(queries_QD - states_ND[column]).square().sum(-1) for column in chosen_QK.T], 1)
        exact_QK, order = exact_QK.sort(stable=True)
        distances.append(exact_QK)
        indices.append(chosen_QK.gather(1, order))
    return torch.cat(distances).double().cpu().numpy(), torch.cat(indices).cpu().numpy()


def neighbour_distributions(distances_NK: Floats, tokens_NK: Ints, *, temperature: float) -> Distributions:
    """p(token) as the sum over neighbours with that token of exp(-distance / (T * mean distance)), normalised.

    The mean is over all positions and neighbours; where it is 0, all neighbours weigh alike.
    """
    scale = distances_NK.mean()
    scores_NK = (distances_NK.min(1, keepdims=True) - distances_NK) / (temperature * scale if scale > 0 else 1.0)
    weights_NK = np.exp(scores_NK)
    weights_NK /= weights_NK.sum(1, keepdims=True)
    num, width = len(tokens_NK), int(tokens_NK.max()) + 1
    keys = (np.arange(num)[:, None] * width + tokens_NK).ravel()
    union, place = np.unique(keys, return_inverse=True)
    return Distributions(
        offsets=np.concatenate([[0], np.cumsum(np.bincount(union // width, minlength=num))]).astype(np.int64),
        token_ids=union % width,
        probs=np.bincount(place, weights=weights_NK.ravel()).astype(np.float64),
        leak=np.zeros(num),
    )
