"""Packs of responses behind one prompt against the same rows one by one: states, targets and gradients."""

from dataclasses import replace

import pytest
import torch
from tests.generation.tiny_models import CONFIGS, SIZES, WINDOW, tiny
from tests.tolerances import FLOAT64, LOGITS_FLOAT32
from transformers import LlamaConfig

from athlos.models.forward import hidden_states
from athlos.objectives import shared_prompts
from athlos.objectives.config import AdvantageStd, Denominator, PolicyConfig
from athlos.objectives.next_token import gather_targets
from athlos.objectives.policy import PolicyObjective
from athlos.objectives.shared_prompts import RowSpan, row_groups, target_states


def model_of(name="llama"):
    """A narrow Llama: norms round to float32 in every precision, and the bounds of gradients are for this width."""
    return tiny(name, config=LlamaConfig(**SIZES, num_hidden_layers=2) if name == "llama" else None)


def rows(lengths, *, seed=0):
    """A batch of rows: `lengths` holds, a prompt, its length and those of its responses."""
    torch.manual_seed(seed)
    made = []
    for prompt_length, responses in lengths:
        prompt = torch.randint(3, 250, (prompt_length,))
        made += [(prompt, torch.randint(3, 250, (length,))) for length in responses]
    width = max(len(prompt) + len(response) for prompt, response in made)
    batch = {
        "input_ids": torch.zeros(len(made), width, dtype=torch.int64),
        "labels": torch.full((len(made), width), -100),
        "attention_mask": torch.zeros(len(made), width, dtype=torch.int64),
        "position_ids": torch.arange(width).expand(len(made), width),
    }
    for row, (prompt, response) in enumerate(made):
        end = len(prompt) + len(response)
        batch["input_ids"][row, :end] = torch.cat([prompt, response])
        batch["labels"][row, len(prompt) : end] = response
        batch["attention_mask"][row, :end] = 1
    return batch


CASES = {
    "one group": [(40, [5, 9, 1, 7])],
    "several": [(30, [4, 4]), (50, [1, 8, 3]), (9, [6])],
    "longer than the window": [(3 * WINDOW, [WINDOW + 5, 3])],
}


@pytest.fixture(autouse=True)
def always_packs(monkeypatch):
    monkeypatch.setattr(shared_prompts, "PRODUCTS_A_PAIR", 0)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("case", CASES)
def test_states_targets_and_gradients_are_those_of_separate_rows(name, case, monkeypatch):
    # Gemma 2 in float64 gives nan on padding beyond its window: its softmax in float32 takes the mask for infinite.
    model, batch = model_of(name).to(torch.float32 if name == "gemma2" else torch.float64), rows(CASES[case])
    near = 1e2 * LOGITS_FLOAT32 if name == "gemma2" else FLOAT64
    expected, expected_targets = gather_targets(hidden_states(model, batch), batch["labels"])
    (expected**2).sum().backward()
    wanted = {key: parameter.grad.clone() for key, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    calls = []
    monkeypatch.setattr(
        shared_prompts, "hidden_states", lambda model, batch: calls.append(batch) or hidden_states(model, batch)
    )
    found, targets = target_states(model, batch)
    assert "attention_mask" in calls[0]
    assert calls[0]["input_ids"].numel() < batch["input_ids"].numel()
    assert torch.equal(targets, expected_targets)
    torch.testing.assert_close(found, expected, atol=near, rtol=near)
    (found**2).sum().backward()
    for key, parameter in model.named_parameters():
        if key in wanted:
            torch.testing.assert_close(parameter.grad, wanted[key], atol=1e2 * near, rtol=near)


def test_rows_without_a_shared_prompt_are_taken_as_they_are(monkeypatch):
    model, batch = model_of().double(), rows([(5, [3]), (6, [4])])
    monkeypatch.setattr(shared_prompts, "packed_states", None)
    found, _ = target_states(model, batch)
    expected, _ = gather_targets(hidden_states(model, batch), batch["labels"])
    assert torch.equal(found, expected)


def test_groups_are_neighbours_with_equal_prompts():
    batch = rows([(5, [3, 2]), (5, [1])])
    assert row_groups(batch) == [
        [RowSpan(row=0, prompt=5, length=8), RowSpan(row=1, prompt=5, length=7)],
        [RowSpan(row=2, prompt=5, length=6)],
    ]
    batch["labels"][1] = -100
    assert [[span.row for span in group] for group in row_groups(batch)] == [[0], [2]]


def test_a_pack_costs_less_only_where_the_prompt_is_long(monkeypatch):
    monkeypatch.undo()
    short, long = rows([(2, [40] * 8)]), rows([(200, [10] * 8)])
    assert shared_prompts._packs(short, width=32) is None
    assert len(shared_prompts._packs(long, width=32)) == 1
    # A narrow model: what a token costs beside its products decides.
    pair = rows([(22, [110, 110])])
    assert len(shared_prompts._packs(pair, width=192)) == 1
    monkeypatch.setattr(shared_prompts, "MAX_COLUMNS", 230)
    assert max(len(pack) for pack in shared_prompts._packs(long, width=32)) == 3
    monkeypatch.setattr(shared_prompts, "EQUAL_PRODUCTS_A_TOKEN", 0)
    assert shared_prompts._packs(pair, width=192) is None


def test_the_policy_loss_and_its_gradient_do_not_depend_on_it(monkeypatch):
    config = PolicyConfig(
        _target_="",
        group_size=4,
        temperature=0.8,
        max_new_tokens=16,
        adv_std=AdvantageStd["sample"],
        clip_low=0.2,
        clip_high=0.2,
        denominator=Denominator.token,
        kl=0.0,
    )
    model, batch = model_of().double(), rows([(30, [4, 4, 9, 2]), (20, [1, 8, 3, 5])])
    batch["old_log_probs"] = -5 * torch.rand(batch["labels"].shape, dtype=torch.float64)
    batch["advantages"] = torch.randn(8, dtype=torch.float64)
    found = []
    for shares in (True, False):
        model.zero_grad()
        loss = PolicyObjective(replace(config, share_prompts=shares)).loss(model, batch)
        loss.total.backward()
        found.append((loss.total.detach(), [p.grad.clone() for p in model.parameters()]))
        monkeypatch.setattr(shared_prompts, "packed_states", None)  # the second must not come here
    (total, gradients), (wanted, wanted_gradients) = found
    torch.testing.assert_close(total, wanted, atol=FLOAT64, rtol=FLOAT64)
    for gradient, other in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(gradient, other, atol=FLOAT64, rtol=FLOAT64)
