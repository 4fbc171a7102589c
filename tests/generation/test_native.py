"""The native engine against a naive twin and against transformers: every family, ragged, shared, dropped, refilled."""

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.generation import reference
from tests.generation.tiny_models import CONFIGS, END, NEW_TOKENS, SIZES, WINDOW, encode, engine, plain, tiny
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM, Phi3Config
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from athlos.errors import ModelError
from athlos.generation import batch, kept_prompts
from athlos.generation.cpu import linear
from athlos.generation.interface import Contrast, Prompt, SamplingRule
from athlos.generation.kept_prompts import KeptPrompts
from athlos.generation.kv_cache import KVCache, layer_windows
from athlos.generation.prefixes import shared_prefixes

LOG_PROB_TOLERANCE = 1e-4
"""Padding and cached prefixes reorder float32 sums over a few dozen terms."""
GREEDY = SamplingRule()
EXAMPLES = "Q: How far is it from here? A: About two miles, they said.\n\n"
RAGGED = ["hello there", "x", "a rather longer prompt than the others are, by far", "мир и труд", "ok then"]
SHARED = [EXAMPLES + text for text in ("one", "another question", "q", "the third of them is long, alas")]
MIXED = [*SHARED, "alone", *["Z" * 40 + text for text in ("a", "bcd", "", "")]]
TEXTS = {"one": ["alone"], "ragged": RAGGED, "shared": SHARED, "mixed": MIXED}


def tokens(answers):
    return [[sample.token_ids for sample in samples] for samples in answers]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_greedy_equals_transformers_one_by_one(name, texts, batch_size):
    model, prompts = tiny(name), encode(TEXTS[texts])
    answers = engine(model, batch_size=batch_size).generate(prompts, rule=GREEDY)
    for prompt, [sample] in zip(prompts, answers, strict=True):
        ids, logs = plain(model, prompt)
        assert sample.token_ids == ids
        assert sample.log_probs == pytest.approx(logs, abs=LOG_PROB_TOLERANCE)


def test_keys_and_values_are_freed_with_the_last_answer(monkeypatch):
    made: list[weakref.ref[KVCache]] = []
    start = KVCache.__init__

    def noted(self, *arguments, **options):
        made.append(weakref.ref(self))
        start(self, *arguments, **options)

    monkeypatch.setattr(KVCache, "__init__", noted)
    native = engine(tiny())
    gc.disable()  # nobody looks for cycles
    try:
        native.generate(encode(MIXED), rule=GREEDY)
        assert made
        assert not any(cache() for cache in made)
    finally:
        gc.enable()


def test_prompts_and_prefix_are_longer_than_the_window():
    assert len(EXAMPLES) > 2 * WINDOW  # else the local layers would see all of it


OWN_KERNEL = "kernel_of_a_surgery"
AttentionInterface.register(OWN_KERNEL, sdpa_attention_forward)
AttentionMaskInterface.register(OWN_KERNEL, lambda **options: sdpa_mask(**options))


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma3"])
@pytest.mark.parametrize("attention", ["eager", OWN_KERNEL])
def test_other_attention_kernels(name, attention):
    """Eager takes an additive mask; a kernel with a mask function of its own gets the two-dimensional mask."""
    expected = engine(tiny(name)).generate(encode(MIXED), rule=GREEDY)
    found = engine(tiny(name, attention=attention), batch_size=4).generate(encode(MIXED), rule=GREEDY)
    assert tokens(found) == tokens(expected)


RULES = [
    GREEDY,
    SamplingRule(temperature=1.0),
    SamplingRule(temperature=0.7, top_k=20, top_p=0.9, min_p=0.02),
    SamplingRule(temperature=2.0, top_p=0.8),
    SamplingRule(repetition_penalty=1.3),
    SamplingRule(presence_penalty=1.5),
    SamplingRule(temperature=0.5, min_p=0.1, repetition_penalty=1.1),
]


@pytest.mark.parametrize("rule", RULES, ids=range(len(RULES)))
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_naive_twin(name, rule):
    model = tiny(name)
    prompts = [*encode(["short", EXAMPLES[:40]], seed=3), *encode(["мир"], seed=8)]
    answers = engine(model, batch_size=4).generate(prompts, rule=rule, num_samples=2)
    for prompt, samples in zip(prompts, answers, strict=True):
        for number, sample in enumerate(samples):
            ids, logs = reference.generate(
                model, prompt, rule=rule, sample=number if rule.temperature else 0, ends=[END]
            )
            assert sample.token_ids == ids
            assert sample.log_probs == pytest.approx(logs, abs=LOG_PROB_TOLERANCE)


