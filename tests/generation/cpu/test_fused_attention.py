"""The compiled attention against the equation in float64, for every kind of layer that it takes."""

import logging
import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.tolerances import LOGITS_FLOAT32
from torch import Tensor
from torch.nn import functional

from athlos.generation.cpu import fused_attention
from athlos.generation.cpu.compiled import COMPILERS
from athlos.generation.cpu.fused_attention import Alignment, Shape, attend, fused
from athlos.generation.kv_cache import KVCache

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, COMPILERS)), reason="no C++ compiler: PyTorch's operations are used"
)
ACTS: dict[str, Any] = {
    "gelu": functional.gelu,
    "silu": functional.silu,
    "relu": torch.relu,
    "none": lambda values: values,
}
CASES = {
    "lisa, one query": {"heads": 6, "groups": 2, "rank": 10, "value": 32, "hidden": 5, "act": "gelu", "queries": 1},
    "lisa, many queries": {"heads": 6, "groups": 2, "rank": 10, "value": 32, "hidden": 5, "act": "gelu", "queries": 37},
    "plain": {"heads": 4, "groups": 2, "rank": 32, "value": 32, "queries": 1},
    "plain, many queries": {"heads": 4, "groups": 4, "rank": 16, "value": 16, "queries": 20},
    "no low rank": {"heads": 4, "groups": 1, "rank": 0, "value": 16, "hidden": 3, "act": "silu", "queries": 2},
    "copied": {"heads": 4, "groups": 2, "rank": 0, "value": 16, "queries": 1, "is_added": True},
    "turned keys": {
        "heads": 6,
        "groups": 2,
        "rank": 10,
        "value": 32,
        "hidden": 5,
        "act": "gelu",
        "queries": 1,
        "is_turned": True,
    },
    "turned keys, many queries": {"heads": 4, "groups": 2, "rank": 4, "value": 16, "queries": 21, "is_turned": True},
    "no mix": {"heads": 4, "groups": 2, "rank": 4, "value": 16, "hidden": 3, "act": "relu", "queries": 1},
}


