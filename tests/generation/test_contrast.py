"""Contrastive decoding: check values, a naive twin of two streams in float64, and the rules as a user gets them."""

import copy
import dataclasses
import math

import pytest
import torch
from scipy.spatial import distance
from tests.generation import reference
from tests.generation.tiny_models import END, LLAMA_SIZES, encode, engine, plain, tiny
from tests.tolerances import FLOAT64, LOGITS_FLOAT32
from transformers import LlamaConfig

from athlos.errors import ConfigError, ConfigErrors, DataError
from athlos.generation.config import CadConfig, DecoreConfig, DolaConfig
from athlos.generation.contrast import check_contrast, contrasted, contrasted_by_depth, jensen_shannon
from athlos.generation.contrastive_decoding import Cad, Decore, Dola, early_exits, read_heads
from athlos.generation.interface import Contrast, Prompt, Request, SamplingRule
from athlos.generation.rules import generator
from athlos.generation.step import DecoderStep

GREEDY = SamplingRule()
A = torch.tensor([[2.0, 1.0, 0.0, -1.0]], dtype=torch.float64)
B = torch.tensor([[2.0, 0.0, 1.0, -1.0]], dtype=torch.float64)
DIGITS = 1e-6
"""The check values have six digits."""
LOG_PROB_TOLERANCE = 1e-4
"""Padding reorders float32 sums over a few dozen terms."""
RAGGED = ["hello there", "x", "a rather longer prompt than the others are, by far", "мир и труд", "ok then"]
AGAINST = ["there", "a longer one than the first", "by far", "труд", "!"]
HEADS = ((0, 1), (0, 2), (1, 0), (1, 1), (1, 3))


# Formulas


@pytest.mark.parametrize(
    ("contrast", "probs"),
    [
        (Contrast(alpha=0.5, plausibility=0), [0.575241, 0.348901, 0.047219, 0.028640]),
        (Contrast(alpha=1.0, plausibility=0), [0.476287, 0.476287, 0.023713, 0.023713]),
        (Contrast(alpha=0.2, plausibility=0), [0.621149, 0.279100, 0.068825, 0.030925]),
        (Contrast(alpha=0.2, plausibility=0.1), [0.640971, 0.288007, 0.071022, 0.0]),
        (Contrast(alpha=None, plausibility=0), [0.487532, 0.462614, 0.025580, 0.024273]),
    ],
)
def test_check_values_of_two_streams(contrast, probs):
    assert contrasted(A, B, contrast).softmax(-1)[0].tolist() == pytest.approx(probs, abs=DIGITS)
    shifted = contrasted(A.log_softmax(-1), B.log_softmax(-1), contrast)
    assert shifted.softmax(-1)[0].tolist() == pytest.approx(probs, abs=DIGITS), "logits or log-probabilities"


def test_the_weight_of_decore_is_an_entropy_that_is_capped():
    entropy = -(A.softmax(-1) * A.log_softmax(-1)).sum().item()
    assert entropy == pytest.approx(0.947537, abs=DIGITS)
    free = contrasted(A, B, Contrast(alpha=None, plausibility=0))
    fixed = contrasted(A, B, Contrast(alpha=entropy, plausibility=0))
    assert torch.allclose(free.softmax(-1), fixed.softmax(-1), atol=FLOAT64)
    capped = contrasted(A, B, Contrast(alpha=None, max_alpha=0.5, plausibility=0))
    assert capped.softmax(-1)[0].tolist() == pytest.approx([0.575241, 0.348901, 0.047219, 0.028640], abs=DIGITS)


def test_check_value_of_depth():
    found = contrasted_by_depth(A, B[None], Contrast(layers=(1,), plausibility=0.1))
    assert found.softmax(-1)[0].tolist() == pytest.approx([0.244728, 0.665241, 0.090031, 0.0], abs=DIGITS)


