"""Depth profiles against theory and loops: variances, skip coefficients, cosines, ranks, gradients, layer removal."""

import itertools
import math
from typing import Any

import pytest
import torch
from tests.methods.spannorm.reference import effective_rank as naive_rank
from tests.methods.spannorm.test_surgery import ids_of, placed
from tests.tolerances import EXACT, FLOAT32, FLOAT64

from athlos.methods.spannorm.diagnose import effective_rank, gradient_norms, profile, removal_deltas
from athlos.methods.spannorm.module import depth_metrics
from athlos.methods.spannorm.scaling import branch_variances, skip_product
from athlos.models.sites import backbone
from athlos.objectives.config import NextTokenConfig
from athlos.objectives.next_token import NextTokenObjective

WIDE = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 8, "num_key_value_heads": 8}


def batch_of(rows: int = 4, length: int = 32) -> dict[str, torch.Tensor]:
    ids = ids_of(rows, length)
    return {
        "input_ids": ids,
        "labels": ids,
        "attention_mask": torch.ones_like(ids),
        "position_ids": torch.arange(length).expand_as(ids).contiguous(),
    }


class LinearToy:
    """Blocks of random linear branches with output variance s2, on 256 unit rows: the theory's own setting."""

    def __init__(self, *, depth: int, s2: float, width: int = 128) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(256, width, generator=generator, dtype=torch.float64)
        self.branches = [
            math.sqrt(s2 / width) * torch.randn(width, width, generator=generator, dtype=torch.float64)
            for _ in range(2 * depth)
        ]

    def prenorm_variance(self) -> float:
        x = self.x
        for branch in self.branches:
            x = x + normed(x) @ branch
        return x.square().mean().item()

    def spannorm_cosine(self) -> float:
        h, cosines = normed(self.x), []
        for attention, ffn in zip(self.branches[::2], self.branches[1::2], strict=True):
            before, h = h, normed(h + normed(h + h @ attention) @ ffn)
            cosines.append(torch.cosine_similarity(before, h, dim=-1).mean().item())
            assert h.square().mean().item() == pytest.approx(1, abs=FLOAT32)
        return sum(cosines) / len(cosines)


def normed(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True))


def test_variances_of_the_theory() -> None:
    """PreNorm's stream is 1 + 2 L s^2: 257 and 3 at L = 128, give or take a fifth. SpanNorm's cosine: 1/sqrt 2."""
    assert LinearToy(depth=128, s2=1.0).prenorm_variance() == pytest.approx(257, rel=0.25)
    assert LinearToy(depth=128, s2=1 / 128).prenorm_variance() == pytest.approx(3, rel=0.1)
    assert LinearToy(depth=128, s2=1.0).spannorm_cosine() == pytest.approx(0.705, abs=0.01)


@pytest.mark.parametrize("depth", [4, 12])
def test_the_measured_skip_product_is_the_formula(depth: int) -> None:
    model = placed("surgery.branch_calibration=measured", stir=False, num_hidden_layers=depth, **WIDE)
    batch = batch_of()
    found = profile(model, batch)
    assert len(found.skip_coefficient) == depth
    assert found.skip_product == pytest.approx((1 + 1 / depth) ** (-depth / 2), rel=0.05)
    on_path = branch_variances(model, backbone(model), batch["input_ids"])["ffn"]
    assert found.skip_product == pytest.approx(skip_product(on_path), rel=0.03)


def test_skip_paths_of_other_placements() -> None:
    post = profile(placed("surgery.placement=postnorm", stir=False, **WIDE), batch_of())
    span = profile(placed("surgery.init_scale=none", stir=False, **WIDE), batch_of())
    assert post.skip_product < span.skip_product < 1  # two sums a block against one
    two = profile(placed("surgery.span_blocks=2", "surgery.init_scale=none", stir=False, **WIDE), batch_of())
    assert two.skip_coefficient[0] == two.skip_coefficient[2] == 1.0
    assert two.skip_product > span.skip_product


def test_the_skip_coefficient_counts_the_factor_of_the_skip() -> None:
    """In deepnorm the skip comes in times (2 L)^(1/4): by hand, from the stream and the sum of each sub-layer."""
    model, batch = placed("surgery.placement=deepnorm", **WIDE), batch_of()
    seen: list[list[tuple[Any, Any]]] = []
    handles = []
    for layer in backbone(model).layers:
        sums: list[tuple[Any, Any]] = []
        seen.append(sums)
        for name in ("attention", "ffn"):
            handles.append(
                layer.module.sum_of(name).register_forward_hook(
                    lambda module, inputs, output, sums=sums: sums.append((inputs[0], output))
                )
            )
    with torch.no_grad():
        model(batch["input_ids"])
    for handle in handles:
        handle.remove()
    expected = []
    for sums in seen:
        left = [8**0.25 * size_of(skip) / size_of(total) for skip, total in sums]
        expected.append(left[0].mean().item() * left[1].mean().item())
    assert profile(model, batch).skip_coefficient == pytest.approx(expected, abs=FLOAT64)


