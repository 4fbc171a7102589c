"""Schedules by their exact values; the switch against the specification's loop, and its traps.

Sabotages that were tried and that these tests catch: a switch that goes back on, an average with bias correction,
a group without prompts whose average moves.
"""

import random

import pytest
from tests.methods.lang import reference
from tests.tolerances import FLOAT64

from athlos.config.compose import run_config
from athlos.methods.lang.config import HintSchedule, LangConfig, SwitchConfig
from athlos.methods.lang.prompts import shown_units
from athlos.methods.lang.schedule import HintSwitch, hint_share
from athlos.objectives.config import AdvantageStd
from athlos.objectives.policy import group_advantages
from athlos.training.rollout_config import num_policy_steps, num_updates

GROUPS = {"high": ["en", "de"], "low": ["th", "sw"]}


def switch_config(*overrides: str) -> SwitchConfig:
    config = run_config(["method=lang", "objective=policy", "train.max_steps=0", *overrides]).method
    assert isinstance(config, LangConfig)
    return config.switch


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        ("cosine", [1.0, 0.853553, 0.5, 0.146447, 0.0]),
        ("linear", [1.0, 0.75, 0.5, 0.25, 0.0]),
        ("exp", [1.0, 0.286505, 0.082085, 0.023518, 0.006738]),
        ("constant", [1.0] * 5),
        ("steps", [1.0, 1.0, 0.5, 0.5, 0.5]),
        ("none", [0.0] * 5),
    ],
)
def test_the_shown_share_at_quarters_of_the_run(schedule: str, values: list[float]) -> None:
    found = [hint_share(step, 4, schedule=HintSchedule[schedule]) for step in range(5)]
    assert found == pytest.approx(values, abs=FLOAT64)


def test_units_shown_are_rounded_down_and_none_at_the_end() -> None:
    pieces, rng = [str(number) for number in range(10)], random.Random(0)
    select = _select("prefix")
    at = {step: hint_share(step, 4, schedule=HintSchedule["cosine"]) for step in range(5)}
    assert [len(shown_units(pieces, share=at[step], select=select, rng=rng)) for step in range(5)] == [10, 8, 5, 1, 0]
    assert shown_units(pieces, share=0.3, select=select, rng=rng) == ["0", "1", "2"]
    drawn = shown_units(pieces, share=0.3, select=_select("random"), rng=rng)
    assert len(drawn) == 3
    assert drawn == sorted(drawn)
    assert drawn != ["0", "1", "2"]


def _select(name: str):  # type: ignore[no-untyped-def]
    from athlos.methods.lang.config import HintSelect

    return HintSelect[name]


def test_the_average_begins_at_zero_and_passes_a_half_at_the_seventh_update() -> None:
    switch = HintSwitch(switch_config("method.switch.t_min=0"), GROUPS)
    for step in range(7):
        assert not switch.off_since
        switch.update(step, {"high": (4.0, 4.0)})
    assert switch.average["high"] == pytest.approx(0.5217031, abs=FLOAT64)
    assert switch.off_since == {"high": 6}
    assert switch.average["low"] == 0.0


def test_a_group_that_switched_stays_switched() -> None:
    switch = HintSwitch(switch_config("method.switch.t_min=0", "method.switch.ema_alpha=0"), GROUPS)
    switch.update(0, {"high": (1.0, 1.0), "low": (0.0, 1.0)})
    switch.update(1, {"high": (0.0, 1.0), "low": (0.0, 1.0)})
    assert switch.average == {"high": 0.0, "low": 0.0}
    assert switch.is_off("en")
    assert switch.is_off("de")
    assert not switch.is_off("th")
    assert switch.off_since == {"high": 0}


