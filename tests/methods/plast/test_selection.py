"""What trains: exactly the chosen layers; PEFT as oracle of the low-rank arms; the share of the paper."""

import json

import peft
import pytest
import torch
from hydra.utils import get_class
from tests.assembled import tuned
from tests.methods.plast.tiny import config_of, opened

from athlos.config.compose import run_config
from athlos.methods.plast.selection import PlastSelection
from athlos.models.config import LoraConfig
from athlos.models.freeze import trainable_share
from athlos.models.sites import backbone
from athlos.models.tuning import LoraTuning, equal_rank
from athlos.runs.budget import budget
from athlos.runs.execute import execute

PAPER_LAYERS, PAPER_LAYER_SIZE, PAPER_TOTAL = 5, 202_383_360, 7_063_427_072


def applied(tmp_path, *overrides: str):
    context = opened(tmp_path, *overrides)
    selection = PlastSelection(context.config.selection)
    tuning = get_class(context.config.tuning._target_)(context.config.tuning)
    model, report = tuned(selection, context.start.model, context=context, tuning=tuning)
    return selection, model, report


def trained(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_five_whole_layers_of_llava_are_the_papers_share():
    """Dry run on the meta device: 5 x (4 x 4096^2 + 3 x 4096 x 11008 + 2 x 4096) of 7.06 B = 14.33 %."""
    found = budget(run_config(["experiment=plast/paper", "dry_run=true"]))
    assert found.share.total == PAPER_TOTAL
    assert found.share.trainable == PAPER_LAYERS * PAPER_LAYER_SIZE
    assert found.share.share == pytest.approx(0.1433, abs=5e-5)


@pytest.mark.parametrize(
    ("override", "layers"),
    [
        ("selection.selector=manual selection.k=0 selection.layers=[1,-1]", [1, 5]),
        ("selection.selector=top selection.k=2", [4, 5]),
        ("selection.selector=middle selection.k=2", [2, 3]),
        ("selection=plast/full", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_whole_layers_train_and_nothing_around_them(tmp_path, override: str, layers: list[int]):
    selection, model, _ = applied(tmp_path, *override.split(" "))
    assert selection.choice.layers == layers
    wanted = {
        name
        for name, _ in model.named_parameters()
        if any(name.startswith(f"model.language_model.layers.{layer}.") for layer in layers)
    }
    assert trained(model) == wanted
    assert "model.multi_modal_projector.linear_1.weight" not in trained(model)


@pytest.mark.parametrize(("parts", "matrices"), [("ffn", 3), ("attn", 4), ("up_down", 2)])
def test_parts_of_layers(tmp_path, parts: str, matrices: int):
    _, model, _ = applied(tmp_path, "selection.selector=top", "selection.k=2", f"selection.parts={parts}")
    assert len(trained(model)) == 2 * matrices


def test_random_layers_follow_the_seed(tmp_path):
    picks = [
        applied(tmp_path, "selection.selector=random", "selection.k=2", f"seed={seed}")[0].choice.layers
        for seed in (1, 1, 2, 3, 4)
    ]
    assert picks[0] == picks[1]
    assert len({tuple(pick) for pick in picks}) > 1


@pytest.mark.parametrize("selector", ["specific_neurons", "top_active", "activation_gap"])
def test_selectors_that_look_choose_shallow_layers_and_report(tmp_path, selector: str):
    selection, _, report = applied(tmp_path, f"selection.selector={selector}", "selection.k=0")
    assert selection.choice.layers == list(range(len(selection.choice.layers)))
    assert len(selection.choice.layers) <= 2
    assert (
        sum(report.metrics[f"diag/specific/{layer}"] for layer in range(6)) == pytest.approx(1)
        or selector != "top_active"
    )
    assert {"diag/specific_shallow/thai", "cost/trainable_share"} & set(report.metrics)


def test_low_rank_updates_inside_the_chosen_layers_equal_those_of_peft(tmp_path):
    overrides = (
        "selection.selector=manual",
        "selection.k=0",
        "selection.layers=[0,1]",
        "tuning=lora",
        "tuning.rank=4",
        "tuning.alpha=8",
    )
    _, model, _ = applied(tmp_path, *overrides)
    names = trained(model)
    assert names
    assert all("lora_" in name and (".layers.0." in name or ".layers.1." in name) for name in names)
    plain = opened(tmp_path).start.model
    paths = [site.path for layer in backbone(plain).layers[:2] for site in layer.sites.values()]
    oracle = peft.LoraConfig(r=4, lora_alpha=8, target_modules=paths)
    peft.inject_adapter_in_model(oracle, plain)
    wanted = sum(parameter.numel() for name, parameter in plain.named_parameters() if "lora_" in name)
    assert trainable_share(model).trainable == wanted
    assert not [name for name, _ in LoraTuning(LoraConfig()).merge(model).named_parameters() if "lora_" in name]


def test_equal_low_rank_updates_have_about_the_size_of_the_layers(tmp_path):
    _, chosen, _ = applied(tmp_path, "selection.selector=top", "selection.k=2")
    wanted = trainable_share(chosen).trainable
    _, model, _ = applied(tmp_path, "selection.selector=top", "selection.k=2", "tuning=lora_equal")
    found = trainable_share(model).trainable
    plain = opened(tmp_path).start.model
    paths = [site.path for layer in backbone(plain).layers for site in layer.sites.values()]
    assert abs(found - wanted) <= found / equal_rank(plain, paths, num_parameters=wanted)
    assert {name.split(".layers.")[1].split(".")[0] for name in trained(model)} == set("012345")


def test_a_run_moves_the_chosen_layers_only_and_resumes(tmp_path):
    """The whole recipe on an untrained model; frozen parameters, the tower among them, stay bit-identical."""
    overrides = (
        f"cache_dir={tmp_path}/cache",
        f"results_dir={tmp_path}",
        "selection.selector=manual",
        "selection.k=0",
        "selection.layers=[0]",
    )
    before = {name: value.clone() for name, value in opened(tmp_path / "cache").start.model.state_dict().items()}
    folder = execute(config_of(*overrides))
    trained_model = ["model.source=dir:" + str(folder / "checkpoints" / "final"), "model.tokenizer.kind=source"]
    final = opened(tmp_path / "cache", *trained_model).start.model.state_dict()
    moved = {name for name, value in final.items() if not torch.equal(before[name], value)}
    assert moved
    assert all("layers.0." in name for name in moved)
    metrics = json.loads((folder / "metrics.json").read_text())
    for name in (
        "test/acc",
        "test/acc_letter",
        "test/format_valid",
        "test/english_loss",
        "test/acc_non_english",
        "diag/image_attention/0",
        "diag/image_attention_base/5",
        "diag/mask_drop/thai/latn",
        "diag/mask_drop/random/latn",
        "cost/trainable_share",
    ):
        assert name in metrics
    assert execute(config_of(*overrides)) == folder
