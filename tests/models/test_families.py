"""Sites of the families that name their parts unlike Llama, against the model's own forward pass.

B batch, T positions, H heads, S head size, J neurons.
"""

import math
from types import SimpleNamespace

import pytest
import torch
from tests.assembled import tuned
from tests.models.conftest import FAMILIES, OTHER_FAMILIES, SCALED_FAMILIES, UNKNOWN_FAMILIES, VOCAB, Build
from tests.tolerances import EXACT, FLOAT32, SOFTMAX_FLOAT32
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from athlos.errors import ModelError, SurgeryError
from athlos.models.config import AllConfig, LayersConfig, LoraConfig
from athlos.models.flops import forward_flops, is_counted, step_flops
from athlos.models.forward import causal_mask, check_logits, hidden_states, project
from athlos.models.probe import ActivationProbe, activation_function
from athlos.models.selection import AllSelection, LayersSelection
from athlos.models.sites import MATRIX_NAMES, Site, backbone, chosen_sites, knows_sites, linear_paths
from athlos.models.tuning import LoraTuning
from athlos.parts import PartContext

IDS = torch.tensor([[1, 5, 7, 9, 3, 11], [4, 4, 8, 20, 31, 6]])
UNGATED = ("gpt2", "gpt_neox", "gpt_neox_serial", "opt")
MIXTURES = ("qwen2_moe", "mixtral")
WIDTH, ROWS = 24, {"q": 24, "k": 12, "v": 12, "o": 24, "gate": 36, "up": 36, "down": 24}


