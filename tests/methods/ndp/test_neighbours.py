"""kNN targets against their naive twin, in blocks and with equal states; a prepared run; what makes no sense."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.assembled import ready_to_train
from tests.methods.lisa.test_surgery import model_of
from tests.methods.ndp import reference_targets as reference
from tests.tolerances import EXACT, FLOAT32

from athlos.config.compose import run_config
from athlos.data.batches import collate
from athlos.errors import ConfigErrors, DataError
from athlos.methods.ndp import neighbours
from athlos.methods.ndp.neighbours import answer_states, nearest, neighbour_distributions
from athlos.methods.ndp.similarity import one_hot
from athlos.methods.ndp.targets import mixed
from athlos.models.tokenizers import byte_tokenizer

V = 9


def example(num: int = 23, width: int = 5) -> tuple[torch.Tensor, np.ndarray]:
    """States far from the origin, in float64, and labels."""
    generator = torch.Generator().manual_seed(0)
    states = 3 + torch.randn(num, width, generator=generator, dtype=torch.float64)
    return states, torch.randint(0, V, (num,), generator=generator).numpy()


@pytest.mark.parametrize("block", [4, 7, 1000])
@pytest.mark.parametrize(("num", "temperature", "share"), [(1, 1.0, 0.8), (5, 0.3, 0.0), (22, 2.0, 0.5), (3, 1.0, 1.0)])
def test_equals_the_naive_twin(
    block: int, num: int, temperature: float, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", block)
    states, labels = example()
    distances, indices = nearest(states, num=num)
    assert not (indices == np.arange(23)[:, None]).any()
    assert (np.diff(distances, axis=1) >= 0).all()
    found = neighbour_distributions(distances, labels[indices], temperature=temperature)
    target = mixed(one_hot(torch.from_numpy(labels)), found, sup_share=share, vocab_size=V)
    dense = np.zeros((23, V))
    dense[np.repeat(np.arange(23), np.diff(target.offsets)), target.token_ids] = target.probs
    twin = reference.neighbour_targets(
        states.tolist(), labels.tolist(), num=num, temperature=temperature, share=share, vocab_size=V
    )
    np.testing.assert_allclose(dense, twin, rtol=0, atol=EXACT)
    np.testing.assert_allclose(dense.sum(1), 1, rtol=0, atol=EXACT)


def test_equal_states_are_at_distance_zero_and_weigh_alike() -> None:
    states = torch.full((4, 6), 1000.1)
    states += torch.tensor([0.3, 0.1, 0.7, 0.2, 0.5, 0.9])
    distances, indices = nearest(states, num=3)
    assert not distances.any()
    assert [sorted(row) for row in indices.tolist()] == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    found = neighbour_distributions(distances, np.array([2, 2, 5, 7])[indices], temperature=1.0)
    assert found.probs[: found.offsets[1]] == pytest.approx([1 / 3] * 3)  # of 2, 5 and 7
    assert found.token_ids[: found.offsets[1]].tolist() == [2, 5, 7]


@pytest.fixture
def teacher(tmp_path: Path) -> Any:
    model = model_of(vocab_size=259).float().eval()
    model.save_pretrained(tmp_path / "teacher")
    byte_tokenizer().save_pretrained(tmp_path / "teacher")
    return model


def module_of(tmp_path: Path, *more: str) -> tuple[Any, Any]:
    config = run_config(
        [
            "experiment=ndp/lab",
            "construct=none",
            "method.dedup=none",
            "objective=knn_targets",
            f"objective.teacher=dir:{tmp_path}/teacher",
            "objective.num_neighbours=4",
            "data.num_train=3",
            f"cache_dir={tmp_path / 'cache'}",
            *more,
        ]
    )
    assembly = ready_to_train(config)
    return assembly.module, assembly


def test_a_prepared_objective_reads_the_twins_targets(teacher: Any, tmp_path: Path) -> None:
    _, assembly = module_of(tmp_path)
    rows = assembly.context.data.rows("train")
    states, labels, places = answer_states(teacher, rows)
    num = len(labels) - 1  # all others: answers share beginnings, and of equal states any could be left out
    module, assembly = module_of(tmp_path, f"objective.num_neighbours={num}", "objective.temperature=0.1")
    assert rows.tokens_T[places].tolist() == labels.tolist()
    twin = reference.neighbour_targets(
        states.double().tolist(), labels.tolist(), num=num, temperature=0.1, share=0.8, vocab_size=259
    )
    order = [2, 0]
    chosen = np.concatenate(
        [np.flatnonzero((places >= rows.starts_R[row]) & (places < rows.ends_R[row])) for row in order]
    )
    batch = collate(rows, np.array(order), pad_id=0, step_targets=1)
    loss = module.objective.loss(module.model, batch)
    logits = module.model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    log_probs = logits[batch["labels"][:, 1:] != -100].log_softmax(-1).double()
    wanted = torch.tensor(twin, dtype=torch.float64)[chosen]
    assert loss.count == len(chosen)
    assert loss.total.item() == pytest.approx(-(wanted * log_probs).sum().item(), rel=FLOAT32)
    none = module.objective.loss(module.model, batch | {"labels": torch.full_like(batch["labels"], -100)})
    assert (none.total.item(), none.count) == (0.0, 0)
    metrics = {name: value for report in assembly.reports for name, value in report.metrics.items()}
    assert metrics["diag/target_positions"] == len(labels)
    assert 0 < metrics["ndp/neighbours_label_share"] < 1


def test_targets_are_found_again_by_teacher_and_switches(teacher: Any, tmp_path: Path) -> None:
    def is_reused(*more: str) -> list[bool]:
        _, assembly = module_of(tmp_path, *more)
        return [product.reused for product in assembly.context.stages.history if product.name == "knn_targets"]

    assert is_reused() == [False]
    assert is_reused("objective.chunk_tokens=7") == [True]
    assert is_reused("objective.num_neighbours=3") == [False]
    with torch.no_grad():
        teacher.get_input_embeddings().weight.mul_(1.5)
    teacher.save_pretrained(tmp_path / "teacher")
    assert is_reused() == [False]


def test_the_label_alone_is_the_next_token(teacher: Any, tmp_path: Path) -> None:
    module, assembly = module_of(tmp_path, "objective.label_share=1")
    batch = collate(assembly.context.data.rows("train"), np.arange(3), pad_id=0, step_targets=1)
    plain = module._next_token.loss(module.model, batch).total.item()
    assert module.objective.loss(module.model, batch).total.item() == pytest.approx(plain, rel=FLOAT32)


def test_more_neighbours_than_positions(teacher: Any, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"objective\.num_neighbours: got 5000, but the training rows have \d+ positions"
    ):
        module_of(tmp_path, "objective.num_neighbours=5000")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objective.label_share=1.5", r"objective\.label_share: got 1\.5, expected a number in \[0, 1\]"),
        ("objective.temperature=0", r"objective\.temperature: got 0\.0, expected a number > 0"),
        ("objective.num_neighbours=0", r"objective\.num_neighbours: got 0, expected an integer >= 1"),
        ("objective.chunk_tokens=0", r"objective\.chunk_tokens: got 0, expected an integer >= 1"),
        ("objective.teacher=base", r"objective\.teacher: the base model has random weights"),
    ],
)
def test_switches_that_make_no_sense(override: str, message: str) -> None:
    with pytest.raises(ConfigErrors, match=message):
        run_config(["objective=knn_targets", "objective.teacher=dir:x", override])
