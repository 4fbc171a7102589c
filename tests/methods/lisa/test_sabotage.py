"""Three mistakes that would pass unseen without the tests: each makes one of them fail."""

from typing import Any

import pytest
import torch
from tests.methods.lisa import test_surgery
from torch import Tensor

from athlos.methods.lisa import attention
from athlos.methods.lisa.attention import SharedAttention, grouped_scores, probabilities


def masked_first(self: Any, below: Tensor, query: Any, key: Any, *, mask: Any, num_columns: int) -> Tensor:
    """The mask before the aligner."""
    rows, columns = below.shape[2:]
    hidden = torch.ones(rows, columns).triu(columns - rows + 1).bool()
    return PLAIN(self, below.masked_fill(hidden, -torch.inf), query, key, mask=mask, num_columns=num_columns)


def tiled_keys(query: Tensor, key: Tensor, *, scaling: float) -> Tensor:
    """Keys of the groups in turn, where each group's key belongs to neighbouring heads."""
    return attention.wide(query * scaling @ key.repeat(1, query.shape[1] // key.shape[1], 1, 1).transpose(2, 3))


def scaled_by_rank(query: Tensor, key: Tensor, *, scaling: float) -> Tensor:
    """1 / sqrt(r) in place of 1 / sqrt(d)."""
    return grouped_scores(query, key, scaling=query.shape[-1] ** -0.5)


def loops() -> None:
    test_surgery.test_a_shared_layer_equals_the_loops()


def gradients() -> None:
    test_surgery.test_checkpointing_gives_the_same_gradients("llama")


PLAIN = SharedAttention.scores
SABOTAGES: dict[str, tuple[Any, str, Any, Any]] = {
    "mask before align": (SharedAttention, "scores", masked_first, gradients),
    "tiled keys": (attention, "grouped_scores", tiled_keys, loops),
    "scale of the rank": (attention, "grouped_scores", scaled_by_rank, loops),
}


@pytest.mark.parametrize("case", SABOTAGES)
def test_each_sabotage_fails_a_test_that_passes_without_it(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, name, wrong, test = SABOTAGES[case]
    test()
    monkeypatch.setattr(place, name, wrong)
    with pytest.raises(AssertionError):
        test()


def test_a_mask_before_the_aligner_is_no_number_in_the_backward_pass() -> None:
    scores = torch.tensor([[[[0.0, -torch.inf]]]], requires_grad=True)
    mixed = attention.Aligner(1, hidden=2, activation="gelu", residual=False, has_mix=False)(scores)
    probabilities(mixed, torch.tensor([[[[True, False]]]])).sum().backward()
    assert scores.grad is not None
    assert scores.grad.isnan().any()
