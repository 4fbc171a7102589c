"""The policy loss against loops and TRL: advantages, clipping, denominators, skipped rows, the first ratio.

Sabotages that were tried and that these tests catch: the mean of a whole batch in place of the group's, prompt tokens
among the labels, `max` in place of `min`, skipped rows missing in the denominator.
"""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.assembled import loaded
from tests.objectives import reference
from tests.tolerances import EXACT, FLOAT32, FLOAT64, LOGITS_FLOAT32
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from athlos.config.compose import run_config
from athlos.errors import ConfigError, ConfigErrors
from athlos.objectives import policy
from athlos.objectives.config import AdvantageStd, Denominator, PolicyConfig
from athlos.objectives.policy import (
    MAX_LOG_RATIO,
    PolicyObjective,
    clipped_loss,
    group_advantages,
    policy_rows,
    step_denominator,
    token_weights,
)
from athlos.parts import PartContext

PROMPTS = [[3, 4, 5, 6, 7], [8, 9], [10, 11, 12]]
SIZE = 4
LENGTHS = [5, 1, 3, 2, 4, 4, 1, 5, 2, 3, 5, 1]


def model_of(dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=41,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.5,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).to(dtype).eval()


def rollouts_of(model: LlamaForCausalLM, *, temperature: float = 0.7, noise: float = 0.0) -> Any:
    """Rollouts of made-up responses, with log-probabilities from one plain forward pass a row, without padding."""
    generator = torch.Generator().manual_seed(5)
    num_rows, longest, widest = len(PROMPTS) * SIZE, max(LENGTHS), max(map(len, PROMPTS))
    response_ids, mask = torch.zeros(num_rows, longest, dtype=torch.int64), torch.zeros(num_rows, longest).long()
    log_probs = torch.zeros(num_rows, longest, dtype=model.dtype)
    for row, length in enumerate(LENGTHS):
        prompt = PROMPTS[row // SIZE]
        response = torch.randint(3, 41, (length,), generator=generator)
        ids = torch.tensor([[*prompt, *response.tolist()]])
        with torch.no_grad():
            logits = model(ids).logits[0, len(prompt) - 1 : -1] / temperature
        chosen = logits.log_softmax(-1).gather(1, response[:, None])[:, 0]
        response_ids[row, :length], mask[row, :length] = response, 1
        log_probs[row, :length] = chosen + noise * torch.randn(length, generator=generator)
    prompt_ids, prompt_mask = torch.zeros(len(PROMPTS), widest).long(), torch.zeros(len(PROMPTS), widest).long()
    for index, prompt in enumerate(PROMPTS):
        prompt_ids[index, widest - len(prompt) :] = torch.tensor(prompt)
        prompt_mask[index, widest - len(prompt) :] = 1
    return SimpleNamespace(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        response_ids=response_ids,
        response_mask=mask,
        log_probs=log_probs,
        group_size=SIZE,
    )


def response_log_probs(model: Any, rollouts: Any, row: int) -> Tensor:
    """Of one response at temperature 0.7, from the whole logits of a row without padding."""
    prompt, response = PROMPTS[row // SIZE], rollouts.response_ids[row, : LENGTHS[row]]
    logits = model(torch.tensor([[*prompt, *response.tolist()]])).logits[0, len(prompt) - 1 : -1] / 0.7
    found: Tensor = logits.log_softmax(-1).gather(1, response[:, None])[:, 0]
    return found


def objective_of(**changes: Any) -> PolicyObjective:
    values: dict[str, Any] = {
        "group_size": SIZE,
        "temperature": 0.7,
        "max_new_tokens": 6,
        "adv_std": AdvantageStd["sample"],
        "clip_low": 0.2,
        "clip_high": 0.3,
        "denominator": Denominator.sequence,
        "kl": 0.0,
        **changes,
    }
    return PolicyObjective(PolicyConfig(_target_="", **values))


def advantages_of() -> Tensor:
    rewards = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]], dtype=torch.float64)
    return group_advantages(rewards, std=AdvantageStd["sample"]).flatten()


