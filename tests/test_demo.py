"""The sweeps that `make demo-methods` runs: one a method, each on the experiment that its file names."""

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from athlos.config.catalogue import METHODS
from athlos.config.compose import run_config, sweep_configs

ROOT = Path(__file__).resolve().parent.parent
SWEEPS = sorted((ROOT / "conf" / "sweep" / "demo").glob("*.yaml"))
MAX_JOBS = 8
"""More would take more than a few minutes."""


def test_there_are_sweeps_of_methods():
    assert len(SWEEPS) >= 2
    assert {path.stem for path in SWEEPS} <= {method.slug for method in METHODS}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_needs_nothing_but_the_lab(path: Path):
    command = re.search(r"athlos run -m experiment=([\w/]+) sweep=demo/(\w+)", path.read_text(encoding="utf-8"))
    assert command, "the sweep names the command that `make demo-methods` takes from it"
    experiment, sweep = command.groups()
    assert sweep == path.stem
    study = run_config([f"experiment={experiment}"]).study
    configs = sweep_configs([f"experiment={experiment}", f"sweep=demo/{sweep}"])
    assert 2 <= len(configs) <= MAX_JOBS
    for config in configs:
        assert config.study == study
        assert config.data.dir is None
        assert not config.model.source.startswith(("hub:", "wheel:", "dir:"))


def stub(folder: Path, body: str) -> None:
    """A checkout's `.venv` whose `athlos` notes what it was asked for."""
    binary = folder / "bin" / "athlos"
    binary.parent.mkdir(parents=True)
    binary.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\n{body}\n')
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    stamp = folder / ".setup-done"
    stamp.touch()
    os.utime(stamp, (2**31, 2**31))


@pytest.mark.parametrize(
    ("body", "code", "sweeps", "reports"),
    [
        ("exit 0", 0, len(SWEEPS), 1),
        ('case "$*" in *demo/lisa*) exit 5;; esac', 2, len(SWEEPS), 1),
        ("exit 130", 2, 1, 0),
    ],
    ids=["all well", "one fails", "interrupted"],
)
def test_the_make_target_runs_each_of_them(tmp_path: Path, body: str, code: int, sweeps: int, reports: int):
    stub(tmp_path / "venv", body)
    done = subprocess.run(
        ["make", "demo-methods", f"VENV={tmp_path / 'venv'}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    asked = (tmp_path / "venv" / "asked").read_text().splitlines()
    assert done.returncode == code, done.stderr
    assert [line.split()[:4] for line in asked if line.startswith("run ")] == [
        ["run", "-m", f"experiment={path.stem}/lab", f"sweep=demo/{path.stem}"] for path in SWEEPS[:sweeps]
    ]
    assert sum(line.startswith("report ") for line in asked) == reports
    if code == 2 and sweeps > 1:
        assert "error: not finished: lisa; the same command goes on" in done.stderr
