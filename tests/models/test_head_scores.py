"""Retrieval-head scores: the values of the specification, a twin in loops, exact places, and what raises."""

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.generation.tiny_models import plain, tiny
from tests.tolerances import EXACT

from athlos.data.encoding import prefix_token
from athlos.errors import DataError, ModelError
from athlos.generation.interface import Prompt
from athlos.methods.lisa.surgery import directly_shared
from athlos.models.head_scores import (
    HeadRun,
    HeadScores,
    Needle,
    NeedlePrompt,
    checked,
    copy_scores,
    eager_attention,
    forced,
    gated,
    generated,
    induction_prompt,
    needle_prompt,
    random_heads,
    ranked,
)
from athlos.models.tokenizers import byte_tokenizer, word_tokenizer

HAY = "A first sentence. Then a second one. And a third one is here. The last."
NEEDLE = Needle(text="The key is under the mat.", question="Where is the key?")
ASK = "\nQ: {question}\nA:"


def prompt_of(ids, start, end):
    return NeedlePrompt(ids=list(ids), start=start, end=end, length=len(ids), depth=0.0, needle=0)


def naive(pointed, said, prompt, *, distinct):
    """The specification's loop for one head."""
    needle = prompt.ids[prompt.start : prompt.end]
    copied = [
        prompt.ids[key]
        for key, token in zip(pointed, said, strict=True)
        if prompt.start <= key < prompt.end and prompt.ids[key] == token
    ]
    return len(set(copied)) / len(set(needle)) if distinct else len(copied) / len(needle)


def test_check_values():
    prompt = prompt_of([10, 11, 12, 13, 14, 15, 16, 17, 18, 19], 3, 7)
    pointed = torch.tensor([3, 3, 5, 9])[:, None, None]
    said = [13, 13, 15, 19]
    assert copy_scores(pointed, said, prompt, distinct=False) == [[0.75]]
    assert copy_scores(pointed, said, prompt, distinct=True) == [[0.5]]
    other = copy_scores(torch.tensor([3, 3, 5, 9, 5])[:, None, None], [*said, 14], prompt, distinct=False)
    assert other == [[0.75]], "a step that points at 5 while another token is generated adds nothing"


@given(st.integers(0, 10**6))
def test_naive_twin(seed):
    rng = random.Random(seed)
    ids = [rng.randrange(4) for _ in range(12)]
    start = rng.randrange(9)
    prompt = prompt_of(ids, start, start + rng.randint(1, 3))
    steps = rng.randint(1, 6)
    pointed = torch.tensor([[[rng.randrange(12 + steps) for _ in range(2)] for _ in range(3)] for _ in range(steps)])
    said = [rng.randrange(4) for _ in range(steps)]
    for distinct in (True, False):
        found = copy_scores(pointed, said, prompt, distinct=distinct)
        for layer in range(3):
            for head in range(2):
                keys = pointed[:, layer, head].tolist()
                whole = prompt_of([*ids, *said], prompt.start, prompt.end)
                assert found[layer][head] == pytest.approx(naive(keys, said, whole, distinct=distinct), abs=EXACT)


@pytest.mark.parametrize("make", [byte_tokenizer, lambda: word_tokenizer([f" {w}" for w in (HAY + ASK).split()])])
@pytest.mark.parametrize("depth", [0.0, 0.3, 0.5, 1.0])
def test_the_needle_stands_where_the_prompt_says_behind_a_sentence(make, depth):
    tokenizer = make()
    hay = tokenizer.encode(f"{HAY} " * 9, add_special_tokens=False)
    prompt = needle_prompt(tokenizer, hay, NEEDLE, number=1, length=140, depth=depth, ask=ASK)
    assert tokenizer.decode(prompt.needle_ids).strip() == NEEDLE.text
    assert len(prompt.ids) == 140
    before = tokenizer.decode(prompt.ids[: prompt.start])
    assert before == "" or before.endswith(".")
    assert tokenizer.decode(prompt.ids).endswith("A:")
    room = 140 - len(prompt.needle_ids) - len(tokenizer.encode(ASK.format(question=NEEDLE.question)))
    assert depth * room - 25 < prompt.start <= depth * room


def test_a_needle_that_is_not_where_it_should_be_raises():
    tokenizer = byte_tokenizer()
    hay = tokenizer.encode(HAY * 3, add_special_tokens=False)
    prompt = needle_prompt(tokenizer, hay, NEEDLE, number=2, length=150, depth=0.5, ask=ASK)
    moved = prompt_of(prompt.ids, prompt.start + 1, prompt.end + 1)
    with pytest.raises(DataError, match="decode to"):
        checked(tokenizer, moved, text=NEEDLE.text)
    for length in (20, 1000):
        with pytest.raises(DataError, match=rf"detect.lengths: got {length}"):
            needle_prompt(tokenizer, hay, NEEDLE, number=0, length=length, depth=0.5, ask=ASK)


def test_the_prompt_begins_as_the_model_expects():
    class Begins:
        """A tokenizer that puts a begin token before texts."""

        bos_token_id = 257

        def __init__(self):
            self.inner = byte_tokenizer()

        def encode(self, text, *, add_special_tokens=True):
            ids = self.inner.encode(text, add_special_tokens=False)
            return [257, *ids] if add_special_tokens else ids

        def decode(self, ids):
            return self.inner.decode(ids)

    tokenizer = Begins()
    assert prefix_token(tokenizer) == 257
    hay = tokenizer.encode(HAY * 3, add_special_tokens=False)
    prompt = needle_prompt(tokenizer, hay, NEEDLE, number=0, length=120, depth=0.5, ask=ASK)
    assert prompt.ids[0] == 257
    assert len(prompt.ids) == 120
    assert tokenizer.decode(prompt.needle_ids).strip() == NEEDLE.text


