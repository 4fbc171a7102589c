"""Every selection with every tuning: exactly what is meant moves, the rest stays bit-identical, merging is exact."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.assembled import tuned
from tests.models.conftest import Build
from tests.models.test_selection import IDS, moved, snapshot, train
from tests.tolerances import FLOAT32

from athlos.methods.plast.config import PlastSelectionConfig
from athlos.methods.plast.selection import PlastSelection
from athlos.methods.slam.config import NeuronMask, SlamConfig
from athlos.methods.slam.selection import SlamSelection
from athlos.models.config import (
    AllConfig,
    FullConfig,
    LayersConfig,
    LoraConfig,
    LoraEqualConfig,
    Selector,
    Trained,
)
from athlos.models.selection import AllSelection, LayersSelection
from athlos.models.sites import MATRIX_NAMES, backbone
from athlos.models.tuning import FullTuning, LoraEqualTuning, LoraTuning, equal_rank, matrices
from athlos.parts import PartContext, Selection

ATTENTION, FFN = ("q", "k", "v", "o"), ("gate", "up", "down")


def layers(*indices: int, sites: tuple[str, ...] = ()) -> Selection:
    return LayersSelection(LayersConfig(layers=list(indices), sites=list(sites)))


def slam(*indices: int, parts: Trained) -> Selection:
    chosen = {"selector": Selector.manual, "layers": list(indices), "parts": parts, "ffn_parts": ["up", "down"]}
    return SlamSelection(SlamConfig(**chosen, neuron_mask=NeuronMask["none"]))


def plast(*indices: int, parts: Trained) -> Selection:
    return PlastSelection(PlastSelectionConfig(selector=Selector.manual, layers=list(indices), parts=parts))


def matrix(layer: int, site: str) -> str:
    return f"model.layers.{layer}.{'self_attn' if site in ATTENTION else 'mlp'}.{site}_proj"


SELECTIONS: dict[str, tuple[Callable[[], Selection], tuple[int, ...], tuple[str, ...]]] = {
    "all": (lambda: AllSelection(AllConfig()), (0, 1, 2), ()),
    "layers": (lambda: layers(0, -1), (0, 2), ()),
    "sites": (lambda: layers(0, -1, sites=("q", "down")), (0, 2), ("q", "down")),
    "sites of all layers": (lambda: layers(sites=("v",)), (0, 1, 2), ("v",)),
    "slam": (lambda: slam(2, 0, parts=Trained.ffn), (0, 2), ("up", "down")),
    "slam, attention": (lambda: slam(1, parts=Trained.attn), (1,), ATTENTION),
    "slam, whole": (lambda: slam(1, parts=Trained.all), (1,), ()),
    "plast": (lambda: plast(0, 1, parts=Trained.all), (0, 1), ()),
    "plast, ffn": (lambda: plast(0, 1, parts=Trained.ffn), (0, 1), FFN),
    "plast, up and down": (lambda: plast(-1, parts=Trained.up_down), (2,), ("up", "down")),
}
"""Selection, and by hand the layers and matrices that it names; none for whole layers."""


def own_parameters(name: str, model: torch.nn.Module) -> set[str]:
    """Names of the parameters that a selection names."""
    _, indices, sites = SELECTIONS[name]
    if name == "all":
        return {parameter for parameter, _ in model.named_parameters()}
    if sites:
        return {f"{matrix(index, site)}.weight" for index in indices for site in sites}
    starts = tuple(f"model.layers.{index}." for index in indices)
    return {parameter for parameter, _ in model.named_parameters() if parameter.startswith(starts)}


@pytest.mark.parametrize("name", SELECTIONS)
def test_full_moves_the_chosen_parameters_themselves(name: str, tiny: Build, context: PartContext) -> None:
    model, tuning = tiny("llama"), FullTuning(FullConfig())
    before = snapshot(model)
    model, report = tuned(SELECTIONS[name][0](), model, context=context, tuning=tuning)
    assert [parameter for parameter in before if not torch.equal(before[parameter], snapshot(model)[parameter])] == []
    train(model)
    wanted = own_parameters(name, model)
    assert moved(before, model) == wanted
    assert report.metrics["cost/trainable_params"] == sum(before[parameter].numel() for parameter in wanted)
    assert tuning.merge(model) is model


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("is_equal", [False, True], ids=["lora", "lora_equal"])
def test_updates_stand_beside_the_chosen_matrices_alone_and_merge(
    name: str, is_equal: bool, tiny: Build, context: PartContext
) -> None:
    selection, indices, sites = SELECTIONS[name]
    model, original = tiny("llama"), tiny("llama")
    tuning: Any = LoraEqualTuning(LoraEqualConfig()) if is_equal else LoraTuning(LoraConfig(rank=2, alpha=4.0))
    model, report = tuned(selection(), model, context=context, tuning=tuning)
    with torch.no_grad():
        assert torch.equal(model(input_ids=IDS).logits, original(input_ids=IDS).logits)
    before = snapshot(model)
    train(model)
    updates = moved(before, model)
    assert all(".lora_" in parameter for parameter in updates)
    wanted = {
        matrix(index, site)
        for index in (range(3) if is_equal else indices)
        for site in (MATRIX_NAMES if is_equal or not sites else sites)
    }
    assert {parameter.split(".lora_")[0] for parameter in updates} == wanted
    assert report.metrics["cost/trainable_params"] == sum(before[parameter].numel() for parameter in updates)
    with torch.no_grad():
        logits = model(input_ids=IDS).logits
        merged = tuning.merge(model)
        torch.testing.assert_close(merged(input_ids=IDS).logits, logits, atol=FLOAT32, rtol=FLOAT32)
    assert moved(snapshot(original), merged) == {f"{path}.weight" for path in wanted}


@pytest.mark.parametrize(
    ("family", "per_rank"),
    [
        ("llama", 3 * ((24 + 24) * 2 + (24 + 12) * 2 + (24 + 36) * 3)),
        ("phi3", 3 * ((24 + 48) + (24 + 24) + (24 + 72) + (36 + 24))),  # q, k, v are one matrix, gate and up another
        ("gpt2", 3 * ((24 + 72) + (24 + 24) + (24 + 36) * 2)),
    ],
)
def test_the_rank_of_equal_size_comes_nearest_to_what_was_chosen(
    family: str, per_rank: int, tiny: Build, context: PartContext
) -> None:
    model = tiny(family)
    size = sum(parameter.numel() for parameter in backbone(model).layers[1].module.parameters())
    model, report = tuned(layers(1), model, context=context, tuning=LoraEqualTuning(LoraEqualConfig()))
    found = int(report.metrics["cost/trainable_params"])
    rank, rest = divmod(found, per_rank)
    assert rest == 0
    assert abs(found - size) <= per_rank / 2
    adapted = [module for module in model.modules() if hasattr(module, "lora_A")]
    assert {(module.r["default"], module.scaling["default"]) for module in adapted} == {(rank, 2.0)}


def test_updates_of_equal_size_have_a_rank_of_one_at_least_and_count_a_parameter_once(
    tiny: Build, context: PartContext
) -> None:
    tuning = LoraEqualTuning(LoraEqualConfig(alpha_over_rank=0.5))
    paths, _ = matrices(plain := tiny("llama"))
    per_rank = sum(sum(plain.get_parameter(f"{path}.weight").shape) for path in paths)
    ranks = [equal_rank(plain, paths, num_parameters=int(times * per_rank)) for times in (0.2, 1.4, 1.6)]
    assert ranks == [1, 1, 2]
    model, _ = tuned(layers(1, sites=("v",)), plain, context=context, tuning=tuning)
    scales = {module.r["default"]: module.scaling["default"] for module in model.modules() if hasattr(module, "lora_A")}
    assert scales == {1: 0.5}
    chosen = layers(1).choose(fresh := tiny("llama"), context=context)
    chosen.parameters *= 2
    twice, _ = tuning.apply(fresh, chosen, context=context)
    once, _ = tuned(layers(1), tiny("llama"), context=context, tuning=tuning)
    assert {name: value.shape for name, value in snapshot(twice).items()} == {
        name: value.shape for name, value in snapshot(once).items()
    }


def test_a_choice_changes_nothing_of_the_model(tiny: Build, context: PartContext) -> None:
    model = tiny("llama")
    model.model.embed_tokens.requires_grad_(False)
    trains = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for selection, _, _ in SELECTIONS.values():
        selection().choose(model, context=context)
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == trains
