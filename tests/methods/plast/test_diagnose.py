"""Attention to pictures and masked neurons, against loops and by their effect."""

import numpy as np
import pytest
import torch
from tests.methods.plast.tiny import opened
from tests.tolerances import EXACT, FLOAT32

from athlos.methods.plast.diagnose import (
    answer_log_prob,
    image_attention,
    mask_study,
    picture_mass,
    random_like,
    without_neurons,
)
from athlos.methods.plast.reading import parallel_questions, readings
from athlos.models.sites import backbone


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    context = opened(tmp_path_factory.mktemp("cache"))
    questions = parallel_questions(context, split="val", languages=["latn", "thai"], items=3)
    return context.start.model, context.tokenizer, questions


def test_mass_on_the_picture_equals_the_loops():
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(2, 3, 5, 5, generator=generator).softmax(-1)
    is_text = torch.tensor([[0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]).bool()
    is_image = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 1, 0, 0]]).bool()
    wanted = 0.0
    for row in range(2):
        for query in range(5):
            for head in range(3):
                for key in range(5):
                    if is_text[row, query] and is_image[row, key]:
                        wanted += float(weights[row, head, query, key].double()) / 3
    assert picture_mass(weights, is_text, is_image) == pytest.approx(wanted, abs=EXACT)


def test_attention_is_a_share_and_leaves_the_kernel_as_it_was(run):
    model, tokenizer, questions = run
    before = model.config._attn_implementation
    found = image_attention(model, tokenizer, questions["thai"])
    assert len(found) == 6
    assert all(0 < value < 1 for value in found)
    assert model.config._attn_implementation == before == "sdpa"


def test_neurons_are_off_inside_the_block_only(run):
    model, tokenizer, questions = run
    off = np.zeros((6, 256), dtype=bool)
    off[2] = True
    one = next(readings(model, tokenizer, questions["latn"], batch_size=2))
    seen: list[torch.Tensor] = []
    ffn = backbone(model).layers[2].ffn
    handle = ffn.register_forward_hook(lambda module, given, output: seen.append(output))
    with torch.no_grad():
        with without_neurons(model, off):
            model.base_model(**one.inputs(model), use_cache=False)
        model.base_model(**one.inputs(model), use_cache=False)
    handle.remove()
    assert not seen[0].any()
    assert seen[1].any()


def test_log_probability_of_answers_is_that_of_the_model(run):
    model, tokenizer, questions = run
    total = count = 0
    with torch.no_grad():
        for record in questions["latn"]:
            one = next(readings(model, tokenizer, [record], batch_size=1, with_answers=True))
            logits = model(**one.inputs(model)).logits.log_softmax(-1)[0]
            for place, label in enumerate(one.batch["labels"][0].tolist()):
                if label != -100:
                    total += float(logits[place - 1, label])
                    count += 1
    assert answer_log_prob(model, tokenizer, questions["latn"]) == pytest.approx(total / count, abs=FLOAT32)


def test_a_study_masks_each_language_and_a_control(run):
    model, tokenizer, questions = run
    rng = np.random.default_rng(0)
    is_specific = rng.random((6, 2, 256)) < 0.1
    drops = mask_study(model, tokenizer, questions, is_specific, languages=["latn", "thai"], seed=1)
    assert set(drops) == {f"{off}/{name}" for off in ("latn", "thai", "random") for name in ("latn", "thai")}
    assert any(drops.values())
    nothing = mask_study(model, tokenizer, questions, np.zeros_like(is_specific), languages=["latn", "thai"], seed=1)
    assert set(nothing.values()) == {0.0}
    control = random_like(is_specific, seed=1)
    assert control.sum(1).tolist() == [round(float(count)) for count in is_specific.sum(-1).mean(-1)]


def test_each_language_loses_its_own_neurons(run):
    """A study in which only the second language has neurons: masking the first changes nothing, masking the second what
    taking exactly these neurons away does."""
    model, tokenizer, questions = run
    is_specific = np.zeros((6, 2, 256), dtype=bool)
    is_specific[:, 1] = np.random.default_rng(0).random((6, 256)) < 0.1
    drops = mask_study(model, tokenizer, questions, is_specific, languages=["latn", "thai"], seed=1)
    for name, records in questions.items():
        assert drops[f"latn/{name}"] == 0
        plain = answer_log_prob(model, tokenizer, records)
        with without_neurons(model, is_specific[:, 1]):
            masked = answer_log_prob(model, tokenizer, records)
        assert drops[f"thai/{name}"] == pytest.approx(plain - masked, abs=EXACT)
        assert drops[f"thai/{name}"] != 0
