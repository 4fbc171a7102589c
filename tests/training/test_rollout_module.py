"""The policy loop from end to end on a tiny model: a reward lifts its own tokens, and a step is that of plain loops.

Responses are scripted, so that it is known which are right; everything behind the sampling is the real thing.

Sabotages that were tried and that these tests catch: advantages reversed within a group, response g + 1 judged in place
of g, a chunk's rows before those of the chunk in front of it, the last update's weights in place of the sampling
ones for the ratio.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.objectives import reference
from tests.objectives.test_policy import model_of
from tests.tolerances import EXACT, FLOAT32
from torch import Tensor
from transformers import LlamaForCausalLM

from athlos.config.compose import run_config
from athlos.data.records import MathRecord
from athlos.generation.rollouts import PolicyPrompt, Rollouts, response_log_probs
from athlos.objectives.policy import PolicyObjective
from athlos.training import rollout_module
from athlos.training.rollout_config import RolloutMethodConfig
from athlos.training.rollout_module import RolloutModule, repeated_share

SIZE = 4
PROMPTS = [[3, 4, 5, 6, 7], [8, 9], [10, 11, 12], [13]]
LENGTHS = [5, 2, 3, 2, 4, 4, 2, 5, 2, 3, 5, 2, 3, 3, 4, 2]
"""Tokens of the responses, prompt by prompt."""
RIGHT = {1, 3, 6, 8, 9, 10}
"""Rows whose text is the answer; nobody is right about the last prompt."""
ANSWER = "12"


class Asking(RolloutModule[RolloutMethodConfig, PolicyPrompt]):
    """Asks the four prompts at every step; a prompt's text is its number."""

    def prompts(self, step: int) -> list[PolicyPrompt]:
        record = MathRecord(identifier="1", language="en", question="?", answer=ANSWER)
        return self.share([PolicyPrompt(record=record, text=str(number)) for number in range(len(PROMPTS))])


def responses() -> list[list[int]]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(14, 41, (length,), generator=generator).tolist() for length in LENGTHS]


def scripted(model: LlamaForCausalLM, chosen: Sequence[int], *, right: set[int]) -> Rollouts:
    """The rollouts of some of the prompts, padded as `sample_group` does, with the model's own log-probabilities."""
    asked = [PROMPTS[number] for number in chosen]
    rows = [number * SIZE + place for number in chosen for place in range(SIZE)]
    widest, longest = max(map(len, asked)), max(LENGTHS[row] for row in rows)
    ids = [responses()[row] for row in rows]
    rollouts = Rollouts(
        prompt_ids=torch.tensor([[0] * (widest - len(prompt)) + prompt for prompt in asked]),
        prompt_mask=torch.tensor([[0] * (widest - len(prompt)) + [1] * len(prompt) for prompt in asked]),
        response_ids=torch.tensor([row + [0] * (longest - len(row)) for row in ids]),
        response_mask=torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids]),
        log_probs=torch.zeros(len(rows), longest),
        texts=[f"So it is {ANSWER if row in right else 90 + row}." for row in rows],
        truncated=torch.zeros(len(rows), dtype=torch.bool),
        group_size=SIZE,
    )
    with torch.no_grad():
        rollouts.log_probs = response_log_probs(model, rollouts, temperature=1.0)
    return rollouts


@pytest.fixture
def trainer() -> SimpleNamespace:
    """What the loop reads of Lightning's trainer."""
    plugin = SimpleNamespace(forward_context=nullcontext)
    return SimpleNamespace(world_size=1, global_rank=0, global_step=0, precision_plugin=plugin)


def asking(
    monkeypatch: pytest.MonkeyPatch, trainer: Any, model: Any, *overrides: str, right: set[int] = RIGHT
) -> Asking:
    config = run_config(
        [
            "method=lang",
            "objective=policy",
            "reward=accuracy",
            "data=traces",
            "method.prompts_per_step=4",
            "method.chunk_prompts=3",
            f"objective.group_size={SIZE}",
            "objective.max_new_tokens=6",
            "train.batch_size=8",
            "train.micro_batch_size=4",
            "train.max_steps=4",
            "train.checkpoint_every=2",
            *overrides,
        ]
    )
    module = Asking(
        config, model=model, tokenizer=None, objective=PolicyObjective(config.objective), decoding=None, engine=None
    )  # type: ignore[arg-type]
    module.trainer = trainer
    records = [MathRecord(identifier="1", language="en", question="?", answer=ANSWER)]
    data = SimpleNamespace(pad_id=0, records=lambda split: records)
    module.before_training(context=SimpleNamespace(config=config, data=data))  # type: ignore[arg-type]

    def sample(model: Any, tokenizer: Any, prompts: Sequence[str], **_: Any) -> Rollouts:
        return scripted(model, [int(prompt) for prompt in prompts], right=right)

    monkeypatch.setattr(rollout_module, "sample_group", sample)
    return module


