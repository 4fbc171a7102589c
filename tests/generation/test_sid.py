"""Self-induced decoding: two prompts that differ in one token; what alpha 0 is; models without the tokens."""

import dataclasses

import pytest
import torch
from tests.generation.test_contrast import twin
from tests.generation.tiny_models import engine, tiny

from athlos.config.compose import run_config
from athlos.errors import ConfigErrors, DataError, ModelError
from athlos.generation.config import GreedyConfig, SamplingConfig, SidConfig
from athlos.generation.contrastive_decoding import Sid, SidEngine
from athlos.generation.decoding import Greedy, Sampling, encoded
from athlos.generation.interface import Contrast, Request, SamplingRule
from athlos.models.control_tokens import NEG, POS, add_control_tokens
from athlos.models.sites import backbone

TEXTS = ["hello there", "x", "a rather longer prompt than the others are, by far"]
REQUESTS = [Request(identifier=text, prompt=text, record=None, seed=7) for text in TEXTS]


def sid(**changes):
    values = {"alpha": 0.2, "plausibility": 0.1, "temperature": 1.0, "top_p": 0.95, "max_new_tokens": 8}
    return Sid(SidConfig(_target_="", **(values | changes)))


@pytest.fixture(scope="module")
def told():
    """An engine around a model with both tokens, which say different things."""
    model = tiny(seed=4)
    found = engine(model)
    ids = add_control_tokens(model, found.tokenizer)
    with torch.no_grad():
        model.get_input_embeddings().weight[list(ids)] = torch.randn(2, 64, generator=torch.Generator().manual_seed(1))
    return found


def test_the_prompts_differ_in_exactly_one_token_and_are_equally_long(told):
    for request in sid().asked(told, REQUESTS):
        prompt = encoded(told, request, max_new_tokens=4)
        pairs = list(zip(prompt.token_ids, prompt.against_ids, strict=True))
        [place] = [at for at, (one, other) in enumerate(pairs) if one != other]
        assert [told.tokenizer.decode([token]) for token in pairs[place]] == [POS, NEG]
        assert told.tokenizer.decode(prompt.token_ids[place + 1 :]) == request.prompt


def test_both_streams_are_fed_the_token_that_was_drawn(told):
    decoding = sid()
    contrast = Contrast(alpha=0.2, plausibility=0.1)
    found = sid(top_p=1.0).answer(told, REQUESTS)
    for request, prediction in zip(decoding.asked(told, REQUESTS), found, strict=True):
        prompt = encoded(told, request, max_new_tokens=8)
        ids, _ = twin(told.model, prompt, contrast, rule=sid(top_p=1.0).rule)
        assert prediction.num_tokens == len(ids)
        shown = ids[:-1] if ids[-1] == told.tokenizer.eos_token_id else ids
        assert prediction.text == told.tokenizer.decode(shown, skip_special_tokens=True)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_alpha_0_is_plain_decoding_behind_pos_bit_for_bit(told, temperature):
    behind_pos = [dataclasses.replace(one, control=sid().asked(told, [one])[0].control[:1]) for one in REQUESTS]
    plain = Greedy(GreedyConfig(_target_="", max_new_tokens=8))
    if temperature:
        plain = Sampling(SamplingConfig(_target_="", max_new_tokens=8, temperature=1.0, top_p=0.95))
    assert sid(alpha=0.0).contrast(backbone(told.model)) is None, "one stream alone"
    assert sid(alpha=0.0, temperature=temperature).answer(told, REQUESTS) == plain.answer(told, behind_pos)
    assert sid(alpha=3.0, temperature=temperature).answer(told, REQUESTS) != plain.answer(told, behind_pos)


def test_what_cad_contrasts_is_asked_behind_pos_too(told):
    request = dataclasses.replace(REQUESTS[2], control=(259,), without="by far")
    prompt = encoded(told, request, max_new_tokens=4)
    assert prompt.token_ids[0] == prompt.against_ids[0] == 259
    assert told.tokenizer.decode(prompt.against_ids[1:]) == "by far"


def test_a_model_without_the_tokens_raises():
    with pytest.raises(ModelError, match=r"\[POS\] and \[NEG\] are 5 and 5 tokens"):
        sid().answer(engine(), REQUESTS)


def test_a_prompt_that_spells_a_token_raises(told):
    with pytest.raises(DataError, match="spells"):
        sid().answer(told, [Request(identifier="bad", prompt=f"I say {NEG}", record=None)])


def test_a_run_that_teaches_no_tokens_is_refused_before_it_starts():
    for source in ([], ["model=small/smollm2_135m", "train.max_steps=0"]):
        with pytest.raises(ConfigErrors, match="nothing here teaches them"):
            run_config(["decoding=sid", *source])
    taught = run_config(["decoding=sid", "objective=control", "train.batching=bucket"])
    assert taught.decoding.alpha == 0.2
    run_config(["decoding=sid", "model=own", "model.source=dir:/some/where", "train.max_steps=0"])


def test_an_engine_that_answers_by_sid_says_what_the_rule_says(told):
    decoding = sid(temperature=0.0, top_p=1.0, alpha=1.5)
    plain = [encoded(told, request, max_new_tokens=8) for request in REQUESTS]
    answers = SidEngine(told, decoding=decoding).generate(plain, rule=SamplingRule())
    assert [sample.text for [sample] in answers] == [found.text for found in decoding.answer(told, REQUESTS)]
    assert [sample.text for [sample] in answers] != [
        sample.text for [sample] in told.generate(plain, rule=SamplingRule())
    ]
    longest = dataclasses.replace(plain[1], token_ids=plain[1].token_ids * (told.context - 2), max_new_tokens=2)
    [[sample]] = SidEngine(told, decoding=decoding).generate([longest], rule=SamplingRule())
    assert sample.num_tokens == 1, "the control token takes the place of one"