@pytest.mark.parametrize("piece", [4, 8192])
def test_the_farthest_early_exit_counts_in_each_row_by_itself(piece, monkeypatch):
    monkeypatch.setattr("athlos.generation.contrast.PIECE", piece)
    chance = torch.Generator().manual_seed(3)
    a_BV, early_LBV = torch.randn(6, 9, generator=chance).double(), torch.randn(4, 6, 9, generator=chance).double()
    divergence_LB = jensen_shannon(a_BV.log_softmax(-1), early_LBV.log_softmax(-1))
    chosen = []
    for row, a_V in enumerate(a_BV):
        wanted = [distance.jensenshannon(a_V.softmax(-1), early[row].softmax(-1)) ** 2 for early in early_LBV]
        assert divergence_LB[:, row].tolist() == pytest.approx(wanted, abs=FLOAT64)
        chosen.append(wanted.index(max(wanted)))
    assert len(set(chosen)) > 1
    found = contrasted_by_depth(a_BV, early_LBV, Contrast(layers=(1, 2, 3, 4), plausibility=0))
    for row, layer in enumerate(chosen):
        wanted = a_BV[row].log_softmax(-1) - early_LBV[layer, row].log_softmax(-1)
        assert torch.allclose(found[row], wanted, atol=FLOAT64)


def test_tokens_that_are_impossible_to_both_add_nothing_to_a_divergence():
    a_BV, b_BV = torch.tensor([[0.6, 0.4]]).log(), torch.tensor([[0.1, 0.9]]).log()
    wide = [torch.cat([values_BV, torch.full((1, 3), -500.0)], dim=1) for values_BV in (a_BV, b_BV)]
    found, wanted = jensen_shannon(wide[0], wide[1][None]), jensen_shannon(a_BV, b_BV[None])
    assert found.item() == pytest.approx(wanted.item(), abs=1e-6)


def test_the_best_token_of_the_plain_model_is_never_cut():
    found = contrasted(A, B, Contrast(alpha=5.0, plausibility=1.0))
    assert found.isfinite().tolist() == [[True, False, False, False]]


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"alpha": -0.1}, "alpha"),
        ({"alpha": math.inf}, "alpha"),
        ({"plausibility": 1.5}, "plausibility"),
        ({"max_alpha": -1.0}, "max_alpha"),
        ({"layers": (1,), "heads": ((0, 0),)}, "layers"),
    ],
)
def test_values_out_of_range(values, key):
    with pytest.raises(ConfigErrors, match=f"contrast.{key}: got"):
        check_contrast(Contrast(**values))


# The engine against a twin that reads everything anew for every token


def masked(model, *, start, heads, is_uniform):
    """A copy whose `heads` are silent from position `start` on."""
    model = copy.deepcopy(model)
    size = model.config.head_dim
    for layer, head in heads:
        attention = model.model.layers[layer].self_attn
        span = slice(head * size, (head + 1) * size)

        def silence(values, span=span):
            values = values.clone()
            values[:, start:, span] = 0
            return values

        if is_uniform:
            attention.q_proj.register_forward_hook(lambda _m, _i, output, silence=silence: silence(output))
        else:
            attention.o_proj.register_forward_pre_hook(lambda _m, inputs, silence=silence: (silence(inputs[0]),))
    return model


def twin(model, prompt, contrast, *, rule=GREEDY, sample=0):
    """(token ids, log-probabilities of the plain model) of one sample, in float64."""
    model = copy.deepcopy(model).double()
    start = len(prompt.token_ids)
    other = masked(model, start=start, heads=contrast.heads, is_uniform=contrast.is_uniform)
    source = generator(prompt.seed, sample, device=torch.device("cpu"))
    answer, logs = [], []
    for _ in range(prompt.max_new_tokens):
        out = model(torch.tensor([prompt.token_ids + answer]), output_hidden_states=True)
        a = reference.log_softmax(out.logits[0, -1].tolist())
        if contrast.layers:
            candidates = []
            for count in contrast.layers:
                hidden = model.model.norm(out.hidden_states[count][0, -1])
                candidates.append(reference.log_softmax(model.lm_head(hidden).tolist()))
            far = [distance.jensenshannon([math.exp(x) for x in a], [math.exp(x) for x in b]) for b in candidates]
            b = candidates[far.index(max(far))]
            mixed = [x - y for x, y in zip(a, b, strict=True)]
        else:
            read = (prompt.against_ids or prompt.token_ids) + answer
            b = reference.log_softmax(other(torch.tensor([read])).logits[0, -1].tolist())
            alpha = contrast.alpha
            if alpha is None:
                alpha = min(-sum(math.exp(x) * x for x in a), contrast.max_alpha)
            mixed = [(1 + alpha) * x - alpha * y for x, y in zip(a, b, strict=True)]
        least = max(a) + (math.log(contrast.plausibility) if contrast.plausibility else -math.inf)
        allowed = [token for token, value in enumerate(a) if value >= least]
        if rule.temperature:
            noise = torch.empty(len(a)).uniform_(generator=source).tolist()
            token = max(allowed, key=lambda t: mixed[t] / rule.temperature - math.log(-math.log(noise[t])))
        else:
            token = max(allowed, key=mixed.__getitem__)
        logs.append(a[token])
        answer.append(token)
        if token == END:
            break
    return answer, logs


