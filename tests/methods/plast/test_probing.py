"""Probe and choice against loops and published numbers; the masks that keep pictures and templates out."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy
from tests.methods.plast import reference
from tests.methods.plast.tiny import config_of, opened
from tests.tolerances import EXACT

from athlos.config.compose import run_config
from athlos.errors import ConfigError, DataError
from athlos.methods.plast.config import PlastSelectionConfig, ProbeTokens
from athlos.methods.plast.reading import parallel_questions, probe, readings, spans
from athlos.methods.plast.selection import choose_from
from athlos.models.layer_selectors import lape, layer_scores, normalised_entropy, shallow_prefix
from athlos.models.neuron_counts import NeuronCounts, merge
from athlos.models.probed_selection import blocks_of
from athlos.models.sites import backbone


def selection(*overrides: str) -> PlastSelectionConfig:
    node = config_of(*overrides).selection
    assert isinstance(node, PlastSelectionConfig)
    return node


def counts(probs_LXJ: np.ndarray, languages: tuple[str, ...] = ("latn", "cyrl", "grek")) -> NeuronCounts:
    positive = np.round(probs_LXJ * 100).astype(np.int64)
    number = np.full(len(languages), 100)
    empty = np.zeros(probs_LXJ.shape)
    return NeuronCounts(
        languages=languages, tokens=number, positive=positive, sums=empty, texts=number, text_shares=empty
    )


def test_scores_of_the_specification():
    scores = np.array([0.3, 0.3, 0.1, 0.1, 0.05, 0.05, 0.05, 0.03, 0.02])
    assert scores.mean() == pytest.approx(0.1111, abs=1e-4)
    assert scores.std() == pytest.approx(0.1041, abs=1e-4)
    assert shallow_prefix(scores, std_factor=0.5, region=1 / 3, fallback_share=0.15) == [0, 1]
    assert reference.prefix(scores.tolist(), std_factor=0.5, region=1 / 3, fallback_share=0.15) == [0, 1]
    assert shallow_prefix(np.ones(18), std_factor=0.5, region=1 / 3, fallback_share=0.15) == [0, 1, 2]


@pytest.mark.parametrize(("shares", "value"), [((1, 0, 0, 0), 0.0), ((0.25,) * 4, 1.0), ((0.5, 0.5, 0, 0), 0.5)])
def test_entropies_of_the_specification(shares: tuple[float, ...], value: float):
    found = normalised_entropy(np.array(shares, dtype=np.float64)[None, :, None])[0, 0]
    assert found == pytest.approx(value, abs=EXACT)
    assert found == pytest.approx(scipy_entropy(shares) / np.log(4), abs=EXACT)


@pytest.mark.parametrize("seed", range(5))
def test_specific_neurons_and_scores_equal_the_loops(seed: int):
    rng = np.random.default_rng(seed)
    p = rng.random((4, 3, 30)) ** 3
    p[1, :, :3] = 0  # dead
    found = lape(p, percentile=80, entropy_share=0.2, living_only=True)
    wanted = reference.specific(p.tolist(), wanted_percentile=80, entropy_share=0.2)
    assert {tuple(map(int, one)) for one in np.argwhere(found.is_specific)} == wanted
    assert found.num_dead == 3
    values = layer_scores(found.counts.astype(np.float64), reference=0)
    np.testing.assert_allclose(
        values, reference.scores(wanted, num_layers=4, num_languages=3, reference=0), rtol=0, atol=EXACT
    )
    assert values.sum() == pytest.approx(1)
    # Sabotage: a percentile of each layer by itself gives other sets, so the comparison above can fail.
    by_layer = np.concatenate(
        [lape(p[[at]], percentile=80, entropy_share=0.2, living_only=True).is_specific for at in range(4)]
    )
    assert {tuple(map(int, one)) for one in np.argwhere(by_layer)} != wanted


def test_equal_texts_in_all_languages_are_refused():
    p = np.repeat(np.random.default_rng(0).random((3, 1, 20)), 3, axis=1)
    with pytest.raises(DataError, match="are their texts the same"):
        choose_from(selection(), counts(p), reference="latn")


@pytest.mark.parametrize("selector", ["specific_neurons", "top_active", "activation_gap"])
def test_the_reference_may_stand_at_any_place_among_the_languages(selector: str):
    p = np.random.default_rng(1).random((6, 3, 40)).round(2) ** 2
    config = selection(f"selection.selector={selector}", "selection.lape.entropy_share=0.3", "selection.top_r=0.3")
    first = choose_from(config, counts(p), reference="latn")
    moved = choose_from(config, counts(p[:, [1, 2, 0]], languages=("cyrl", "grek", "latn")), reference="latn")
    assert len(set(first.scores)) > 1
    np.testing.assert_allclose(moved.scores, first.scores, rtol=0, atol=EXACT)
    assert moved.layers == first.layers
    assert moved.by_language.keys() == first.by_language.keys()


@pytest.mark.parametrize(("region", "layers"), [("1.0", [5]), ("0.34", [1])])
def test_the_layers_of_a_given_number_are_the_highest_of_the_lowest_ones(region: str, layers: list[int]):
    p = np.full((6, 3, 20), 0.5)
    p[1, 1], p[5, 1] = 0.6, 0.9
    config = selection("selection.selector=activation_gap", "selection.k=1", f"selection.select.region={region}")
    assert choose_from(config, counts(p), reference="latn").layers == layers


def test_a_choice_without_specific_neurons_is_the_fallback():
    p = np.ones((7, 3, 20))
    p[:, 0, 0] = 0.99
    choice = choose_from(selection("selection.k=0"), counts(p), reference="latn")
    assert choice.layers == [0, 1]  # ceil(0.15 * 7)
    assert choice.used_fallback


def test_tokens_that_count_are_words_of_the_language_alone(tmp_path):
    context = opened(tmp_path)
    records = parallel_questions(context, split="train", languages=["latn", "thai"], items=3)
    one = next(readings(context.start.model, context.tokenizer, records["thai"], batch_size=3))
    ids, tokenizer = one.batch["input_ids"], context.tokenizer
    for row, record in enumerate(records["thai"]):
        words = tokenizer.decode(ids[row][one.is_text_BT[row]]).replace(" ", "")
        assert words == (record.question + "".join(record.choices)).replace(" ", "")
    assert one.is_image_BT.sum(1).tolist() == [9, 9, 9]
    assert not bool((one.mask(ProbeTokens.text) & one.mask(ProbeTokens.image)).any())
    assert torch.equal(one.mask(ProbeTokens.all), one.batch["attention_mask"].bool())


def test_spans_are_where_the_words_are():
    text, places = spans("what?", ["red", "blue"], image_tokens=2)
    assert text == "<image><image> what?\nA: red\nB: blue\n"
    assert [text[first:last] for first, last in places] == ["what?", "red", "blue"]


def gates_of(model: Any, one: Any, layer: int) -> torch.Tensor:
    found: list[torch.Tensor] = []
    site = backbone(model).layers[layer].sites["gate"]
    handle = site.module.register_forward_hook(lambda module, given, output: found.append(output))
    with torch.no_grad():
        model.base_model(**one.inputs(model), use_cache=False)
    handle.remove()
    return found[0]


def test_the_probe_counts_what_loops_count_and_pictures_do_not(tmp_path):
    context = opened(tmp_path)
    model = context.start.model
    node = config_of("selection.probe.items=4", "selection.probe.batch_size=3").selection
    product = probe(node, model, context=context)
    found = merge(blocks_of(product))
    records = parallel_questions(context, split="train", languages=["grek"], items=4)["grek"]
    gates, text_masks, every_mask = [], [], []
    for one in readings(model, context.tokenizer, records, batch_size=1):
        gates.append(gates_of(model, one, 2)[0].tolist())
        text_masks.append(one.is_text_BT[0].tolist())
        every_mask.append(one.batch["attention_mask"][0].bool().tolist())
    at = found.index("grek")
    np.testing.assert_allclose(
        found.share_positive()[2, at], reference.share_positive(gates, text_masks), rtol=0, atol=EXACT
    )
    # Sabotage: with the picture's tokens counted the shares are others, so the comparison above can fail.
    assert not np.allclose(found.share_positive()[2, at], reference.share_positive(gates, every_mask), atol=1e-3)
    assert probe(node, model, context=context).reused


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("selection.selector=manual", "selection.layers: got [] with selector=manual"),
        ("selection.layers=[1]", "they go with selector=manual"),
        ("selection.selector=random selection.k=0", "selection.k: got 0 with selector=random"),
        ("selection.lape.percentile=100", "selection.lape.percentile: got 100.0"),
        ("selection.select.region=0", "selection.select.region: got 0.0"),
        ("selection.select.std_factor=-1", "selection.select.std_factor: got -1.0"),
        ("selection=plast/full tuning=lora_equal", "tuning: got lora_equal, expected full or lora"),
        ("selection.selector=grad", "selection.selector: got grad"),
        ("surgery=lisa", "surgery: got lisa, expected none or spannorm"),
        ("selection.probe.split=test", "the split that the run is tested on"),
        ("selection.probe.languages=[cyrl]", "selection.probe.languages: got ['cyrl'], expected latn"),
        ("selection.probe.languages=[latn,engl]", "got 'engl'"),
        ("construct.languages=[latn]", "the language that is translated into"),
        ("construct.languages=[engl]", "construct.languages: got 'engl'"),
        ("construct.replay_ratio=1", "construct.replay_ratio: got 1.0"),
        ("construct.with_image=false construct.replay_ratio=0.1", "replayed questions show pictures"),
        ("construct.pairs_per_language=0", "construct.pairs_per_language: got 0"),
        ("construct.reverse=true construct.reverse_instruction=x", "expected {language} in it"),
        ("method.diagnosis_split=test", "method.diagnosis_split: got 'test'"),
        ("method.mask_items=-1", "method.mask_items: got -1"),
    ],
)
def test_bad_values_are_told_before_anything_is_loaded(override: str, message: str):
    with pytest.raises(ConfigError) as caught:
        run_config([*config_of.overrides, *override.split(" ")])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("method=plast method.mask_items=1", "method.mask_items: got 1, but only selection=plast"),
        ("method=plast method.attention_items=1", "data=shakespeare has no questions about pictures"),
        ("selection=plast", "data: got shakespeare; selection.selector=specific_neurons needs questions"),
        ("construct=plast", "construct=plast needs questions about pictures in several languages"),
    ],
)
def test_data_without_parallel_questions_are_refused(overrides: str, message: str):
    with pytest.raises(ConfigError) as caught:
        run_config(overrides.split(" "))
    assert message in str(caught.value)
