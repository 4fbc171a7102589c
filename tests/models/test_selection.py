"""What trains moves, all else stays bit-identical; shares are counted by hand; LoRA merges into equal logits."""

import copy

import pytest
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from tests.assembled import tuned
from tests.models.conftest import FAMILIES, Build
from tests.tolerances import FLOAT32

from athlos.errors import SurgeryError
from athlos.models.config import AllConfig, LayersConfig, LoraConfig, NoSurgeryConfig
from athlos.models.freeze import freeze_all_but, trainable_share
from athlos.models.selection import AllSelection, LayersSelection
from athlos.models.sites import backbone
from athlos.models.surgery import NoSurgery
from athlos.models.tuning import LoraTuning
from athlos.parts import PartContext

IDS = torch.tensor([[1, 5, 7, 9, 3, 11, 2], [4, 4, 8, 20, 31, 6, 2]])


def train(model: torch.nn.Module, *, steps: int = 3) -> None:
    """A few AdamW steps with weight decay over *all* parameters, as a careless trainer would."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()


def moved(before: dict[str, torch.Tensor], model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


def snapshot(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "phi3"])
def test_named_sites_move_and_all_else_is_bit_identical(family: str, tiny: Build, context: PartContext) -> None:
    model = tiny(family)
    tuned(LayersSelection(LayersConfig(layers=[0, -1], sites=["up", "down"])), model, context=context)
    before = snapshot(model)
    train(model)
    prefix = "model.language_model" if family == "llava" else "model"
    assert moved(before, model) == {
        f"{prefix}.layers.{index}.mlp.{name}_proj.weight" for index in (0, 2) for name in ("up", "down")
    }


@pytest.mark.parametrize("family", ["phi3", "gemma3", "llava"])
def test_a_whole_layer_moves_and_all_else_is_bit_identical(family: str, tiny: Build, context: PartContext) -> None:
    model = tiny(family)
    tuned(LayersSelection(LayersConfig(layers=[1])), model, context=context)
    before = snapshot(model)
    train(model)
    assert moved(before, model) == {name for name in before if ".layers.1." in name and "vision" not in name}


def test_norms_embedding_and_head(tiny: Build, context: PartContext) -> None:
    model = tiny("qwen3")
    tuned(LayersSelection(LayersConfig(layers=[1], sites=["norms"], head=True)), model, context=context)
    before = snapshot(model)
    train(model)
    norms = ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm")
    assert moved(before, model) == {f"model.layers.1.{name}.weight" for name in norms} | {
        "model.norm.weight",
        "lm_head.weight",
    }


def test_a_tied_embedding_counts_once_and_says_it_is_the_head(tiny: Build, context: PartContext) -> None:
    model = tiny("llama_tied")
    _, report = tuned(LayersSelection(LayersConfig(embeddings=True)), model, context=context)
    assert "which is the head as well" in report.summary
    share = trainable_share(model)
    layers = 3 * (24 * 24 * 2 + 24 * 12 * 2 + 3 * 24 * 36 + 2 * 24)
    assert (share.trainable, share.total, share.embedding) == (40 * 24, layers + 24 + 40 * 24, 40 * 24)
    assert report.metrics["cost/trainable_share"] == pytest.approx(960 / share.total)


def test_all_trains_everything(tiny: Build, context: PartContext) -> None:
    model = tiny("llama")
    model.requires_grad_(False)
    _, report = tuned(AllSelection(AllConfig()), model, context=context)
    assert report.metrics == {
        "cost/trainable_params": float(sum(parameter.numel() for parameter in model.parameters())),
        "cost/trainable_share": 1.0,
        "cost/trainable_share_without_embeddings": 1.0,
    }
    before = snapshot(model)
    train(model)
    assert moved(before, model) == set(before)


def test_an_empty_or_foreign_selection_is_refused(tiny: Build) -> None:
    model = tiny("llama")
    with pytest.raises(SurgeryError, match="no parameter would train"):
        freeze_all_but(model, [])
    with pytest.raises(SurgeryError, match="1 of 1 chosen parameters are not of this model"):
        freeze_all_but(model, [torch.nn.Parameter(torch.zeros(2))])


def test_old_gradients_of_frozen_parameters_are_dropped(tiny: Build, context: PartContext) -> None:
    """A gradient left from before the selection would let the optimizer move a frozen parameter."""
    model = tiny("llama")
    model(input_ids=IDS, labels=IDS).loss.backward()
    tuned(LayersSelection(LayersConfig(layers=[0])), model, context=context)
    before = snapshot(model)
    torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1).step()
    assert moved(before, model) == set()


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_sits_in_the_text_layers_moves_alone_and_merges_exactly(
    family: str, tiny: Build, context: PartContext
) -> None:
    model = tiny(family)
    plain_names = set(snapshot(model))
    original = copy.deepcopy(model)
    selection, tuning = LayersSelection(LayersConfig(layers=[0, 2])), LoraTuning(LoraConfig(rank=2, alpha=4.0))
    model, report = tuned(selection, model, context=context, tuning=tuning)
    with torch.no_grad():
        assert torch.equal(model(input_ids=IDS).logits, original(input_ids=IDS).logits)
    wrapped = {name.split(".lora_A")[0] for name in dict(model.named_modules()) if name.endswith("lora_A.default")}
    assert wrapped == {site.path for layer in backbone(original).layers[::2] for site in layer.sites.values()}
    before = snapshot(model)
    train(model)
    assert moved(before, model) == {name for name in before if ".lora_" in name}
    share = trainable_share(model)
    assert (
        report.metrics["cost/trainable_params"]
        == share.trainable
        == sum(parameter.numel() for name, parameter in before.items() if ".lora_" in name)
    )
    with torch.no_grad():
        trained = model(input_ids=IDS).logits
        assert not torch.allclose(trained, original(input_ids=IDS).logits, atol=100 * FLOAT32)
        merged = tuning.merge(model)
        torch.testing.assert_close(merged(input_ids=IDS).logits, trained, atol=FLOAT32, rtol=FLOAT32)
    assert set(snapshot(merged)) == plain_names
    assert type(merged) is type(original)


def test_lora_equals_peft_itself(tiny: Build, context: PartContext) -> None:
    """Oracle: PEFT's own wrapper, told the ending of the names and the layers to transform."""
    selection = LayersSelection(LayersConfig(sites=["q", "down"], layers=[1]))
    ours, _ = tuned(selection, tiny("llama"), context=context, tuning=LoraTuning(LoraConfig(rank=2, alpha=4.0)))
    torch.manual_seed(context.config.seed)
    settings = PeftLoraConfig(
        r=2, lora_alpha=4.0, lora_dropout=0.0, target_modules=["q_proj", "down_proj"], layers_to_transform=[1]
    )
    theirs = get_peft_model(tiny("llama"), settings)
    trainable = {name: value for name, value in theirs.named_parameters() if value.requires_grad}
    mine = {f"base_model.model.{name}": value for name, value in ours.named_parameters() if value.requires_grad}
    assert trainable.keys() == mine.keys()
    for name, value in trainable.items():
        assert torch.equal(value, mine[name])
    train(ours)
    train(theirs)
    torch.testing.assert_close(ours(input_ids=IDS).logits, theirs(input_ids=IDS).logits, atol=0, rtol=0)