CONTRASTS = {
    "prompt": Contrast(alpha=0.8),
    "prompt, no cut": Contrast(alpha=0.3, plausibility=0),
    "heads": Contrast(alpha=None, max_alpha=4.0, plausibility=0, heads=HEADS),
    "uniform heads": Contrast(alpha=1.5, heads=HEADS, is_uniform=True),
    "depth": Contrast(layers=(1, 2)),
}


def asked(contrast, **values):
    prompts = encode(RAGGED, **values)
    if contrast.layers or contrast.heads:
        return prompts
    others = encode(AGAINST)
    return [dataclasses.replace(one, against_ids=other.token_ids) for one, other in zip(prompts, others, strict=True)]


@pytest.mark.parametrize("name", ["llama", "gemma3"])
@pytest.mark.parametrize("kind", CONTRASTS)
@pytest.mark.parametrize("batch_size", [2, 16])
def test_naive_twin(name, kind, batch_size):
    """Rows leave and join a batch of two, so both streams move together."""
    contrast, model = CONTRASTS[kind], tiny(name, seed=1)
    contrast = dataclasses.replace(contrast, layers=(1,)) if contrast.layers and name == "llama" else contrast
    prompts = asked(contrast)
    answers = engine(model, batch_size=batch_size).generate(prompts, rule=GREEDY, contrast=contrast)
    ordinary = engine(model).generate(prompts, rule=GREEDY)
    for prompt, [sample] in zip(prompts, answers, strict=True):
        ids, logs = twin(model, prompt, contrast)
        assert sample.token_ids == ids
        assert sample.log_probs == pytest.approx(logs, abs=LOG_PROB_TOLERANCE), "those of the plain model"
    assert [one.token_ids for [one] in answers] != [one.token_ids for [one] in ordinary], (
        "the contrast changes something"
    )


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_streams_whose_prompts_begin_alike_or_differ_in_length_stay_apart(name):
    """The two streams of a prompt are read apart: with others of their kind that begin alike, and by length."""
    contrast, model = CONTRASTS["prompt"], tiny(name, seed=1)
    long, short = "Some examples that all of these have in front: ", "Others, which the second stream has: "
    prompts = [
        dataclasses.replace(one, against_ids=other.token_ids)
        for one, other in zip(
            encode([*(long + text for text in RAGGED), RAGGED[2] * 2]),
            encode([*(short + text for text in AGAINST), "x"]),
            strict=True,
        )
    ]
    answers = engine(model).generate(prompts, rule=GREEDY, contrast=contrast)
    for prompt, [sample] in zip(prompts, answers, strict=True):
        assert sample.token_ids == twin(model, prompt, contrast)[0]


@pytest.mark.parametrize("kind", CONTRASTS)
def test_groups_are_drawn_from_the_contrast(kind):
    contrast, model, rule = CONTRASTS[kind], tiny("gemma3", seed=2), SamplingRule(temperature=0.9)
    prompts = [dataclasses.replace(prompt, max_new_tokens=6) for prompt in asked(contrast, seed=5)[:3]]
    answers = engine(model, batch_size=4).generate(prompts, rule=rule, num_samples=2, contrast=contrast)
    for prompt, samples in zip(prompts, answers, strict=True):
        for number, sample in enumerate(samples):
            assert sample.token_ids == twin(model, prompt, contrast, rule=rule, sample=number)[0]


