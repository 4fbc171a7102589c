"""Heads for later tokens against their naive twin in float64, and that they train, rest and are told apart."""

from typing import Any

import pytest
import torch
from tests.objectives import reference
from tests.tolerances import EXACT
from torch import nn

from athlos.config.compose import run_config
from athlos.errors import ConfigErrors
from athlos.models.forward import hidden_states
from athlos.objectives import next_token
from athlos.objectives.config import MultiTokenConfig
from athlos.objectives.multi_token import MultiTokenObjective, future_targets
from athlos.parts import PartContext
from athlos.training.module import build_optimizer

WEIGHT = 0.7


def prepared(base: Any, *, num_future: int = 2, chunk_tokens: int = 1000, is_stirred: bool = True) -> Any:
    objective = MultiTokenObjective(
        MultiTokenConfig(_target_="", num_future=num_future, weight=WEIGHT, chunk_tokens=chunk_tokens)
    )
    unused: Any = None
    report = objective.prepare(base, context=PartContext(config=unused, stages=unused))
    assert report.metrics == {"multi_token/head_params": num_future * 16 * 16}
    assert objective.heads_JDD is not None
    assert not objective.heads_JDD.any()
    if is_stirred:
        noise = torch.randn(num_future, 16, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        objective.heads_JDD = nn.Parameter(0.3 * noise)
    return objective


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits in float64, where a run rounds them to float32."""
    monkeypatch.setattr(next_token, "project", lambda model, hidden: model.get_output_embeddings()(hidden))


@pytest.fixture
def two_answers(batch: Any) -> Any:
    """Rows of unequal length, one without targets, one whose answer is interrupted."""
    labels = batch["labels"].clone()
    labels[0, 6] = -100
    return batch | {"labels": labels}


@pytest.mark.parametrize(("num_future", "chunk_tokens"), [(1, 1000), (2, 3), (7, 1), (12, 1000)])
def test_equals_the_naive_twin(model: Any, two_answers: Any, exact: None, num_future: int, chunk_tokens: int) -> None:
    objective = prepared(model, num_future=num_future, chunk_tokens=chunk_tokens)
    loss = objective.loss(model, two_answers)
    twin, count = reference.multi_token_nll(
        hidden_states(model, two_answers).tolist(),
        objective.heads_JDD.tolist(),
        model.get_output_embeddings().weight.tolist(),
        two_answers["labels"].tolist(),
        weight=WEIGHT,
    )
    assert loss.count == count
    assert loss.total.item() == pytest.approx(twin, rel=EXACT)
    later = sum(loss.logs[f"ahead_{place}"].item() for place in range(1, num_future + 1))
    assert (loss.logs["ce"].item() + WEIGHT * later) * count == pytest.approx(twin, rel=EXACT)


@pytest.mark.parametrize("is_frozen", [False, True])
def test_the_gradient_is_that_of_dense_logits(model: Any, two_answers: Any, exact: None, is_frozen: bool) -> None:
    """Also where the output matrix is frozen, whose gradient is taken with the loss."""
    objective = prepared(model)
    output = model.get_output_embeddings().weight.requires_grad_(not is_frozen)
    trains = [objective.heads_JDD, *(one for one in model.parameters() if one.requires_grad)]
    mine = torch.autograd.grad(objective.loss(model, two_answers).total, trains)
    hidden, labels = hidden_states(model, two_answers), two_answers["labels"]
    total = torch.zeros((), dtype=torch.float64)
    for row in range(4):
        for at in range(8):
            for place, head in enumerate((torch.zeros(16, 16).double(), *objective.heads_JDD)):
                span = labels[row, at + 1 : at + 2 + place]
                if len(span) == place + 1 and (span != -100).all():
                    log_probs = (output @ (hidden[row, at] + head @ hidden[row, at])).log_softmax(-1)
                    total = total - (WEIGHT if place else 1.0) * log_probs[span[-1]]
    for ours, plain in zip(mine, torch.autograd.grad(total, trains), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-10)


def test_untrained_heads_score_as_the_next_token(model: Any, batch: Any) -> None:
    objective = prepared(model, num_future=1, is_stirred=False)
    loss = objective.loss(model, batch)
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()
    [(goes_on, later)] = future_targets(batch["labels"], num_future=1)
    counted = logits[:, :-1][batch["labels"][:, 1:] != -100]
    plain = nn.functional.cross_entropy(counted[goes_on], later, reduction="sum")
    assert loss.logs["ahead_1"].item() * loss.count == pytest.approx(plain.item(), rel=1e-5)


def test_no_target_lies_in_another_answer_or_row() -> None:
    labels = torch.tensor([[-100, 1, 2, -100, 3, 4, 5], [6, 7, -100, -100, -100, -100, -100]])
    found = [(goes_on.int().tolist(), later.tolist()) for goes_on, later in future_targets(labels, num_future=3)]
    # Counted: 1, 2, 3, 4, 5 of the first row, and 7; a row's first token is predicted from nothing.
    assert found == [([1, 0, 1, 1, 0, 0], [2, 4, 5]), ([0, 0, 1, 0, 0, 0], [5]), ([0, 0, 0, 0, 0, 0], [])]
    for goes_on, later in future_targets(labels[:, :1], num_future=2):
        assert (len(goes_on), len(later)) == (0, 0)


def test_rows_add_up_and_padding_adds_nothing(model: Any, two_answers: Any, exact: None) -> None:
    objective = prepared(model)
    whole = objective.loss(model, two_answers)
    rows = [objective.loss(model, {name: value[[row]] for name, value in two_answers.items()}) for row in (3, 1, 2, 0)]
    assert sum(one.count for one in rows) == whole.count
    assert sum(one.total.item() for one in rows) == pytest.approx(whole.total.item(), rel=1e-9)
    padded = {
        name: nn.functional.pad(value, (0, 5), value=-100 if name == "labels" else 0)
        for name, value in two_answers.items()
    }
    padded["position_ids"] = torch.arange(14).expand(4, 14)
    assert objective.loss(model, padded).total.item() == pytest.approx(whole.total.item(), rel=1e-9)


def test_a_batch_without_targets_gives_zero_and_zero_gradients(model: Any, batch: Any) -> None:
    objective = prepared(model)
    loss = objective.loss(model, batch | {"labels": torch.full_like(batch["labels"], -100)})
    assert (loss.total.item(), loss.count) == (0.0, 0)
    loss.total.backward()
    assert objective.heads_JDD.grad is not None  # several processes wait for the gradient of every parameter
    assert not objective.heads_JDD.grad.any()


def test_a_step_moves_the_heads_and_what_the_selection_chose(model: Any, batch: Any) -> None:
    objective = prepared(model, is_stirred=False)
    model.requires_grad_(False)
    chosen = model.model.layers[1].mlp.down_proj.weight.requires_grad_()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = build_optimizer(model, run_config([]).train, beside=objective.parameters())
    objective.loss(model, batch).total.backward()
    optimizer.step()
    assert all(head.any() for head in objective.heads_JDD)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) != (value.data_ptr() == chosen.data_ptr()), name


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objective.num_future=0", r"objective\.num_future: got 0, expected an integer >= 1"),
        ("train.max_length=4", r"objective\.num_future: got 3, expected at most 2: a row of train\.max_length=4"),
        ("objective.weight=0", r"objective\.weight: got 0\.0, expected a number > 0"),
        ("objective.weight=inf", r"objective\.weight: got inf"),
        ("objective.chunk_tokens=0", r"objective\.chunk_tokens: got 0, expected an integer >= 1"),
    ],
)
def test_switches_that_make_no_sense(override: str, message: str) -> None:
    with pytest.raises(ConfigErrors, match=message):
        run_config(["objective=multi_token", override])
