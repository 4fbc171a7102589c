"""Norm placements against loops, the untouched Llama, each other, caches, checkpointing, and their own export."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.methods.spannorm.reference import stream
from tests.tolerances import EXACT, FLOAT64
from transformers import AutoModelForCausalLM

from athlos.config.compose import run_config
from athlos.errors import ConfigErrors, SurgeryError
from athlos.generation.config import NativeConfig
from athlos.generation.interface import Prompt, SamplingRule
from athlos.generation.native import NativeEngine
from athlos.methods.spannorm.block import Block, Merge, Norm
from athlos.methods.spannorm.config import Placement
from athlos.methods.spannorm.placements import deepnorm_alpha, deepnorm_beta
from athlos.methods.spannorm.scaling import branch_variances, skip_product
from athlos.methods.spannorm.surgery import SpanNormSurgery
from athlos.models.architecture import build, hf_config
from athlos.models.sites import backbone
from athlos.models.tokenizers import byte_tokenizer
from athlos.parts import PartContext

BASE = {
    "model_type": "llama",
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
    "rms_norm_eps": 1e-5,
}
PLACEMENTS = [placement.value for placement in Placement]


def placed(*overrides: str, dtype: torch.dtype = torch.float64, stir: bool = True, **changes: Any) -> Any:
    """A changed model; with `stir` all gains are random, so that a norm left out or doubled shows."""
    torch.manual_seed(0)
    model: Any = build(hf_config(BASE | changes), dtype=dtype).eval()
    config = run_config(["surgery=spannorm", *overrides])
    context = PartContext(config=config, stages=None)  # type: ignore[arg-type]
    torch.manual_seed(1)
    model, _ = SpanNormSurgery(config.surgery).apply(model, context=context)  # type: ignore[arg-type]
    if stir:
        torch.manual_seed(2)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.uniform_(0.5, 1.5)
    return model


def ids_of(rows: int = 2, length: int = 7) -> torch.Tensor:
    return torch.randint(3, 50, (rows, length), generator=torch.Generator().manual_seed(3))


def logits(model: Any, ids: torch.Tensor, **options: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(ids, **options).logits


@pytest.mark.parametrize("placement", PLACEMENTS)
@torch.no_grad()
def test_each_placement_equals_its_equation(placement: str) -> None:
    model, ids = placed(f"surgery.placement={placement}"), ids_of()
    found = backbone(model)
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    x = found.embedding(ids)
    rotary = found.decoder.rotary_emb(x, position_ids=positions)

    def attention(layer: Any) -> Any:
        return lambda states: layer.attention(
            hidden_states=states, position_embeddings=rotary, attention_mask=None, past_key_values=None
        )[0]

    gains = []
    for layer in found.layers:
        assert isinstance(layer.module, Block)
        one = {role: norm.weight for role, norm in layer.norms.items()}
        one |= {f"{name}_gate": layer.module.sum_of(name).gate for name in ("attention", "ffn")}
        gains.append(one)
    final = found.final_norm
    out = final.side.weight if isinstance(final, Merge) else final.weight if isinstance(final, Norm) else None
    last = final.outer.weight if isinstance(final, Merge) and isinstance(final.outer, Norm) else None
    assert (out is None) == (placement in ("spannorm", "postnorm", "deepnorm", "keel"))
    expected = stream(
        placement,
        x,
        attention=[attention(layer) for layer in found.layers],
        ffn=[layer.ffn for layer in found.layers],
        gains=gains,
        out=out,
        last=last,
    )
    torch.testing.assert_close(logits(model, ids), model.lm_head(expected), atol=1e2 * EXACT, rtol=0)


@pytest.mark.parametrize(("placement", "is_unit"), [("residual", False), ("siamesenorm", True)])
@torch.no_grad()
def test_side_streams_begin_with_the_embedding(placement: str, is_unit: bool) -> None:
    """Both streams of a model whose branches give nothing hold the embedding, and end at a root mean square of 1:
    residual's output is their sum, siamesenorm's is normed again."""
    overrides = [f"surgery.placement={placement}", "surgery.embed_norm=false", "surgery.norm.eps=1e-12"]
    model, ids = placed(*overrides, stir=False), ids_of()
    found = backbone(model)
    for layer in found.layers:
        for name in ("o", "down"):
            layer.sites[name].weight.zero_()
    x = found.embedding(ids)
    unit = x * torch.rsqrt(x.square().mean(-1, keepdim=True))
    expected = unit if is_unit else 2 * unit
    torch.testing.assert_close(found.decoder(ids).last_hidden_state, expected, atol=FLOAT64, rtol=0)


def test_prenorm_is_the_llama_of_transformers() -> None:
    model = placed("surgery.placement=prenorm", "surgery.embed_norm=false")
    plain: Any = build(hf_config(BASE), dtype=torch.float64).eval()
    names = {"attention_input_norm": "input_layernorm", "ffn_input_norm": "post_attention_layernorm"}
    weights = {}
    for name, value in model.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        weights[name] = value
    plain.load_state_dict(weights)
    # Llama's own norm computes in float32.
    torch.testing.assert_close(logits(model, ids_of()), logits(plain, ids_of()), atol=FLOAT64, rtol=0)


def test_without_its_span_it_is_postnorm_bit_for_bit() -> None:
    switches = ["span_skip=false", "initial_norm=false", "init_scale=none"]
    span = placed(*(f"surgery.{one}" for one in switches))
    post = placed("surgery.placement=postnorm")
    assert torch.equal(logits(span, ids_of()), logits(post, ids_of()))
    kept = placed("surgery.initial_norm=false", "surgery.init_scale=none")
    assert (logits(kept, ids_of()) - logits(post, ids_of())).abs().max() > 1e-3


@torch.no_grad()
def test_the_skip_does_not_pass_the_initial_norm_and_empty_branches_leave_norms() -> None:
    model = placed()
    found = backbone(model)
    for layer in found.layers:
        for name in ("o", "down"):
            layer.sites[name].weight.zero_()
    x = torch.randn(1, 3, 24, dtype=torch.float64)
    expected = x * torch.rsqrt(x.square().mean(-1, keepdim=True))
    for layer in found.layers:
        expected = layer.norms["ffn_sum"](expected)
    states = x
    for layer in found.layers:
        rotary = found.decoder.rotary_emb(states, position_ids=torch.arange(3)[None])
        states = layer.module(states, position_embeddings=rotary)
    torch.testing.assert_close(states, expected, atol=FLOAT64, rtol=0)


@torch.no_grad()
def test_a_skip_over_two_blocks() -> None:
    model = placed("surgery.span_blocks=2", "surgery.initial_norm=false", "surgery.embed_norm=false")
    found, ids = backbone(model), ids_of()
    x = found.embedding(ids)
    rotary = found.decoder.rotary_emb(x, position_ids=torch.arange(ids.shape[1])[None])
    for pair in (0, 2):
        skip = x
        for layer in found.layers[pair : pair + 2]:
            attended = layer.attention(hidden_states=x, position_embeddings=rotary, attention_mask=None)[0]
            y = layer.norms["attention_sum"](skip + attended)
            x = layer.norms["ffn_sum"](skip + layer.ffn(y))
    torch.testing.assert_close(logits(model, ids), model.lm_head(x), atol=1e2 * EXACT, rtol=0)


@pytest.mark.parametrize(
    ("overrides", "norms"),
    [
        ([], 9),
        (["surgery.norm1=false"], 5),
        (["surgery.pre_norm=true"], 16),
        (["surgery.final_norm=true"], 10),
        (["surgery.initial_norm=false"], 8),
        (["surgery.placement=prenorm"], 9),
    ],
)
def test_switches_add_and_take_norms(overrides: list[str], norms: int) -> None:
    """SpanNorm has as many gains as PreNorm: the initial norm stands for the final one."""
    model = placed(*overrides)
    assert sum(isinstance(module, Norm) for module in model.modules()) == norms
    assert logits(model, ids_of()).isfinite().all()


def test_numbers_of_the_specification() -> None:
    assert skip_product([1 / 12] * 12) == pytest.approx(0.61862, abs=5e-6)
    assert skip_product([1 / 128] * 128) == pytest.approx(0.60771, abs=5e-6)
    assert math.exp(-0.5) == pytest.approx(0.60653, abs=5e-6)
    assert deepnorm_beta(2) == pytest.approx(0.5, abs=EXACT)
    assert deepnorm_alpha(32) == pytest.approx(2.8284, abs=5e-5)


def test_where_weights_begin() -> None:
    wide = {"hidden_size": 128, "intermediate_size": 256}
    counts: dict[str, dict[str, float]] = {}
    for rule, overrides in {
        "span": [],
        "none": ["surgery.init_scale=none"],
        "half": ["surgery.init_scale=inv_sqrt_2L"],
        "quarter": ["surgery.c=0.25"],
        "narrow": ["surgery.width_scale=none"],
        "layerwise": ["surgery.init_scale=layerwise"],
        "hybrid": ["surgery.placement=hybridnorm"],
        "hybrid_star": ["surgery.placement=hybridnorm_star"],
    }.items():
        found = backbone(placed(*overrides, stir=False, **wide))
        last = found.layers[-1].sites
        counts[rule] = {name: float(last[name].weight.detach().std()) * 128**0.5 for name in ("q", "v", "o")}
    expected = {
        "span": (1, 1, 0.5),
        "none": (1, 1, 1),
        "half": (1, 1, 8**-0.5),
        "quarter": (1, 1, 0.25),
        "narrow": (0.02 * 128**0.5, 0.02 * 128**0.5, 0.01 * 128**0.5),
        "layerwise": (1, 1, 8**-0.5),
        "hybrid": (1, 1, 8**-0.5),
        "hybrid_star": (1, 1, 8**-0.5),
    }
    for rule, values in expected.items():
        assert list(counts[rule].values()) == pytest.approx(values, rel=0.03), rule


def test_deepnorm_begins_with_xaviers_sizes_and_its_own_gains() -> None:
    """Xavier's variance is 2 / (inputs + outputs); all but queries, keys and routers have a gain of (8 * 4)^(-1/4)."""
    shape = {"hidden_size": 128, "intermediate_size": 512, "num_key_value_heads": 1}
    model = placed("surgery.placement=deepnorm", stir=False, **shape)
    gains = dict.fromkeys(("v", "o", "gate", "up", "down"), 32**-0.25) | {"q": 1, "k": 1}
    assert set(gains) == set(backbone(model).layers[2].sites)
    for name, site in backbone(model).layers[2].sites.items():
        inputs, outputs = site.module.in_features, site.module.out_features
        expected = gains[name] * (2 / (inputs + outputs)) ** 0.5
        assert float(site.weight.detach().std()) == pytest.approx(expected, rel=0.04), name
    mixture = placed("surgery.placement=deepnorm", "surgery.moe.num_experts=64", stir=False, **shape)
    router = backbone(mixture).layers[2].ffn.router  # type: ignore[union-attr]
    assert float(router.weight.detach().std()) == pytest.approx((2 / (128 + 64)) ** 0.5, rel=0.04)


