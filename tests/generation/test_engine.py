"""Batched generation against a plain one-by-one `transformers.generate`, and the rules of stopping and sharing."""

import warnings

import pytest
import torch
from tests import weights
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, Phi3Config, Qwen2Config

from athlos.config.parts import Request
from athlos.data.records import MathRecord
from athlos.errors import DataError
from athlos.generation import engine
from athlos.generation.config import GreedyConfig, SamplingConfig
from athlos.generation.decoding import Greedy, Sampling
from athlos.generation.engine import Prompt, generate, shared_prefixes
from athlos.models.tokenizers import byte_tokenizer
from athlos.text.prompts import build_prompt, built_in_shots, completion

VOCAB = 259
NEW_TOKENS = 12
LOG_PROB_TOLERANCE = 1e-4
"""Padding and cached prefixes reorder float32 sums over a few dozen terms."""
SIZES = {
    "vocab_size": VOCAB, "hidden_size": 48, "intermediate_size": 64, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.4,
    "pad_token_id": 256, "bos_token_id": 257, "eos_token_id": 258,
}  # fmt: skip
WINDOW = 16
CONFIGS = {
    "llama": lambda: LlamaConfig(**SIZES, num_hidden_layers=2),
    "qwen2": lambda: Qwen2Config(**SIZES, num_hidden_layers=2),
    "gemma3": lambda: Gemma3TextConfig(
        **SIZES,
        num_hidden_layers=3,
        head_dim=12,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
}
EXAMPLES = "Q: How far is it from here? A: About two miles, they said.\n\n"


def tiny(name: str = "llama"):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(CONFIGS[name]()).eval()


def encode(texts, *, max_new_tokens=NEW_TOKENS):
    tokenizer = byte_tokenizer()
    return [
        Prompt(token_ids=tokenizer.encode(text, add_special_tokens=False), max_new_tokens=max_new_tokens)
        for text in texts
    ]


def plain(model, prompt, *, max_new_tokens=NEW_TOKENS):
    """(token ids, log-probability) of a greedy answer, one row, by transformers alone."""
    ids = torch.tensor([prompt.token_ids])
    out = model.generate(
        ids, max_new_tokens=max_new_tokens, do_sample=False, attention_mask=torch.ones_like(ids),
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    chosen = out.sequences[0, ids.shape[1] :].tolist()
    logs = [logits[0].log_softmax(-1)[token].item() for logits, token in zip(out.logits, chosen, strict=True)]
    return chosen, sum(logs)


RAGGED = ["hello there", "x", "a rather longer prompt than the others are, by far", "мир и труд", "ok then"]
SHARED = [EXAMPLES + text for text in ("one", "another question", "q", "the third of them is long, alas")]
MIXED = [*SHARED, "alone", *["Z" * 40 + text for text in ("a", "bcd", "", "")]]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("texts", [RAGGED, SHARED, MIXED], ids=["ragged", "shared", "mixed"])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_greedy_equals_one_by_one(name, texts, batch_size):
    model, prompts = tiny(name), encode(texts)
    answers = generate(model, byte_tokenizer(), prompts, batch_size=batch_size)
    for prompt, answer in zip(prompts, answers, strict=True):
        tokens, log_prob = plain(model, prompt)
        assert answer.token_ids == tokens
        assert answer.log_prob == pytest.approx(log_prob, abs=LOG_PROB_TOLERANCE)


@pytest.mark.parametrize("name", CONFIGS)
def test_prefix_is_computed_once_and_changes_nothing(name):
    model, prompts = tiny(name), encode(SHARED)
    widths = []
    model.register_forward_pre_hook(
        lambda _, args, inputs: widths.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    shared = generate(model, byte_tokenizer(), prompts, batch_size=4)
    longest_suffix = max(len(prompt.token_ids) for prompt in prompts) - len(EXAMPLES)
    assert widths[0] == (4, longest_suffix)
    widths.clear()
    alone = generate(model, byte_tokenizer(), prompts, batch_size=4, share_prefixes=False)
    assert widths[0] == (4, longest_suffix + len(EXAMPLES))
    assert [answer.token_ids for answer in shared] == [answer.token_ids for answer in alone]


def test_prefix_longer_than_the_window():
    assert len(EXAMPLES) > 2 * WINDOW  # else the local layers of tiny Gemma 3 would see all of it


def test_rope_that_depends_on_the_length_is_not_shared():
    config = Phi3Config(
        **SIZES, num_hidden_layers=1, original_max_position_embeddings=32,
        rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 32,
                         "short_factor": [1.0] * 6, "long_factor": [4.0] * 6},
    )  # fmt: skip
    assert not engine._PrefixStore(AutoModelForCausalLM.from_config(config)).is_possible
    assert engine._PrefixStore(tiny()).is_possible


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


def test_progress_counts_prompts_and_tokens():
    seen = []
    generate(tiny(), byte_tokenizer(), encode(RAGGED), batch_size=2, progress=lambda *counts: seen.append(counts))
    assert [(done, whole) for done, whole, _ in seen] == [(2, 5), (4, 5), (5, 5)]
    assert seen[0][2] < seen[1][2] < seen[2][2]


def scripted(texts):
    """A rule that says `texts`, row by row of the batch, then end tokens."""
    ids = [byte_tokenizer().encode(text, add_special_tokens=False) for text in texts]
    step = iter(range(1000))

    def choose(logits, generators):
        now = next(step)
        return torch.tensor([row[now] if now < len(row) else 258 for row in ids])

    return choose


def said(texts, *, stop, max_new_tokens=40):
    model = tiny()
    prompts = encode(["p" * (len(texts) - row) for row in range(len(texts))], max_new_tokens=max_new_tokens)
    return generate(model, byte_tokenizer(), prompts, choose=scripted(texts), stop=stop, batch_size=len(texts))


def test_stop_string_is_cut_off_and_counted():
    [first, second, third] = said(["yes\n\nQ: more", "нет STOP и", "no end"], stop=["\n\n", " STOP"])
    assert (first.text, len(first.token_ids), first.finished) == ("yes", 5, True)
    assert (second.text, len(second.token_ids), second.finished) == ("нет", len("нет STOP".encode()), True)
    assert (third.text, third.token_ids[-1], third.finished) == ("no end", 258, True)


def test_end_token_is_counted_and_not_shown():
    [answer] = said(["abc"], stop=[])
    assert (answer.text, answer.token_ids, answer.finished) == ("abc", [97, 98, 99, 258], True)


def test_log_prob_ends_with_the_answer():
    prompts = encode(["longest", "short"], max_new_tokens=40)  # rows of a batch are sorted by length
    run = {"stop": ["."], "batch_size": 2}
    short, _ = generate(tiny(), byte_tokenizer(), prompts, choose=scripted(["x.", "much longer."]), **run)
    [alone] = generate(tiny(), byte_tokenizer(), prompts[:1], choose=scripted(["x."]), **run)
    assert short.log_prob == pytest.approx(alone.log_prob, abs=LOG_PROB_TOLERANCE)


def test_length_ends_an_answer_unfinished():
    [answer] = said(["abcdefgh"], stop=["h"], max_new_tokens=4)
    assert (answer.text, len(answer.token_ids), answer.finished) == ("abcd", 4, False)


def test_batch_ends_when_every_row_has():
    model = tiny()
    calls = []

    def choose(logits, generators):
        calls.append(1)
        return torch.full((len(logits),), ord("."))

    generate(model, byte_tokenizer(), encode(["a", "bb"], max_new_tokens=40), choose=choose, stop=["..."], batch_size=2)
    assert len(calls) == 3


def test_no_end_tokens_runs_to_the_length():
    model = tiny()
    model.generation_config.eos_token_id = list(range(VOCAB))
    [ended] = generate(model, byte_tokenizer(), encode(["abc"]), batch_size=1)
    [whole] = generate(model, byte_tokenizer(), encode(["abc"]), batch_size=1, end_token_ids=())
    assert (len(ended.token_ids), len(whole.token_ids)) == (1, NEW_TOKENS)


def test_rules_of_the_models_generation_config_do_not_leak():
    model, prompts = tiny(), encode(RAGGED)
    expected = [plain(model, prompt)[0] for prompt in prompts]
    before = model.generation_config
    before.do_sample, before.temperature, before.top_k, before.repetition_penalty = True, 3.0, 5, 9.0
    answers = generate(model, byte_tokenizer(), prompts, batch_size=5)
    assert [answer.token_ids for answer in answers] == expected
    assert model.generation_config is before


@pytest.mark.parametrize("training", [True, False])
def test_modes_are_restored(training):
    model = tiny().train(training)
    frozen = model.get_submodule("model.layers.0")
    frozen.eval()
    before = [module.training for module in model.modules()]
    generate(model, byte_tokenizer(), encode(["abc"]), batch_size=1)
    assert [module.training for module in model.modules()] == before


def requests(texts, *, seeds=None):
    return [
        Request(identifier=f"r{row}", prompt=text, record=None, seed=seeds[row] if seeds else row)
        for row, text in enumerate(texts)
    ]


def greedy(**values):
    return Greedy(GreedyConfig(_target_="", max_new_tokens=NEW_TOKENS, **values))


def sampling(**values):
    return Sampling(SamplingConfig(_target_="", max_new_tokens=NEW_TOKENS, **values))


def test_decoding_answers_in_order_with_counts():
    model, tokenizer = tiny(), byte_tokenizer()
    found = greedy().answer(model, tokenizer, requests(RAGGED), batch_size=2)
    assert [prediction.identifier for prediction in found] == ["r0", "r1", "r2", "r3", "r4"]
    for prediction, text, prompt in zip(found, RAGGED, encode(RAGGED), strict=True):
        tokens, log_prob = plain(model, prompt)
        assert (prediction.num_prompt_tokens, prediction.num_tokens) == (len(text.encode()), len(tokens))
        assert prediction.log_prob == pytest.approx(log_prob, abs=LOG_PROB_TOLERANCE)


def test_sampling_is_independent_of_the_batch_and_of_global_state():
    model, tokenizer = tiny(), byte_tokenizer()
    together = sampling(temperature=0.7, top_p=0.9).answer(model, tokenizer, requests(RAGGED), batch_size=5)
    torch.manual_seed(99)
    apart = sampling(temperature=0.7, top_p=0.9).answer(model, tokenizer, requests(RAGGED), batch_size=1)
    assert [one.text for one in together] == [one.text for one in apart]


def test_sampling_follows_its_seed():
    model, tokenizer = tiny(), byte_tokenizer()
    found = sampling().answer(model, tokenizer, requests(["same"] * 3, seeds=[1, 2, 1]), batch_size=3)
    assert found[0].text == found[2].text != found[1].text


def test_sampling_from_one_token_is_greedy():
    model, tokenizer = tiny(), byte_tokenizer()
    [one] = sampling(top_k=1, temperature=2.0).answer(model, tokenizer, requests(["abc"]))
    [other] = greedy().answer(model, tokenizer, requests(["abc"]))
    assert one.text == other.text
    assert one.log_prob == pytest.approx(other.log_prob, abs=LOG_PROB_TOLERANCE)  # the plain model's, whatever the rule


def test_draws_follow_the_distribution():
    probs = torch.tensor([0.5, 0.3, 0.15, 0.05])
    num_draws = 4000
    generators = [torch.Generator().manual_seed(3)] * num_draws
    drawn = sampling(top_k=3, temperature=0.5).choose(probs.log().repeat(num_draws, 1), generators)
    shares = torch.bincount(drawn, minlength=4) / num_draws
    kept = torch.tensor([0.25, 0.09, 0.0225, 0.0])  # squared by temperature 1/2, the fourth token cut by top-k
    standard_error = 0.008  # at most sqrt(.25 / 4000)
    torch.testing.assert_close(shares, kept / kept.sum(), atol=4 * standard_error, rtol=0)
    assert shares[3] == 0


def test_prompt_beyond_the_context_is_named():
    with pytest.raises(DataError, match=r"'r1'.* 256 tokens.* context 256"):
        greedy().answer(tiny(), byte_tokenizer(), requests(["ok", "x" * 256]))


def test_answer_ends_with_the_context():
    model = tiny()
    model.generation_config.eos_token_id = None
    texts = ["x" * 250, "y"]
    decoding = Greedy(GreedyConfig(_target_="", max_new_tokens=20))
    long, short = decoding.answer(model, byte_tokenizer(), requests(texts), batch_size=2)
    assert long.num_tokens <= 6 < short.num_tokens or short.finished


def test_prompt_without_tokens_is_named():
    with pytest.raises(DataError, match=r"'r0'.*no tokens"):
        greedy().answer(tiny(), byte_tokenizer(), requests([""]))


def test_missing_pad_token_and_silence(recwarn, caplog):
    model, tokenizer = tiny(), byte_tokenizer()
    expected = [prediction.text for prediction in greedy().answer(model, tokenizer, requests(RAGGED), batch_size=5)]
    tokenizer.pad_token = None
    model.config.pad_token_id = model.generation_config.pad_token_id = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = greedy().answer(model, tokenizer, requests(RAGGED), batch_size=5)
    assert [prediction.text for prediction in found] == expected
    assert not caplog.records


@pytest.mark.slow
@pytest.mark.weights
def test_real_gemma_with_a_shared_prefix_longer_than_its_window():
    loaded = weights.gemma3()
    config = loaded.model.config
    worked = "".join(
        build_prompt(shot, shots=(), style="native_cot") + completion(shot, "native_cot") + "\n\n"
        for language in ("en", "te", "th")
        for shot in built_in_shots(MathRecord, "native_cot", language=language, num_shots=3)
    )
    questions = ("How many legs do 3 dogs have?", "Ann has 12 plums and eats 5. How many are left?", "What is 7 * 8?")
    asked = [MathRecord(identifier=text, question=text, answer="0") for text in questions]
    prompts = [
        Prompt(
            token_ids=loaded.tokenizer.encode(worked + build_prompt(record, shots=(), style="native_cot")),
            max_new_tokens=10,
        )
        for record in asked
    ]
    assert all(prefix.length > config.sliding_window for prefix in shared_prefixes([p.token_ids for p in prompts]))
    answers = generate(loaded.model, loaded.tokenizer, prompts, batch_size=3)
    for prompt, answer in zip(prompts, answers, strict=True):
        tokens, log_prob = plain(loaded.model, prompt, max_new_tokens=10)
        assert answer.token_ids == tokens
        assert answer.log_prob == pytest.approx(log_prob, abs=10 * LOG_PROB_TOLERANCE)
