"""What both local engines promise: endings, limits, modes, requests and their answers."""

import warnings

import pytest
import torch
from tests import weights
from tests.generation.tiny_models import END, ENGINES, NEW_TOKENS, VOCAB, encode, engine, plain, tiny

from athlos.data.records import MathRecord
from athlos.errors import ConfigError, DataError
from athlos.generation.config import GreedyConfig, NativeConfig, SamplingConfig
from athlos.generation.decoding import Greedy, Sampling
from athlos.generation.interface import Prompt, Request, Sample, SamplingRule
from athlos.generation.native import NativeEngine
from athlos.generation.prefixes import shared_prefixes
from athlos.generation.rules import PAD
from athlos.models.tokenizers import byte_tokenizer
from athlos.text.prompts import build_prompt, built_in_shots, completion

LOG_PROB_TOLERANCE = 1e-4
"""Padding and cached prefixes reorder float32 sums over a few dozen terms."""
GREEDY = SamplingRule()
RAGGED = ["hello there", "x", "a rather longer prompt than the others are, by far", "мир и труд", "ok then"]


@pytest.fixture(params=sorted(ENGINES))
def name(request):
    return request.param


def says(texts):
    """A rule that has the prompt of `n` letters "p" answered with `texts[n - 1]`, then with end tokens."""
    scripts = [byte_tokenizer().encode(text, add_special_tokens=False) for text in texts]

    def script(logits, ids):
        chosen = []
        for row in ids.tolist():
            read = [token for token in row if token != PAD]
            length = next((place for place, token in enumerate(read) if token != ord("p")), len(read))
            said, answer = scripts[length - 1], len(read) - length
            chosen.append(said[answer] if answer < len(said) else END)
        return torch.full_like(logits, -50.0).scatter_(1, torch.tensor(chosen)[:, None], 0.0)

    return script


def said(name, texts, *, stop, max_new_tokens=40, batch_size=16):
    prompts = encode(["p" * (number + 1) for number in range(len(texts))], max_new_tokens=max_new_tokens)
    found = engine(name=name, batch_size=batch_size).generate(
        prompts, rule=GREEDY, stop=stop, extra_rules=[says(texts)]
    )
    return [sample for [sample] in found]


def test_a_stop_string_inside_a_thought_ends_nothing(name):
    texts = ["<think>a\n\nb</think>\n\n18\n\nQ: more", "<think>a\n\nb", "a\n\n<think>"]
    samples = said(name, texts, stop=["\n\n"])
    assert [sample.text for sample in samples] == ["<think>a\n\nb</think>\n\n18", "<think>a\n\nb", "a"]
    assert [sample.num_tokens for sample in samples][::2] == [len("<think>a\n\nb</think>\n\n18\n\n"), len("a\n\n")]


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_stop_string_across_tokens_is_cut_off_and_counted(name, batch_size):
    first, second, third = said(
        name, ["yes\n\nQ: more", "нет STOP и", "no end"], stop=["\n\n", " STOP"], batch_size=batch_size
    )
    assert (first.text, first.num_tokens, first.finished) == ("yes", 5, True)
    assert (second.text, second.num_tokens, second.finished) == ("нет", len("нет STOP".encode()), True)
    assert (third.text, third.token_ids[-1], third.finished) == ("no end", END, True)


def test_a_stop_string_in_the_prompt_ends_nothing(name):
    [sample] = said(name, ["qrs"], stop=["pq"])
    assert sample.text == "qrs"  # the prompt's "p" and the answer's "q" are not one text


def test_end_token_is_counted_and_not_shown(name):
    [sample] = said(name, ["abc"], stop=[])
    assert (sample.text, sample.token_ids, sample.finished) == ("abc", [97, 98, 99, END], True)
    assert (sample.num_tokens, len(sample.log_probs), sample.num_prompt_tokens) == (4, 4, 1)