def test_a_branch_multiplier_begins_as_the_scaled_weights() -> None:
    scaled, multiplied = placed(), placed("surgery.init_scale=branch_multiplier")
    torch.testing.assert_close(logits(scaled, ids_of()), logits(multiplied, ids_of()), atol=1e2 * EXACT, rtol=0)
    for model in (scaled, multiplied):
        model(ids_of(), labels=ids_of()).loss.backward()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer.step()
    assert (logits(scaled, ids_of()) - logits(multiplied, ids_of())).abs().max() > 1e-4


def test_calibration_gives_the_ffn_the_wanted_variance() -> None:
    wide = {"hidden_size": 128, "intermediate_size": 256}
    variances = {}
    for calibration in ("none", "analytic", "measured"):
        model = placed(f"surgery.branch_calibration={calibration}", stir=False, **wide)
        variances[calibration] = branch_variances(model, backbone(model), ids_of(8, 32))["ffn"]
    assert variances["measured"] == pytest.approx([0.25] * 4, rel=0.1)  # on another batch than it was measured on
    assert sum(variances["none"]) / 4 == pytest.approx(0.3557 / 4, rel=0.15)
    for plain, analytic in zip(variances["none"], variances["analytic"], strict=True):
        assert analytic == pytest.approx(plain / 0.3557, rel=0.1)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_cached_decoding_equals_the_full_pass_and_looks_at_no_later_token(placement: str) -> None:
    model, ids = placed(f"surgery.placement={placement}"), ids_of()
    whole = logits(model, ids)
    output = model(ids[:, :3], use_cache=True)
    parts = [output.logits]
    for at in range(3, ids.shape[1]):
        output = model(ids[:, at : at + 1], past_key_values=output.past_key_values, use_cache=True)
        parts.append(output.logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=FLOAT64, rtol=0)
    changed = ids.clone()
    changed[:, 4] = 1
    torch.testing.assert_close(logits(model, changed)[:, :4], whole[:, :4], atol=EXACT, rtol=0)


