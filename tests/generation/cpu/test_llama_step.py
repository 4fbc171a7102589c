"""The written-out Llama step: the same answers, only where nothing was changed, dropped where it differs."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.generation.tiny_models import encode, engine, tiny

from athlos.generation.config import NumberFormat
from athlos.generation.cpu import llama_step
from athlos.generation.cpu.llama_step import LlamaStep, fits
from athlos.generation.interface import Contrast, SamplingRule, Silence
from athlos.models.sites import backbone

GREEDY = SamplingRule()
TEXTS = ["hello there", "x", "a rather longer prompt than the others are, by far", "мир и труд", "ok then"]


def tokens(answers):
    return [[sample.token_ids for sample in samples] for samples in answers]


@pytest.fixture
def short_steps(monkeypatch):
    """One entry for each step that went the short way."""
    steps = []
    run = LlamaStep.__call__
    monkeypatch.setattr(LlamaStep, "__call__", lambda *args, **options: steps.append(1) or run(*args, **options))
    return steps


@pytest.mark.parametrize("rule", [GREEDY, SamplingRule(temperature=1.0)], ids=["greedy", "sampled"])
def test_same_answers_either_way(rule, short_steps):
    model, prompts = tiny(), encode(TEXTS, max_new_tokens=30)
    expected = engine(model, batch_size=3, written_out=False).generate(prompts, rule=rule, num_samples=2)
    assert not short_steps
    found = engine(model, batch_size=3).generate(prompts, rule=rule, num_samples=2)
    assert len(short_steps) > 30
    assert tokens(found) == tokens(expected)
    for samples, others in zip(found, expected, strict=True):
        for one, other in zip(samples, others, strict=True):
            assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)


HEADS = ((0, 1), (0, 2), (1, 0), (1, 3))
SILENT = {
    "gone": {"silence": Silence(heads=HEADS)},
    "uniform": {"silence": Silence(heads=HEADS, is_uniform=True)},
    "gone while it decodes": {"silence": Silence(heads=HEADS, in_prompt=False)},
    "gone in the second stream": {"contrast": Contrast(alpha=1.5, heads=HEADS)},
    "uniform in the second stream": {"contrast": Contrast(alpha=1.5, heads=HEADS, is_uniform=True)},
}


@pytest.mark.parametrize("silent", SILENT)
@pytest.mark.parametrize("dtype", NumberFormat)
def test_silent_heads_are_silent_either_way(silent, dtype, short_steps, caplog):
    """In float32 to the token; in 16 bit the two ways round differently, so the likelihoods are compared."""
    model, prompts = tiny(seed=1), encode(TEXTS, max_new_tokens=20)
    spoken = engine(model, dtype=dtype).generate(prompts, rule=GREEDY)
    expected = engine(model, batch_size=3, written_out=False, dtype=dtype).generate(
        prompts, rule=GREEDY, **SILENT[silent]
    )
    short_steps.clear()
    found = engine(model, batch_size=3, dtype=dtype).generate(prompts, rule=GREEDY, **SILENT[silent])
    assert len(short_steps) > 20
    assert "differs from this decoder" not in caplog.text
    assert tokens(found) != tokens(spoken), "the heads did say something"
    if dtype is NumberFormat.float32:
        assert tokens(found) == tokens(expected)
    for [one], [other] in zip(found, expected, strict=True):
        assert one.log_probs[:2] == pytest.approx(
            other.log_probs[:2], abs=1e-4 if dtype is NumberFormat.float32 else 0.1
        )


def hooked(model):
    model.model.layers[1].register_forward_hook(lambda *_: None)


def patched(model):
    norm = model.model.layers[0].input_layernorm
    norm.forward = lambda hidden: hidden


class DoubledNorm(llama_step.llama.LlamaRMSNorm):
    def forward(self, hidden):
        return 2 * super().forward(hidden)


def other_norm(model):
    model.model.layers[1].post_attention_layernorm = DoubledNorm(64)


def adapted(model):
    get_peft_model(model, LoraConfig(target_modules=["v_proj"]))


def other_kernel(model):
    model.set_attn_implementation("eager")


def half(model):
    model.bfloat16()


@pytest.mark.parametrize("change", [hooked, patched, other_norm, adapted, other_kernel, half])
def test_a_changed_decoder_keeps_its_own_forward_pass(change, short_steps):
    model = tiny()
    assert fits(backbone(model))
    change(model)
    assert not fits(backbone(model))
    engine(model).generate(encode(["abc"]), rule=GREEDY)
    assert not short_steps


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "phi3", "mistral", "gemma3"])
def test_other_families_keep_theirs(name):
    assert not fits(backbone(tiny(name)))


def test_a_step_that_differs_is_dropped_and_leaves_no_trace(monkeypatch, caplog):
    model, prompts = tiny(), encode(TEXTS)
    expected = engine(model, written_out=False).generate(prompts, rule=GREEDY)
    norm = llama_step._norm
    monkeypatch.setattr(llama_step, "_norm", lambda module: lambda hidden: 1.1 * norm(module)(hidden))
    found = engine(model).generate(prompts, rule=GREEDY)
    assert tokens(found) == tokens(expected)
    assert "differs from this decoder" in caplog.text


def test_weights_that_change_between_calls_are_seen(short_steps):
    model, prompts = tiny(), encode(TEXTS)
    generates = engine(model)
    generates.generate(prompts, rule=GREEDY)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.copy_(tiny(seed=1).model.layers[0].mlp.up_proj.weight)
    found = generates.generate(prompts, rule=GREEDY)
    assert short_steps
    assert tokens(found) == tokens(engine(model, written_out=False).generate(prompts, rule=GREEDY))
