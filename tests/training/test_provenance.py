"""Where numbers come from: the peak of a run is its own, not that of the sweep it is part of."""

import sys

import pytest
import torch

from athlos.runs.provenance import peak_mb, reset_peak


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can begin the peak of a process anew")
def test_the_peak_of_a_run_does_not_hold_that_of_the_run_before():
    reset_peak()
    before = peak_mb()
    torch.ones(64 * 2**20)  # 256 MiB, gone at once
    assert peak_mb() - before > 200
    reset_peak()
    assert peak_mb() - before < 100
