"""Unigram smoothing against its naive twin, dense targets and label smoothing; its counts; a prepared run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.assembled import ready_to_train
from tests.objectives import reference
from tests.tolerances import EXACT, FLOAT32
from torch.nn import functional

from athlos.config.compose import run_config
from athlos.data.batches import collate
from athlos.data.encoding import Rows
from athlos.errors import ConfigErrors, DataError
from athlos.models.forward import causal_model
from athlos.objectives import unigram_smoothing
from athlos.objectives.next_token import prior_smoothed_nll
from athlos.objectives.unigram_smoothing import unigram_counts

V = 13


def example(num: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits and targets of some positions, and a prior with zeros, in float64."""
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(num, V, generator=generator, dtype=torch.float64)
    prior = torch.randint(0, 3, (V,), generator=generator).double()
    return logits, torch.randint(0, V, (num,), generator=generator), prior / prior.sum()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_equals_the_naive_twin_and_dense_targets(smoothing: float) -> None:
    logits, targets, prior = example()
    assert (prior == 0).any()
    mine, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    total = prior_smoothed_nll(mine, targets, smoothing=smoothing, prior_V=prior)
    twin, _ = reference.next_token_nll(
        [[*logits.tolist(), [0.0] * V]], [[-100, *targets.tolist()]], label_smoothing=smoothing, prior=prior.tolist()
    )
    assert total.item() == pytest.approx(twin, rel=EXACT)
    dense = (1 - smoothing) * functional.one_hot(targets, V).double() + smoothing * prior
    plain = functional.cross_entropy(theirs, dense, reduction="sum")
    assert total.item() == pytest.approx(plain.item(), rel=EXACT)
    (3 * total).backward()
    (3 * plain).backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=EXACT)


def test_a_flat_prior_is_label_smoothing_and_no_positions_give_zero() -> None:
    logits, targets, prior = example()
    flat = torch.full((V,), 1 / V, dtype=torch.float64)
    smooth = functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=0.1)
    assert prior_smoothed_nll(logits, targets, smoothing=0.1, prior_V=flat).item() == pytest.approx(
        smooth.item(), rel=EXACT
    )
    assert prior_smoothed_nll(logits[:0], targets[:0], smoothing=0.1, prior_V=prior).item() == 0


def rows_of(*rows: tuple[list[int], list[bool]]) -> Rows:
    lengths = [len(tokens) for tokens, _ in rows]
    ends = np.cumsum(lengths)
    return Rows(
        tokens_T=np.array([token for tokens, _ in rows for token in tokens], dtype=np.int32),
        is_target_T=np.array([one for _, targets in rows for one in targets]),
        starts_R=ends - lengths,
        ends_R=ends,
        num_targets_R=np.array([sum(targets[1:]) for _, targets in rows]),
    )


ROWS = (
    ([1, 2, 3, 3], [False, False, True, True]),
    ([4, 2], [True, True]),  # running text: its first token is predicted from nothing
    ([5], [True]),
    ([6, 7, 8], [False, False, False]),
    ([1, 3, 9, 3, 0], [False, True, False, True, True]),  # two answers
)


@pytest.mark.parametrize("block_rows", [1, 2, 100])
def test_counts_are_those_of_the_targets(block_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unigram_smoothing, "BLOCK_ROWS", block_rows)
    counts = unigram_counts(rows_of(*ROWS), vocab_size=V)
    assert counts.tolist() == [1, 0, 1, 4, *[0] * 9]
    assert (counts / counts.sum()).tolist() == reference.unigrams(ROWS, vocab_size=V)
    kept = rows_of(*ROWS).subset(np.array([4, 1]))
    assert unigram_counts(kept, vocab_size=V).tolist() == [1, 0, 1, 2, *[0] * 9]


def test_a_token_beyond_the_vocabulary() -> None:
    with pytest.raises(DataError, match="token 3 is beyond the model's vocabulary of 3 tokens"):
        unigram_counts(rows_of(*ROWS), vocab_size=3)


def module_of(tmp_path: Path, *more: str) -> tuple[Any, Any]:
    config = run_config(
        [
            "experiment=ndp/lab",
            "construct=none",
            "method.dedup=none",
            "data.num_train=12",
            f"cache_dir={tmp_path}",
            "model.architecture.hidden_size=16",
            "model.architecture.intermediate_size=24",
            *more,
        ]
    )
    assembly = ready_to_train(config)
    return assembly.module, assembly


def test_a_prepared_objective_counts_once_and_its_loss_is_the_twins(tmp_path: Path) -> None:
    module, assembly = module_of(tmp_path, "objective=unigram_smoothing", "objective.chunk_tokens=7")
    rows = assembly.context.data.rows("train")
    model = causal_model(module.model)
    vocab_size = model.get_output_embeddings().weight.shape[0]
    pairs = [rows.row(index) for index in range(len(rows))]
    prior = reference.unigrams([(ids, labels != -100) for ids, labels in pairs], vocab_size=vocab_size)
    batch = collate(rows, np.arange(3), pad_id=0, step_targets=1)
    loss = module.objective.loss(module.model, batch)
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    twin, count = reference.next_token_nll(logits.tolist(), batch["labels"].tolist(), label_smoothing=0.1, prior=prior)
    assert loss.count == count
    assert loss.total.item() == pytest.approx(twin, rel=FLOAT32)
    nothing = module.objective.loss(module.model, batch | {"labels": torch.full_like(batch["labels"], -100)})
    assert (nothing.total.item(), nothing.count) == (0.0, 0)
    metrics = {name: value for report in assembly.reports for name, value in report.metrics.items()}
    assert metrics["diag/unigram_tokens"] == sum(share > 0 for share in prior)
    assert 0 < metrics["diag/unigram_entropy"] < np.log(vocab_size)
    _, again = module_of(tmp_path, "objective=unigram_smoothing", "objective.smoothing=0.3")
    assert [product.reused for product in again.context.stages.history if product.name == "unigram_counts"] == [True]


def test_no_share_is_the_next_token(tmp_path: Path) -> None:
    module, assembly = module_of(tmp_path, "objective=unigram_smoothing", "objective.smoothing=0")
    batch = collate(assembly.context.data.rows("train"), np.arange(3), pad_id=0, step_targets=1)
    plain = module._next_token.loss(module.model, batch).total.item()
    assert module.objective.loss(module.model, batch).total.item() == pytest.approx(plain, rel=FLOAT32)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objective.smoothing=1", r"objective\.smoothing: got 1\.0, expected a number in \[0, 1\)"),
        ("objective.smoothing=-0.1", r"objective\.smoothing: got -0\.1"),
        ("objective.chunk_tokens=0", r"objective\.chunk_tokens: got 0, expected an integer >= 1"),
    ],
)
def test_switches_that_make_no_sense(override: str, message: str) -> None:
    with pytest.raises(ConfigErrors, match=message):
        run_config(["objective=unigram_smoothing", override])
