"""What the selections by probe share: choices that measure nothing, counts by layer and language, the probe."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.models.conftest import Build
from tests.tolerances import EXACT

from athlos.methods.plast.config import PlastSelectionConfig
from athlos.methods.plast.selection import PlastSelection
from athlos.methods.slam.config import Position, SlamConfig
from athlos.methods.slam.selection import SlamSelection
from athlos.models.config import LapeConfig, Selector, Trained
from athlos.models.neuron_counts import NeuronCounts
from athlos.models.probed_selection import by_layer_and_language, count_blocks
from athlos.parts import PartContext

PLACES = {Selector.all: [0, 1, 2, 3, 4, 5], Selector.middle: [2, 3], Selector.top: [4, 5], Selector.manual: [1, 5]}
LAPE = LapeConfig(percentile=50.0, entropy_share=0.5, living_only=False)


def counts_of(shares_LXJ: list[list[list[float]]]) -> NeuronCounts:
    """Of 100 tokens a language."""
    positive_LXJ = np.round(np.array(shares_LXJ) * 100).astype(np.int64)
    languages = positive_LXJ.shape[1]
    hundred, nothing = np.full(languages, 100), np.zeros(positive_LXJ.shape)
    return NeuronCounts(
        languages=("de", "en", "zh")[:languages],
        tokens=hundred,
        positive=positive_LXJ,
        sums=nothing,
        texts=hundred,
        text_shares=nothing,
    )


@pytest.mark.parametrize("selector", PLACES)
def test_layers_that_are_named_are_those_of_every_selection(selector: Selector) -> None:
    named: dict[str, Any] = {"selector": selector, "k": 2, "layers": [-1, 1] if selector is Selector.manual else []}
    for selection in (SlamSelection(SlamConfig(**named)), PlastSelection(PlastSelectionConfig(**named))):
        assert selection.unmeasured(6, seed=1) == PLACES[selector]


def test_random_layers_are_those_of_the_seed_in_every_selection() -> None:
    named: dict[str, Any] = {"selector": Selector.random, "k": 3}
    slam, plast = SlamSelection(SlamConfig(**named)), PlastSelection(PlastSelectionConfig(**named))
    drawn = [slam.unmeasured(30, seed=seed) for seed in range(5)]
    assert drawn == [plast.unmeasured(30, seed=seed) for seed in range(5)]
    assert len({tuple(layers) for layers in drawn}) == 5


def test_a_dry_run_takes_as_many_layers_as_would_be_chosen(tiny: Build, context: PartContext) -> None:
    gap = SlamConfig(selector=Selector.activation_gap, k=0, k_max=2, position=Position.auto, parts=Trained.up_down)
    slam = SlamSelection(gap)
    assert [slam.unmeasured(count, seed=1) for count in (3, 12)] == [[0], [0, 1]]
    gap.position = Position.high
    assert slam.unmeasured(12, seed=1) == [10, 11]
    chosen = slam.choose(tiny("llama"), context=context)
    assert (slam.choice.layers, chosen.words) == ([2], "activation_gap: layers 2 (up, down)")


SHARES = [[[0.9, 0.2, 0.5], [0.1, 0.2, 0.5], [0.1, 0.8, 0.5]], [[0.3, 0.0, 0.2], [0.3, 0.0, 0.2], [0.3, 0.6, 0.4]]]


@pytest.mark.parametrize(
    ("selector", "wanted_LX"),
    [
        # By hand: squared differences to `en`, the mean over three neurons; nothing for `en` itself.
        (Selector.activation_gap, [[0.64 / 3, 0, 0.36 / 3], [0, 0, (0.36 + 0.04) / 3]]),
        # A third of six neurons, the two of highest share: `en` takes 0.5 and 0.3, what it takes is no other's.
        (Selector.top_active, [[1, 0, 1], [0, 0, 1]]),
        # Above the median 0.3, lowest entropy first: neuron 1 of layer 1, then 0 and 1 of layer 0.
        (Selector.specific_neurons, [[1, 0, 1], [0, 0, 1]]),
    ],
)
def test_what_is_counted_by_layer_and_language(selector: Selector, wanted_LX: list[list[float]]) -> None:
    counts = counts_of(SHARES)
    config = PlastSelectionConfig(selector=selector, top_r=1 / 3, lape=LAPE)
    found_LX, num_dead = by_layer_and_language(config, counts, values_LXJ=counts.share_positive(), reference=1)
    np.testing.assert_allclose(found_LX, wanted_LX, rtol=0, atol=EXACT)
    assert num_dead == 0


def test_blocks_are_counted_apart_and_the_model_keeps_its_mode(tiny: Build) -> None:
    model = tiny("llama").train()
    ids = torch.tensor([[1, 5, 7, 9], [3, 4, 8, 2]])
    rows = [({"input_ids": ids[[at]]}, torch.tensor([[True] * (at + 1) + [False] * (3 - at)])) for at in (0, 1)]
    blocks = count_blocks(model, [{"en": rows[:1], "de": rows}, {"en": rows, "de": []}], languages=["en", "de"])
    assert [block.tokens.tolist() for block in blocks] == [[1, 3], [3, 0]]
    assert model.training
    without = count_blocks(model, [{"en": rows, "de": rows}], languages=["en", "de"], with_sums=False)
    assert not without[0].sums.any()
    assert blocks[0].sums.any()