class Seen:
    """First input and output of modules in one forward pass."""

    def __init__(self, model: nn.Module, modules: dict[str, nn.Module]) -> None:
        self.inputs: dict[str, tuple[Tensor, ...]] = {}
        self.outputs: dict[str, Tensor] = {}
        handles = [module.register_forward_hook(self._keep(name)) for name, module in modules.items()]
        with torch.no_grad():
            self.logits = model(input_ids=IDS).logits
        for handle in handles:
            handle.remove()

    def _keep(self, name: str):  # type: ignore[no-untyped-def]
        def after(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            self.inputs[name], self.outputs[name] = arguments, output

        return after


def exact(model: PreTrainedModel) -> PreTrainedModel:
    """The model in float64; the grouped product of experts is in 32 bits at most, so they are called one by one."""
    model.config._experts_implementation = "eager"
    return model.double()


def own_bias(site: Site) -> Tensor | float:
    return 0.0 if site.module.bias is None else site.module.bias[site.rows]


@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_a_site_gives_what_a_hook_sees(family: str, tiny: Build) -> None:
    model = exact(tiny(family))
    for layer in backbone(model).layers:
        sites = {name: site for name, site in layer.sites.items() if not site.is_of_experts}
        seen = Seen(model, {name: site.module for name, site in sites.items()})
        for name, site in sites.items():
            assert site.module is model.get_submodule(site.path)
            expected = seen.inputs[name][0] @ site.own_weight.T + own_bias(site)
            torch.testing.assert_close(seen.outputs[name][..., site.rows], expected, atol=EXACT, rtol=EXACT)


@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_q_k_and_v_are_what_their_names_say(family: str, tiny: Build) -> None:
    """Without queries, or without keys, a head gives the mean of the values so far; without values, nothing."""
    model = exact(tiny(family))
    first = backbone(model).layers[0]
    heads, kv_heads = backbone(model).num_heads, backbone(model).num_kv_heads
    for name in ("q", "k", "v"):
        site = first.sites[name]
        kept = [parameter.detach().clone() for parameter in site.module.parameters()]
        with torch.no_grad():
            if site.rows_dim == 1:
                site.weight[:, site.rows] = 0
            else:
                site.weight[site.rows] = 0
            if site.module.bias is not None:
                site.module.bias[site.rows] = 0
        seen = Seen(model, {"v": first.sites["v"].module, "o": first.sites["o"].module})
        value_BHTS = seen.outputs["v"][..., first.sites["v"].rows].unflatten(-1, (kv_heads, -1)).transpose(1, 2)
        value_BHTS = value_BHTS.repeat_interleave(heads // kv_heads, dim=1)
        count_T1 = torch.arange(1, IDS.shape[1] + 1)[:, None]
        mean_BTW = (value_BHTS.cumsum(2) / count_T1).transpose(1, 2).flatten(2)
        torch.testing.assert_close(seen.inputs["o"][0], mean_BTW, atol=SOFTMAX_FLOAT32, rtol=SOFTMAX_FLOAT32)
        assert (seen.inputs["o"][0].abs().max() == 0) == (name == "v")
        with torch.no_grad():
            for parameter, old in zip(site.module.parameters(), kept, strict=True):
                parameter.copy_(old)


@pytest.mark.parametrize("family", UNGATED)
def test_down_reads_the_activated_rows_of_up(family: str, tiny: Build) -> None:
    model = tiny(family)
    function = activation_function(backbone(model))
    for layer in backbone(model).layers:
        assert layer.neuron_site is layer.sites["up"]
        seen = Seen(model, {name: layer.sites[name].module for name in ("up", "down")})
        torch.testing.assert_close(seen.inputs["down"][0], function(seen.outputs["up"]), atol=FLOAT32, rtol=FLOAT32)


@pytest.mark.parametrize("family", MIXTURES)
def test_experts_by_hand(family: str, tiny: Build) -> None:
    """The module of the experts, computed token by token from the sites."""
    model = exact(tiny(family))
    for layer in backbone(model).layers:
        sites = {name: layer.sites[name].own_weight for name in ("gate", "up", "down")}
        seen = Seen(model, {"experts": layer.sites["gate"].module})
        hidden_ND, experts_NK, weights_NK = seen.inputs["experts"]
        expected_ND = torch.zeros_like(hidden_ND)
        for token, hidden_D in enumerate(hidden_ND):
            for expert, weight in zip(experts_NK[token].tolist(), weights_NK[token], strict=True):
                gated_J = functional.silu(sites["gate"][expert] @ hidden_D) * (sites["up"][expert] @ hidden_D)
                expected_ND[token] += weight * (sites["down"][expert] @ gated_J)
        torch.testing.assert_close(seen.outputs["experts"], expected_ND, atol=EXACT, rtol=EXACT)


@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_parameters_are_counted_by_hand(family: str, tiny: Build) -> None:
    found = backbone(tiny(family))
    has_bias = {"attention": family in UNGATED or family == "qwen2_moe", "ffn": family in UNGATED}
    rows = {**ROWS, **({"k": 24, "v": 24} if family in UNGATED else {})}
    assert (found.num_heads, found.hidden_size, found.ffn_size) == (4, WIDTH, 36)
    for layer in found.layers:
        assert set(layer.sites) == set(MATRIX_NAMES) - ({"gate"} if family in UNGATED else set())
        for name, site in layer.sites.items():
            inputs = 36 if name == "down" else WIDTH
            biased = name != "o" if family == "qwen2_moe" else True
            bias = rows[name] * (biased and has_bias["attention" if name in "qkvo" else "ffn"])
            assert site.num_parameters == rows[name] * inputs + bias, (family, name)


@pytest.mark.parametrize("family", [name for name in OTHER_FAMILIES if name != "qwen2_moe"])
def test_sites_norms_and_router_hold_every_parameter_of_a_layer(family: str, tiny: Build) -> None:
    for layer in backbone(tiny(family)).layers:
        inside = sum(site.num_parameters for site in layer.sites.values())
        inside += sum(parameter.numel() for norm in layer.norms.values() for parameter in norm.parameters())
        router = 3 * WIDTH if family == "mixtral" else 0
        assert inside + router == sum(parameter.numel() for parameter in layer.module.parameters())


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "gpt_neox_serial", "opt"])
def test_norms_stand_where_their_roles_say(family: str, tiny: Build) -> None:
    model = tiny(family)
    layer = backbone(model).layers[1]
    modules = {role: layer.norms[role] for role in ("attention_input", "ffn_input")}
    seen = Seen(model, {**modules, "q": layer.sites["q"].module, "up": layer.sites["up"].module})
    assert torch.equal(seen.inputs["q"][0], seen.outputs["attention_input"])
    assert torch.equal(seen.inputs["up"][0], seen.outputs["ffn_input"])
    assert layer.is_parallel == torch.equal(seen.inputs["ffn_input"][0], seen.inputs["attention_input"][0])