@pytest.mark.parametrize("placement", ["spannorm", "prenorm"])
@torch.no_grad()
def test_the_stream_of_a_16_bit_model_is_float32(placement: str) -> None:
    """The difference to float32 is of the matrices alone, not of 48 rounded sums."""
    model, ids = placed(f"surgery.placement={placement}", dtype=torch.float32, num_hidden_layers=24), ids_of()
    whole = logits(model, ids)
    formats: list[torch.dtype] = []
    model.to(torch.bfloat16)
    for layer in backbone(model).layers:
        layer.module.register_forward_hook(lambda module, arguments, output: formats.append(output.dtype))
    found = logits(model, ids)
    assert formats[:-1] == [torch.float32] * 23
    assert found.dtype == torch.bfloat16
    assert (found.float() - whole).abs().max() < 0.05 * whole.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        assert logits(model.float(), ids).isfinite().all()


@pytest.mark.parametrize("placement", ["spannorm", "siamesenorm", "hybridnorm"])
def test_checkpointing_gives_the_same_gradients(placement: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = placed(f"surgery.placement={placement}").train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model(ids_of(), labels=ids_of()).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(gradients[1][name], gradient, atol=EXACT, rtol=0)


@pytest.mark.parametrize("placement", ["spannorm", "peri_ln", "hybridnorm", "siamesenorm", "rezero"])
def test_it_is_saved_and_loaded_by_transformers(placement: str, tmp_path: Path) -> None:
    model = placed(f"surgery.placement={placement}", dtype=torch.float32)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits(again, ids_of()), logits(model, ids_of()), atol=0, rtol=0)