def test_engines_draw_alike():
    rule = SamplingRule(temperature=0.9, top_p=0.95)
    found = [
        tokens(engine(name=name, batch_size=5).generate(encode(MIXED, seed=4), rule=rule, num_samples=3))
        for name in ("native", "transformers")
    ]
    assert found[0] == found[1]


MODEL = tiny("gemma3")


@settings(deadline=None, max_examples=25)
@given(
    chosen=st.lists(st.integers(0, len(MIXED) - 1), min_size=1, max_size=8),
    batch_size=st.integers(1, 9),
    num_samples=st.integers(1, 4),
)
def test_an_answer_does_not_depend_on_its_batch(chosen, batch_size, num_samples):
    rule = SamplingRule(temperature=0.8)
    prompts = [
        Prompt(token_ids=prompt.token_ids, max_new_tokens=2 + index, seed=index)
        for index, prompt in enumerate(encode(MIXED))
    ]
    together = engine(MODEL, batch_size=batch_size).generate(
        [prompts[index] for index in chosen], rule=rule, num_samples=num_samples
    )
    for index, samples in zip(chosen, together, strict=True):
        [alone] = engine(MODEL, batch_size=1).generate([prompts[index]], rule=rule, num_samples=num_samples)
        assert tokens([samples]) == tokens([alone])
        for one, other in zip(samples, alone, strict=True):
            assert one.log_probs == pytest.approx(other.log_probs, abs=LOG_PROB_TOLERANCE)


def test_samples_follow_seed_and_number():
    prompts = [*encode(["same"] * 2, seed=1), *encode(["same"], seed=2)]
    first, second, other = tokens(engine().generate(prompts, rule=SamplingRule(temperature=1.0), num_samples=3))
    assert first == second != other
    assert len(set(map(tuple, first))) == 3
    torch.manual_seed(99)
    [fewer] = tokens(engine().generate(prompts[:1], rule=SamplingRule(temperature=1.0), num_samples=2))
    assert fewer == first[:2]


