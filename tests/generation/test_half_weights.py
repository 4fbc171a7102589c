"""Generation in 16 bit: as transformers with rounded weights, for every family, rule and surgery that decodes.

Tolerances are those of bfloat16, 8 bits of a number: processors with tiles round the rows of a product too, others do
not, and the cache is rounded on all.
"""

import copy
import math
from dataclasses import replace

import pytest
import torch
from tests.generation.test_contrast import CONTRASTS, asked
from tests.generation.tiny_models import CONFIGS, encode, engine, tiny
from tests.methods.lisa.test_decoding_step import changed
from tests.methods.lisa.test_surgery import ids_of
from transformers import AutoModelForCausalLM, GPT2Config

from athlos.config.compose import run_config
from athlos.errors import ConfigError, ModelError
from athlos.generation import half_weights
from athlos.generation.config import NumberFormat
from athlos.generation.half_weights import HalfProduct, HalfWeights
from athlos.generation.interface import SamplingRule
from athlos.generation.rollouts import response_log_probs, sample_group
from athlos.generation.step import DecoderStep
from athlos.models.sites import backbone
from athlos.models.tokenizers import byte_tokenizer
from athlos.training.rollout_module import sampler_ratios

HALF = NumberFormat.bfloat16
GREEDY = SamplingRule()
ROUNDING = 2.0**-8
"""Relative step of bfloat16, half of it up and half of it down."""
LOG_PROB_TOLERANCE = 0.6
"""Log-probabilities of random models with logits of about 20: a few steps of rounding. A wrong column is nats away."""
TEXTS = ["hello there", "x", "a rather longer prompt than the others are, by far", "мир и труд", "ok then"]


def rounded(model):
    """A copy whose matrices hold what bfloat16 can hold: transformers computes with it in float32."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in other.named_parameters():
            if weight.ndim == 2 and "embed_tokens" not in name:
                weight.copy_(weight.bfloat16().float())
    return other


def forced(model, prompt, token_ids):
    """Log-probabilities that a model gives to tokens behind a prompt, by one forward pass without a cache."""
    ids = torch.tensor([[*prompt.token_ids, *token_ids]])
    logs_TV = model(input_ids=ids).logits[0, len(prompt.token_ids) - 1 : -1].log_softmax(-1)
    return logs_TV.gather(1, torch.tensor(token_ids)[:, None])[:, 0].tolist(), logs_TV


@torch.no_grad()
@pytest.mark.parametrize("written_out", [False, True])
@pytest.mark.parametrize("name", [*CONFIGS, "gpt2"])
def test_answers_are_those_of_rounded_weights(name, written_out):
    """Each token is the likeliest, or as likely within rounding, and has the probability of the rounded model."""
    if name == "gpt2":
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=259, n_embd=48, n_layer=2, n_head=4)).eval()
    else:
        model = tiny(name)
    prompts, expected = encode(TEXTS), rounded(model)
    answers = engine(model, batch_size=3, dtype=HALF, written_out=written_out).generate(prompts, rule=GREEDY)
    for prompt, [sample] in zip(prompts, answers, strict=True):
        logs, logs_TV = forced(expected, prompt, sample.token_ids)
        assert sample.log_probs == pytest.approx(logs, abs=LOG_PROB_TOLERANCE)
        assert logs == pytest.approx(logs_TV.amax(-1).tolist(), abs=2 * LOG_PROB_TOLERANCE)


def test_it_is_not_float32():
    prompts = encode(TEXTS)
    plain, half = (engine(dtype=one).generate(prompts, rule=GREEDY) for one in (NumberFormat.float32, HALF))
    assert all(one.log_probs[0] != other.log_probs[0] for [one], [other] in zip(plain, half, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_groups_and_ragged_batches(name):
    """Rows are padded, leave and join; every sample has the probabilities that it has alone."""
    model, rule = tiny(name), SamplingRule(temperature=1.0)
    prompts = [replace(prompt, max_new_tokens=4 + 5 * index) for index, prompt in enumerate(encode(TEXTS, seed=3))]
    together = engine(model, batch_size=4, dtype=HALF).generate(prompts, rule=rule, num_samples=3, end_token_ids=())
    expected = rounded(model)
    for prompt, samples in zip(prompts, together, strict=True):
        assert len({tuple(sample.token_ids) for sample in samples}) == 3
        for sample in samples:
            logs, _ = forced(expected, prompt, sample.token_ids)
            assert sample.log_probs == pytest.approx(logs, abs=LOG_PROB_TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("kind", CONTRASTS)
def test_contrastive_decoding(kind):
    contrast, model = CONTRASTS[kind], tiny("gemma3", seed=1)
    prompts = asked(contrast)
    answers = engine(model, dtype=HALF).generate(prompts, rule=GREEDY, contrast=contrast)
    for prompt, [sample] in zip(prompts, answers, strict=True):
        logs, _ = forced(rounded(model), prompt, sample.token_ids)
        assert sample.log_probs == pytest.approx(logs, abs=LOG_PROB_TOLERANCE), "those of the plain model"


@pytest.mark.parametrize("written_out", [False, True])
@pytest.mark.parametrize("case", ["lisa", "direct", "cla", "yoco"])
def test_layers_of_a_surgery(case, written_out):
    """LISA's aligned and direct sharing, and shared keys: logits column by column against float32."""
    model = changed(case)
    with torch.inference_mode():
        plain = columns(model, written_out=written_out, cache_dtype=None)
        with HalfWeights().applied(backbone(model)):
            half = columns(model, written_out=written_out, cache_dtype=torch.bfloat16)
    for one, other in zip(half, plain, strict=True):
        scale = other.abs().max()
        assert 0 < (one - other).abs().max() < 16 * ROUNDING * max(1.0, scale)