@pytest.mark.parametrize("placement", ["spannorm", "residual"])
def test_the_native_engine_generates_what_transformers_does(placement: str) -> None:
    model = placed(f"surgery.placement={placement}", vocab_size=259, dtype=torch.float32)
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    engine = NativeEngine(NativeConfig(_target_="", batch_size=4), model=model, tokenizer=byte_tokenizer())
    prompts = [Prompt(token_ids=list(range(70, 70 + length)), max_new_tokens=6) for length in (3, 9)]
    for prompt, [sample] in zip(prompts, engine.generate(prompts, rule=SamplingRule()), strict=True):
        ids = torch.tensor([prompt.token_ids])
        theirs = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
        assert sample.token_ids == theirs[0, ids.shape[1] :].tolist()[: len(sample.token_ids)]
        assert sample.finished or len(sample.token_ids) == 6


def test_it_is_built_on_meta() -> None:
    with torch.device("meta"):
        model: Any = build(hf_config(BASE | {"num_hidden_layers": 128}), dtype=torch.float32)
    config = run_config(["surgery=spannorm"])
    context = PartContext(config=config, stages=None)  # type: ignore[arg-type]
    model, report = SpanNormSurgery(config.surgery).apply(model, context=context)  # type: ignore[arg-type]
    assert all(parameter.is_meta for parameter in model.parameters())
    assert report.metrics == {"spannorm/norm_params": 257.0 * 24}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=small/smollm2_135m"], "trained weights"),
        (["surgery.c=0"], "surgery.c"),
        (["surgery.norm.eps=0"], "surgery.norm.eps"),
        (["surgery.span_blocks=3"], "surgery.span_blocks"),
        (["surgery.span_blocks=2", "surgery.span_skip=false"], "span_skip=false"),
        (["surgery.placement=prenorm", "surgery.span_skip=false"], "only placement=spannorm has"),
        (["surgery.placement=deepnorm", "surgery.init_scale=inv_sqrt_L"], "a scale of its own"),
        (["surgery.placement=scaled_prenorm", "surgery.init_scale=none"], "plain prenorm"),
        (["surgery.combine_scales=true"], "no scale of its own"),
        (["surgery.moe.num_experts=1"], "surgery.moe.num_experts"),
        (["surgery.moe.num_experts=4", "surgery.moe.top_k=5"], "surgery.moe.top_k"),
        (["surgery.moe.balance_loss=-1"], "surgery.moe.balance_loss"),
        (["method=spannorm", "method.probe_every=-1"], "method.probe_every"),
        (["method=spannorm", "method.probe_every=7"], "multiple of train.log_every"),
        (["method=spannorm", "method.probe_rows=0"], "method.probe_rows"),
    ],
)
def test_configs_that_make_no_sense(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigErrors, match=message):
        run_config(["surgery=spannorm", *overrides])