def test_what_follows_in_the_induction_test_is_what_followed_before():
    prompt = induction_prompt(range(100), length=40, depth=0.5, number=1, prefix=None, seed=3)
    assert len(prompt.ids) == 40
    assert prompt.ids[-1] == prompt.ids[prompt.start - 1]
    assert len(set(prompt.ids[:-1])) == 39
    assert prompt.ids != induction_prompt(range(100), length=40, depth=0.5, number=2, prefix=None, seed=3).ids
    with pytest.raises(DataError, match="got 200"):
        induction_prompt(range(100), length=200, depth=0.0, number=0, prefix=None, seed=0)


# The model


def weights_of(model, ids):
    """Attention of a whole forward pass by the eager kernel, [L, H, T, T]."""
    with torch.no_grad(), eager_attention(model):
        return torch.stack(model(torch.tensor([ids]), output_attentions=True).attentions)[:, 0]


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3"])
def test_decode_steps_point_where_a_whole_pass_points(name):
    """Prompt by sdpa, steps by eager: the same keys as one eager pass over everything, windows and groups included."""
    model, rng = tiny(name, seed=1), random.Random(1)
    prompt = prompt_of([rng.randrange(256) for _ in range(40)], 10, 16)
    pointed, said = generated(model, prompt, max_new_tokens=6, ends=lambda token: False)
    assert said == plain(model, Prompt(token_ids=prompt.ids, max_new_tokens=6), max_new_tokens=6)[0][: len(said)]
    weights = weights_of(model, [*prompt.ids, *said[:-1]])
    assert pointed.tolist() == weights[:, :, 39:].argmax(-1).permute(2, 0, 1).tolist()
    assert model.config._attn_implementation == "sdpa", "the kernel is put back"

    pointed, said = forced(model, prompt)
    assert said == prompt.ids[10:16]
    weights = weights_of(model, [*prompt.ids, *said[:-1]])
    assert pointed.tolist() == weights[:, :, 39:].argmax(-1).permute(2, 0, 1).tolist()


def test_a_head_that_is_built_to_copy_scores_one_and_no_other_does():
    """Zero queries and keys everywhere but in one head, whose positions differ by what induction needs."""
    model = tiny("llama", seed=2)
    prompt = induction_prompt(range(200), length=30, depth=0.0, number=0, prefix=None, seed=1)
    pointed, said = forced(model, prompt)
    perfect = pointed.clone()
    perfect[:, 1, 2] = torch.arange(prompt.start, prompt.end)
    scores = torch.tensor(copy_scores(perfect, said, prompt, distinct=True))
    assert scores[1, 2] == 1
    assert ranked(scores)[0] == (1, 2)
    shifted = perfect.clone()
    shifted[:, 1, 2] -= 1
    assert copy_scores(shifted, said, prompt, distinct=True)[1][2] == 0, "a key beside the token is no copy of it"


def test_an_answer_ends_where_it_is_told():
    model = tiny(seed=1)
    prompt = prompt_of(range(5, 30), 3, 6)
    _, said = generated(model, prompt, max_new_tokens=5, ends=lambda token: False)
    pointed, ended = generated(model, prompt, max_new_tokens=5, ends=lambda token: token == said[0])
    assert ended == []
    assert copy_scores(pointed, ended, prompt, distinct=False) == [[0.0] * 4] * 2


def test_missing_weights_raise():
    model = directly_shared(tiny(seed=1), [1])
    with pytest.raises(ModelError, match="gives no attention weights"):
        forced(model, prompt_of(range(5, 30), 3, 6))


# Many runs


def run(scores, recall=100.0):
    return HeadRun(length=8, depth=0.0, needle=0, recall=recall, scores_LH=scores)


def test_the_mean_is_over_runs_that_pass_the_gate():
    scores = gated([run([[1.0, 0.0]], 90.0), run([[0.0, 9.0]], 50.0), run([[0.0, 0.5]], 51.0)])
    assert scores.mean_LH.tolist() == [[0.5, 0.25]]
    assert [one.recall for one in scores.dropped] == [50.0]
    assert HeadScores.read(scores.plain()).mean_LH.tolist() == scores.mean_LH.tolist()
    assert scores.top_share(1) == pytest.approx(2 / 3)


def test_no_run_that_passes_raises_with_the_best_recall():
    with pytest.raises(DataError, match=r"of 2 runs none .* the best 42 %; detect.mode=forced"):
        gated([run([[1.0]], 42.0), run([[1.0]], 12.0)])


def test_ties_are_broken_by_layer_then_head():
    assert ranked(torch.tensor([[0.1, 0.5, 0.5], [0.5, 0.1, 0.9]])) == [(1, 2), (0, 1), (0, 2), (1, 0), (0, 0), (1, 1)]


def test_halves_that_disagree():
    one, other = [[1.0, 0.5, 0.0, 0.0]], [[1.0, 0.0, 0.5, 0.0]]
    scores = HeadScores(kept=[run(one), run(other), run(one), run(other)], dropped=[])
    assert (scores.split_overlap(1), scores.split_overlap(2)) == (1.0, 0.5)
    assert math.isnan(HeadScores(kept=[run(one)], dropped=[]).split_overlap(1))


@given(st.sets(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=18), st.integers(0, 9))
def test_random_heads_have_the_same_number_in_each_layer(heads, seed):
    drawn = random_heads(sorted(heads), num_heads=5, rng=random.Random(seed))
    assert len(set(drawn)) == len(drawn)
    for layer in range(4):
        own = {head for head in heads if head[0] == layer}
        found = {head for head in drawn if head[0] == layer}
        assert len(found) == len(own)
        assert len(found - own) == min(len(own), 5 - len(own)), "other heads as far as there are some"