def columns(model, *, written_out, cache_dtype):
    step = DecoderStep(model, written_out=written_out, cache_dtype=cache_dtype)
    cache, pad_B = step.new_cache(capacity=9), torch.tensor([0, 2])
    pieces = [ids_of()[:, :6], *ids_of()[:, 6:].split(1, dim=1)]
    found = [step(piece, cache, pad_B=pad_B, most_padding=2) for piece in pieces]
    assert (step.short is not None) is written_out
    filled = [layer for layer in cache.layers if layer.is_initialized]
    assert {layer.keys.dtype for layer in filled} == {cache_dtype or torch.float32}
    assert {one.dtype for one in found} == {torch.float32}
    return found


def test_a_model_is_left_as_it_was():
    model = tiny()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    engine(model, dtype=HALF).generate(encode(TEXTS), rule=GREEDY)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("is_counted", [True, False], ids=["as optimizers write", "behind PyTorch's back"])
def test_weights_that_change_between_calls_are_seen_and_others_are_cast_once(is_counted, monkeypatch):
    model, prompts = tiny(), encode(TEXTS)
    generates, casts = engine(model, dtype=HALF), []
    make = HalfProduct.__init__
    monkeypatch.setattr(HalfProduct, "__init__", lambda self, module: casts.append(module) or make(self, module))
    generates.generate(prompts, rule=GREEDY)
    assert len(casts) == 2 * 7 + 1
    generates.generate(prompts, rule=GREEDY)
    assert len(casts) == 2 * 7 + 1
    weight, other = (one.model.layers[0].mlp.up_proj.weight for one in (model, tiny(seed=1)))
    with torch.no_grad():
        (weight if is_counted else weight.data).copy_(other)
    found = generates.generate(prompts, rule=GREEDY)
    assert casts[15:] == [model.model.layers[0].mlp.up_proj]
    again = engine(model, dtype=HALF).generate(prompts, rule=GREEDY)
    assert [one.log_probs for [one] in found] == [one.log_probs for [one] in again]


def test_a_decoder_without_linear_layers_is_refused():
    class Other(torch.nn.Linear):
        """A layer that may compute anything."""

    model = tiny()
    for layer in model.model.layers:
        for module in (*layer.self_attn.children(), *layer.mlp.children()):
            if isinstance(module, torch.nn.Linear):
                module.__class__ = Other
    with pytest.raises(ModelError, match=r"engine\.dtype: got bfloat16.*engine\.dtype=float32"):
        engine(model, dtype=HALF).generate(encode(TEXTS), rule=GREEDY)


@pytest.mark.parametrize("has_units", [False, True])
def test_auto_goes_by_the_device(has_units, monkeypatch):
    monkeypatch.setattr(half_weights, "half_units", lambda device: has_units)
    found = engine(dtype=NumberFormat.auto)
    assert found.number_format == ("bfloat16" if has_units else "float32")
    [[sample]] = found.generate(encode(["abc"]), rule=GREEDY)
    [[other]] = engine(dtype=HALF if has_units else NumberFormat.float32).generate(encode(["abc"]), rule=GREEDY)
    assert sample.log_probs == other.log_probs


def test_the_key_is_checked_when_a_run_is_composed():
    assert run_config(["experiment=finetune/tiny"]).engine.dtype is NumberFormat.float32
    assert run_config(["experiment=finetune/tiny", "engine.dtype=auto"]).engine.dtype is NumberFormat.auto
    with pytest.raises(ConfigError, match="float16"):
        run_config(["experiment=finetune/tiny", "engine.dtype=float16"])


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_rollouts_have_the_log_probabilities_of_the_training(temperature):
    model, source = tiny(), torch.Generator().manual_seed(1)
    rollouts = sample_group(
        model,
        byte_tokenizer(),
        TEXTS[:3],
        group_size=3,
        max_new_tokens=12,
        temperature=temperature,
        generator=source,
        dtype=HALF,
    )
    with torch.no_grad():
        expected = response_log_probs(model, rollouts, temperature=temperature or 1.0)
    assert torch.equal(rollouts.log_probs, expected)
    assert not rollouts.log_probs.requires_grad
    ratios_N = sampler_ratios(rollouts)
    mask = rollouts.response_mask.bool()
    loop = [
        math.exp(one - other)
        for one, other in zip(rollouts.log_probs[mask].tolist(), rollouts.sampler_log_probs[mask].tolist(), strict=True)
    ]
    assert ratios_N.tolist() == pytest.approx(loop)
    assert 0 < (ratios_N.log().abs()).max() < LOG_PROB_TOLERANCE
    plain = sample_group(
        model, byte_tokenizer(), TEXTS, group_size=1, max_new_tokens=3, temperature=0.0, generator=None
    )
    assert plain.sampler_log_probs is None
    assert sampler_ratios(plain) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_bfloat16_is_float32_within_rounding():
    model = tiny().cuda()
    prompts = encode(TEXTS)
    answers = engine(model, dtype=HALF).generate(prompts, rule=GREEDY)
    with torch.no_grad():
        for prompt, [sample] in zip(prompts, answers, strict=True):
            logs, _ = forced(rounded(model).cpu(), prompt, sample.token_ids)
            assert sample.log_probs == pytest.approx(logs, abs=LOG_PROB_TOLERANCE)