def test_olmo2_normalises_behind_each_branch(tiny: Build) -> None:
    model = tiny("olmo2")
    layer = backbone(model).layers[0]
    assert set(layer.norms) == {"attention_output", "ffn_output", "query", "key"}
    seen = Seen(
        model, {**{role: layer.norms[role] for role in layer.norms}, "o": layer.attention.o_proj, "ffn": layer.ffn}
    )
    assert torch.equal(seen.inputs["attention_output"][0], seen.outputs["o"])
    assert torch.equal(seen.inputs["ffn_output"][0], seen.outputs["ffn"])


@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_ends(family: str, tiny: Build) -> None:
    model = tiny(family)
    found = backbone(model)
    assert found.embedding.weight.shape == found.head.weight.shape == (VOCAB, WIDTH)
    seen = Seen(model, {"norm": found.final_norm, "layer": found.layers[0].module})
    assert seen.outputs["layer"].shape == (*IDS.shape, WIDTH)
    torch.testing.assert_close(found.head(seen.outputs["norm"]), seen.logits, atol=FLOAT32, rtol=FLOAT32)
    assert not found.is_llama_like


@pytest.mark.parametrize("family", OTHER_FAMILIES)
def test_the_probe_counts_what_loops_count(family: str, tiny: Build) -> None:
    model = tiny(family)
    found = backbone(model)
    mask_BT = torch.ones_like(IDS).bool()
    mask_BT[1, :2] = False
    with ActivationProbe(model, languages=["en"]) as probe:
        probe.add("en", {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}, mask_BT)
    counts = probe.take()
    assert counts.tokens.tolist() == [int(mask_BT.sum())]
    for layer in found.layers:
        site = layer.neuron_site
        assert site is not None
        seen = Seen(model, {"neurons": site.module})
        fired, sums = [0] * 36, [0.0] * 36
        for place in range(IDS.numel()):
            if not mask_BT.flatten()[place]:
                continue
            if site.is_of_experts:
                hidden_ND, experts_NK, _ = seen.inputs["neurons"]
                values = [0.0] * 36
                for expert in experts_NK[place].tolist():
                    values[expert * 12 : expert * 12 + 12] = (site.own_weight[expert] @ hidden_ND[place]).tolist()
            else:
                values = seen.outputs["neurons"].reshape(IDS.numel(), -1)[place, site.rows].tolist()
            for neuron, value in enumerate(values):
                fired[neuron] += value > 0
                sums[neuron] += ACT2FN[
                    {"opt": "relu", "gpt2": "gelu_new"}.get(family, "gelu" if family in UNGATED else "silu")
                ](torch.tensor(value)).item()
        assert counts.positive[layer.index, 0].tolist() == fired
        assert all(
            math.isclose(one, other, abs_tol=FLOAT32 * 10, rel_tol=FLOAT32 * 10)
            for one, other in zip(counts.sums[layer.index, 0].tolist(), sums, strict=True)
        )
        assert 0 < sum(fired) < 36 * int(mask_BT.sum())