def given(
    *,
    heads: int,
    groups: int,
    rank: int,
    value: int,
    queries: int,
    hidden: int = 0,
    act: str = "none",
    is_added: bool = False,
    is_turned: bool = False,
    columns: int = 1100,
    rows: int = 3,
) -> dict[str, Any]:
    """Tensors of a case: keys and values are views of a longer cache, as in the engine."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    keys = normal(rows, groups, columns + 7, rank)
    if is_turned:
        cached = KVCache([None], capacity=columns + 7)
        keys, _ = cached.layers[0].update(keys, normal(rows, groups, columns + 7, rank + 1))
        assert keys.stride(2) == 1
    alignment = None
    if hidden or not rank:
        alignment = Alignment(
            below_BHTN=3 * normal(rows, heads, queries, columns + 2)[..., 2:],
            is_added=is_added,
            mix_HH=None if is_added or act == "relu" else normal(heads, heads) / 2,
            inner_mH=normal(hidden, heads) if hidden else None,
            inner_bias_m=normal(hidden) if hidden else None,
            outer_mH=normal(heads, hidden).T / 4 if hidden else None,
            outer_bias_H=normal(heads) if hidden else None,
            activation=act,
        )
    return {
        "query_BHTr": normal(rows, heads, queries, rank) if rank else None,
        "key_BGNr": keys[:, :, :columns] if rank else None,
        "value_BGNd": normal(rows, groups, columns + 7, value)[:, :, :columns],
        "num_heads": heads,
        "alignment": alignment,
    }


def by_equation(inputs: dict[str, Any], mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Output, scores and which scores a query may see, in float64."""
    query, key, value = (inputs[name] for name in ("query_BHTr", "key_BGNr", "value_BGNd"))
    alignment, heads, groups = inputs["alignment"], inputs["num_heads"], value.shape[1]
    scores: Any = 0.0
    if query is not None:
        scores = query.double() @ key.double().repeat_interleave(heads // groups, 1).transpose(2, 3)
    if alignment is not None:
        below = alignment.below_BHTN.double()
        if alignment.mix_HH is not None:
            scores = scores + torch.einsum("hg,bgtn->bhtn", alignment.mix_HH.double(), below)
        elif alignment.is_added:
            scores = scores + below
        if alignment.inner_mH is not None:
            units = torch.einsum("mg,bgtn->bmtn", alignment.inner_mH.double(), below)
            units = ACTS[alignment.activation](units + alignment.inner_bias_m.double()[:, None, None])
            scores = scores + torch.einsum("mh,bmtn->bhtn", alignment.outer_mH.double(), units)
            scores = scores + alignment.outer_bias_H.double()[:, None, None]
    queries, columns = scores.shape[2:]
    sees = torch.arange(columns) <= torch.arange(columns - queries, columns)[:, None]
    sees = sees.expand(len(value), 1, queries, columns) & (True if mask is None else mask)
    weights = scores.masked_fill(~sees, -1e30).softmax(-1)
    return (weights @ value.double().repeat_interleave(heads // groups, 1)).transpose(1, 2), scores, sees


@needs_compiler
@pytest.mark.parametrize("is_padded", [False, True])
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_the_kernel_is_the_equation(case: str, is_padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_attention, "LEAST_WORK", 1)
    inputs, mask = given(**CASES[case]), None
    columns = inputs["value_BGNd"].shape[2]
    if is_padded:
        mask = (torch.arange(columns) >= torch.tensor([0, 3, 700])[:, None])[:, None, None]
    with fused():
        found = attend(**inputs, mask=mask, has_scores=True)
        again = attend(**inputs, mask=mask)
    assert found is not None
    assert again is not None
    expected, scores, sees = by_equation(inputs, mask)
    torch.testing.assert_close(found[0].double(), expected, atol=LOGITS_FLOAT32, rtol=LOGITS_FLOAT32)
    seen = sees.expand_as(scores)
    assert found[1] is not None
    torch.testing.assert_close(found[1].double()[seen], scores[seen], atol=LOGITS_FLOAT32, rtol=LOGITS_FLOAT32)
    assert torch.equal(again[0], found[0])
    assert again[1] is None
    if inputs["alignment"] is not None:
        inputs["alignment"] = replace(inputs["alignment"], may_be_overwritten=True)
        with fused():
            in_place = attend(**inputs, mask=mask, has_scores=True)
        assert in_place is not None
        assert torch.equal(in_place[0], found[0])
        assert in_place[1] is inputs["alignment"].below_BHTN
        assert torch.equal(in_place[1][seen], found[1][seen])


@needs_compiler
@torch.no_grad()
def test_a_query_that_sees_nothing_has_finite_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_attention, "LEAST_WORK", 1)
    inputs = given(**CASES["plain"], columns=70)
    with fused():
        found = attend(**inputs, mask=torch.zeros(3, 1, 1, 70, dtype=torch.bool))
    assert found is not None
    mean = inputs["value_BGNd"].mean(2).repeat_interleave(2, 1)[:, None]
    torch.testing.assert_close(found[0], mean, atol=LOGITS_FLOAT32, rtol=0)


@torch.no_grad()
def test_what_the_kernel_is_not_for_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = given(**CASES["plain"], columns=70)
    assert attend(**inputs) is None  # not inside `fused`
    with fused():
        assert attend(**inputs) is None  # too small
        monkeypatch.setattr(fused_attention, "LEAST_WORK", 1)
        with torch.enable_grad():
            assert attend(**inputs) is None
        with fused(is_wanted=False):
            assert attend(**inputs) is None
        narrow = given(**(CASES["plain"] | {"rank": 12, "value": 12}), columns=70)
        assert attend(**narrow) is None
        half = {name: one.bfloat16() if isinstance(one, Tensor) else one for name, one in inputs.items()}
        assert attend(**half) is None
        assert attend(**inputs, mask=torch.zeros(3, 1, 1, 70)) is None  # an additive mask


@torch.no_grad()
def test_without_a_compiler_one_warning_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    monkeypatch.setattr(fused_attention, "LEAST_WORK", 1)
    monkeypatch.setenv("ATHLOS_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    fused_attention._kernel.cache_clear()
    try:
        with caplog.at_level(logging.WARNING), fused():
            for _ in range(2):
                assert attend(**given(**CASES["plain"], columns=70)) is None
    finally:
        fused_attention._kernel.cache_clear()
    assert [record.message for record in caplog.records if "no-such-compiler" in record.message]
    assert len(caplog.records) == 1


@needs_compiler
def test_a_kernel_that_does_not_compile_is_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    monkeypatch.setenv("ATHLOS_CACHE", str(tmp_path))
    broken = tmp_path / "broken.cpp"
    broken.write_text("this is not C++", encoding="utf-8")
    monkeypatch.setattr(fused_attention, "SOURCE", broken)
    fused_attention._kernel.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            assert fused_attention._kernel(Shape(heads=2, groups=1, rank=2, value=16)) is None
    finally:
        fused_attention._kernel.cache_clear()
    assert "'broken' is off" in caplog.text
    assert not list((tmp_path / "kernels").iterdir())
