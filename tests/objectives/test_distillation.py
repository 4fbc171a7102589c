"""Distillation against its formula, torch's divergence, chunks, and a teacher from elsewhere."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.assembled import loaded
from tests.methods.lisa.test_surgery import ids_of, model_of
from tests.objectives import reference
from tests.tolerances import EXACT
from torch.nn import functional

from athlos.config.compose import run_config
from athlos.errors import ConfigError, ConfigErrors, ModelError
from athlos.models.tokenizers import byte_tokenizer
from athlos.objectives.config import DistillConfig, DistillTopkConfig
from athlos.objectives.distillation import DistillObjective, TopkDistillObjective, divergence_sum
from athlos.parts import PartContext
from athlos.stages import StageStore


def prepared(base: Any, tmp_path: Path, **changes: Any) -> DistillObjective:
    values: dict[str, Any] = {"ce": 0.5, "kd": 0.5, "temperature": 2.0, "teacher": "base", **changes}
    objective = (
        TopkDistillObjective(DistillTopkConfig(_target_="", **values))
        if "topk" in values
        else DistillObjective(DistillConfig(_target_="", **values))
    )
    objective.prepare(
        base,
        context=PartContext(
            config=run_config(["train.max_steps=0"]),
            stages=StageStore(tmp_path),
            start=loaded(base, byte_tokenizer()),
        ),
    )
    return objective


def batch_of() -> dict[str, torch.Tensor]:
    ids = ids_of()
    labels = ids.clone()
    labels[:, :3] = -100
    return {
        "input_ids": ids,
        "labels": labels,
        "attention_mask": torch.ones_like(ids),
        "position_ids": torch.arange(ids.shape[1]).expand_as(ids).contiguous(),
    }


@pytest.mark.parametrize("chunk_tokens", [1024, 5])
def test_the_loss_is_hintons(chunk_tokens: int, tmp_path: Path) -> None:
    student, base, batch = model_of(), model_of(), batch_of()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1.3)
    objective = prepared(base, tmp_path, chunk_tokens=chunk_tokens)
    loss = objective.loss(student, batch)
    given, wanted = (model(batch["input_ids"]).logits[:, 2:-1].flatten(0, 1) for model in (student, base))
    targets = batch["labels"][:, 3:].flatten()
    kl = functional.kl_div((given / 2).log_softmax(-1), (wanted / 2).log_softmax(-1), log_target=True, reduction="sum")
    expected = 0.5 * functional.cross_entropy(given, targets, reduction="sum") + 0.5 * 4 * kl
    assert loss.count == len(targets) == 12
    torch.testing.assert_close(loss.total, expected, rtol=1e-5, atol=0)
    mine = torch.autograd.grad(loss.total, list(student.parameters()), allow_unused=True)
    theirs = torch.autograd.grad(expected, list(student.parameters()), allow_unused=True)
    for ours, plain in zip(mine, theirs, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)
    assert loss.logs["kd"].item() == pytest.approx(kl.item() / 12, rel=1e-5)


def test_the_teacher_does_not_follow_the_student(tmp_path: Path) -> None:
    model, batch = model_of(), batch_of()
    objective = prepared(model, tmp_path, ce=0.0, kd=1.0)
    assert objective.loss(model, batch).total.item() == pytest.approx(0.0, abs=1e-5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.3)
    assert objective.loss(model, batch).total.item() > 1e-2


def test_a_teacher_from_elsewhere(tmp_path: Path) -> None:
    teacher = model_of(vocab_size=259)
    folder = tmp_path / "teacher"
    teacher.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    objective = prepared(None, tmp_path / "stages", teacher=f"dir:{folder}", ce=0.0, kd=1.0, temperature=1.0)
    student = model_of(vocab_size=259).float()
    assert objective.loss(student, batch_of()).total.item() == pytest.approx(0.0, abs=1e-3)
    other = byte_tokenizer()
    other.add_tokens(["more"])
    other.save_pretrained(folder)
    with pytest.raises(ModelError, match="tokenizer"):
        prepared(None, tmp_path / "stages", teacher=f"dir:{folder}")


def rows_of(seed: int, *, num: int = 6, vocab: int = 11) -> torch.Tensor:
    """Log-probabilities in float64, some of them tiny."""
    generator = torch.Generator().manual_seed(seed)
    return (6 * torch.randn(num, vocab, generator=generator, dtype=torch.float64)).log_softmax(-1)


@pytest.mark.parametrize("topk", [1, 3, 10])
def test_the_most_probable_tokens_and_one_rest_equal_the_naive_twin(topk: int) -> None:
    wanted, given = rows_of(0), rows_of(1)
    found = divergence_sum(wanted, given, topk=topk).item()
    assert found == pytest.approx(reference.topk_divergence(wanted.tolist(), given.tolist(), topk=topk), rel=EXACT)
    whole = divergence_sum(wanted, given, topk=0).item()
    assert 0 < found <= whole * (1 + EXACT)
    assert (found == pytest.approx(whole, rel=EXACT)) == (topk == 10)  # the rest is one token then: nothing is merged
    assert divergence_sum(wanted, wanted, topk=topk).item() == pytest.approx(0, abs=EXACT)
    assert divergence_sum(wanted[:0], given[:0], topk=topk).item() == 0


def test_the_gradient_over_listed_tokens_and_rest_is_the_numerical_one() -> None:
    wanted, logits = rows_of(0, num=2), rows_of(1, num=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda given: divergence_sum(wanted, given.log_softmax(-1), topk=3), logits)


def test_a_tiny_rest_keeps_its_mass() -> None:
    """1 - the listed mass is 0 in float32, where the rest is 1e-12 and its logarithm -27.6."""
    wanted = torch.tensor([[0.0, -27.6, -40.0]]).log_softmax(-1)
    given = torch.tensor([[0.0, -27.6, -20.0]]).log_softmax(-1)
    assert torch.isfinite(divergence_sum(wanted, given, topk=1))


@pytest.mark.parametrize("chunk_tokens", [1024, 5])
def test_topk_in_the_objective(chunk_tokens: int, tmp_path: Path) -> None:
    student, base, batch = model_of(), model_of(), batch_of()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1.3)
    loss = prepared(base, tmp_path, topk=4, chunk_tokens=chunk_tokens).loss(student, batch)
    given, wanted = (model(batch["input_ids"]).logits[:, 2:-1].flatten(0, 1) for model in (student, base))
    kl = reference.topk_divergence((wanted / 2).log_softmax(-1).tolist(), (given / 2).log_softmax(-1).tolist(), topk=4)
    ce = functional.cross_entropy(given, batch["labels"][:, 3:].flatten(), reduction="sum").item()
    assert loss.total.item() == pytest.approx(0.5 * ce + 0.5 * 4 * kl, rel=1e-5)
    # A small divergence is a difference of log-probabilities near -3.5 in float32, whose sums differ by processor.
    assert loss.logs["kd"].item() == pytest.approx(kl / 12, rel=1e-4, abs=1e-6)


def test_topk_that_makes_no_sense(tmp_path: Path) -> None:
    model = model_of()
    vocab_size = model.get_output_embeddings().weight.shape[0]
    with pytest.raises(ConfigError, match=f"objective.topk: got {vocab_size}, expected less than the {vocab_size}"):
        prepared(model, tmp_path, topk=vocab_size)
    with pytest.raises(ConfigErrors, match=r"objective\.topk: got 0, expected an integer >= 1"):
        run_config(["objective=distill_topk", "objective.teacher=dir:x", "objective.topk=0"])
    with pytest.raises(ConfigErrors, match=r"objective\.temperature: got 0\.0"):
        run_config(["objective=distill_topk", "objective.teacher=dir:x", "objective.temperature=0"])
