"""Layers that share attention or keys in the written-out decoding step of the native engine."""

from typing import Any

import pytest
import torch
from tests.generation.cpu.test_fused_attention import needs_compiler
from tests.methods.lisa import test_kv_sharing
from tests.methods.lisa.test_surgery import FAMILIES, PURE, applied, ids_of, stirred
from tests.tolerances import FLOAT32

from athlos.generation import step as step_module
from athlos.generation.cpu import fused_attention
from athlos.generation.cpu.llama_step import fits
from athlos.generation.step import DecoderStep
from athlos.methods.lisa.surgery import directly_shared
from athlos.models.architecture import build, hf_config
from athlos.models.memory import kv_cache_bytes
from athlos.models.sites import backbone

WIDE = FAMILIES["llama"] | {"hidden_size": 64, "head_dim": 16, "intermediate_size": 48}
"""Widths that the kernels take."""


def changed(case: str) -> Any:
    torch.manual_seed(0)
    base = build(hf_config(WIDE)).eval()
    if case == "lisa":
        return stirred(applied(base, *PURE)[0])
    return directly_shared(base, [2, 3]) if case == "direct" else test_kv_sharing.applied(base, case)[0]


def columns(model: Any, *, written_out: bool, pads: list[int]) -> list[torch.Tensor]:
    """Logits of each column after a prefill of six."""
    step = DecoderStep(model, written_out=written_out)
    cache, pad_B = step.new_cache(capacity=9), torch.tensor(pads)
    pieces = [ids_of()[:, :6], *ids_of()[:, 6:].split(1, dim=1)]
    with torch.inference_mode():
        found = [step(piece, cache, pad_B=pad_B, most_padding=max(pads)) for piece in pieces]
    assert (step.short is not None) is written_out  # it was tried, and gave the same
    return found


@needs_compiler
@pytest.mark.parametrize("case", ["lisa", "identity", "no aligner", "no low rank", "gate", "direct", "scattered"])
@pytest.mark.parametrize("pads", [[0, 0], [0, 2]])
def test_the_fused_attention_gives_the_same_logits(case: str, pads: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefill in pieces of two columns, then one column at a time, by the engine's step and by the decoder."""
    options = {
        "identity": ["surgery.align.hidden=0"],
        "no aligner": ["surgery.align.enabled=false"],
        "no low rank": ["surgery.lowrank.enabled=false"],
        "gate": ["surgery.gate=free"],
        "scattered": ["surgery.layers.explicit=[1,4]"],
    }
    torch.manual_seed(0)
    base = build(hf_config(WIDE)).eval()
    if case == "direct":
        model = directly_shared(base, [2, 3])
    else:
        model = stirred(applied(base, *PURE, *options.get(case, []))[0])
    expected = columns(model, written_out=False, pads=pads)
    calls = []
    monkeypatch.setattr(fused_attention, "LEAST_WORK", 1)
    monkeypatch.setattr(step_module, "LEAST_COLUMNS", 2)
    monkeypatch.setattr(step_module, "KEPT_SCORES", 1)
    monkeypatch.setattr(fused_attention, "_kernel", counted(fused_attention._kernel, calls))
    for written_out in (False, True):
        calls.clear()
        with fused_attention.fused():
            found = columns(model, written_out=written_out, pads=pads)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=FLOAT32, rtol=FLOAT32)
        assert len(calls) >= 4 * (2 if written_out is False else 5)


def counted(kernel: Any, calls: list[Any]) -> Any:
    def found(shape: Any) -> Any:
        calls.append(shape)
        return kernel(shape)

    return found


@pytest.mark.parametrize("case", ["lisa", "direct", "cla", "yoco"])
@pytest.mark.parametrize("pads", [[0, 0], [0, 2]])
def test_a_prefill_in_pieces_is_exact(case: str, pads: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    model = changed(case)
    expected = columns(model, written_out=False, pads=pads)
    monkeypatch.setattr(step_module, "LEAST_COLUMNS", 4)
    monkeypatch.setattr(step_module, "KEPT_SCORES", 1)
    assert DecoderStep(model, written_out=False).hands_on is (case in ("lisa", "direct"))
    for one, other in zip(columns(model, written_out=False, pads=pads), expected, strict=True):
        torch.testing.assert_close(one, other, atol=FLOAT32, rtol=FLOAT32)


@pytest.mark.parametrize("case", ["lisa", "direct", "cla", "yoco"])
@pytest.mark.parametrize("pads", [[0, 0], [0, 2]])
def test_the_written_out_step_gives_the_decoders_logits(case: str, pads: list[int]) -> None:
    model = changed(case)
    for found, expected in zip(
        columns(model, written_out=True, pads=pads), columns(model, written_out=False, pads=pads), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=FLOAT32, rtol=FLOAT32)


def test_what_reads_from_above_or_has_another_hook_is_left_to_the_decoder() -> None:
    assert fits(backbone(changed("lisa")))
    assert not fits(backbone(changed("lckv")))
    model = changed("lisa")
    backbone(model).decoder.register_forward_pre_hook(lambda module, given: None)
    assert not fits(backbone(model))


@pytest.mark.parametrize("case", ["lisa", "direct", "cla", "lckv", "yoco"])
def test_the_bytes_in_the_engines_cache_are_those_of_the_formula(case: str) -> None:
    model = changed(case)
    step = DecoderStep(model, written_out=False)
    cache = step.new_cache(capacity=9)
    with torch.inference_mode():
        step(ids_of(), cache, pad_B=torch.tensor([0, 0]), most_padding=0)
    layers: Any = [layer for layer in cache.layers if layer.is_initialized]
    counted = sum(states.nbytes for layer in layers for states in (layer.keys, layer.values))
    assert counted == kv_cache_bytes(backbone(model), num_rows=2, length=9, number_bytes=4)
