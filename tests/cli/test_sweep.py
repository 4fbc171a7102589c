"""Multirun: checked as a whole, resumed job by job, every failed job named."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def folders(results: Path) -> list[Path]:
    return sorted(results.glob("[!.]*/*"))


@pytest.mark.slow
def test_a_sweep_makes_skips_and_redoes_runs(tiny, run, tmp_path):
    command = ["run", "-m", *tiny, "seed=1,2,3", "train.max_steps=3"]
    code, out, _ = run(*command)
    made = folders(tmp_path / "results")
    assert code == 0
    assert len(made) == 3
    assert [line.split()[0] for line in out.splitlines()] == ["finished"] * 3
    stamps = [(folder / "metrics.json").stat().st_mtime_ns for folder in made]

    code, out, _ = run(*command)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["skipped"] * 3
    assert [(folder / "metrics.json").stat().st_mtime_ns for folder in made] == stamps

    shutil.rmtree(made[1] / "checkpoints")
    code, out, _ = run(*command)
    assert code == 0
    assert sorted(line.split()[0] for line in out.splitlines()) == ["finished", "skipped", "skipped"]
    changed = [
        (folder / "metrics.json").stat().st_mtime_ns != stamp for folder, stamp in zip(made, stamps, strict=True)
    ]
    assert changed == [False, True, False]


def test_a_mistake_in_the_last_job_stops_the_sweep_before_the_first(tiny, run, tmp_path):
    code, _, err = run("run", "-m", *tiny, "train.lr=0.1,0.2,-1")
    assert code == 2
    assert "train.lr=-1] train.lr: got -1.0, expected a number > 0" in err
    assert not (tmp_path / "results").exists()


def test_a_failed_job_stops_no_other_and_is_named(tiny, run, tmp_path):
    code, out, err = run("run", "-m", *tiny, "train.max_steps=3", "train.clip_norm=0", "train.lr=1e30,0.01")
    assert code == 5
    assert sorted(line.split()[0] for line in out.splitlines()) == ["failed", "finished"]
    [failed] = [line for line in out.splitlines() if line.startswith("failed")]
    assert "NumericalError" in failed
    assert err.count("error:") == 1
    states = {json.loads((folder / "status.json").read_text())["state"] for folder in folders(tmp_path / "results")}
    assert states == {"failed", "finished"}


@pytest.mark.slow
def test_jobs_share_stages_and_each_has_its_own_wandb_run(tiny, run, tmp_path):
    arguments = [item for item in tiny if item != "tracking=none"]
    code, _, _ = run("run", "-m", *arguments, "tracking=wandb", "seed=1,2,3", "train.max_steps=3", "eval.base=true")
    assert code == 0
    made = folders(tmp_path / "results")
    runs = [path for folder in made for path in (folder / "events").rglob("*.wandb")]
    assert len(runs) == len({path.name for path in runs}) == 3
    encodes = [
        [
            stage["reused"]
            for stage in json.loads((folder / "provenance.json").read_text())["stages"]
            if stage["name"] == "encode"
        ]
        for folder in made
    ]
    assert sorted(encodes) == [[False, False], [True, True], [True, True]]


def test_a_sweep_over_seeds_measures_its_base_once(tiny, run, tmp_path, text_dir):
    """Weights from a folder are the same for every seed, and perplexity does not draw: one stage product."""
    _, out, _ = run("run", *tiny)
    exported = tmp_path / "exported"
    run("export", out.splitlines()[-1], "--out", str(exported))
    command = [*tiny, f"model.source=dir:{exported}", "model.tokenizer.kind=source", "eval.base=true", "study=seeds"]
    code, _, _ = run("run", "-m", *command, "train.max_steps=2", "seed=1,2")
    assert code == 0
    stages = [
        {stage["name"]: stage["reused"] for stage in json.loads(path.read_text())["stages"]}
        for path in (tmp_path / "results" / "seeds").glob("*/provenance.json")
    ]
    assert sorted(stage["base_evaluation"] for stage in stages) == [False, True]


def test_a_dry_sweep_tells_what_each_job_needs_and_runs_none(tiny, run, tmp_path):
    code, out, err = run("run", "-m", *tiny, "seed=1,2", "dry_run=true")
    assert code == 0, err
    jobs = [line for line in out.splitlines() if line.startswith("[")]
    assert ["seed=1" in jobs[0], "seed=2" in jobs[1]] == [True, True]
    assert out.count("cost/trainable_params") == 2
    assert not (tmp_path / "results").exists()

    code, _, err = run("run", "-m", *tiny, "seed=1,2", "dry_run=true,false")
    assert code == 2
    assert "dry_run: got true for some jobs" in err

    code, _, err = run("run", "-m", "--cfg", *tiny, "seed=1,2")
    assert code == 2
    assert "--cfg: shows the config of one run" in err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("launcher", "told"),
    [("submitit_slurm", "srun"), ("joblib hydra.launcher.n_jobs=many", "many")],
)
def test_a_launcher_that_cannot_start_is_told_in_one_line(tiny, launcher: str, told: str):
    # In a process of its own: launchers change the streams of theirs.
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "athlos.cli.main",
            "run",
            "-m",
            *tiny,
            "train.max_steps=0,1",
            *f"hydra/launcher={launcher}".split(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PATH": ""},
    )
    assert (done.returncode, done.stderr.count("error:")) == (2, 1)
    assert "hydra/launcher=" in done.stderr or "hydra.launcher" in done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
