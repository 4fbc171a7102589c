"""Agreement with the base, last words, noise by layer, and heads in another order: against loops and exact cases."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.methods.lisa.test_surgery import EXPLICIT, applied, ids_of, model_of
from tests.tolerances import EXACT, FLOAT32, FLOAT64

from athlos.errors import DataError, SurgeryError
from athlos.methods.lisa.agreement import Reading, encoded, last_words, read, right_words, same_choices
from athlos.methods.lisa.diagnoses import likeness, likeness_figure, noise_by_layer, other_text
from athlos.methods.lisa.head_shuffle import shuffle_heads
from athlos.methods.lisa.similarity import Similarity, handing_on
from athlos.methods.lisa.surgery import directly_shared
from athlos.models.architecture import build, hf_config
from athlos.models.sites import backbone

TEXT = "= Title =\nOne two three four five six seven eight . \nA line of six words only\n1 2 3 4 5 6 7 8 <unk> .\n"


def test_the_last_words_of_lines_long_enough() -> None:
    assert [TEXT[first:last] for first, last in last_words(TEXT)] == ["eight", "8"]


def test_reading_is_the_models_own_loss_window_by_window() -> None:
    model, tokens = model_of(), ids_of().flatten()
    reading = read(model, tokens, length=7, batch_size=2)
    assert len(reading.choices_N) == 14  # the rest after the last whole window is left out
    for start in (0, 7):
        with torch.no_grad():
            logits = model(tokens[None, start : start + 7]).logits[0]
        assert reading.choices_N[start] == -1
        assert math.isnan(reading.nll_N[start])
        for place in range(1, 7):
            row = logits[place - 1].log_softmax(-1)
            assert reading.choices_N[start + place] == row.argmax()
            assert reading.nll_N[start + place] == pytest.approx(-row[tokens[start + place]].item(), abs=FLOAT64)
    assert reading.ppl == pytest.approx(math.exp(np.nanmean(reading.nll_N)), abs=EXACT)


def reading_of(choices: list[int]) -> Reading:
    return Reading(choices_N=np.array(choices), nll_N=np.zeros(len(choices)))


def test_agreement_counts_predicted_tokens_alone() -> None:
    assert same_choices(reading_of([-1, 4, 5, -1, 6]), reading_of([-1, 4, 7, -1, 6])) == pytest.approx(2 / 3)


def test_a_word_is_right_when_all_its_tokens_are() -> None:
    reading, tokens = reading_of([-1, 4, 5, 6, -1, 9]), torch.tensor([3, 4, 5, 7, 8, 9, 1])
    assert right_words(reading, tokens, [[1, 2], [2, 3], [3, 4], [5], [6]]) == (2 / 3, 3)
    assert math.isnan(right_words(reading, tokens, [])[0])


class Characters:
    """A tokenizer of one token a character."""

    def __call__(self, text: str, **_: Any) -> dict[str, Any]:
        return {
            "input_ids": [3 + ord(one) % 40 for one in text],
            "offset_mapping": [(at, at + 1) for at in range(len(text))],
        }


def test_tokens_of_last_words_follow_the_limit() -> None:
    tokens, words = encoded(Characters(), TEXT, limit=0)
    assert [("".join(TEXT[at] for at in word)) for word in words] == ["eight", "8"]
    assert len(tokens) == len(TEXT)
    first = words[0]
    assert encoded(Characters(), TEXT, limit=first[-1] + 1)[1] == [first]
    assert encoded(Characters(), TEXT, limit=first[-1])[1] == []


def test_another_text_is_read_by_both_models(tmp_path: Path) -> None:
    base = model_of()
    student = directly_shared(base, [2, 3])
    windows = SimpleNamespace(limit_tokens=40, max_length=10)
    config: Any = SimpleNamespace(eval=SimpleNamespace(running_text=windows, batch_size=2))
    path = tmp_path / "other.txt"
    path.write_text(TEXT, encoding="utf-8")
    tokenizer: Any = Characters()
    found = other_text(base, student, path=path, tokenizer=tokenizer, config=config)
    assert found["test/ppl_other"] != found["test/ppl_base_other"]
    assert 0 <= found["test/top1_agreement_other"] <= 1
    for broken in ("", None):
        if broken is None:
            path.unlink()
        else:
            path.write_text(broken, encoding="utf-8")
        with pytest.raises(DataError, match=r"method\.other_text"):
            other_text(base, student, path=path, tokenizer=tokenizer, config=config)


def test_noise_is_on_one_layer_alone_and_the_same_for_each() -> None:
    model, text = handing_on(model_of()), (ids_of().flatten(), [], 9)
    silent = noise_by_layer(model, text=text, sigma=0.0, batch_size=2, seed=1)
    loud = noise_by_layer(model, text=text, sigma=2.0, batch_size=2, seed=1)
    again = noise_by_layer(model, text=text, sigma=2.0, batch_size=2, seed=1)
    assert loud == again
    layers = [f"diag/noise_ppl/{layer:02d}" for layer in range(5)]
    assert set(silent) == {*layers, *(f"diag/noise_ppl_{name}" for name in ("none", "shallow", "deep"))}
    shallow = (loud[layers[0]] * loud[layers[1]]) ** 0.5
    assert loud["diag/noise_ppl_shallow"] == pytest.approx(shallow, abs=FLOAT64)
    deep = (loud[layers[2]] * loud[layers[3]] * loud[layers[4]]) ** (1 / 3)
    assert loud["diag/noise_ppl_deep"] == pytest.approx(deep, abs=FLOAT64)
    for layer in layers:
        assert silent[layer] == pytest.approx(silent["diag/noise_ppl_none"], abs=FLOAT64)
        assert abs(loud[layer] - silent[layer]) > FLOAT64


@torch.no_grad()
def test_shuffled_heads_leave_the_function_and_break_copying_but_not_matching(tmp_path: Path) -> None:
    matched = [*EXPLICIT, "surgery.align.hidden=0", "surgery.lowrank.enabled=false", "surgery.align.init=hungarian"]
    ids, found = ids_of(), {}
    for seed in (0, 3):
        base = model_of()
        shared, _ = applied(base, *matched, f"surgery.shuffle_heads={seed}", tmp_path=tmp_path)
        found[seed] = {
            "base": base(ids).logits,
            "matched": shared(ids).logits,
            "copied": directly_shared(base, [2, 3])(ids).logits,
        }
    for name in ("base", "matched"):
        torch.testing.assert_close(found[3][name], found[0][name], atol=FLOAT32, rtol=0)
    assert (found[3]["copied"] - found[0]["copied"]).abs().max() > 1e2 * FLOAT32


def test_the_figure_of_likeness_is_a_picture() -> None:
    assert likeness_figure(similarity_of_chance()).startswith(b"\x89PNG")


def test_heads_of_one_matrix_cannot_be_shuffled() -> None:
    phi = {
        "model_type": "phi3",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 50,
        "pad_token_id": 0,
    }
    with pytest.raises(SurgeryError, match="shuffle_heads"):
        shuffle_heads(backbone(build(hf_config(phi))), seed=1)


def similarity_of_chance() -> Similarity:
    rng = np.random.default_rng(0)
    tables = {name: rng.random((3, 2, 2)) for name in ("cosine_LHH", "divergence_LHH", "gram_LHH", "cross_LHH")}
    for table in tables.values():
        table[0] = np.nan
    return Similarity(**tables)


def test_likeness_has_every_layer_but_the_first() -> None:
    alike = similarity_of_chance()
    found = likeness(alike)
    kinds = ("similarity", "similarity_matched", "cosine", "cosine_matched")
    assert set(found) == {f"diag/adjacent_{kind}{layer}" for kind in kinds for layer in ("", "/01", "/02")}
    assert found["diag/adjacent_cosine/02"] == pytest.approx(np.diag(alike.cosine_LHH[2]).mean(), abs=EXACT)
    straight, partners = alike.cosine_LHH[2], alike.matched(2)
    matched = (straight[0, partners[0]] + straight[1, partners[1]]) / 2
    assert found["diag/adjacent_cosine_matched/02"] == pytest.approx(matched, abs=EXACT)
    assert found["diag/adjacent_cosine_matched"] >= found["diag/adjacent_cosine"]
