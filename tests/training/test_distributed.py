"""Two processes on the CPU give the curve of one: DDP and FSDP2, over gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.run_record import curve

pytestmark = pytest.mark.slow


def distributed(arguments: list[str], strategy: str, folder: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-m", "athlos.cli.main", "run", *arguments, f"hardware={strategy}",
         "hardware.accelerator=cpu", f"run_dir={folder}"],
        capture_output=True, text=True, timeout=250, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(folder)]
    return folder


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_give_the_curve_of_one(tiny, run, tmp_path, strategy):
    shared = [*tiny, "train.batch_size=8", "train.batching=bucket", "train.max_length=64"]
    _, out, _ = run("run", *shared)
    one = Path(out.splitlines()[-1])
    two = distributed(shared, strategy, tmp_path / strategy)
    for left, right in zip(curve(one), curve(two), strict=True):
        assert left == pytest.approx(right, rel=1e-3)
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (one, two)]
    assert metrics[0]["test/ppl"] == pytest.approx(metrics[1]["test/ppl"], rel=1e-3)
    assert metrics[0]["cost/flops"] == pytest.approx(metrics[1]["cost/flops"], rel=0.05)