def size_of(states_BTD: torch.Tensor) -> torch.Tensor:
    """Root mean square of each row."""
    return states_BTD.detach().square().mean(-1).sqrt()


def test_a_profile_against_its_definition() -> None:
    model, batch = placed("surgery.placement=prenorm"), batch_of(2, 9)
    batch["attention_mask"][1, 5:] = 0
    states = [model.model.embed_tokens(batch["input_ids"])]
    handles = [
        layer.module.register_forward_hook(lambda module, arguments, output: states.append(output))
        for layer in backbone(model).layers
    ]
    found = profile(model, batch)
    for handle in handles:
        handle.remove()
    counted = batch["attention_mask"].bool()
    for layer, (before, behind) in enumerate(itertools.pairwise(states)):
        rows = behind[counted].detach()
        assert found.act_rms[layer] == pytest.approx(rows.square().mean().item() ** 0.5, abs=EXACT)
        cosine = torch.cosine_similarity(before[counted], rows, dim=-1).mean().item()
        assert found.adjacent_cosine[layer] == pytest.approx(cosine, abs=FLOAT64)
        values = torch.linalg.svdvals(rows).tolist()
        assert found.effective_rank[layer] == pytest.approx(naive_rank(values), abs=FLOAT64)


def test_effective_rank_of_known_matrices() -> None:
    assert effective_rank(torch.eye(6)) == pytest.approx(6, abs=FLOAT32)
    assert effective_rank(torch.ones(5, 3)) == pytest.approx(1, abs=1e-3)
    assert effective_rank(torch.zeros(5, 3)) == 0.0


def test_spannorm_stays_at_one_where_prenorm_grows() -> None:
    span, pre = (
        profile(placed(f"surgery.placement={placement}", "surgery.init_scale=none", stir=False, **WIDE), batch_of())
        for placement in ("spannorm", "prenorm")
    )
    assert span.act_rms == pytest.approx([1] * 4, abs=1e-4)
    assert pre.act_rms == sorted(pre.act_rms)
    assert pre.act_rms[-1] > 1.2


def loss_of(model: Any, batch: dict[str, torch.Tensor]) -> Any:
    objective = NextTokenObjective(NextTokenConfig(_target_=""))

    def loss() -> torch.Tensor:
        found = objective.loss(model, batch)
        return found.total / found.count

    return loss


def test_gradient_norms_leave_gradients_alone() -> None:
    model, batch = placed(), batch_of(2, 9)
    norms = gradient_norms(model, loss_of(model, batch))
    assert all(parameter.grad is None for parameter in model.parameters())
    loss_of(model, batch)().backward()
    for layer in backbone(model).layers:
        for name, module in (("all", layer.module), ("attention", layer.attention)):
            square = sum(parameter.grad.square().sum().item() for parameter in module.parameters())
            assert norms[name][layer.index] == pytest.approx(square**0.5, abs=FLOAT64)
    assert norms["attention"][0] < norms["all"][0]


@torch.no_grad()
def test_without_an_ffn_output_the_attention_gets_no_gradient() -> None:
    """SpanNorm's attention reaches the output through the FFN alone."""
    model, batch = placed(), batch_of(2, 9)
    for layer in backbone(model).layers:
        layer.sites["down"].weight.zero_()
    norms = gradient_norms(model, loss_of(model, batch))
    assert norms["attention"] == [0.0] * 4
    assert all(value > 0 for value in norms["all"])


def test_removing_a_layer_equals_a_model_without_it() -> None:
    model, batch = placed("surgery.placement=prenorm"), batch_of(2, 9)
    deltas = removal_deltas(model, loss_of(model, batch))
    with torch.no_grad():
        whole = loss_of(model, batch)().item()
        del model.model.layers[2]
        model.config.num_hidden_layers = 3
        assert deltas[2] == pytest.approx(loss_of(model, batch)().item() - whole, abs=EXACT)
    pair = placed("surgery.span_blocks=2")
    assert [math.isnan(delta) for delta in removal_deltas(pair, loss_of(pair, batch))] == [True] * 4
    two = removal_deltas(placed("surgery.placement=residual"), loss_of(placed("surgery.placement=residual"), batch))
    assert [math.isnan(delta) for delta in two] == [True, False, False, False]


def test_depth_metrics_name_each_layer_and_the_whole() -> None:
    metrics = depth_metrics(
        {
            "act_rms": [1.0, 4.0],
            "skip_coefficient": [0.5, 0.5],
            "adjacent_cosine": [0.1, 0.2, 0.4],
            "layer_removal_delta": [math.nan, 3.0],
            "effective_rank": [],
        },
        suffix="_init",
    )
    assert metrics["diag/act_rms_init/1"] == 4.0
    assert metrics["diag/act_rms_init"] == 4.0
    assert metrics["diag/skip_coefficient_init"] == 0.25
    assert metrics["diag/adjacent_cosine_init"] == pytest.approx(0.3)
    assert metrics["diag/layer_removal_delta_init"] == 3.0
    assert not any("effective_rank" in name for name in metrics)