def test_nothing_switches_before_its_first_step_and_a_missing_group_keeps_its_average() -> None:
    switch = HintSwitch(switch_config("method.switch.t_min=3", "method.switch.ema_alpha=0.5"), GROUPS)
    for step in range(3):
        switch.update(step, {"high": (1.0, 1.0), "low": (1.0, 4.0) if step == 0 else (0.0, 0.0)})
        assert not switch.off_since
    switch.update(3, {"high": (1.0, 1.0)})
    assert switch.off_since == {"high": 3}
    assert switch.average["low"] == 0.125


@pytest.mark.parametrize(
    ("scope", "keys", "off"),
    [
        ("none", ["all"], []),
        ("global", ["all"], ["en", "de", "th", "sw"]),
        ("group", ["high", "low"], ["en", "de"]),
        ("language", ["en", "de", "th", "sw"], ["en"]),
    ],
)
def test_what_switches_together(scope: str, keys: list[str], off: list[str]) -> None:
    config = switch_config(f"method.switch.scope={scope}", "method.switch.t_min=0", "method.switch.ema_alpha=0")
    switch = HintSwitch(config, GROUPS)
    assert switch.keys == keys
    switch.update(0, {switch.key("en"): (2.0, 2.0)})
    assert [language for language in ("en", "de", "th", "sw") if switch.is_off(language)] == off
    again = HintSwitch(config, GROUPS)
    again.restore(switch.state())
    assert (again.average, again.off_since) == (switch.average, switch.off_since)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "exp", "constant", "none"])
def test_the_loop_is_that_of_the_specification(schedule: str) -> None:
    """Hints, advantages, averages and switches over 30 steps, with rewards that depend on what was shown."""
    num_steps, languages = 30, ["en", "th", "de", "sw"]
    rng = random.Random(7)
    batches = [[(rng.choice(languages), list(range(rng.randint(1, 9)))) for _ in range(6)] for _ in range(num_steps)]

    def policy(step: int, language: str, kept: int) -> list[float]:
        chance = (0.6 if language in ("en", "de") else 0.03) + 0.05 * kept
        draws = random.Random(f"{step}{language}{kept}")
        return [float(draws.random() < chance) for _ in range(8)]

    expected = reference.train(
        batches,
        policy,
        group_of={"en": "high", "de": "high", "th": "low", "sw": "low"},
        num_steps=num_steps,
        schedule=schedule,
        alpha=0.9,
        tau=0.5,
        t_min=10,
    )
    switch = HintSwitch(switch_config(), GROUPS)
    for step, (counts, advantages, average, off) in enumerate(expected):
        import torch

        kept, carried = [], {}
        for language, hint in batches[step]:
            share = 0.0 if switch.is_off(language) else hint_share(step, num_steps, schedule=HintSchedule[schedule])
            shown = shown_units([str(one) for one in hint], share=share, select=_select("prefix"), rng=rng)
            rewards = torch.tensor([policy(step, language, len(shown))], dtype=torch.float64)
            found = group_advantages(rewards, std=AdvantageStd["sample"])
            assert found[0].tolist() == pytest.approx(advantages[len(kept)], abs=FLOAT64)
            kept.append(len(shown))
            before = carried.get(switch.key(language), (0.0, 0.0))
            carried[switch.key(language)] = (before[0] + float(found.max() > 0), before[1] + 1)
        switch.update(step, carried)
        assert kept == counts
        assert switch.average == pytest.approx(average, abs=FLOAT64)
        assert {group: group in switch.off_since for group in GROUPS} == off
    assert any(off["high"] for *_, off in expected)  # the comparison saw a switch
    assert all(off["high"] for *_, off in expected[20:])


def test_an_epoch_of_the_papers_data_has_117_steps() -> None:
    overrides = [
        "method=lang",
        "objective=policy",
        "train.batch_size=512",
        "train.micro_batch_size=8",
        "train.max_steps=234",
        "data=traces",
    ]
    config = run_config(overrides)
    assert num_updates(config) == 2
    assert num_policy_steps(config) == 117 == 15_000 // 128
