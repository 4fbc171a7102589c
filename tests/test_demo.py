"""The sweeps that `make demo-methods` runs: one a method, each on the experiment that its file names."""

import os
import re
import signal
import stat
import subprocess
import time
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


@pytest.mark.parametrize(("body", "failed"), [("exit 0", ""), ('case "$*" in *demo/lisa*) exit 5;; esac', "lisa")])
def test_the_make_target_runs_each_of_them(tmp_path: Path, body: str, failed: str):
    stub(tmp_path / "venv", body)
    done = subprocess.run(
        ["make", "demo-methods", f"VENV={tmp_path / 'venv'}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    asked = (tmp_path / "venv" / "asked").read_text().splitlines()
    assert sorted(line.split()[:4] for line in asked if line.startswith("run ")) == [
        ["run", "-m", f"experiment={path.stem}/lab", f"sweep=demo/{path.stem}"] for path in SWEEPS
    ]
    assert asked[-1].startswith("report "), "after all of them"
    assert done.returncode == (2 if failed else 0), done.stderr
    if failed:
        assert f"demo-{failed}] Error 5" in done.stderr
        assert "error: not all is finished; the same command goes on" in done.stderr


def test_an_interrupted_make_target_begins_no_other_and_reports_nothing(tmp_path: Path):
    stub(tmp_path / "venv", "sleep 60")
    with subprocess.Popen(
        ["make", "demo-methods", "WORKERS=2", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a background has it ignored
    ) as made:
        asked = tmp_path / "venv" / "asked"
        end = time.monotonic() + 30
        while time.monotonic() < end and (not asked.exists() or len(asked.read_text().splitlines()) < 2):
            time.sleep(0.05)
        os.killpg(made.pid, signal.SIGINT)
        assert made.wait(timeout=30) != 0
    assert [line.split()[0] for line in asked.read_text().splitlines()] == ["run", "run"]
