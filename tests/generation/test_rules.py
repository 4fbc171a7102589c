"""Rules on logits against the naive twin, and draws against the distribution."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.generation import reference

from athlos.errors import ConfigErrors
from athlos.generation.interface import SamplingRule
from athlos.generation.rules import PAD, check_rule, draw, generator, next_tokens, penalised, token_log_probs, truncated

CPU = torch.device("cpu")


@settings(deadline=None)
@given(
    logits=st.lists(st.integers(-400, 400), min_size=2, max_size=30, unique=True),
    top_k=st.integers(0, 32),
    top_p=st.sampled_from([0.05, 0.3, 0.5, 0.9, 0.99, 1.0]),
    min_p=st.sampled_from([0.0, 0.01, 0.2, 0.9]),
)
def test_truncation_keeps_what_the_naive_twin_keeps(logits, top_k, top_p, min_p):
    values = [value / 50 for value in logits]
    rule = SamplingRule(temperature=1.0, top_k=top_k, top_p=top_p, min_p=min_p)
    cut = truncated(torch.tensor([values], dtype=torch.float64), rule)[0]
    found = {index for index, value in enumerate(cut.tolist()) if value > -math.inf}
    assert found == set(reference.kept(values, top_k=top_k, top_p=top_p, min_p=min_p))


def test_top_p_of_a_flat_distribution_looks_past_the_first_tokens():
    logits = torch.zeros(2, 1000)
    logits[0, :3] = 20.0  # the first row needs three tokens, the second one 900
    logits[1] = torch.arange(1000) * 1e-6
    kept = truncated(logits, SamplingRule(temperature=1.0, top_p=0.9)).isfinite().sum(dim=1).tolist()
    assert kept[0] == 3
    assert abs(kept[1] - 900) <= 1


def test_ties_with_the_last_one_kept_stay():
    logits = torch.tensor([[1.0, 3.0, 3.0, 3.0, 0.0]])
    cut = truncated(logits, SamplingRule(temperature=1.0, top_k=2))
    assert cut.isfinite().tolist() == [[False, True, True, True, False]]


def test_defaults_change_nothing():
    logits = torch.randn(3, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(truncated(logits, SamplingRule(temperature=1.0)), logits)


def test_draws_follow_the_distribution():
    probs = torch.tensor([0.5, 0.3, 0.15, 0.05])
    num_draws = 4000
    rule = SamplingRule(temperature=0.5, top_k=3)
    source = generator(3, 0, device=CPU)
    drawn = next_tokens(probs.log().repeat(num_draws, 1), rule=rule, generators=[source] * num_draws)
    shares = torch.bincount(drawn, minlength=4) / num_draws
    kept = torch.tensor([0.25, 0.09, 0.0225, 0.0])  # squared by temperature 1/2, the fourth token cut by top-k
    standard_error = 0.008  # at most sqrt(.25 / 4000)
    torch.testing.assert_close(shares, kept / kept.sum(), atol=4 * standard_error, rtol=0)
    assert shares[3] == 0


def test_a_draw_never_takes_a_token_that_was_cut():
    logits = torch.full((1, 50), -torch.inf)
    logits[0, 17] = -300.0
    source = generator(1, 1, device=CPU)
    assert {int(draw(logits, [source])) for _ in range(100)} == {17}


def test_streams_of_seed_and_sample_are_their_own():
    def numbers(*place):
        return tuple(torch.rand(4, generator=generator(*place, device=CPU)).tolist())

    places = [(seed, sample) for seed in range(20) for sample in range(20)]
    assert len({numbers(*place) for place in places}) == len(places)
    assert numbers(7, 3) == numbers(7, 3)


def test_penalty_skips_padding():
    logits = torch.tensor([[2.0, -2.0, 4.0], [2.0, -2.0, 4.0]])
    ids = torch.tensor([[PAD, 0, 1], [PAD, PAD, PAD]])
    expected = torch.tensor([[1.0, -4.0, 4.0], [2.0, -2.0, 4.0]])
    assert torch.equal(penalised(logits, ids, penalty=2.0), expected)


def test_further_rules_come_before_the_temperature():
    seen = []

    def forbid(logits, ids):
        seen.append(ids.tolist())
        return logits.index_fill(1, torch.tensor([2]), -torch.inf)

    logits, ids = torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([[PAD, 5]])
    assert next_tokens(logits, rule=SamplingRule(), ids_BT=ids, extra_rules=[forbid]).tolist() == [1]
    rule = SamplingRule(temperature=1e-3)
    source = generator(0, 0, device=CPU)
    assert next_tokens(logits, rule=rule, ids_BT=ids, generators=[source], extra_rules=[forbid]).tolist() == [1]
    assert seen == [[[PAD, 5]]] * 2
    assert token_log_probs(logits, torch.tensor([1])).item() == pytest.approx(reference.log_softmax([1.0, 2.0, 9.0])[1])


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -1.0},
        {"temperature": math.inf},
        {"temperature": math.nan},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": 1.0},
        {"min_p": -0.1},
        {"repetition_penalty": 0.0},
        {"presence_penalty": 2.5},
    ],
)
def test_values_out_of_range_are_named(values):
    [name] = values
    with pytest.raises(ConfigErrors, match=f"{name}: got .*expected"):
        check_rule(SamplingRule(**values))
