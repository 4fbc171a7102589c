"""Fields accept what they declare, and one walk over a config finds what they refuse."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import MISSING, OmegaConf

from athlos.config.compose import run_config
from athlos.config.fields import (
    ACCEPTS,
    ITEMS,
    above,
    any_of,
    at_least,
    bounded,
    one_of,
    sized,
    stepped,
    wrong_values,
)
from athlos.config.schema import MethodConfig


@dataclass(kw_only=True)
class Inner:
    share: float = bounded("(0, 1]", default=0.5, why="; 1 = all")
    names: list[str] = any_of("up", "down")


@dataclass(kw_only=True)
class Method(MethodConfig):
    count: int = sized(at_least(20, default=30))
    steps: int = stepped(at_least(0, default=0))
    rate: float = above(0, default=1.0)
    rule: str = one_of("mean", "median", default="mean", renamed={"average": "mean"})
    limit: int | None = at_least(1, default=None)
    free: float = -1.0
    inner: Inner = field(default_factory=Inner)
    shares: dict[str, float] = bounded("[0, 1]", default=dict)
    sizes: list[int] = at_least(1, default=lambda: [2, 3])
    by_name: dict[str, Inner] = field(default_factory=lambda: {"first": Inner()})


def refused(**values: object) -> list[str]:
    return list(wrong_values(replace(run_config([]), method=replace(Method(_target_="x"), **values))))


def test_what_is_accepted_is_not_mentioned():
    assert refused() == []
    edge = Inner(share=1.0, names=["down", "up", "down"])
    assert refused(count=20, steps=10**6, rate=1e-9, rule="median", limit=1, free=-(10.0**9), inner=edge) == []
    assert refused(shares={"a": 0.0, "b": 1.0}, sizes=[1]) == []
    assert Method(_target_="x").sizes is not Method(_target_="x").sizes


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"shares": {"a": 0.5, "b": 1.5}}, "method.shares.b: got 1.5, expected a number in [0, 1]"),
        ({"shares": {"a": float("inf")}}, "method.shares.a: got inf, expected a finite number"),
        ({"sizes": [1, 0]}, "method.sizes: got 0, expected an integer >= 1"),
        ({"count": 19}, "method.count: got 19, expected an integer >= 20"),
        ({"steps": -1}, "method.steps: got -1, expected an integer >= 0"),
        ({"rate": 0.0}, "method.rate: got 0.0, expected a number > 0"),
        ({"rate": float("nan")}, "method.rate: got nan, expected a finite number"),
        ({"rate": float("inf")}, "method.rate: got inf, expected a finite number"),
        ({"rule": "meen"}, "method.rule: got 'meen', expected one of mean, median; did you mean 'mean'?"),
        ({"rule": "average"}, "method.rule: got 'average', expected one of mean, median; it is 'mean' now"),
        ({"limit": 0}, "method.limit: got 0, expected an integer >= 1"),
        ({"inner": Inner(share=0.0)}, "method.inner.share: got 0.0, expected a number in (0, 1]; 1 = all"),
        ({"inner": Inner(names=["up", "gate"])}, "method.inner.names: got 'gate', expected any of up, down"),
        ({"by_name": {"a": Inner(share=1.5)}}, "method.by_name.a.share: got 1.5, expected a number in (0, 1]; 1 = all"),
    ],
)
def test_what_is_refused_is_told_in_one_line(values: dict[str, object], line: str):
    assert refused(**values) == [line]


def test_all_wrong_values_are_told_at_once():
    keys = [line.partition(":")[0] for line in refused(count=0, rate=-1.0, inner=Inner(share=2.0, names=["x", "y"]))]
    assert keys == ["method.count", "method.rate", "method.inner.share", "method.inner.names", "method.inner.names"]


@given(st.floats(-10, 10), st.sampled_from("[("), st.sampled_from("])"))
def test_an_interval_has_the_ends_that_its_brackets_say(value: float, opening: str, closing: str):
    accepted = bounded(f"{opening}-2, 3{closing}").metadata[ACCEPTS]
    is_inside = -2 < value < 3 or (value == -2 and opening == "[") or (value == 3 and closing == "]")
    assert (accepted.refusal(value) == "") == is_inside
    for end, bracket in ((-2.0, opening == "["), (3.0, closing == "]")):
        assert (accepted.refusal(end) == "") == bracket


@pytest.mark.parametrize("make", [at_least, above])
def test_a_field_without_a_default_must_be_given_one(make):
    @dataclass
    class Required:
        value: float = make(0)
        count: int = sized(at_least(1))
        steps: int = stepped(at_least(1))
        name: str = one_of("a")
        share: float = bounded("[0, 1]")

    keys = {"value", "count", "steps", "name", "share"}
    assert OmegaConf.missing_keys(OmegaConf.structured(Required)) == keys
    assert all(getattr(Required(), key) == MISSING for key in keys)


def test_caps_lower_a_count_to_what_it_accepts_at_least():
    assert sized(at_least(20)).metadata[ITEMS] == 20
    assert sized(at_least(0)).metadata[ITEMS] == 1
    assert sized(at_least(0), least=20).metadata[ITEMS] == 20