def shapes(model):
    """(rows, columns) of every forward pass from now on."""
    seen = []
    model.model.register_forward_pre_hook(
        lambda _, args, inputs: seen.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    return seen


def test_a_prompt_is_read_once_for_all_its_samples():
    model = tiny()
    seen = shapes(model)
    prompts = encode(["the prompt", "the prompt"])
    engine(model).generate(prompts, rule=SamplingRule(temperature=1.0), num_samples=4, end_token_ids=())
    assert seen == [(1, len("the prompt")), *[(8, 1)] * (NEW_TOKENS - 1)]


def test_a_prompt_whose_samples_do_not_fit_at_once_is_read_once():
    model = tiny()
    seen = shapes(model)
    rule = SamplingRule(temperature=1.0)
    engine(model, batch_size=2).generate(encode(["first", "second"]), rule=rule, num_samples=3, end_token_ids=())
    assert [shape for shape in seen if shape[1] > 1] == [(1, 6), (1, 5)]


def test_greedy_samples_of_a_prompt_are_one():
    model = tiny()
    seen = shapes(model)
    [samples] = engine(model).generate(encode(["abc"]), rule=GREEDY, num_samples=3)
    assert len(samples) == 3
    assert all(rows == 1 for rows, _ in seen)


@pytest.mark.parametrize("name", CONFIGS)
def test_prefix_is_read_once_and_changes_nothing(name):
    model, prompts = tiny(name), encode(SHARED)
    seen = shapes(model)
    shared = engine(model).generate(prompts, rule=GREEDY)
    longest = max(len(prompt.token_ids) for prompt in prompts) - len(EXAMPLES)
    assert seen[:2] == [(1, len(EXAMPLES)), (4, longest)]
    seen.clear()
    alone = engine(model, share_prefixes=False).generate(prompts, rule=GREEDY)
    assert seen[0] == (4, longest + len(EXAMPLES))
    assert tokens(shared) == tokens(alone)


def test_short_prompts_are_not_padded_to_long_ones():
    """In one call and in a later round: what is read together lacks less than half of the longest, or 32 columns."""
    model = tiny()
    own, seen = engine(model), shapes(model)
    first = [
        Prompt(token_ids=[number, *[60 + number] * (count - 1)], max_new_tokens=1)
        for number, count in enumerate([90, 40, 46, 45, 12])
    ]
    with own.keeping_prompts():
        found = own.generate(first, rule=GREEDY, end_token_ids=())
        assert seen == [(3, 90), (2, 40)]
        seen.clear()
        second = [
            Prompt(token_ids=[*prompt.token_ids, *[7] * count], max_new_tokens=1)
            for prompt, count in zip(first[:4], [70, 3, 36, 2], strict=True)
        ]
        found += own.generate(second, rule=GREEDY, end_token_ids=())
        assert seen == [(2, 70), (2, 3)]
    for prompt, [sample] in zip([*first, *second], found, strict=True):
        assert sample.token_ids == plain(model, prompt, max_new_tokens=1, eos_token_id=None)[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_later_round_reads_only_what_is_new_and_answers_the_same(name):
    """Rounds as a pipeline has them: ragged prompts, their answers and a question more behind each, one prompt anew."""
    model, first = tiny(name), encode(SHARED)
    alone = engine(model, share_prefixes=False)
    own = engine(model)
    with own.keeping_prompts():
        answers = own.generate(first, rule=GREEDY, end_token_ids=())
        assert tokens(answers) == tokens(alone.generate(first, rule=GREEDY, end_token_ids=()))
        added = [list(b" and "), list(b", then what is it?"), [], list(b".")]
        second = [
            Prompt(token_ids=[*prompt.token_ids, *more], max_new_tokens=NEW_TOKENS)
            for prompt, more in zip(first, added, strict=True)
        ]
        second += encode(["something else that no one has asked before this time"])
        seen = shapes(model)
        found = own.generate(second, rule=GREEDY, end_token_ids=())
        assert sorted(shape for shape in seen if shape[1] > 1) == [(1, 53), (4, len(added[1]))]
        assert tokens(found) == tokens(alone.generate(second, rule=GREEDY, end_token_ids=()))
    seen.clear()
    own.generate(second, rule=GREEDY, end_token_ids=())
    assert max(columns for _, columns in seen) > len(added[1])  # outside nothing is kept


def test_a_call_with_two_streams_takes_nothing_of_what_is_kept():
    model, prompts = tiny(), encode(SHARED)
    own = engine(model)
    contrast = Contrast(alpha=0.5)
    alone = own.generate(prompts, rule=GREEDY, contrast=contrast)
    with own.keeping_prompts():
        own.generate(prompts, rule=GREEDY)
        seen = shapes(model)
        assert tokens(own.generate(prompts, rule=GREEDY, contrast=contrast)) == tokens(alone)
    assert max(columns for _, columns in seen) >= len(EXAMPLES)


def test_what_was_used_last_is_kept(monkeypatch):
    monkeypatch.setattr(kept_prompts, "MOST_BYTES", 4000)
    kept = KeptPrompts()
    texts = [tuple([number] * 100) for number in range(3)]
    caches = [KVCache([None], capacity=100) for _ in texts]
    for cache in caches:
        cache.layers[0].update(torch.zeros(1, 1, 100, 2), torch.zeros(1, 1, 100, 2))
        cache.length = 100
    assert caches[0].nbytes == 1600  # keys and values of 100 columns of two float32 each
    for text, cache in zip(texts[:2], caches, strict=False):
        kept.keep(cache, {text: 0})
    assert kept.longest([*texts[0], 7]).length == 100
    kept.keep(caches[2], {texts[2]: 0})
    assert kept.longest(texts[1]) is None
    found = [kept.longest([*text[:60], 9, 9]) for text in (texts[0], texts[2])]
    assert [(one.cache, one.row, one.pad, one.length) for one in found] == [
        (caches[0], 0, 0, 60),
        (caches[2], 0, 0, 60),
    ]
    assert kept.longest([*texts[0][:31], 7]) is None  # too short to be worth a copy
    assert kept.longest(texts[0]).length == 99  # the last token is read


def limited(limits):
    return [Prompt(token_ids=[70 + row, 71], max_new_tokens=limit) for row, limit in enumerate(limits)]


def test_finished_rows_leave_the_batch():
    model = tiny()
    seen = shapes(model)
    found = engine(model).generate(limited([1, 2, 4, 8]), rule=GREEDY, end_token_ids=())
    assert [sample.num_tokens for [sample] in found] == [1, 2, 4, 8]
    assert [rows for rows, _ in seen] == [4, 3, 2, 2, 1, 1, 1, 1]


def test_waiting_prompts_take_their_place():
    model = tiny()
    seen = shapes(model)
    limits = [3, 9, 2, 5, 4, 6]
    prompts = limited(limits)
    found = engine(model, batch_size=2).generate(prompts, rule=GREEDY, end_token_ids=())
    assert [sample.num_tokens for [sample] in found] == limits
    read = [rows for rows, columns in seen if columns == 1]
    assert sum(read) == sum(limits) - len(limits)  # no row was computed after its end
    assert max(read) == 2
    for prompt, [sample] in zip(prompts, found, strict=True):
        ids, _ = plain(model, prompt, max_new_tokens=prompt.max_new_tokens, eos_token_id=None)
        assert sample.token_ids == ids


def test_a_longer_prompt_joins_rows_under_way():
    """Rows move to the right when a longer prompt joins, and to the left when it has left."""
    model = tiny("gemma3")
    prompts = [Prompt(token_ids=[60 + i] * n, max_new_tokens=m) for i, (n, m) in enumerate([(9, 30), (70, 3), (20, 9)])]
    prompts += [Prompt(token_ids=[90, 5] * 60, max_new_tokens=20), Prompt(token_ids=[33], max_new_tokens=25)]
    for batch_size in (1, 2, 3):
        found = engine(model, batch_size=batch_size).generate(prompts, rule=GREEDY, end_token_ids=())
        for prompt, [sample] in zip(prompts, found, strict=True):
            ids, _ = plain(model, prompt, max_new_tokens=prompt.max_new_tokens, eos_token_id=None)
            assert sample.token_ids == ids


def test_the_cache_grows(monkeypatch):
    expected = engine().generate(encode(MIXED, max_new_tokens=30), rule=GREEDY)
    monkeypatch.setattr(batch, "GROWTH", 2)
    found = engine().generate(encode(MIXED, max_new_tokens=30), rule=GREEDY)
    assert tokens(found) == tokens(expected)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_log_probs_equal_a_full_pass_in_float64(name):
    model = tiny(name)
    rule = SamplingRule(temperature=1.5, top_k=50)
    prompts = encode(RAGGED)
    answers = engine(model, batch_size=3).generate(prompts, rule=rule, num_samples=2)
    exact = tiny(name).double()
    for prompt, samples in zip(prompts, answers, strict=True):
        for sample in samples:
            ids = [*prompt.token_ids, *sample.token_ids]
            logs = exact(torch.tensor([ids])).logits[0].log_softmax(-1)
            first = len(prompt.token_ids)
            expected = [logs[first + place - 1, token].item() for place, token in enumerate(sample.token_ids)]
            assert sample.log_probs == pytest.approx(expected, abs=LOG_PROB_TOLERANCE)


def test_layers_that_are_no_attention_are_named():
    from transformers import Lfm2Config

    config = Lfm2Config(
        **{**SIZES, "num_hidden_layers": 2, "layer_types": ["conv", "full_attention"], "block_multiple_of": 8}
    )
    with pytest.raises(ModelError, match=r"lfm2 .*conv.*engine=transformers"):
        layer_windows(config)


def longrope():
    values = {**SIZES, "max_position_embeddings": 64}
    return Phi3Config(
        **values,
        num_hidden_layers=1,
        original_max_position_embeddings=32,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "original_max_position_embeddings": 32,
            "short_factor": [1.0] * 6,
            "long_factor": [4.0] * 6,
        },
    )


def test_rope_that_changes_with_the_length():
    model = AutoModelForCausalLM.from_config(longrope()).eval()
    [prompt] = encode(["x" * 20])
    [[short]] = engine(model).generate([prompt], rule=GREEDY)
    assert short.token_ids == plain(model, prompt)[0]
    with pytest.raises(ModelError, match=r"33 tokens.*longrope.*32"):
        engine(model).generate(encode(["x" * 20], max_new_tokens=13), rule=GREEDY)


def test_onednn_is_used_inside_only_and_changes_rounding_alone(monkeypatch):
    if not linear.is_available():
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(linear, "MIN_PRODUCTS", 1)
    model = tiny("qwen2")  # its q, k, v have a bias
    expected = engine(model, onednn=False).generate(encode(RAGGED), rule=GREEDY)
    used = []
    model.lm_head.register_forward_hook(lambda module, *_: used.append("forward" in vars(module)))
    found = engine(model).generate(encode(RAGGED), rule=GREEDY)
    assert all(used)
    with linear.fast_linear(model) as count:
        assert count == sum(type(module) is torch.nn.Linear for module in model.modules())
        rows = torch.randn(5, 48)
        torch.testing.assert_close(
            model.lm_head(rows), torch.nn.functional.linear(rows, model.lm_head.weight), atol=1e-4, rtol=1e-4
        )
    assert tokens(found) == tokens(expected)
    assert not any("forward" in vars(module) for module in model.modules())


def test_shared_prefixes_groups_by_beginning():
    first, second = list(range(100, 140)), list(range(40))
    prompts = [[*first, 1, 2], [7, 8], [*second, 3], [*first, 5], [*second, 4, 4], [7, 9], second]
    found = shared_prefixes(prompts)
    lengths = [prefix.length if prefix else 0 for prefix in found]
    assert lengths == [40, 0, 40, 40, 40, 0, 39]  # the prompt that is all prefix keeps its last token
    assert found[0].group == found[3].group != found[2].group == found[4].group


def test_shared_prefixes_of_equal_prompts_and_none():
    assert [prefix.length for prefix in shared_prefixes([list(range(50))] * 3)] == [49, 49, 49]
    assert shared_prefixes([]) == []
    assert shared_prefixes([[1, 2, 3]]) == [None]