def test_length_ends_an_answer_unfinished(name):
    [sample] = said(name, ["abcdefgh"], stop=["h"], max_new_tokens=4)
    assert (sample.text, sample.num_tokens, sample.finished) == ("abcd", 4, False)


def test_an_end_at_the_last_allowed_token_is_an_end(name):
    [sample] = said(name, ["abc"], stop=[], max_new_tokens=4)
    assert sample.finished


def test_no_end_tokens_runs_to_the_length(name):
    model = tiny()
    model.generation_config.eos_token_id = list(range(VOCAB))
    [[ended]] = engine(model, name=name).generate(encode(["abc"]), rule=GREEDY)
    [[whole]] = engine(model, name=name).generate(encode(["abc"]), rule=GREEDY, end_token_ids=())
    assert (ended.num_tokens, whole.num_tokens) == (1, NEW_TOKENS)


def test_rules_of_the_models_generation_config_do_not_leak(name):
    model, prompts = tiny(), encode(RAGGED)
    expected = [plain(model, prompt)[0] for prompt in prompts]
    before = model.generation_config
    before.do_sample, before.temperature, before.top_k, before.repetition_penalty = True, 3.0, 5, 9.0
    answers = engine(model, name=name).generate(prompts, rule=GREEDY)
    assert [sample.token_ids for [sample] in answers] == expected
    assert model.generation_config is before


@pytest.mark.parametrize("training", [True, False])
def test_modes_are_restored(name, training):
    model = tiny().train(training)
    model.get_submodule("model.layers.0").eval()
    before = [module.training for module in model.modules()]
    engine(model, name=name).generate(encode(["abc"]), rule=GREEDY)
    assert [module.training for module in model.modules()] == before