def whole_loss(objective: PolicyObjective, model: Any, rows: Any, chosen: list[list[int]]) -> Tensor:
    """The loss of one mini-batch of all rows, in micro batches of the chosen ones."""
    tokens = int(rows.num_tokens_B.sum())
    targets = step_denominator(len(rows.advantages_B), tokens, denominator=objective.config.denominator)
    parts = [objective.loss(model, rows.batch(part, step_targets=targets)).total / targets for part in chosen]
    return torch.stack(parts).sum()


def gradient(loss: Tensor, model: Any) -> Tensor:
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))])


@pytest.mark.parametrize("std", ["sample", "population", "none"])
def test_advantages_are_those_of_the_loops(std: str) -> None:
    rewards = torch.rand(5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = group_advantages(rewards, std=AdvantageStd[std])
    expected = torch.tensor(reference.group_advantages(rewards.tolist(), std=std, eps=1e-6), dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=EXACT)
    torch.testing.assert_close(found.sum(dim=1), torch.zeros(5, dtype=torch.float64), rtol=0, atol=EXACT)


@pytest.mark.parametrize(("std", "right", "wrong"), [("sample", 1.62019, -0.54006), ("population", 1.73205, -0.57735)])
def test_two_right_of_eight(std: str, right: float, wrong: float) -> None:
    rewards = torch.tensor([[1.0, 1, 0, 0, 0, 0, 0, 0]], dtype=torch.float64)
    found = group_advantages(rewards, std=AdvantageStd[std], eps=0.0)[0]
    torch.testing.assert_close(found, torch.tensor([right] * 2 + [wrong] * 6).double(), rtol=0, atol=5 * FLOAT64)


def test_groups_that_agree_have_no_advantage_and_groups_of_one_are_refused() -> None:
    for std in AdvantageStd:
        assert not group_advantages(torch.tensor([[1.0] * 8, [0.0] * 8]), std=std).any()
    with pytest.raises(ConfigError, match=r"objective\.group_size: got 1"):
        group_advantages(torch.ones(3, 1), std=AdvantageStd["sample"])


@pytest.mark.parametrize("std", list(AdvantageStd))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rewards_have_no_advantage_whatever_their_rounding(std: AdvantageStd, dtype: torch.dtype) -> None:
    """The mean of eight times 2.8 is not 2.8, and 0.1 + 0.2 is not 0.3; a real difference of 1e-4 counts in full."""
    assert not group_advantages(torch.tensor([[2.8] * 8], dtype=dtype), std=std).any()
    assert not group_advantages(torch.tensor([[0.1 + 0.2, 0.3] * 4, [0.0] * 8], dtype=dtype), std=std).any()
    close = group_advantages(torch.tensor([[2.8, 2.8001] * 4], dtype=dtype), std=AdvantageStd["population"], eps=0.0)
    torch.testing.assert_close(close, torch.tensor([[-1.0, 1.0] * 4], dtype=dtype), rtol=1e-2, atol=0)


@pytest.mark.parametrize("denominator", list(Denominator))
@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("share_prompts", [True, False])
def test_a_token_that_was_drawn_with_no_finite_probability_leaves_sums_and_denominators(
    denominator: Denominator, place: int, share_prompts: bool
) -> None:
    """A response's first token, where its prompt ends, and a later one."""
    model = model_of(torch.float64)
    rollouts = rollouts_of(model, noise=0.4)
    new = [rollouts_of(model).log_probs[row, :length].tolist() for row, length in enumerate(LENGTHS)]
    old = [rollouts.log_probs[row, :length].tolist() for row, length in enumerate(LENGTHS)]
    del new[0][place], old[0][place]
    rollouts.log_probs[0, place] = float("-inf")
    rows = policy_rows(rollouts, advantages_of(), pad_id=0)
    assert rows.num_tokens_B.tolist() == [LENGTHS[0] - 1, *LENGTHS[1:]]
    objective = objective_of(denominator=denominator, skip_zero=False, share_prompts=share_prompts)
    loss = whole_loss(objective, model, rows, [[0, 5, 3, 11], [1, 2], [4, 6, 7, 8, 9, 10]])
    expected = reference.policy_loss(
        new, old, advantages_of().tolist(), low=0.2, high=0.3, denominator=denominator, constant=6
    )
    assert loss.item() == pytest.approx(expected, abs=FLOAT32)
    assert gradient(loss, model).isfinite().all()
    parts = [objective.loss(model, rows.batch(part, step_targets=1)) for part in ([0, 1], [2, 3])]
    assert [part.counts["dropped_tokens"] for part in parts] == [1, 0]
    assert parts[0].logs["ratio_gap"].isfinite()


def test_a_token_that_the_model_now_excludes_is_dropped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(torch.float64)
    rows = policy_rows(rollouts_of(model, noise=0.4), advantages_of(), pad_id=0)
    objective = objective_of()
    original = policy.log_probs_of

    def excluding(*arguments: Any, **options: Any) -> Tensor:
        is_first = torch.arange(LENGTHS[0]) == 0
        return original(*arguments, **options).masked_fill(is_first, float("-inf"))

    with monkeypatch.context() as patch:
        patch.setattr(policy, "log_probs_of", excluding)
        found = objective.loss(model, rows.batch([0], step_targets=1))
    rows.old_log_probs_BT[0, len(PROMPTS[0])] = float("nan")
    expected = objective.loss(model, rows.batch([0], step_targets=1))
    assert found.counts == expected.counts == {"dropped_tokens": 1}
    assert found.total.item() == expected.total.item()
    torch.testing.assert_close(gradient(found.total, model), gradient(expected.total, model), rtol=0, atol=EXACT)


def test_a_batch_of_dropped_tokens_gives_every_parameter_the_gradient_zero() -> None:
    model = model_of()
    rollouts = rollouts_of(model)
    rollouts.log_probs[1] = float("nan")
    rows = policy_rows(rollouts, advantages_of().float(), pad_id=0)
    loss = objective_of().loss(model, rows.batch([1], step_targets=12))
    assert (loss.count, loss.counts["dropped_tokens"], loss.total.item()) == (0, LENGTHS[1], 0.0)
    assert not gradient(loss.total, model).any()


def test_a_ratio_beyond_measure_is_capped_and_has_no_gradient() -> None:
    log_probs = torch.tensor([500.0, -500.0, 0.1], requires_grad=True)
    loss = clipped_loss(log_probs, torch.zeros(3), torch.tensor([-1.0, 1.0, 1.0]), clip_low=0.2, clip_high=0.2)
    assert loss.tolist() == [
        pytest.approx(math.exp(MAX_LOG_RATIO)),
        pytest.approx(-math.exp(-MAX_LOG_RATIO)),
        pytest.approx(-math.exp(0.1)),
    ]
    [slope] = torch.autograd.grad(loss.sum(), log_probs)
    assert [value != 0 for value in slope.tolist()] == [False, False, True]


@pytest.mark.parametrize("denominator", list(Denominator))
@pytest.mark.parametrize("chunk_tokens", [1024, 5])
def test_the_loss_is_that_of_the_loops(denominator: Denominator, chunk_tokens: int) -> None:
    model = model_of(torch.float64)
    rollouts = rollouts_of(model, noise=0.4)
    rows = policy_rows(rollouts, advantages_of(), pad_id=0)
    objective = objective_of(denominator=denominator, chunk_tokens=chunk_tokens, skip_zero=False)
    found = whole_loss(objective, model, rows, [[5, 0, 3, 11], [1, 2], [4, 6, 7, 8, 9, 10]])
    exact = rollouts_of(model).log_probs
    new = [exact[row, :length].tolist() for row, length in enumerate(LENGTHS)]
    old = [rollouts.log_probs[row, :length].tolist() for row, length in enumerate(LENGTHS)]
    expected = reference.policy_loss(
        new, old, advantages_of().tolist(), low=0.2, high=0.3, denominator=denominator, constant=6
    )
    # The model's logits are made float32 before the softmax.
    assert found.item() == pytest.approx(expected, abs=FLOAT32)


@pytest.mark.parametrize("denominator", list(Denominator))
def test_skipping_rows_without_advantage_changes_neither_loss_nor_gradient(denominator: Denominator) -> None:
    model = model_of(torch.float64)
    rows = policy_rows(rollouts_of(model, noise=0.4), advantages_of(), pad_id=0)
    objective = objective_of(denominator=denominator)
    active = objective.is_active(rows.advantages_B).nonzero()[:, 0].tolist()
    assert active == [0, 1, 2, 3, 8, 9, 10, 11]
    every = whole_loss(objective, model, rows, [list(range(12))])
    skipped = whole_loss(objective, model, rows, [active[:4], active[4:], []])
    assert skipped.item() == pytest.approx(every.item(), abs=FLOAT32)
    torch.testing.assert_close(gradient(skipped, model), gradient(every, model), rtol=0, atol=FLOAT32)


def test_the_first_mini_batch_has_ratio_one_and_the_plain_policy_gradient() -> None:
    model = model_of()
    rollouts = rollouts_of(model)
    rows = policy_rows(rollouts, advantages_of().float(), pad_id=0)
    objective = objective_of(denominator=Denominator.token)
    batch = rows.batch(list(range(12)), step_targets=sum(LENGTHS))
    loss = objective.loss(model, batch)
    assert loss.logs["ratio_gap"] <= LOGITS_FLOAT32
    assert loss.logs["clipped_tokens"] == 0
    advantages = advantages_of().float().repeat_interleave(torch.tensor(LENGTHS))
    assert loss.total.item() == pytest.approx(-advantages.sum().item(), abs=10 * LOGITS_FLOAT32)
    plain = -(advantages * torch.cat([response_log_probs(model, rollouts, row) for row in range(12)])).sum()
    torch.testing.assert_close(gradient(loss.total, model), gradient(plain, model), rtol=1e-3, atol=LOGITS_FLOAT32)


def test_prompts_and_padding_are_not_trained_on_and_positions_begin_at_zero() -> None:
    rows = policy_rows(rollouts_of(model_of()), advantages_of(), pad_id=2)
    for row, length in enumerate(LENGTHS):
        prompt = PROMPTS[row // SIZE]
        assert rows.input_ids_BT[row, : len(prompt)].tolist() == prompt
        assert (rows.labels_BT[row] != -100).nonzero()[:, 0].tolist() == list(range(len(prompt), len(prompt) + length))
        assert rows.input_ids_BT[row, len(prompt) + length :].eq(2).all()
    batch = rows.batch([1, 9], step_targets=1)
    assert batch["input_ids"].shape == (2, 6)
    assert batch["position_ids"].tolist() == [list(range(6))] * 2


def test_a_reference_model_adds_schulmans_estimate() -> None:
    model, other = model_of(), model_of()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    rows = policy_rows(rollouts_of(model), torch.zeros(12), pad_id=0)
    objective = objective_of(kl=0.5, denominator=Denominator.token)
    assert objective.is_active(rows.advantages_B).all()
    objective.prepare(other, context=PartContext(config=None, stages=None, start=loaded(other)))  # type: ignore[arg-type]
    assert objective.reference is not other
    batch = rows.batch(list(range(12)), step_targets=1)
    theirs, own = rollouts_of(other).log_probs, rollouts_of(model).log_probs
    gap = (theirs - own)[rollouts_of(model).response_mask.bool()]
    expected = 0.5 * (gap.exp() - gap - 1).sum()
    torch.testing.assert_close(objective.loss(model, batch).total, expected, rtol=LOGITS_FLOAT32, atol=LOGITS_FLOAT32)


def test_no_reference_is_kept_without_a_divergence() -> None:
    objective = objective_of()
    assert objective.prepare(object(), context=PartContext(config=None, stages=None)) is None  # type: ignore[arg-type]
    assert objective.reference is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("group_size=1", "objective.group_size: got 1, expected an integer >= 2"),
        ("temperature=0", "objective.temperature: got 0.0, expected a number > 0"),
        ("max_new_tokens=0", "objective.max_new_tokens: got 0"),
        ("clip_low=1", "objective.clip_low: got 1.0, expected a number in"),
        ("clip_high=0", "objective.clip_high: got 0.0"),
        ("kl=-1", "objective.kl: got -1.0"),
        ("chunk_tokens=0", "objective.chunk_tokens: got 0"),
    ],
)
def test_values_out_of_range_are_named(change: str, message: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        run_config(["objective=policy", f"objective.{change}"])
    assert message in str(caught.value)


def test_a_method_without_rollouts_is_refused() -> None:
    with pytest.raises(ConfigErrors, match="objective=policy: it needs rollouts"):
        run_config(["objective=policy"])


@pytest.mark.slow
def test_advantages_are_trls() -> None:
    """With TRL's deviation and its larger epsilon, as its trainer combines them."""
    from trl.trainer.utils import nanstd

    rewards = torch.rand(5, 8, generator=torch.Generator().manual_seed(2))
    expected = (rewards - rewards.mean(1, keepdim=True)) / (nanstd(rewards, dim=1)[:, None] + 1e-4)
    found = group_advantages(rewards, std=AdvantageStd["sample"], eps=1e-4)
    torch.testing.assert_close(found, expected, rtol=0, atol=FLOAT32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss_type", "denominator"),
    [("grpo", Denominator.sequence), ("bnpo", Denominator.token), ("dr_grpo", Denominator.constant)],
)
def test_the_loss_is_trls(loss_type: str, denominator: Denominator) -> None:
    """TRL's own method on the same batch; its trainer is not built, only what the method reads of it."""
    from trl import GRPOTrainer

    model = model_of()
    rollouts = rollouts_of(model, noise=0.4)
    advantages = advantages_of().float()
    trainer = SimpleNamespace(
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        beta=0.0,
        loss_type=loss_type,
        importance_sampling_level="token",
        epsilon_low=0.2,
        epsilon_high=0.3,
        use_vllm=False,
        max_completion_length=6,
        temperature=0.7,
        current_gradient_accumulation_steps=1,
        args=SimpleNamespace(delta=None),
        model=model,
        accelerator=SimpleNamespace(gather=lambda value: value, reduce=lambda value, reduction: value, num_processes=1),
        _entropy_bonus_enabled=False,
        _metrics={"train": _Lists(), "eval": _Lists()},
        _get_per_token_logps_and_entropies=lambda *arguments, **options: _trl_log_probs(rollouts, model),
    )
    inputs = {
        "prompt_ids": rollouts.prompt_ids.repeat_interleave(SIZE, 0),
        "prompt_mask": rollouts.prompt_mask.repeat_interleave(SIZE, 0),
        "completion_ids": rollouts.response_ids,
        "completion_mask": rollouts.response_mask,
        "advantages": advantages,
        "old_per_token_logps": rollouts.log_probs,
    }
    expected = GRPOTrainer._compute_loss(trainer, model, inputs)
    rows = policy_rows(rollouts, advantages, pad_id=0)
    found = whole_loss(objective_of(denominator=denominator), model, rows, [list(range(12))])
    assert found.item() == pytest.approx(expected.item(), abs=FLOAT32)


class _Lists(dict[str, list[float]]):
    def __missing__(self, key: str) -> list[float]:
        self[key] = []
        return self[key]


def _trl_log_probs(rollouts: Any, model: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of the padded batch in TRL's layout, by TRL's arithmetic: logits / temperature, log-softmax."""
    from trl.trainer.utils import selective_log_softmax

    ids = torch.cat([rollouts.prompt_ids.repeat_interleave(SIZE, 0), rollouts.response_ids], dim=1)
    mask = torch.cat([rollouts.prompt_mask.repeat_interleave(SIZE, 0), rollouts.response_mask], dim=1)
    length = rollouts.response_ids.shape[1]
    logits = model(ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
    found = selective_log_softmax(logits[:, -length - 1 : -1] / 0.7, rollouts.response_ids)
    return found, torch.zeros_like(found), torch.zeros(())


def test_clipping_cuts_the_gradient_on_the_right_side_only() -> None:
    log_probs = torch.tensor([0.5, -0.5, 0.5, -0.5], requires_grad=True)
    loss = clipped_loss(log_probs, torch.zeros(4), torch.tensor([1.0, 1, -1, -1]), clip_low=0.2, clip_high=0.2)
    [slope] = torch.autograd.grad(loss.sum(), log_probs)
    assert [value != 0 for value in slope.tolist()] == [False, True, True, False]


def test_weights_name_their_denominator() -> None:
    rows, lengths = torch.tensor([0, 0, 1]), torch.tensor([2, 1])
    found = {kind: token_weights(rows, lengths, denominator=kind, constant=4).tolist() for kind in Denominator}
    assert found[Denominator.sequence] == [0.5, 0.5, 1.0]
    assert found[Denominator.token] == [1.0, 1.0, 1.0]
    assert found[Denominator.constant] == [0.25, 0.25, 0.25]
