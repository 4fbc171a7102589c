"""Answers without some heads: the engine against models whose weights are zeroed, in every phase and mode."""

import copy

import pytest
import torch
from tests.generation.test_contrast import LOG_PROB_TOLERANCE, masked
from tests.generation.tiny_models import encode, engine, tiny

from athlos.errors import ConfigError
from athlos.generation.interface import Request, SamplingRule, Silence
from athlos.generation.masked_heads import answers_without_heads
from athlos.methods.lisa.surgery import directly_shared
from athlos.models.sites import backbone

HEADS = ((0, 1), (0, 2), (1, 0), (1, 3))
TEXTS = ["hello there", "x", "a rather longer prompt than the others are, by far"]
REQUESTS = [Request(identifier=text, prompt=text, record=None) for text in TEXTS]
NEW = 12


@pytest.mark.parametrize("name", ["llama", "qwen3"])
@pytest.mark.parametrize("is_uniform", [False, True])
@pytest.mark.parametrize("in_prompt", [True, False])
def test_the_engine_answers_as_a_model_whose_heads_are_gone(name, is_uniform, in_prompt):
    model = tiny(name, seed=1)
    before = engine(model).generate(encode(TEXTS), rule=SamplingRule())
    found = answers_without_heads(
        engine(model, batch_size=2),
        REQUESTS,
        heads=HEADS,
        max_new_tokens=NEW,
        is_uniform=is_uniform,
        in_prompt=in_prompt,
    )
    for prompt, sample in zip(encode(TEXTS), found, strict=True):
        start = 0 if in_prompt else len(prompt.token_ids)
        silent = masked(model, start=start, heads=HEADS, is_uniform=is_uniform)
        ids = torch.tensor([prompt.token_ids + sample.token_ids])
        with torch.no_grad():
            logs = silent(ids).logits[0, len(prompt.token_ids) - 1 : -1].log_softmax(-1)
        assert sample.token_ids == logs.argmax(-1).tolist(), "each is the best one of a whole forward pass"
        assert sample.log_probs == pytest.approx(logs.amax(-1).tolist(), abs=LOG_PROB_TOLERANCE)
    changes = [abs(sample.log_probs[2] - spoken.log_probs[2]) for sample, [spoken] in zip(found, before, strict=True)]
    assert max(changes) > 100 * LOG_PROB_TOLERANCE, "the heads did say something"
    after = engine(model).generate(encode(TEXTS), rule=SamplingRule())
    assert [one.token_ids for [one] in before] == [one.token_ids for [one] in after], "nothing stays changed"


def test_without_any_head_named_the_whole_model_answers():
    model = tiny(seed=1)
    wanted = engine(model).generate(encode(TEXTS), rule=SamplingRule())
    found = answers_without_heads(engine(model), REQUESTS, heads=[], max_new_tokens=NEW)
    assert [sample.token_ids for sample in found] == [sample.token_ids for [sample] in wanted]


def test_heads_of_another_engine_are_out_of_reach():
    with pytest.raises(ConfigError, match="engine=native"):
        answers_without_heads(engine(name="transformers"), REQUESTS, heads=HEADS, max_new_tokens=2)


def test_heads_of_layers_that_share_attention():
    model = directly_shared(tiny(seed=3), [1])
    found, follower = backbone(model), 1
    with pytest.raises(ConfigError, match=r"mask\.shared: got refuse"):
        engine(model).generate(encode(TEXTS), rule=SamplingRule(), silence=Silence(heads=((follower, 1),)))
    silence = Silence(heads=((follower, 1),), follows_sharing=True)
    [[sample], *_] = engine(model).generate(encode(TEXTS), rule=SamplingRule(), silence=silence)
    zeroed, size = copy.deepcopy(model), found.head_size
    with torch.no_grad():
        for layer in (follower - 1, follower):
            backbone(zeroed).layers[layer].sites["o"].module.weight[:, size : 2 * size] = 0
    [[wanted], *_] = engine(zeroed).generate(encode(TEXTS), rule=SamplingRule())
    assert sample.token_ids == wanted.token_ids
