"""The probe against loops over saved activations; invariances; what it must never do: count padding, keep hooks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.conftest import FAMILIES, VOCAB, Build
from tests.models.probe_reference import count_positive
from tests.tolerances import EXACT, FLOAT32
from transformers.activations import ACT2FN

from athlos.errors import DataError, SurgeryError
from athlos.models.neuron_counts import NeuronCounts, load_blocks, merge, save_blocks
from athlos.models.probe import ActivationProbe
from athlos.models.sites import backbone

TEXTS = {"en": [[1, 5, 7, 9, 3], [4, 8], [6]], "de": [[11, 12, 13], [14, 15, 16, 17, 18, 19]]}
SKIPPED = 1
"""Positions at the start of each text that are not counted, as a BOS or a template would be."""


def batch_of(texts: list[list[int]], *, left: bool = False, extra: int = 0) -> tuple[dict[str, torch.Tensor], Any]:
    """Padded batch and the mask of what counts."""
    width = max(map(len, texts)) + extra
    ids, real, counted = [], [], []
    for text in texts:
        marks = [0] * SKIPPED + [1] * (len(text) - SKIPPED)
        for rows, values in ((ids, text), (real, [1] * len(text)), (counted, marks)):
            filler = [0] * (width - len(text))
            rows.append(filler + values if left else values + filler)
    mask_BT = torch.tensor(real)
    positions = (mask_BT.cumsum(1) - 1).clamp_min(0)
    batch = {"input_ids": torch.tensor(ids), "attention_mask": mask_BT, "position_ids": positions}
    return batch, torch.tensor(counted).bool()


def probed(model: Any, texts: dict[str, list[list[int]]], *, size: int, **padding: Any) -> NeuronCounts:
    with ActivationProbe(model, languages=list(TEXTS)) as probe:
        for language, rows in texts.items():
            for first in range(0, len(rows), size):
                probe.add(language, *batch_of(rows[first : first + size], **padding))
    return probe.take()


def same(left: NeuronCounts, right: NeuronCounts) -> None:
    np.testing.assert_array_equal(left.positive, right.positive)
    np.testing.assert_array_equal(left.tokens, right.tokens)
    np.testing.assert_array_equal(left.texts, right.texts)
    np.testing.assert_allclose(left.text_shares, right.text_shares, atol=EXACT)
    np.testing.assert_allclose(left.sums, right.sums, atol=FLOAT32)


def saved_gates(model: Any, texts: list[list[int]]) -> list[list[list[list[float]]]]:
    """[text][layer][token][neuron] from one pass a text, read off the FFN's input by hand."""
    found = backbone(model)
    result = []
    for text in texts:
        seen: list[Any] = []
        keep = seen.append
        handles = [
            layer.ffn.register_forward_pre_hook(lambda _, arguments, keep=keep: keep(arguments[0][0]))
            for layer in found.layers
        ]
        with torch.no_grad():
            model.base_model(input_ids=torch.tensor([text]))
        for handle in handles:
            handle.remove()
        rows = []
        for layer, inputs in zip(found.layers, seen, strict=True):
            site = layer.sites["gate"]
            bias = 0 if site.module.bias is None else site.module.bias[site.rows]
            rows.append((inputs @ site.weight[site.rows].T + bias).tolist())
        result.append(rows)
    return result


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_equal_loops_over_saved_activations(family: str, tiny: Build) -> None:
    model = tiny(family)
    counts = probed(model, TEXTS, size=2)
    gates = {language: saved_gates(model, texts) for language, texts in TEXTS.items()}
    masks = {
        language: [[at >= SKIPPED for at in range(len(text))] for text in texts] for language, texts in TEXTS.items()
    }
    wanted = count_positive(gates, masks)
    for layer in range(counts.num_layers):
        for at, language in enumerate(TEXTS):
            for neuron in range(counts.positive.shape[2]):
                assert counts.positive[layer, at, neuron] == wanted[layer, language, neuron]
    assert counts.positive.sum() > 0
    assert counts.tokens.tolist() == [5, 7]
    assert counts.texts.tolist() == [2, 2]  # the one-token text has no counted token
    act = ACT2FN["silu" if "gemma" not in family else "gelu_pytorch_tanh"]
    for at, language in enumerate(TEXTS):
        total = np.zeros_like(counts.sums[:, at])
        shares = np.zeros_like(total)
        for text in gates[language]:
            rows = torch.tensor(text)[:, SKIPPED:]
            total += act(rows).sum(1).numpy()
            if rows.shape[1]:
                shares += (rows > 0).double().mean(1).numpy()
        np.testing.assert_allclose(counts.sums[:, at], total, atol=10 * FLOAT32)
        np.testing.assert_allclose(counts.text_shares[:, at], shares, atol=EXACT)


@pytest.mark.parametrize("family", ["llama", "gemma3", "phi3", "llava"])
def test_counts_do_not_depend_on_order_size_or_padding(family: str, tiny: Build) -> None:
    model = tiny(family)
    one_by_one = probed(model, TEXTS, size=1)
    same(one_by_one, probed(model, TEXTS, size=3))
    same(one_by_one, probed(model, {name: texts[::-1] for name, texts in TEXTS.items()}, size=2, extra=4))
    same(one_by_one, probed(model, TEXTS, size=2, left=True, extra=3))