def test_trains_after_generation(name):
    model = tiny()
    engine(model, name=name).generate(encode(["abc"]), rule=GREEDY)
    model(torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_changed_weights_are_seen(name):
    model = tiny()
    generates = engine(model, name=name)
    [[before]] = generates.generate(encode(["abc"]), rule=GREEDY)
    with torch.no_grad():
        model.lm_head.weight.copy_(tiny(seed=1).lm_head.weight)
    [[after]] = generates.generate(encode(["abc"]), rule=GREEDY)
    assert before.token_ids != after.token_ids == plain(model, encode(["abc"])[0])[0]


def test_progress_counts_samples_and_tokens(name):
    seen = []
    answers = engine(name=name, batch_size=2).generate(
        encode(RAGGED), rule=SamplingRule(temperature=1.0), num_samples=2, progress=lambda *counts: seen.append(counts)
    )
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert seen[-1] == (10, 10, sum(sample.num_tokens for samples in answers for sample in samples))


def test_nothing_to_do(name):
    assert engine(name=name).generate([], rule=GREEDY) == []


def test_what_cannot_be_generated_is_named(name):
    generates = engine(name=name)
    with pytest.raises(DataError, match="prompt 1: it has no tokens"):
        generates.generate([*encode(["a"]), Prompt(max_new_tokens=3)], rule=GREEDY)
    with pytest.raises(ConfigError, match="max_new_tokens: got 0"):
        generates.generate(encode(["a"], max_new_tokens=0), rule=GREEDY)
    with pytest.raises(ConfigError, match="num_samples: got 0"):
        generates.generate(encode(["a"]), rule=GREEDY, num_samples=0)
    with pytest.raises(ConfigError, match=r"top_p: got 2\.0"):
        generates.generate(encode(["a"]), rule=SamplingRule(top_p=2.0))


def test_missing_pad_token_and_silence(name, caplog):
    model = tiny()
    expected = engine(model, name=name).generate(encode(RAGGED), rule=GREEDY)
    model.config.pad_token_id = model.generation_config.pad_token_id = None
    quiet = engine(model, name=name)
    quiet.tokenizer.pad_token = None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = quiet.generate(encode(RAGGED), rule=GREEDY)
    assert [sample.text for [sample] in found] == [sample.text for [sample] in expected]
    assert not caplog.records


def requests(texts, *, seeds=None, stops=None):
    return [
        Request(
            identifier=f"r{row}",
            prompt=text,
            record=None,
            seed=seeds[row] if seeds else row,
            stop=stops[row] if stops else [],
        )
        for row, text in enumerate(texts)
    ]


def greedy(**values):
    return Greedy(GreedyConfig(_target_="", **{"max_new_tokens": NEW_TOKENS, **values}))


def sampling(**values):
    return Sampling(SamplingConfig(_target_="", max_new_tokens=NEW_TOKENS, **values))


def test_decoding_answers_in_order_with_counts(name):
    model = tiny()
    found = greedy().answer(engine(model, name=name, batch_size=2), requests(RAGGED))
    assert [prediction.identifier for prediction in found] == ["r0", "r1", "r2", "r3", "r4"]
    for prediction, text, prompt in zip(found, RAGGED, encode(RAGGED), strict=True):
        ids, logs = plain(model, prompt)
        assert (prediction.num_prompt_tokens, prediction.num_tokens) == (len(text.encode()), len(ids))
        assert prediction.log_prob == pytest.approx(sum(logs), abs=LOG_PROB_TOLERANCE)


def test_decoding_samples_by_the_seed_of_the_request(name):
    local = engine(name=name, batch_size=3)
    found = sampling().answer(local, requests(["same"] * 3, seeds=[1, 2, 1]))
    assert found[0].text == found[2].text != found[1].text
    torch.manual_seed(99)
    [alone] = sampling().answer(local, requests(["same"], seeds=[1]))
    assert alone.text == found[0].text


def test_sampling_from_one_token_is_greedy(name):
    local = engine(name=name)
    [one] = sampling(top_k=1, temperature=2.0).answer(local, requests(["abc"]))
    [other] = greedy().answer(local, requests(["abc"]))
    assert one.text == other.text
    assert one.log_prob == pytest.approx(other.log_prob, abs=LOG_PROB_TOLERANCE)  # the plain model's, whatever the rule


class Noting:
    """An engine of no model: notes what it is asked."""

    def __init__(self):
        self.calls = []

    def generate(self, prompts, *, rule, num_samples=1, stop=(), progress=None):
        self.calls.append((prompts, rule, tuple(stop)))
        if progress:
            progress(len(prompts), len(prompts), 3 * len(prompts))
        known = {"token_ids": [], "log_probs": [], "num_tokens": 3, "num_prompt_tokens": 2, "finished": True}
        return [[Sample(text=prompt.text.upper(), **known)] for prompt in prompts]


def test_stop_strings_of_requests_join_those_of_the_rule():
    noting, seen = Noting(), []
    asked = requests(["a", "b", "c"], stops=[["\n"], [], ["\n", "##"]])
    found = greedy(stop=["##"]).answer(noting, asked, progress=lambda *counts: seen.append(counts))
    assert [prediction.text for prediction in found] == ["A", "B", "C"]
    assert {stop for _, _, stop in noting.calls} == {("##", "\n"), ("##",)}
    assert [len(prompts) for prompts, _, _ in noting.calls] == [2, 1]
    assert seen == [(2, 3, 6), (3, 3, 9)]


def test_a_remote_engine_gets_text_seed_and_rule_and_no_tokens():
    noting = Noting()
    [prediction] = sampling(temperature=0.5, min_p=0.1, repetition_penalty=1.2).answer(
        noting, requests(["a"], seeds=[9])
    )
    [([prompt], rule, _)] = noting.calls
    assert (prompt.text, prompt.seed, prompt.token_ids, prompt.max_new_tokens) == ("a", 9, [], NEW_TOKENS)
    assert rule == SamplingRule(temperature=0.5, min_p=0.1, repetition_penalty=1.2)
    assert prediction.log_prob != prediction.log_prob  # nan: the server told none


def test_prompt_beyond_the_context_is_named(name):
    with pytest.raises(DataError, match=r"'r1'.* 256 tokens.* context 256"):
        greedy().answer(engine(name=name), requests(["ok", "x" * 256]))


def test_answer_ends_with_the_context(name):
    model = tiny()
    model.generation_config.eos_token_id = None
    local = engine(model, name=name, batch_size=2)
    local.tokenizer.eos_token = None
    long, short = greedy(max_new_tokens=20).answer(local, requests(["x" * 250, "y"]))
    assert (long.num_tokens, short.num_tokens) == (6, 20)


def test_prompt_without_tokens_is_named(name):
    with pytest.raises(DataError, match=r"'r0'.*no tokens"):
        greedy().answer(engine(name=name), requests([""]))


SENTENCES = (
    "The harbour was quiet that morning, and",
    "Im Garten hinter dem Haus",
    "Q: What is 17 + 25?\nA:",
    "def mean(values):\n    return",
    "Il était une fois",
    "Вчера вечером мы",
    "once",
    "List three rivers of Europe: 1.",
    "昨日の天気は",
    "Water boils at",
    "The opposite of cold is",
    "The capital of Portugal is",
    "Zwei Äpfel und drei Birnen",
    "To be, or not to be, that is",
    "SELECT name FROM",
    "Dear Sir or Madam,",
    "E = mc",
)


def long_texts(languages):
    """Three prompts: worked examples in these languages and a question, the first two alike at their start."""
    shots = [built_in_shots(MathRecord, "native_cot", language=language, num_shots=3) for language in languages]
    parts = [
        build_prompt(s, shots=(), style="native_cot") + completion(s, "native_cot") for group in shots for s in group
    ]
    worked, turned = "\n\n".join(parts) + "\n\n", "\n\n".join(parts[::-1]) + "\n\n"
    questions = ("How many legs do 3 dogs have?", "Ann has 12 plums and eats 5. How many are left?", "What is 7 * 8?")
    asked = [MathRecord(identifier=text, question=text, answer="0") for text in questions]
    return [
        start + build_prompt(record, shots=(), style="native_cot")
        for start, record in zip((worked, worked, turned), asked, strict=True)
    ]


def equals_transformers(loaded, *, new_tokens, languages):
    local = NativeEngine(NativeConfig(_target_="", batch_size=8), model=loaded.model, tokenizer=loaded.tokenizer)
    texts = (*SENTENCES, *long_texts(languages))
    prompts = [Prompt(token_ids=local.encode(text), max_new_tokens=new_tokens) for text in texts]
    assert len(prompts) == 20
    answers = local.generate(prompts, rule=GREEDY)
    for prompt, [sample] in zip(prompts, answers, strict=True):
        ids, logs = plain(loaded.model, prompt, max_new_tokens=new_tokens)
        assert sample.token_ids == ids
        assert sample.log_probs == pytest.approx(logs, abs=10 * LOG_PROB_TOLERANCE)
    return prompts


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.timeout(900)  # twenty prompts on real weights twice; the first compilation of a kernel on a busy machine
def test_real_smollm2_equals_transformers():
    # In languages of which it has no words, such as Telugu, a prompt would be four times as long.
    equals_transformers(weights.smollm2(), new_tokens=16, languages=("en", "es", "de"))


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.timeout(900)  # the same
def test_real_gemma3_equals_transformers_past_its_window():
    loaded = weights.gemma3()
    prompts = equals_transformers(loaded, new_tokens=16, languages=("en", "te", "th"))
    window = loaded.model.config.sliding_window
    assert sum(len(prompt.token_ids) > window for prompt in prompts) >= 3
    shared = shared_prefixes([prompt.token_ids for prompt in prompts])
    assert any(prefix is not None and prefix.length > window for prefix in shared)