def test_models_that_do_not_fit() -> None:
    with pytest.raises(SurgeryError, match="does not divide"):
        placed("surgery.span_blocks=2", num_hidden_layers=3)
    with pytest.raises(SurgeryError, match="twice"):
        placed("surgery.placement=hybridnorm", model_type="qwen3", head_dim=6)
    with pytest.raises(SurgeryError, match="no Llama-type model"):
        placed(model_type="gemma3_text", head_dim=6)
    model = placed()
    config = run_config(["surgery=spannorm"])
    context = PartContext(config=config, stages=None)  # type: ignore[arg-type]
    with pytest.raises(SurgeryError, match="changed before"):
        SpanNormSurgery(config.surgery).apply(model, context=context)  # type: ignore[arg-type]


def test_a_model_with_head_norms_of_its_own_keeps_them() -> None:
    model = placed(model_type="qwen3", head_dim=6)
    assert {"query", "key", "attention_sum", "ffn_sum"} <= set(backbone(model).layers[0].norms)
    assert logits(model, ids_of()).isfinite().all()


def test_trained_weights_are_drawn_anew_when_asked() -> None:
    config = run_config(["surgery=spannorm", "model=small/smollm2_135m", "surgery.from_scratch=true"])
    context = PartContext(config=config, stages=None)  # type: ignore[arg-type]
    model: Any = build(hf_config(BASE), dtype=torch.float64)
    before = model.get_input_embeddings().weight.detach().clone()
    model, _ = SpanNormSurgery(config.surgery).apply(model, context=context)  # type: ignore[arg-type]
    after = model.get_input_embeddings().weight.detach()
    assert not torch.equal(before, after)
    assert float(after.std()) == pytest.approx(0.02, rel=0.1)
    assert math.isfinite(float(logits(model, ids_of()).sum()))
