"""Sites are checked against the parameter names of transformers, written out here, and against the forward pass."""

import pytest
import torch
from tests.models.conftest import FAMILIES, VOCAB, Build
from tests.tolerances import FLOAT32
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from athlos.errors import SurgeryError
from athlos.models.sites import MATRIX_NAMES, backbone, chosen_layers, chosen_sites

PREFIX = {family: "model" for family in FAMILIES} | {"llava": "model.language_model"}
MATRICES = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
FUSED = MATRICES | {
    "q": "self_attn.qkv_proj",
    "k": "self_attn.qkv_proj",
    "v": "self_attn.qkv_proj",
    "gate": "mlp.gate_up_proj",
    "up": "mlp.gate_up_proj",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_matrix_is_found_at_its_own_name_and_shape(family: str, tiny: Build) -> None:
    model = tiny(family)
    found = backbone(model)
    assert [layer.index for layer in found.layers] == [0, 1, 2]
    head_size = found.head_size
    rows = {"q": 4 * head_size, "k": 2 * head_size, "v": 2 * head_size, "o": 24, "gate": 36, "up": 36, "down": 24}
    names = FUSED if family == "phi3" else MATRICES
    for layer in found.layers:
        assert list(layer.sites) == list(MATRIX_NAMES)
        for name, site in layer.sites.items():
            assert site.path == f"{PREFIX[family]}.layers.{layer.index}.{names[name]}"
            assert site.module is model.get_submodule(site.path)
            assert site.rows.stop - site.rows.start == rows[name]
            assert site.is_fused == (family == "phi3" and name in ("q", "k", "v", "gate", "up"))


@pytest.mark.parametrize("family", FAMILIES)
def test_sites_and_norms_hold_every_parameter_of_a_layer(family: str, tiny: Build) -> None:
    for layer in backbone(tiny(family)).layers:
        in_sites = sum(site.num_parameters for site in layer.sites.values())
        in_norms = sum(parameter.numel() for norm in layer.norms.values() for parameter in norm.parameters())
        assert in_sites + in_norms == sum(parameter.numel() for parameter in layer.module.parameters())


@pytest.mark.parametrize(
    ("family", "roles"),
    [
        ("llama", {"attention_input", "ffn_input"}),
        ("phi3", {"attention_input", "ffn_input"}),
        ("qwen3", {"attention_input", "ffn_input", "query", "key"}),
        ("gemma", {"attention_input", "ffn_input"}),
        ("gemma2", {"attention_input", "attention_output", "ffn_input", "ffn_output"}),
        ("gemma3", {"attention_input", "attention_output", "ffn_input", "ffn_output", "query", "key"}),
    ],
)
def test_norms_by_role(family: str, roles: set[str], tiny: Build) -> None:
    layer = backbone(tiny(family)).layers[1]
    assert set(layer.norms) == roles
    for role, norm in layer.norms.items():
        owner = layer.attention if role in ("query", "key") else layer.module
        assert getattr(owner, layer.norm_names[role]) is norm


@pytest.mark.parametrize("family", ["llama", "gemma3", "phi3", "llava"])
def test_roles_of_norms_hold_in_the_forward_pass(family: str, tiny: Build) -> None:
    """The input of the attention is the output of its input norm, that of the FFN the output of its own."""
    model = tiny(family)
    layer = backbone(model).layers[0]
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str):  # type: ignore[no-untyped-def]
        def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            seen[name] = output

        return hook

    def keep_input(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen["q_input"] = inputs[0]

    layer.norms["attention_input"].register_forward_hook(keep("attention_input"))
    layer.norms["ffn_input"].register_forward_hook(keep("ffn_input"))
    layer.sites["q"].module.register_forward_pre_hook(keep_input)
    layer.sites["up"].module.register_forward_pre_hook(lambda _m, inputs: seen.update(up_input=inputs[0]))
    model(input_ids=torch.tensor([[1, 5, 7]]))
    assert torch.equal(seen["q_input"], seen["attention_input"])
    assert torch.equal(seen["up_input"], seen["ffn_input"])


def test_rows_of_a_fused_matrix_are_those_of_the_separate_ones(tiny: Build) -> None:
    """A Llama with the weights of a Phi-3, cut by the sites' rows, gives the same logits."""
    phi, llama = tiny("phi3"), tiny("llama")
    source, target = backbone(phi), backbone(llama)
    with torch.no_grad():
        for old, new in zip(source.layers, target.layers, strict=True):
            for name in MATRIX_NAMES:
                new.sites[name].weight.copy_(old.sites[name].weight[old.sites[name].rows])
            for role, norm in new.norms.items():
                norm.weight.copy_(old.norms[role].weight)
        for end in ("embedding", "final_norm", "head"):
            getattr(target, end).weight.copy_(getattr(source, end).weight)
        ids = torch.tensor([[1, 5, 7, 9, 3]])
        torch.testing.assert_close(llama(ids).logits, phi(ids).logits, atol=FLOAT32, rtol=FLOAT32)


@pytest.mark.parametrize("family", FAMILIES)
def test_ends_and_head_counts(family: str, tiny: Build) -> None:
    model = tiny(family)
    found = backbone(model)
    assert found.embedding.weight.shape == found.head.weight.shape == (VOCAB, 24)
    assert found.is_tied == (family in ("llama_tied", "gemma", "gemma2", "gemma3"))
    assert (found.num_heads, found.num_kv_heads, found.hidden_size, found.ffn_size) == (4, 2, 24, 36)
    assert found.final_norm.weight.shape == (24,)


def test_vision_parts_belong_to_no_layer(tiny: Build) -> None:
    model = tiny("llava")
    found = backbone(model)
    assert found.vision_tower is not None
    assert found.projector is not None
    outside = {id(parameter) for part in (found.vision_tower, found.projector) for parameter in part.parameters()}
    inside = {id(parameter) for layer in found.layers for parameter in layer.module.parameters()}
    assert outside
    assert not outside & inside
    assert backbone(tiny("llama")).vision_tower is None


def test_decoder_layers_return_tensors(tiny: Build) -> None:
    for family in FAMILIES:
        model = tiny(family)
        seen: list[object] = []
        backbone(model).layers[0].module.register_forward_hook(lambda _m, _i, output: seen.append(output))  # noqa: B023
        model(input_ids=torch.tensor([[1, 5]]))
        assert isinstance(seen[0], torch.Tensor), family


def test_an_unknown_architecture_says_what_was_looked_for_and_found(tiny: Build) -> None:
    with pytest.raises(SurgeryError, match=r"looked for a decoder with 'layers'.*found transformer, lm_head") as caught:
        backbone(tiny("gptj"))
    assert "examples: transformer, transformer.wte, transformer.drop; sites are known of Llama" in str(caught.value)


def test_a_layer_with_other_names_says_so() -> None:
    shape = CONFIG_MAPPING["opt"](
        hidden_size=8,
        ffn_dim=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=VOCAB,
        word_embed_proj_dim=8,
        do_layer_norm_before=False,
    )
    with pytest.raises(SurgeryError, match="looked for 'final_layer_norm'"):  # as OPT-350m, which has none at the end
        backbone(AutoModelForCausalLM.from_config(shape))


def test_layers_by_index(tiny: Build) -> None:
    found = backbone(tiny("llama"))
    assert [layer.index for layer in chosen_layers(found, [-1, 0])] == [0, 2]
    with pytest.raises(SurgeryError, match=r"layer 3: the decoder has 3 layers, expected -3 \.\. 2"):
        chosen_layers(found, [3])
    with pytest.raises(SurgeryError, match="names layer 2 twice"):
        chosen_layers(found, [2, -1])


def test_a_part_of_a_fused_matrix_is_refused(tiny: Build) -> None:
    layers = backbone(tiny("phi3")).layers
    with pytest.raises(SurgeryError, match=r"holds gate, up in one matrix; name all of them \(missing: gate\)"):
        chosen_sites(layers, ["up", "down"])
    assert len(chosen_sites(layers, ["gate", "up", "down"])) == 9
    with pytest.raises(SurgeryError, match="did you mean 'gate'"):
        chosen_sites(layers, ["gat"])