def trained(model: nn.Module, *, steps: int = 2) -> set[str]:
    """Names of the parameters that a few steps of AdamW over all of them move."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


@pytest.mark.parametrize(
    ("family", "sites", "expected"),
    [
        ("gpt2", ["gate", "up", "down"], {"transformer.h.1.mlp.c_fc", "transformer.h.1.mlp.c_proj"}),
        ("gpt_neox", ["q", "k", "v"], {"gpt_neox.layers.1.attention.query_key_value"}),
        ("opt", ["up", "o"], {"model.decoder.layers.1.fc1", "model.decoder.layers.1.self_attn.out_proj"}),
        ("olmo2", ["down"], {"model.layers.1.mlp.down_proj"}),
        ("mixtral", ["gate", "up", "down"], {"model.layers.1.mlp.experts"}),
        ("qwen2_moe", ["v"], {"model.layers.1.self_attn.v_proj"}),
    ],
)
def test_chosen_sites_move_and_all_else_is_bit_identical(
    family: str, sites: list[str], expected: set[str], tiny: Build, context: PartContext
) -> None:
    model = tiny(family)
    tuned(LayersSelection(LayersConfig(layers=[1], sites=sites)), model, context=context)
    moved = trained(model)
    assert {name.rpartition(".")[0] for name in moved} == expected
    assert moved == {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_what_cannot_be_chosen_says_why(tiny: Build, context: PartContext) -> None:
    with pytest.raises(SurgeryError, match="site 'gate': layer 0 has none, its FFN has no gate"):
        chosen_sites(backbone(tiny("gpt2")).layers, ["gate"])
    with pytest.raises(SurgeryError, match=r"experts holds gate, up, down in one module; .*missing: gate, up"):
        chosen_sites(backbone(tiny("mixtral")).layers, ["down"])
    with pytest.raises(SurgeryError, match=r"c_attn holds q, k, v in one matrix; .*missing: k, v"):
        chosen_sites(backbone(tiny("gpt2")).layers, ["q"])
    experts = LayersSelection(LayersConfig(sites=["gate", "up", "down"]))
    with pytest.raises(SurgeryError, match="holds experts, no linear layer; name sites among q, k, v, o"):
        tuned(experts, tiny("mixtral"), context=context, tuning=LoraTuning(LoraConfig()))


@pytest.mark.parametrize("family", [*OTHER_FAMILIES, *UNKNOWN_FAMILIES])
def test_lora_moves_alone_and_merges_exactly(family: str, tiny: Build, context: PartContext) -> None:
    model = tiny(family)
    names = set(dict(model.named_parameters()))
    tuning = LoraTuning(LoraConfig(rank=2, alpha=4.0))
    model, report = tuned(AllSelection(AllConfig()), model, context=context, tuning=tuning)
    moved = trained(model, steps=3)
    assert moved == {name for name, _ in model.named_parameters() if ".lora_" in name}
    adapted = {name.split(".lora_")[0] for name in moved}
    if family in OTHER_FAMILIES:
        layers = backbone(tiny(family)).layers
        assert adapted == {site.path for layer in layers for site in layer.sites.values() if not site.is_of_experts}
    else:
        assert adapted == set(linear_paths(tiny(family)))
        assert f"on {len(adapted)} linear layers" in report.summary
    with torch.no_grad():
        before = model(input_ids=IDS).logits
        merged = tuning.merge(model)
        torch.testing.assert_close(merged(input_ids=IDS).logits, before, atol=FLOAT32, rtol=FLOAT32)
    assert set(dict(merged.named_parameters())) == names


@pytest.mark.parametrize("family", [*FAMILIES, *OTHER_FAMILIES, *UNKNOWN_FAMILIES, *SCALED_FAMILIES])
def test_losses_rest_on_the_models_own_logits(family: str, tiny: Build) -> None:
    model = tiny(family)
    length = IDS.shape[1]
    batch = {
        "input_ids": IDS,
        "attention_mask": torch.ones_like(IDS),
        "position_ids": torch.arange(length).expand_as(IDS),
    }
    with torch.no_grad():
        ours = project(model, hidden_states(model, batch))
        torch.testing.assert_close(ours, model(input_ids=IDS).logits, atol=FLOAT32, rtol=FLOAT32)
    check_logits(model)


def test_a_model_whose_logits_are_made_otherwise_is_refused(tiny: Build) -> None:
    model = tiny("granite")
    model.config.logits_scaling = 1.0  # a scale that this model keeps where nobody looks
    model.forward = lambda **inputs: SimpleNamespace(logits=model.lm_head(model.model(**inputs).last_hidden_state) / 4)
    with pytest.raises(ModelError, match="no loss here would be its own"):
        check_logits(model)


@pytest.mark.parametrize(
    ("family", "chosen", "backward"),
    [
        ("gpt2", None, 2 * (3 * (24 * 72 + 24 * 24 + 2 * 24 * 36) + 24 * VOCAB)),
        # Attention parts of the top layer train: backward enters a serial FFN behind them, no parallel one beside.
        ("gpt_neox", ["q", "k", "v", "o"], 24 * 72 + 2 * 24 * 24 + 24 * VOCAB),
        ("gpt_neox_serial", ["q", "k", "v", "o"], 24 * 72 + 2 * 24 * 24 + 2 * 24 * 36 + 24 * VOCAB),
    ],
)
def test_operations_by_hand(
    family: str, chosen: list[str] | None, backward: int, tiny: Build, context: PartContext
) -> None:
    """Matrices of a layer: q, k and v of 24 x 72, o of 24 x 24, up and down of 24 x 36; every pair costs 4 x 24."""
    model, rows, length = tiny(family), 2, 5
    if chosen is not None:
        tuned(LayersSelection(LayersConfig(layers=[2], sites=chosen)), model, context=context)
    entries = 3 * (24 * 72 + 24 * 24 + 2 * 24 * 36) + 24 * VOCAB
    pairs = 4 * 24 * rows * length * (length + 1) // 2
    assert forward_flops(model, num_rows=rows, length=length) == 2 * rows * length * entries + 3 * pairs
    crossed = 2 * pairs * (3 if chosen is None else 1)
    step = forward_flops(model, num_rows=rows, length=length) + 2 * rows * length * backward + crossed
    assert step_flops(model, num_rows=rows, length=length) == step
    assert is_counted(model)
    assert not is_counted(tiny("mixtral"))
    assert not is_counted(tiny("falcon"))


@pytest.mark.parametrize("family", UNKNOWN_FAMILIES)
def test_a_model_of_unknown_sites_is_told_what_works(family: str, tiny: Build, context: PartContext) -> None:
    model = tiny(family)
    assert not knows_sites(model)
    with pytest.raises(SurgeryError, match=r"sites are known of Llama.*GPT-NeoX.*selection=all") as caught:
        LayersSelection(LayersConfig(layers=[0])).choose(model, context=context)
    assert "\n" not in str(caught.value)


def test_a_mixer_keeps_the_weights_that_it_reads_itself(tiny: Build) -> None:
    names = {path.rpartition(".")[2] for path in linear_paths(tiny("mamba"))}
    assert names == {"in_proj", "x_proj"}
    assert "lm_head" not in linear_paths(tiny("gptj"))


@pytest.mark.parametrize("family", [*FAMILIES, *OTHER_FAMILIES, *SCALED_FAMILIES, *UNKNOWN_FAMILIES])
def test_a_row_is_the_same_with_padding_behind_it(family: str, tiny: Build) -> None:
    model, short = exact(tiny(family)).eval(), 4
    mask = torch.ones_like(IDS)
    mask[1, short:] = 0
    positions = torch.arange(IDS.shape[1])
    padded = {"input_ids": IDS * mask, "attention_mask": mask, "position_ids": positions.expand(IDS.shape)}
    alone = {"input_ids": IDS[1:, :short], "attention_mask": mask[1:, :short], "position_ids": positions[None, :short]}
    with torch.no_grad():
        found, expected = hidden_states(model, padded)[1, :short], hidden_states(model, alone)[0]
    torch.testing.assert_close(found, expected, atol=EXACT, rtol=EXACT)


def test_a_mask_speaks_only_of_padding_that_a_token_sees() -> None:
    right = torch.tensor([[1, 1, 0], [1, 1, 1]])
    left, ready_made = right.flip(1), {"full_attention": torch.ones(2, 1, 3, 3)}
    assert torch.equal(causal_mask(right), torch.ones(2, 3, dtype=torch.int64))  # type: ignore[arg-type]
    assert causal_mask(left) is left
    assert causal_mask(ready_made) is ready_made
