"""Cosines with sparse targets against dense ones, and the premise measured in a run."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.methods.ndp.test_objective import module_of
from tests.methods.ndp.test_smoothing import counts_of, dense_of
from tests.tolerances import FLOAT32

from athlos.config.compose import run_config
from athlos.errors import ConfigErrors
from athlos.methods.ndp.config import Smooth
from athlos.methods.ndp.similarity import cosines
from athlos.methods.ndp.smoothing import smoothed


@pytest.mark.parametrize(("mode", "zero_prob"), [("softmax", 0.0), ("div", 0.2)])
def test_cosines_are_those_of_dense_rows(mode: str, zero_prob: float) -> None:
    target, _ = smoothed(counts_of({1: 2, 5: 1}, {3: 1}), smooth=Smooth(mode), zero_prob=zero_prob, vocab_size=23)
    probs = torch.randn(2, 23, generator=torch.Generator().manual_seed(0)).softmax(-1)
    dense, given = dense_of(target), probs.double().numpy()
    expected = (dense * given).sum(1) / np.linalg.norm(dense, axis=1) / np.linalg.norm(given, axis=1)
    np.testing.assert_allclose(cosines(probs, target), expected, rtol=FLOAT32)


def test_the_premise_of_a_run(tmp_path: Path) -> None:
    module, assembly = module_of(tmp_path, "method.similarity_rows=10", "objective.smooth=div")
    module.before_training(context=assembly.context)
    metrics = module.after_training()[0]
    # A model without training is even over the vocabulary, so a target of several tokens is nearer than one.
    assert metrics["ndp/cosine/clm"] > metrics["ndp/cosine/one_hot"]
    for kind in ("sup", "clm", "mix"):
        ratio = metrics[f"ndp/cosine_ratio/{kind}"]
        assert metrics[f"ndp/cosine_ratio/{kind}_low"] <= ratio <= metrics[f"ndp/cosine_ratio/{kind}_high"]


def test_the_premise_needs_targets() -> None:
    with pytest.raises(ConfigErrors, match=r"method.similarity_rows: got 3, which needs objective=ndp"):
        run_config(["experiment=ndp/lab", "objective=next_token", "method.similarity_rows=3"])