def test_transformers_own_guidance_gives_the_same_answers():
    """Its classifier-free guidance with a negative prompt is the same equation without the cut, one row at a time."""
    model, contrast = tiny(seed=1), CONTRASTS["prompt, no cut"]
    prompts = asked(contrast)
    answers = engine(model).generate(prompts, rule=GREEDY, contrast=contrast)
    for prompt, [sample] in zip(prompts, answers, strict=True):
        options = {"guidance_scale": 1 + contrast.alpha, "negative_prompt_ids": torch.tensor([prompt.against_ids])}
        assert sample.token_ids == plain(model, prompt, **options)[0]


@pytest.mark.parametrize("rule", [GREEDY, SamplingRule(temperature=1.0, top_p=0.9)], ids=["greedy", "sampling"])
def test_alpha_zero_is_plain_decoding(rule):
    model, contrast = tiny(), Contrast(alpha=0.0)
    assert contrasted(A, B, contrast) is A, "bit for bit, and nothing cut"
    found = engine(model).generate(asked(contrast), rule=rule, contrast=contrast)
    wanted = engine(model).generate(asked(contrast), rule=rule)
    for [one], [other] in zip(found, wanted, strict=True):
        assert one.token_ids == other.token_ids
        assert one.log_probs == pytest.approx(other.log_probs, abs=LOG_PROB_TOLERANCE)


def test_equal_streams_change_nothing():
    model, prompts = tiny(), encode(RAGGED)
    found = engine(model).generate(prompts, rule=GREEDY, contrast=Contrast(alpha=3.0))
    wanted = engine(model).generate(prompts, rule=GREEDY)
    assert [one.token_ids for [one] in found] == [one.token_ids for [one] in wanted]


def test_stop_strings_and_limits_end_both_streams():
    model, contrast = tiny(seed=1), CONTRASTS["prompt"]
    whole = engine(model).generate(asked(contrast), rule=GREEDY, contrast=contrast)
    stop = whole[0][0].text[1:3]
    found = engine(model, batch_size=2).generate(asked(contrast), rule=GREEDY, contrast=contrast, stop=[stop])
    for [cut], [uncut] in zip(found, whole, strict=True):
        assert cut.text == uncut.text.split(stop)[0]


@pytest.mark.parametrize("config", [None, LlamaConfig(**LLAMA_SIZES, num_hidden_layers=4)], ids=["gemma3", "llama"])
def test_early_exits_are_what_the_model_would_say_below_each_in_each_row(config):
    """Four rows through a prompt and decode steps, of which the compiled kernel takes the later ones of Llama."""
    model, exits = tiny("gemma3", seed=1, config=config), [1, 2]
    ids_BT = torch.randint(3, 250, (4, 9), generator=torch.Generator().manual_seed(0))
    step, pad_B = DecoderStep(model, written_out=True, early=exits), torch.zeros(4, dtype=torch.int64)
    cache = step.new_cache(capacity=9)
    with torch.no_grad():
        below = model(ids_BT, output_hidden_states=True).hidden_states  # the last one is behind the final norm
        early_LBTV = torch.stack([model.lm_head(model.model.norm(below[count])) for count in exits])
        for start, end in ((0, 6), (6, 7), (7, 8), (8, 9)):
            logits_BV = step(ids_BT[:, start:end], cache, pad_B=pad_B, most_padding=0)
            wanted_BV = model.lm_head(below[-1][:, end - 1])
            torch.testing.assert_close(logits_BV, wanted_BV, atol=LOGITS_FLOAT32, rtol=LOGITS_FLOAT32)
            wanted_LBV = early_LBTV[:, :, end - 1]
            torch.testing.assert_close(step.early_LBV, wanted_LBV, atol=LOGITS_FLOAT32, rtol=LOGITS_FLOAT32)


def test_an_early_exit_outside_the_decoder_is_refused():
    with pytest.raises(ConfigError, match=r"early exits: got \[2\], expected numbers of layers in 1 .. 1"):
        engine().generate(encode(["a"]), rule=GREEDY, contrast=Contrast(layers=(2,)))