def test_lora_draws_from_the_runs_seed_and_leaves_the_global_state_alone(tiny: Build, context: PartContext) -> None:
    selection, tuning = LayersSelection(LayersConfig(sites=["q"])), LoraTuning(LoraConfig(rank=2))
    torch.manual_seed(0)
    first, _ = tuned(selection, tiny("llama"), context=context, tuning=tuning)
    state = torch.random.get_rng_state()
    second, _ = tuned(selection, tiny("llama"), context=context, tuning=tuning)
    assert torch.equal(state, torch.random.get_rng_state())
    for left, right in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(left, right)


def test_lora_of_a_16_bit_model_keeps_its_updates_in_32_bits(tiny: Build, context: PartContext) -> None:
    everything, tuning = AllSelection(AllConfig()), LoraTuning(LoraConfig(rank=2))
    model, _ = tuned(everything, tiny("llama").to(torch.bfloat16), context=context, tuning=tuning)
    formats = {parameter.requires_grad: parameter.dtype for parameter in model.parameters()}
    assert formats == {True: torch.float32, False: torch.bfloat16}
    before = snapshot(model)
    train(model)
    assert moved(before, model) == {name for name in before if ".lora_" in name}


def test_a_part_of_a_fused_matrix_is_refused(tiny: Build, context: PartContext) -> None:
    with pytest.raises(SurgeryError, match="holds q, k, v in one matrix"):
        LayersSelection(LayersConfig(sites=["q", "v"])).choose(tiny("phi3"), context=context)


def test_lora_model_still_has_its_sites(tiny: Build, context: PartContext) -> None:
    plain = tiny("llama")
    everything, tuning = AllSelection(AllConfig()), LoraTuning(LoraConfig(rank=2))
    model, _ = tuned(everything, copy.deepcopy(plain), context=context, tuning=tuning)
    for layer, old in zip(backbone(model).layers, backbone(plain).layers, strict=True):
        assert {name: site.num_parameters for name, site in layer.sites.items()} == {
            name: site.num_parameters for name, site in old.sites.items()
        }
        assert torch.equal(layer.sites["q"].weight, old.sites["q"].weight)


def test_no_surgery_returns_the_model_itself(tiny: Build, context: PartContext) -> None:
    model = tiny("llama")
    same, report = NoSurgery(NoSurgeryConfig()).apply(model, context=context)
    assert same is model
    assert report.metrics == {}
