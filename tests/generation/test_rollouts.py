"""Rollouts against transformers, against a whole forward pass, and as draws."""

import copy

import pytest
import torch
from tests.generation.tiny_models import CONFIGS, END, NEW_TOKENS, VOCAB, encode, plain, tiny
from tests.tolerances import LOGITS_FLOAT32
from transformers import AutoModelForCausalLM, Lfm2Config

from athlos.errors import ConfigErrors, DataError
from athlos.generation import batch
from athlos.generation.rollouts import response_log_probs, sample_group
from athlos.models.tokenizers import byte_tokenizer

RAGGED = ["hello there", "x", "a rather longer prompt than the others are, by far", "мир и труд", "ok then"]


def sampled(model, prompts=RAGGED, *, seed=0, **values):
    source = torch.Generator().manual_seed(seed)
    options = {"group_size": 3, "max_new_tokens": NEW_TOKENS, "temperature": 1.0, "generator": source, **values}
    return sample_group(model, byte_tokenizer(), prompts, **options)


def tokens(rollouts):
    return [row[mask.bool()].tolist() for row, mask in zip(rollouts.response_ids, rollouts.response_mask, strict=True)]


def convolutional():
    """A decoder that keeps more than keys and values between tokens: the native loop refuses it."""
    torch.manual_seed(0)
    config = Lfm2Config(
        vocab_size=259,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention"],
        initializer_range=0.4,
        eos_token_id=END,
        max_position_embeddings=256,
    )
    return AutoModelForCausalLM.from_config(config).eval()


MODELS = {**{name: (lambda name=name: tiny(name)) for name in CONFIGS}, "lfm2": convolutional}


@pytest.mark.parametrize("name", MODELS)
def test_greedy_equals_transformers(name):
    model = MODELS[name]()
    found = sampled(model, temperature=0.0, group_size=2)
    for index, prompt in enumerate(encode(RAGGED)):
        ids, logs = plain(model, prompt)
        for row in (2 * index, 2 * index + 1):
            assert tokens(found)[row] == ids
            assert found.log_probs[row, : len(ids)].tolist() == pytest.approx(logs, abs=LOGITS_FLOAT32)
            assert bool(found.truncated[row]) == (ids[-1] != END)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
@pytest.mark.parametrize("name", MODELS)
def test_log_probs_are_those_of_a_whole_forward_pass(name, temperature):
    model = MODELS[name]()
    found = sampled(model, temperature=temperature, prompts=RAGGED[:3])
    expected = response_log_probs(model, found, temperature=temperature)
    assert expected.requires_grad
    assert torch.allclose(found.log_probs, expected, atol=LOGITS_FLOAT32, rtol=0)
    assert not found.log_probs.requires_grad
    expected.sum().backward()  # ids are plain tensors, which autograd may save


def test_log_probs_of_a_whole_forward_pass_against_a_loop_without_padding():
    model = tiny()
    found = sampled(model, temperature=0.8)
    for row, response in enumerate(tokens(found)):
        prompt = encode(RAGGED)[row // 3].token_ids
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1] / 0.8
        expected = logits.log_softmax(-1)[range(len(response)), response]
        assert torch.allclose(found.log_probs[row, : len(response)], expected, atol=LOGITS_FLOAT32, rtol=0)


def test_layout():
    found = sampled(tiny(seed=7), max_new_tokens=40)
    lengths = [len(row) for row in tokens(found)]
    assert len(set(lengths)) > 2  # some ended early and left, else this shows little
    assert found.response_ids.shape == found.response_mask.shape == found.log_probs.shape == (15, max(lengths))
    assert found.prompt_ids.shape == found.prompt_mask.shape == (5, max(len(text.encode()) for text in RAGGED))
    for index, text in enumerate(RAGGED):
        assert bytes(found.prompt_ids[index][found.prompt_mask[index].bool()].tolist()).decode() == text
    for row, (ids, length) in enumerate(zip(tokens(found), lengths, strict=True)):
        assert found.response_mask[row].tolist() == [1] * length + [0] * (max(lengths) - length)
        assert (ids[-1] == END) != bool(found.truncated[row])
        assert END not in ids[:-1]
        assert not found.log_probs[row, length:].any()
    assert found.num_tokens == sum(lengths)
    assert found.texts == byte_tokenizer().batch_decode(tokens(found), skip_special_tokens=True)
    batch = found.rows()
    assert batch["position_ids"][3].tolist()[-found.response_ids.shape[1] - 1 :][0] == 0  # prompt "x": one token


def test_draws_follow_the_generator_and_differ_within_a_group():
    model = tiny()
    first, again, other = sampled(model), sampled(model), sampled(model, seed=1)
    assert tokens(first) == tokens(again) != tokens(other)
    assert len({tuple(row) for row in tokens(first)[:3]}) == 3


