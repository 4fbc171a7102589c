"""Reward, advantages and loss of KMKC against loops, exact values and GRPO's own loss.

Sabotages that were tried and that these tests catch: the sign of g, the mean over padded length, lambda of right and
wrong swapped, entropy in place of its share of H_ref, a constant H_ref, the entropy of the loss without its sign.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.methods.kmkc import reference
from tests.methods.kmkc.made import LAMBDAS, question
from tests.objectives.test_policy import advantages_of, model_of, rollouts_of, whole_loss
from tests.tolerances import EXACT, FLOAT32, FLOAT64

from athlos.data.records import MathRecord, TextRecord
from athlos.data.regions import Assigned, Region
from athlos.errors import DataError
from athlos.generation.rollouts import PolicyPrompt, entropies_of
from athlos.methods.kmkc.config import (
    CalibrationRewardConfig,
    EntropyDirection,
    EntropyTerm,
    KmkcPolicyConfig,
    LambdaMode,
)
from athlos.methods.kmkc.construct import Known
from athlos.methods.kmkc.objective import KmkcPolicyObjective, entropy_signs
from athlos.methods.kmkc.profile import mean_entropies
from athlos.methods.kmkc.rewards import (
    CalibrationReward,
    calibrated_rewards,
    certainty_gain,
    normalised_entropy,
)
from athlos.objectives.config import AdvantageStd, Denominator, PolicyConfig
from athlos.objectives.policy import PolicyObjective, group_advantages, policy_rows

BOTH = EntropyDirection.both


def config(**changes: Any) -> CalibrationRewardConfig:
    values: dict[str, Any] = {
        "entropy_term": EntropyTerm.reward,
        "direction": BOTH,
        "lambda_mode": LambdaMode.by_region,
        "lambdas": LAMBDAS,
        "format_weight": 0.1,
        "max_answer_tokens": 2,
        "window": 100,
        **changes,
    }
    return CalibrationRewardConfig(_target_="", **values)


def rewards(region: str, right: list[bool], h: list[float], formed: list[bool] | None = None) -> list[float]:
    is_right = torch.tensor(right)
    gain = certainty_gain(torch.tensor(h, dtype=torch.float64), is_right, BOTH)
    is_formed = torch.tensor(formed or [True] * len(right))
    first, second = LAMBDAS[region]
    return calibrated_rewards(is_right, is_formed, gain, weights=(first, second), format_weight=0.1).tolist()


@pytest.mark.parametrize(
    ("region", "is_right", "expected"),
    [
        ("mastered", True, [1.25, 1.10, 0.95]),
        ("mastered", False, [0.05, 0.10, 0.15]),
        ("confused", True, [1.20, 1.10, 1.00]),
        ("confused", False, [0.0, 0.10, 0.20]),
        ("missing", True, [1.15, 1.10, 1.05]),
        ("missing", False, [-0.05, 0.10, 0.25]),
    ],
)
def test_rewards_of_the_specification(region: str, is_right: bool, expected: list[float]) -> None:
    assert rewards(region, [is_right] * 3, [0.0, 0.5, 1.0]) == pytest.approx(expected, abs=FLOAT64)


def test_a_group_of_the_specification() -> None:
    found = rewards("confused", [True, True, False, False], [0.2, 0.7, 0.1, 0.9])
    assert found == pytest.approx([1.16, 1.06, 0.02, 0.18], abs=FLOAT64)
    advantages = group_advantages(
        torch.tensor([found], dtype=torch.float64),
        std=AdvantageStd["sample"],
        eps=KmkcPolicyObjective.advantage_eps,
    )[0]
    assert advantages.tolist() == pytest.approx([0.9434, 0.7734, -0.9944, -0.7224], abs=5e-5)
    assert advantages.tolist() == pytest.approx(reference.advantages(found), abs=EXACT)
    assert float(advantages.sum()) == pytest.approx(0, abs=EXACT)


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 1)), min_size=1, max_size=8),
    st.sampled_from(sorted(LAMBDAS)),
)
def test_rewards_are_those_of_the_loops(items: list[tuple[bool, bool, float]], region: str) -> None:
    right, formed, h = (list(column) for column in zip(*items, strict=True))
    found = rewards(region, right, h, formed)
    expected = [
        reference.reward(is_right, value, LAMBDAS[region], is_formed)
        for is_right, value, is_formed in zip(right, h, formed, strict=True)
    ]
    assert found == pytest.approx(expected, abs=EXACT)


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(sorted(LAMBDAS)), st.booleans(), st.booleans())
def test_a_right_answer_earns_more_than_any_wrong_one(
    h_right: float, h_wrong: float, region: str, formed_right: bool, formed_wrong: bool
) -> None:
    right, wrong = rewards(region, [True, False], [h_right, h_wrong], [formed_right, formed_wrong])
    assert right > wrong


def test_weights_that_give_up_the_order_are_refused() -> None:
    assert list(config().errors("reward")) == []
    [error] = config(lambdas={**LAMBDAS, "missing": [0.9, 0.9]}).errors("reward")
    assert "reward.lambdas.missing: got [0.9, 0.9], expected less than 1.8 in sum" in error
    [error] = config(lambdas={**LAMBDAS, "missing": [0.9]}).errors("reward")
    assert "expected two numbers >= 0" in error
    [error] = config(lambdas={"mastered": [0.1, 0.1]}).errors("reward")
    assert "expected confused, equal, mastered, missing" in error
    # Just below the bar the order holds: the worst right answer against the best wrong one.
    first, second = 0.9, 0.89
    assert 1 - first / 2 > second / 2 + 0.1


def test_one_sided_entropy_leaves_the_other_side_alone() -> None:
    h, right = torch.tensor([0.2, 0.2]), torch.tensor([True, False])
    assert certainty_gain(h, right, EntropyDirection.right_only).tolist() == pytest.approx([0.3, 0.0])
    assert certainty_gain(h, right, EntropyDirection.wrong_only).tolist() == pytest.approx([0.0, -0.3])
    assert certainty_gain(h, right, BOTH).tolist() == pytest.approx([0.3, -0.3])


def test_entropy_is_a_mean_over_tokens_without_padding_in_nats() -> None:
    logits = [[2.0, 1.0, 0.0, -1.0], [0.0, 0.0, 0.0, 0.0], [50.0, 0.0, -200.0, 0.0]]
    found = entropies_of(torch.tensor(logits))
    assert found.tolist() == pytest.approx([reference.entropy(row) for row in logits], abs=FLOAT32)
    assert float(found[0]) == pytest.approx(0.947537, abs=FLOAT64)
    assert entropies_of(torch.tensor([[0.0, float("-inf")]])).tolist() == [0.0]
    table = torch.tensor([[0.5, 1.5, 9.0], [0.3, 9.0, 9.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    means = mean_entropies(table, mask)
    assert means.tolist() == pytest.approx([1.0, 0.3], abs=FLOAT64)
    h = normalised_entropy(means, 0.8)
    expected = [reference.h(row, of_row, 0.8) for row, of_row in zip(table.tolist(), mask.tolist(), strict=True)]
    assert h.tolist() == pytest.approx(expected, abs=FLOAT64)
    assert normalised_entropy(means, 0.0).tolist() == [0.0, 0.0]


QUESTIONS = [question("q1"), question("q2")]


def rollouts(texts: list[str], entropies: list[list[float]], *, truncated: tuple[int, ...] = ()) -> Any:
    """Two responses a question, of two tokens each, the second of which is padding where its entropy is negative."""
    table = torch.tensor(entropies)
    return SimpleNamespace(
        texts=texts,
        entropies=table.clamp(min=0),
        response_mask=(table >= 0).long(),
        truncated=torch.tensor([index in truncated for index in range(len(texts))]),
        group_size=2,
    )


def ready(made: CalibrationReward, *, known: Known | None = None, records: Any = QUESTIONS) -> CalibrationReward:
    context: Any = SimpleNamespace(
        config=SimpleNamespace(prompt_style="bare", data=SimpleNamespace(name="made", train_split="train")),
        data=SimpleNamespace(records=lambda split: iter(records)),
        made=None if known is None else SimpleNamespace(product=known),
    )
    made.prepare(context=context)
    return made


def known_of(**regions: str) -> Known:
    of_question = {
        name: Assigned(id=name, region=Region(region), assigner="rule", acc=0.0, nats=0.0, kappa=0.0, omega=0.0)
        for name, region in regions.items()
    }
    return Known(regions=of_question, entropies=[1.0] * 80)


def scored(reward: CalibrationReward, batch: Any) -> Any:
    prompts = [PolicyPrompt(record=record, text="?") for record in QUESTIONS]
    return reward.scores(prompts, batch, progress=0.0)


TEXTS = ["Paris", "Lyon", "Paris", "Lyon Nice Paris"]
ENTROPIES = [[0.5, 0.5], [1.0, 1.0], [1.0, -1.0], [0.0, 0.0]]


def test_the_reward_reads_region_answer_and_entropy() -> None:
    reward = ready(CalibrationReward(config()), known=known_of(q1="mastered", q2="missing"))
    scores = scored(reward, rollouts(TEXTS, ENTROPIES))
    # H_ref is 1: 80 of the profile, and four below or at it. A list of answers is wrong, and not well formed.
    assert scores.rewards_PG.flatten().tolist() == pytest.approx([1.10, 0.15, 1.05, -0.15], abs=FLOAT64)
    assert scores.is_right_PG.tolist() == [[True, False], [True, False]]
    assert scores.parts["train/h_ref"].unique().tolist() == [1.0]
    assert scores.parts["train/reward/format"].flatten().tolist() == [1, 1, 1, 0]


def test_what_was_cut_is_neither_right_nor_well_formed() -> None:
    reward = ready(CalibrationReward(config(lambda_mode=LambdaMode.equal)))
    scores = scored(reward, rollouts(TEXTS, ENTROPIES, truncated=(0,)))
    assert scores.is_right_PG.tolist() == [[False, False], [True, False]]
    assert scores.parts["train/reward/format"].flatten().tolist() == [0, 1, 1, 0]


def test_the_reference_follows_a_model_whose_entropy_falls() -> None:
    reward = ready(CalibrationReward(config(window=8)), known=known_of(q1="mastered", q2="missing"))
    fallen = [[0.01, 0.01], [0.02, 0.02], [0.01, 0.01], [0.02, 0.02]]
    first = scored(reward, rollouts(TEXTS, fallen))
    second = scored(reward, rollouts(TEXTS, fallen))
    assert first.parts["train/h_ref"].max() > 0.9
    assert second.parts["train/h_ref"].max() == pytest.approx(0.02, abs=FLOAT64)
    assert first.parts["train/h_clipped"].sum() == 0
    # With the old constant both would be sure beyond difference; with the reference the gain tells them apart.
    assert first.parts["train/reward/gain"][0, 0] == pytest.approx(0.5, abs=0.02)
    assert second.parts["train/reward/gain"].flatten().tolist() == pytest.approx([0.0, 0.5, 0.0, 0.5], abs=1e-6)


def test_responses_above_the_reference_are_counted() -> None:
    reward = ready(CalibrationReward(config()), known=known_of(q1="mastered", q2="missing"))
    scores = scored(reward, rollouts(TEXTS, [[3.0, 3.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]))
    assert scores.parts["train/h_clipped"].flatten().tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("term", ["loss", "disabled"])
def test_without_the_term_the_reward_is_that_of_grpo(term: str) -> None:
    reward = ready(
        CalibrationReward(config(entropy_term=EntropyTerm(term))), known=known_of(q1="missing", q2="missing")
    )
    scores = scored(reward, rollouts(TEXTS, ENTROPIES))
    assert scores.rewards_PG.flatten().tolist() == pytest.approx([1.1, 0.1, 1.1, 0.0], abs=FLOAT64)


def test_a_group_that_agrees_learns_from_certainty_and_from_nothing_in_grpo() -> None:
    batch = rollouts(["Paris", "Paris", "Lyon", "Lyon"], [[0.2, 0.2], [0.8, 0.8], [0.2, 0.2], [0.8, 0.8]])
    advantages = {}
    for term in (EntropyTerm.reward, EntropyTerm.disabled):
        reward = ready(CalibrationReward(config(entropy_term=term)), known=known_of(q1="mastered", q2="missing"))
        table = scored(reward, batch).rewards_PG
        advantages[term] = group_advantages(table, std=AdvantageStd["sample"], eps=1e-4)
    assert (advantages[EntropyTerm.disabled] == 0).all()
    right, wrong = advantages[EntropyTerm.reward].tolist()
    assert right[0] > 0 > right[1]  # the surer of two right answers
    assert wrong[0] < 0 < wrong[1]  # the less sure of two wrong ones


def test_a_resumed_run_has_the_window_that_it_had() -> None:
    one = ready(CalibrationReward(config()), known=known_of(q1="mastered", q2="missing"))
    scored(one, rollouts(TEXTS, ENTROPIES))
    other = ready(CalibrationReward(config()), known=known_of(q1="mastered", q2="missing"))
    other.restore(one.state())
    assert list(other.window) == list(one.window)
    assert other.window.maxlen == 100


def test_what_has_no_region_or_cannot_be_judged_is_refused() -> None:
    with pytest.raises(DataError, match="question 'q2' has no region"):
        ready(CalibrationReward(config()), known=known_of(q1="missing"))
    with pytest.raises(DataError, match="'t' of data=made is a TextRecord"):
        ready(CalibrationReward(config()), records=[TextRecord(identifier="t", text="x")])
    sums = [MathRecord(identifier="s", question="1 + 1?", answer="2")]
    assert ready(CalibrationReward(config(lambda_mode=LambdaMode.equal)), records=sums).weights == {"s": (0.2, 0.2)}


# -- the loss ----------------------------------------------------------------------------------------------------------


def objective_of(kind: Any, **changes: Any) -> Any:
    values: dict[str, Any] = {
        "group_size": 4,
        "temperature": 0.7,
        "max_new_tokens": 6,
        "adv_std": AdvantageStd["sample"],
        "clip_low": 0.2,
        "clip_high": 0.3,
        "denominator": Denominator.sequence,
        "kl": 0.0,
        **changes,
    }
    if kind is KmkcPolicyObjective:
        return KmkcPolicyObjective(KmkcPolicyConfig(_target_="", entropy=0.01, **values))
    return PolicyObjective(PolicyConfig(_target_="", **values))


RIGHT = torch.tensor([True, False] * 6)


def prepared(term: str, direction: EntropyDirection = BOTH, **changes: Any) -> Any:
    objective = objective_of(KmkcPolicyObjective, **changes)
    reward = config(entropy_term=EntropyTerm(term), direction=direction)
    model = model_of(torch.float64)
    context: Any = SimpleNamespace(config=SimpleNamespace(reward=reward), start=SimpleNamespace(model=model))
    objective.prepare(model, context=context)
    return objective


@pytest.mark.parametrize("term", ["reward", "disabled"])
@pytest.mark.parametrize("denominator", list(Denominator))
def test_without_entropy_in_it_the_loss_is_grpos(term: str, denominator: Denominator) -> None:
    """And GRPO's is TRL's: `tests/objectives/test_policy.py`."""
    model = model_of(torch.float64)
    rows = policy_rows(rollouts_of(model, noise=0.4), advantages_of(), pad_id=0, is_right_B=RIGHT)
    everything = [list(range(12))]
    plain = whole_loss(objective_of(PolicyObjective, denominator=denominator), model, rows, everything)
    ours = whole_loss(prepared(term, denominator=denominator), model, rows, everything)
    assert ours.item() == plain.item()


@pytest.mark.parametrize("direction", list(EntropyDirection))
def test_the_loss_adds_the_entropy_of_right_and_takes_that_of_wrong_responses(direction: EntropyDirection) -> None:
    model = model_of(torch.float64)
    made = rollouts_of(model, noise=0.4)
    rows = policy_rows(made, advantages_of(), pad_id=0, is_right_B=RIGHT)
    everything = [list(range(12))]
    plain = whole_loss(objective_of(PolicyObjective), model, rows, everything)
    ours = whole_loss(prepared("loss", direction), model, rows, everything)
    added = 0.0
    for row in range(12):
        prompt = made.prompt_ids[row // 4][made.prompt_mask[row // 4].bool()]
        response = made.response_ids[row][made.response_mask[row].bool()]
        with torch.no_grad():
            logits = model(torch.cat([prompt, response])[None]).logits[0, len(prompt) - 1 : -1]
        entropies = [reference.entropy(step) for step in logits.tolist()]
        counts = {"both": True, "right_only": bool(RIGHT[row]), "wrong_only": not RIGHT[row]}[direction.value]
        added += (1 if RIGHT[row] else -1) * counts * sum(entropies) / len(entropies) / 12
    assert ours.item() - plain.item() == pytest.approx(0.01 * added, abs=FLOAT32)


def test_a_step_on_the_entropy_makes_right_answers_surer() -> None:
    model = model_of(torch.float64)
    rows = policy_rows(rollouts_of(model), torch.zeros(12), pad_id=0, is_right_B=torch.ones(12, dtype=torch.bool))
    objective = prepared("loss")
    assert objective.is_active(torch.zeros(3)).all()
    assert not prepared("reward").is_active(torch.zeros(3)).any()
    before = whole_loss(objective, model, rows, [list(range(12))])
    slopes = torch.autograd.grad(before, list(model.parameters()), allow_unused=True)
    with torch.no_grad():
        for parameter, slope in zip(model.parameters(), slopes, strict=True):
            if slope is not None:
                parameter -= 0.5 * slope
    assert whole_loss(objective, model, rows, [list(range(12))]) < before


def test_the_divergence_is_from_the_weights_at_the_start_of_the_phase() -> None:
    """k3 = exp(d) - d - 1, d = log ref - log pi, in a loop; 0 while the model has not moved."""
    model = model_of(torch.float64)
    rows = policy_rows(rollouts_of(model), torch.zeros(12), pad_id=0)
    objective = prepared("disabled", kl=0.1)
    assert objective.reference is not None
    assert whole_loss(objective, model, rows, [list(range(12))]).item() == pytest.approx(0, abs=FLOAT32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    assert whole_loss(objective, model, rows, [list(range(12))]).item() > 0.001


def test_signs() -> None:
    right = torch.tensor([True, False])
    found = {direction: entropy_signs(right, direction).tolist() for direction in EntropyDirection}
    assert found == {BOTH: [1, -1], EntropyDirection.right_only: [1, 0], EntropyDirection.wrong_only: [0, -1]}
