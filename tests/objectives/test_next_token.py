"""The next-token objective against its naive twin and against transformers' own loss."""

import pytest
import torch
from tests.objectives import reference
from transformers import AutoModelForCausalLM, LlamaConfig

from athlos.config.parts import Loss
from athlos.objectives.config import NextTokenConfig
from athlos.objectives.next_token import NextTokenObjective


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=41, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).double().eval()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(1, 41, (4, 9), generator=generator)
    mask = torch.ones_like(input_ids)
    mask[1, 5:] = 0
    mask[3, 2:] = 0
    labels = input_ids.masked_fill(mask == 0, -100)
    labels[0, :4] = -100
    labels[2] = -100  # a row with no target
    return {
        "input_ids": input_ids,
        "labels": labels,
        "attention_mask": mask,
        "position_ids": torch.arange(9).expand(4, 9),
    }


def run(model, batch, **values) -> Loss:
    return NextTokenObjective(NextTokenConfig(_target_="", **values)).loss(model, batch)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk_tokens", [1, 3, 1000])
def test_equals_the_naive_twin(model, batch, label_smoothing: float, chunk_tokens: int):
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()
    expected, count = reference.next_token_nll(
        logits.tolist(), batch["labels"].tolist(), label_smoothing=label_smoothing
    )
    loss = run(model, batch, label_smoothing=label_smoothing, chunk_tokens=chunk_tokens)
    assert loss.count == count
    assert loss.total.item() == pytest.approx(expected, rel=1e-6)


def test_equals_the_loss_of_transformers_and_its_gradient(model, batch):
    run(model, batch, chunk_tokens=2).total.backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    theirs = model(batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"]).loss
    count = int((batch["labels"][:, 1:] != -100).sum())
    (theirs * count).backward()
    assert run(model, batch).total.item() == pytest.approx(theirs.item() * count, rel=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-5, atol=1e-7)


def test_a_batch_without_targets_gives_zero_and_zero_gradients(model, batch):
    loss = run(model, batch | {"labels": torch.full_like(batch["labels"], -100)})
    assert (loss.total.item(), loss.count) == (0.0, 0)
    loss.total.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_padding_does_not_change_the_loss(model, batch):
    padded = {
        "input_ids": torch.nn.functional.pad(batch["input_ids"], (0, 5)),
        "labels": torch.nn.functional.pad(batch["labels"], (0, 5), value=-100),
        "attention_mask": torch.nn.functional.pad(batch["attention_mask"], (0, 5)),
        "position_ids": torch.arange(14).expand(4, 14),
    }
    assert run(model, padded).total.item() == pytest.approx(run(model, batch).total.item(), rel=1e-9)