def twin(model, prompts, *, group_size, max_new_tokens, temperature, seed):
    """Responses as loops: all rows under way draw from one generator, a row of noise each in the order of the samples.

    Rows that ended draw on until they are an eighth of those under way, and leave then.
    """
    model, source = copy.deepcopy(model).double(), torch.Generator().manual_seed(seed)
    asked = [prompt.token_ids for prompt in encode(prompts) for _ in range(group_size)]
    rows, ended = [[] for _ in asked], [False for _ in asked]
    under_way = list(range(len(asked)))
    for _ in range(max_new_tokens):
        noise = torch.empty(len(under_way), VOCAB).uniform_(generator=source).double()
        for row, row_noise in zip(under_way, noise, strict=True):
            if not ended[row]:
                logits = model(torch.tensor([asked[row] + rows[row]])).logits[0, -1] / temperature
                rows[row].append(int((logits - (-row_noise.log()).log()).argmax()))
                ended[row] = rows[row][-1] == END
        done = [row for row in under_way if ended[row]]
        if len(done) >= len(under_way) / 8:
            under_way = [row for row in under_way if not ended[row]]
    return rows


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_draws_are_those_of_a_naive_twin(temperature):
    model = tiny(seed=7)
    prompts = [*RAGGED, RAGGED[1]]
    expected = twin(model, prompts, group_size=2, max_new_tokens=30, temperature=temperature, seed=4)
    found = sampled(model, prompts, seed=4, group_size=2, max_new_tokens=30, temperature=temperature)
    assert len({len(row) for row in expected}) > 2  # some ended early and left, else this shows little
    assert tokens(found) == expected


def test_prompts_are_read_at_once_as_given():
    """Equal ones too: the shape of a pass, and so the rounding, depends on number and lengths of the prompts alone."""
    model, seen = tiny(), []
    model.model.register_forward_pre_hook(
        lambda _, args, inputs: seen.append(inputs["input_ids"].tolist()), with_kwargs=True
    )
    sampled(model, ["ab", "c", "ab"], max_new_tokens=2)
    assert seen[0] == [[97, 98], [0, 99], [97, 98]]
    assert [len(ids) for ids in seen] == [3, 9]


def test_frequencies_are_the_softmax_under_the_temperature():
    model = tiny()
    found = sampled(model, prompts=["x"], group_size=4000, max_new_tokens=1, temperature=1.5)
    probs = (model(torch.tensor([[ord("x")]])).logits[0, -1] / 1.5).softmax(-1)
    counts = torch.bincount(found.response_ids[:, 0], minlength=len(probs))
    spread = (4000 * probs * (1 - probs)).sqrt()
    assert bool(((counts - 4000 * probs).abs() <= 5 * spread + 1).all())


def test_stop_strings_end_a_response():
    model = tiny()
    plainly = sampled(model, prompts=["hello"], temperature=0.0, group_size=1)
    stop = plainly.texts[0][2:4]
    found = sampled(model, prompts=["hello"], temperature=0.0, group_size=1, stop=[stop])
    assert found.texts == [plainly.texts[0][: plainly.texts[0].index(stop)]]
    assert not found.truncated[0]
    assert tokens(found)[0] == tokens(plainly)[0][: len(tokens(found)[0])]


def test_mode_and_weights_are_left_as_they_are():
    model = tiny().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sampled(model)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_cache_grows(monkeypatch):
    expected = sampled(tiny(), temperature=0.0, max_new_tokens=60)
    monkeypatch.setattr(batch, "GROWTH", 7)
    assert tokens(sampled(tiny(), temperature=0.0, max_new_tokens=60)) == tokens(expected)
    assert expected.response_ids.shape[1] == 60


def test_responses_end_with_the_context():
    assert sampled(tiny(), prompts=["y" * 250], max_new_tokens=NEW_TOKENS).response_ids.shape[1] <= 6


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"group_size": 0}, "group_size: got 0, expected an integer >= 1"),
        ({"max_new_tokens": 0}, "max_new_tokens: got 0, expected an integer >= 1"),
        ({"temperature": -1.0}, "temperature: got -1.0, expected a number >= 0"),
        ({"generator": None}, "generator: got None, expected a torch.Generator above temperature 0"),
    ],
)
def test_numbers_out_of_range(values, told):
    with pytest.raises(ConfigErrors, match=told):
        sampled(tiny(), **values)


@pytest.mark.parametrize(
    ("prompts", "told"), [([], "got no prompts"), ([""], "has no tokens"), (["z" * 256], "the model's context 256")]
)
def test_prompts_that_cannot_be_answered(prompts, told):
    with pytest.raises(DataError, match=told):
        sampled(tiny(), prompts=prompts)