def test_nothing_of_the_model_stays_changed():
    model = tiny()
    before = engine(model).generate(encode(RAGGED), rule=GREEDY)
    for contrast in (CONTRASTS["heads"], Contrast(layers=(1,))):
        engine(model).generate(encode(RAGGED), rule=GREEDY, contrast=contrast)
    assert not any("forward" in vars(module) or module._forward_hooks for module in model.modules())
    assert engine(model).generate(encode(RAGGED), rule=GREEDY) == before


# The rules as a user gets them


COMMON = {"_target_": "", "max_new_tokens": 8, "plausibility": 0.1, "temperature": 0.0, "top_p": 1.0}


def requests(**values):
    return [Request(identifier=str(n), prompt=text, record=None, **values) for n, text in enumerate(RAGGED)]


def test_cad_reads_the_prompt_without_its_passages():
    model, given = tiny(), requests(without="less")
    found = Cad(CadConfig(**COMMON, alpha=0.7)).answer(engine(model), given)
    for request, one in zip(given, found, strict=True):
        prompt = Prompt(
            token_ids=engine(model).encode(request.prompt), against_ids=engine(model).encode("less"), max_new_tokens=8
        )
        ids, logs = twin(model, prompt, Contrast(alpha=0.7))
        assert (one.num_tokens, one.num_prompt_tokens) == (len(ids), len(prompt.token_ids))
        assert one.log_prob == pytest.approx(sum(logs), abs=len(ids) * LOG_PROB_TOLERANCE)


def test_cad_refuses_a_prompt_that_lacks_nothing():
    with pytest.raises(DataError, match="request '0': decoding=cad contrasts its prompt with one without passages"):
        Cad(CadConfig(**COMMON, alpha=0.7)).answer(engine(), requests())


@pytest.mark.parametrize(
    "rule",
    [
        Cad(CadConfig(**COMMON, alpha=1.0)),
        Decore(DecoreConfig(**COMMON, heads=["0-1"], mask="zero_out", max_factor=2.0)),
        Dola(DolaConfig(**COMMON, layers="high")),
    ],
)
def test_other_engines_are_refused(rule):
    with pytest.raises(ConfigError, match=r"^decoding=\w+: decodes two streams in one batch"):
        rule.answer(engine(name="transformers"), requests(without="less"))


def test_decore_and_dola_say_what_they_contrast():
    given = requests()
    model = tiny("gemma3", seed=1)
    decore = Decore(DecoreConfig(**COMMON, heads=["0-1", "2-3"], mask="uniform_causal", max_factor=1.0))
    wanted = Contrast(alpha=None, max_alpha=1.0, heads=((0, 1), (2, 3)), is_uniform=True)
    assert decore.contrast(None) == wanted
    assert len(decore.answer(engine(model), given)) == len(given)
    assert len(Dola(DolaConfig(**COMMON, layers="high")).answer(engine(model), given)) == len(given)


@pytest.mark.parametrize(
    ("texts", "said"), [(["0.1"], "'0.1'"), ([], "at least one"), (["1-2", "1-2"], "each once"), (["1--2"], "'1--2'")]
)
def test_heads_are_read_or_refused(texts, said):
    with pytest.raises(ConfigError, match=f"decoding.heads: .*{said}"):
        read_heads(texts, key="decoding.heads")
    assert read_heads(["16-19", "0-0"], key="a") == ((16, 19), (0, 0))


@pytest.mark.parametrize(
    ("layers", "half", "exits"),
    [
        (8, "low", [2]),
        (8, "high", [4, 6]),
        (30, "low", [2, 4, 6, 8, 10, 12, 14]),
        (30, "high", [15, 17, 19, 21, 23, 25, 27, 29]),
        (64, "low", [2, 4, 6, 8, 10, 12, 14, 16, 18]),
        (64, "high", [44, 46, 48, 50, 52, 54, 56, 58, 60, 62]),
    ],
)
def test_early_exits_are_those_of_transformers_less_the_embedding(layers, half, exits):
    assert early_exits(layers, half=half) == exits


def test_a_decoder_without_early_exits_is_refused():
    with pytest.raises(ConfigError, match=r"decoding\.layers: got low, but a decoder of 2 layers"):
        early_exits(2, half="low")