def updates(module: Asking, *, number: int, lr: float) -> Iterator[list[dict[str, Tensor]]]:
    """Plain gradient descent as Lightning drives it; gives the micro batches of each optimizer step after it."""
    loader = iter(module.train_dataloader())
    accumulated = module.config.num_accumulated
    for _ in range(number):
        batches = []
        for micro in range(accumulated):
            batch = next(loader)
            assert not len(batch["input_ids"])
            module.on_train_batch_start(batch, micro)
            (module.training_step(batch, micro) / accumulated).backward()
            batches.append(batch)
        with torch.no_grad():
            for parameter in module.model.parameters():
                parameter -= lr * parameter.grad
                parameter.grad = None
        yield batches


def response_log_prob(model: LlamaForCausalLM, row: int) -> Tensor:
    """Sum over the tokens of a response, from a row without padding, float64 behind the model."""
    prompt, response = PROMPTS[row // SIZE], responses()[row]
    logits = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
    return logits.double().log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0]


@pytest.mark.parametrize("place", range(SIZE))
def test_a_step_lifts_the_response_that_was_right_and_lowers_the_others(
    monkeypatch: pytest.MonkeyPatch, trainer: SimpleNamespace, place: int
) -> None:
    """One response of the second prompt is right; all other groups agree, so that nothing else moves the model."""
    model = model_of()
    rewarded = SIZE + place
    module = asking(monkeypatch, trainer, model, right={rewarded})
    group = range(SIZE, 2 * SIZE)
    before = {row: response_log_prob(model, row).sum().item() for row in group}
    list(updates(module, number=1, lr=1e-3))
    gained = {row: response_log_prob(model, row).sum().item() - before[row] for row in group}
    assert {row for row, gain in gained.items() if gain > 0} == {rewarded}
    assert [entry["acc"] for entry in module.history] == [1 / len(LENGTHS)]


def test_a_policy_step_is_that_of_the_loops(monkeypatch: pytest.MonkeyPatch, trainer: SimpleNamespace) -> None:
    """Two updates on the same rollouts, the second with weights that have moved, against loops in float64."""
    lr, fast, slow = 0.05, model_of(torch.float64), model_of(torch.float64)
    rewards = [[float(prompt * SIZE + place in RIGHT) for place in range(SIZE)] for prompt in range(len(PROMPTS))]
    groups = reference.group_advantages(rewards, std="sample", eps=1e-6)
    advantages = [advantage for group in groups for advantage in group]
    old = [response_log_prob(slow, row).tolist() for row in range(len(LENGTHS))]
    for start in (0, 8):
        loss: Any = 0.0
        for row in range(start, start + 8):
            for new, then in zip(response_log_prob(slow, row), old[row], strict=True):
                ratio = (new - then).exp()
                clipped = ratio.clamp(0.8, 1.2)
                smaller = min(ratio * advantages[row], clipped * advantages[row])
                loss = loss - smaller / LENGTHS[row] / 8
        loss.backward()
        with torch.no_grad():
            for parameter in slow.parameters():
                parameter -= lr * parameter.grad  # type: ignore[operator]
                parameter.grad = None
    module = asking(monkeypatch, trainer, fast)
    steps = list(updates(module, number=2, lr=lr))
    for (name, one), other in zip(fast.named_parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=FLOAT32, msg=name)
    moved = (fast.lm_head.weight - model_of(torch.float64).lm_head.weight).abs().max()
    assert moved > 100 * FLOAT32  # the comparison saw a step
    # The last prompt has no gradient: its rows are in no batch, and count as work.
    assert [[len(batch["input_ids"]) for batch in step] for step in steps] == [[4, 4], [4, 0]]
    assert [[batch["seen"][0].item() for batch in step] for step in steps] == [[8, 0], [8, 0]]
    [curves] = module.history
    assert curves["reward"] == curves["acc"] == len(RIGHT) / len(LENGTHS)
    assert curves["signal_share"] == curves["any_correct_share"] == 0.75
    assert curves["response_len"] == sum(LENGTHS) / len(LENGTHS)
    assert curves["entropy"] == pytest.approx(-sum(map(sum, old)) / sum(LENGTHS), abs=FLOAT32)