def test_unmasked_padding_would_change_the_counts(tiny: Build) -> None:
    """Sabotage: counting all positions."""
    model = tiny("llama")
    batch, mask_BT = batch_of(TEXTS["en"])
    with ActivationProbe(model, languages=["en"]) as probe:
        probe.add("en", batch, mask_BT)
        right = probe.take()
        probe.add("en", batch, torch.ones_like(mask_BT))
        wrong = probe.take()
    assert (wrong.share_positive() != right.share_positive()).any()


def test_an_all_masked_batch_counts_nothing(tiny: Build) -> None:
    batch, mask_BT = batch_of(TEXTS["en"])
    with ActivationProbe(tiny("llama"), languages=["en"]) as probe:
        probe.add("en", batch, torch.zeros_like(mask_BT))
    counts = probe.take()
    assert counts.tokens.tolist() == counts.texts.tolist() == [0]
    assert not counts.positive.any()
    with pytest.raises(DataError, match="language 'en' has no counted token"):
        counts.share_positive()


def hooks_of(model: Any) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_hooks_go_also_after_an_error_and_half_a_batch_is_not_counted(tiny: Build) -> None:
    model = tiny("llama")
    batch, mask_BT = batch_of(TEXTS["en"])
    before = hooks_of(model)

    def fail(*_: Any) -> None:
        raise RuntimeError("in the last layer")

    probe = ActivationProbe(model, languages=["en"])

    def read_twice() -> None:
        with probe:
            assert hooks_of(model) == before + 3
            probe.add("en", batch, mask_BT)
            handle = backbone(model).layers[-1].attention.register_forward_pre_hook(fail)
            try:
                probe.add("en", batch, mask_BT)
            finally:
                handle.remove()

    with pytest.raises(RuntimeError, match="in the last layer"):
        read_twice()
    whole = probe.take()
    assert hooks_of(model) == before
    assert whole.tokens.tolist() == [5]
    assert not probe.take().positive.any()
    with pytest.raises(SurgeryError, match="outside of the `with` block"):
        probe.add("en", batch, mask_BT)


def test_the_model_itself_is_left_as_it_was(tiny: Build) -> None:
    model = tiny("gemma3")
    batch, mask_BT = batch_of(TEXTS["de"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        wanted = model(**batch).logits
    with ActivationProbe(model, languages=["de"]) as probe:
        probe.add("de", batch, mask_BT)
        with torch.no_grad():
            assert torch.equal(model(**batch).logits, wanted)  # and a pass of somebody else is not counted
    assert probe.take().tokens.tolist() == [7]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_bad_languages_and_masks_are_refused(tiny: Build) -> None:
    model = tiny("llama")
    batch, mask_BT = batch_of(TEXTS["en"])
    with pytest.raises(DataError, match="each once"):
        ActivationProbe(model, languages=["en", "en"])
    with ActivationProbe(model, languages=["en"]) as probe:
        with pytest.raises(DataError, match="'fr' is none of en"):
            probe.add("fr", batch, mask_BT)
        with pytest.raises(DataError, match="made before picture placeholders were expanded"):
            probe.add("en", batch, mask_BT[:, 1:])


def test_pictures_positions_stay_out_of_the_text_counts(tiny: Build) -> None:
    """The text decoder of a vision-language model: the same text with another picture gives other gates, no crash."""
    model = tiny("llava")
    ids = torch.tensor([[VOCAB - 1] * 4 + [5, 6, 7]])  # four patches of an 8 x 8 picture
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": torch.randn(1, 3, 8, 8)}
    with ActivationProbe(model, languages=["en"]) as probe:
        probe.add("en", inputs, ids != VOCAB - 1)
    counts = probe.take()
    assert counts.tokens.tolist() == [3]
    assert counts.positive.shape == (3, 1, 36)


@pytest.mark.parametrize(("num_blocks", "seed"), [(1, 0), (4, 1)])
def test_saved_blocks_come_back_and_merge_adds(num_blocks: int, seed: int, tmp_path: Path) -> None:
    generator = np.random.default_rng(seed)
    blocks = [
        NeuronCounts(
            languages=("en", "日本"),
            tokens=generator.integers(1, 9, 2),
            positive=generator.integers(0, 5, (2, 2, 3)),
            sums=generator.normal(size=(2, 2, 3)),
            texts=generator.integers(1, 4, 2),
            text_shares=generator.random((2, 2, 3)),
        )
        for _ in range(num_blocks)
    ]
    path = tmp_path / "counts.npz"
    save_blocks(path, blocks)
    loaded = load_blocks(path)
    assert len(loaded) == len(blocks)
    for left, right in zip(loaded, blocks, strict=True):
        same(left, right)
    whole = merge(loaded)
    np.testing.assert_array_equal(whole.positive, sum(block.positive for block in blocks))
    np.testing.assert_allclose(whole.mean() * whole.tokens[None, :, None], whole.sums, atol=EXACT)
    assert whole.subset(["日本"]).tokens.tolist() == [whole.tokens[1]]


def test_counts_of_other_languages_do_not_merge(tmp_path: Path) -> None:
    one = NeuronCounts(
        languages=("en",),
        tokens=np.ones(1, int),
        positive=np.ones((1, 1, 1), int),
        sums=np.ones((1, 1, 1)),
        texts=np.ones(1, int),
        text_shares=np.ones((1, 1, 1)),
    )
    with pytest.raises(DataError, match="do not fit together"):
        merge([one, NeuronCounts(**{**vars(one), "languages": ("de",)})])
    with pytest.raises(DataError, match="'de' has no text"):
        one.index("de")
    np.savez(tmp_path / "other.npz", tokens=np.ones(1))
    with pytest.raises(DataError, match="no array 'languages'"):
        load_blocks(tmp_path / "other.npz")
