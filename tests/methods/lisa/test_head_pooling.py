"""Fewer key-value heads: means of neighbours, the untouched model, caches, and a plain model of transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.methods.lisa.test_surgery import FAMILIES, ids_of, logits, model_of
from tests.tolerances import EXACT
from transformers import AutoModelForCausalLM, DynamicCache

from athlos.config.compose import run_config
from athlos.errors import ConfigErrors, SurgeryError
from athlos.methods.lisa.head_pooling import MeanpoolSurgery
from athlos.methods.lisa.kv_sharing import ClaSurgery
from athlos.models.sites import backbone
from athlos.parts import PartContext

SIZE = 12


def applied(model: Any, *overrides: str) -> tuple[Any, Any]:
    config = run_config(list(overrides))
    context = PartContext(config=config, stages=None)  # type: ignore[arg-type]
    kinds: dict[str, Any] = {
        "surgery=gqa_meanpool": MeanpoolSurgery,
        "surgery=mqa_meanpool": MeanpoolSurgery,
        "surgery=cla": ClaSurgery,
    }
    return kinds[overrides[0]](config.surgery).apply(model, context=context)


def test_rows_are_means_of_neighbouring_heads() -> None:
    model = model_of(num_key_value_heads=4, attention_bias=True)
    with torch.no_grad():
        for layer in backbone(model).layers:
            for name in "kv":
                layer.sites[name].module.bias.normal_()
    changed, report = applied(model, "surgery=gqa_meanpool", "surgery.groups=2")
    for old, new in zip(backbone(model).layers, backbone(changed).layers, strict=True):
        for name in "kv":
            for group in range(2):
                for row in range(SIZE):
                    first, second = ((2 * group + head) * SIZE + row for head in (0, 1))
                    for part in ("weight", "bias"):
                        before, after = (getattr(one.sites[name].module, part) for one in (old, new))
                        expected = (before[first] + before[second]) / 2
                        torch.testing.assert_close(after[group * SIZE + row], expected, atol=EXACT, rtol=0)
        assert new.sites["q"].module.weight is old.sites["q"].module.weight
    assert report.metrics["lisa/kv_ratio"] == 0.5
    assert backbone(model).num_kv_heads == 4


@pytest.mark.parametrize("family", FAMILIES)
def test_as_many_groups_as_there_are_is_the_untouched_model(family: str) -> None:
    model = model_of(family)
    changed, _ = applied(model, "surgery=gqa_meanpool", "surgery.groups=2")
    assert torch.equal(logits(changed, ids_of()), logits(model, ids_of()))


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_that_were_equal_lose_nothing(family: str) -> None:
    """Two key-value heads with the same weights are their mean."""
    model = model_of(family)
    with torch.no_grad():
        for layer in backbone(model).layers:
            for name in "kv":
                site = layer.sites[name]
                rows = site.weight[site.rows]
                rows[SIZE:] = rows[:SIZE]
                if site.module.bias is not None:
                    site.module.bias[site.rows][SIZE:] = site.module.bias[site.rows][:SIZE]
    changed, _ = applied(model, "surgery=mqa_meanpool")
    torch.testing.assert_close(logits(changed, ids_of()), logits(model, ids_of()), atol=1e3 * EXACT, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_decoding_equals_the_full_pass(family: str) -> None:
    changed, report = applied(model_of(family), "surgery=mqa_meanpool")
    cache, parts = DynamicCache(config=changed.config), []
    for piece in ids_of().split(1, dim=1):
        parts.append(logits(changed, piece, past_key_values=cache, use_cache=True))
    torch.testing.assert_close(torch.cat(parts, 1), logits(changed, ids_of()), atol=1e3 * EXACT, rtol=0)
    assert all(layer.keys.shape[1] == 1 for layer in cache.layers)
    assert report.metrics["lisa/kv_ratio"] == 0.5
    assert report.metrics["lisa/kv_bytes_per_token"] == 5 * 2 * SIZE * 8


@pytest.mark.parametrize("family", FAMILIES)
def test_the_result_is_a_plain_model(family: str, tmp_path: Path) -> None:
    changed, _ = applied(model_of(family), "surgery=mqa_meanpool")
    changed.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).eval()
    assert again.config.model_type == FAMILIES[family]["model_type"]
    torch.testing.assert_close(logits(again, ids_of()), logits(changed, ids_of()), atol=1e3 * EXACT, rtol=0)


def test_what_does_not_fit() -> None:
    with pytest.raises(SurgeryError, match="expected a divisor of the 2 key-value heads"):
        applied(model_of(), "surgery=gqa_meanpool", "surgery.groups=3")
    with pytest.raises(SurgeryError, match="took its keys or values away"):
        applied(applied(model_of(), "surgery=cla")[0], "surgery=mqa_meanpool")
    with pytest.raises(ConfigErrors, match=r"surgery.groups: got 0"):
        run_config(["surgery=gqa_meanpool", "surgery.groups=0"])