def test_rollouts_are_made_when_their_step_begins_of_the_weights_that_the_last_one_left(
    monkeypatch: pytest.MonkeyPatch, trainer: SimpleNamespace
) -> None:
    module = asking(monkeypatch, trainer, model_of())
    gaps = []
    for number, _ in enumerate(updates(module, number=4, lr=0.05)):
        gaps.append(module.step_log["ratio_gap"])
        assert len(module.history) == number // 2 + 1
        module.step_log.clear()
    assert max(gaps[0], gaps[2]) <= FLOAT32
    assert min(gaps[1], gaps[3]) > 100 * FLOAT32


def test_a_token_drawn_with_no_finite_probability_is_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch, trainer: SimpleNamespace
) -> None:
    module = asking(monkeypatch, trainer, model_of(), "objective.denominator=token")
    sample = rollout_module.sample_group

    def broken(*arguments: Any, **options: Any) -> Rollouts:
        rollouts = sample(*arguments, **options)
        rollouts.log_probs[1, 0] = float("nan")
        return rollouts

    monkeypatch.setattr(rollout_module, "sample_group", broken)
    [first, second] = updates(module, number=2, lr=0.0)
    # The chunks begin with rows 0 and 12; row 1 is of the first mini-batch, row 13 of the second and without advantage.
    assert [step[0]["step_targets"].item() for step in (first, second)] == [sum(LENGTHS[:8]) - 1, sum(LENGTHS[8:]) - 1]
    assert module.step_log["dropped_tokens"] == 1
    assert all(torch.isfinite(parameter).all() for parameter in module.model.parameters())
    assert torch.isfinite(torch.tensor(module.history[0]["entropy"]))


def test_slots_are_dealt_out_evenly_over_devices_in_every_mini_batch(
    monkeypatch: pytest.MonkeyPatch, trainer: SimpleNamespace
) -> None:
    module = asking(monkeypatch, trainer, model_of())
    trainer.world_size = 2
    shares = []
    for rank in range(2):
        trainer.global_rank = rank
        shares.append(module.share("abcdefgh"))
    assert shares == [list("aceg"), list("bdfh")]
    assert module.share("") == []


def test_repeated_grams() -> None:
    assert repeated_share([1, 2, 3]) == 0.0
    assert repeated_share([1, 2, 3, 4, 5]) == 0.0
    assert repeated_share([1] * 7) == pytest.approx(0.75, abs=EXACT)


def test_the_ratio_of_training_and_sampling_is_its_mean_and_maximum_over_tokens(trainer: SimpleNamespace) -> None:
    """Padding and tokens without a finite probability do not count; nothing is logged where both are the same."""
    chunks = [scripted(model_of(), [number], right=set()) for number in (0, 1)]
    judged: Any = SimpleNamespace(chunks=chunks)
    module: Any = SimpleNamespace(trainer=trainer)
    assert RolloutModule._sampler_ratio(module, judged) == {}
    for shift, rollouts in zip((0.1, -0.2), chunks, strict=True):
        rollouts.sampler_log_probs = rollouts.log_probs - shift * rollouts.response_mask
    chunks[0].log_probs[0, 0] = -torch.inf
    chunks[1].log_probs[0, 0] += 1.0
    counts = [int(rollouts.response_mask.sum()) for rollouts in chunks]
    total = (counts[0] - 1) * math.exp(0.1) + (counts[1] - 1) * math.exp(-0.2) + math.exp(0.8)
    found = RolloutModule._sampler_ratio(module, judged)
    assert found["sampler_ratio_mean"] == pytest.approx(total / (counts[0] - 1 + counts[1]), rel=FLOAT32)
    assert found["sampler_ratio_max"] == pytest.approx(math.exp(0.8), rel=FLOAT32)
