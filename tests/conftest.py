"""Fixtures shared by all tests. Everything runs offline, on the CPU, seeded."""

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

SHARED_DATA_VARIABLE = "ATHLOS_SHARED_DATA"
LINES = ["To be, or not to be, that is the question:", "Whether 'tis nobler in the mind to suffer", "über Größe 言葉"]

# Before torch is imported anywhere: workers of pytest-xdist must not fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")

# torch and transformers leave a million objects, which the collector would walk through again and again: a sixth of the
# processor time of all tests.
gc.set_threshold(20_000, 10, 10)

# How long an example takes says more about the machine's other work than about the code.
settings.register_profile("athlos", deadline=None)
settings.load_profile("athlos")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file at a time to each process, for files share models, but experiments one by one: they share nothing.

    In one file's order they would be the last to end, while the other processes wait.
    """
    from xdist.scheduler import LoadFileScheduling

    class ByFileOrExperiment(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            return nodeid if "test_an_experiment_runs" in nodeid else nodeid.partition("::")[0]

    return ByFileOrExperiment(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture
def shared_data() -> Path:
    """Folder of real data files in official formats; the test is skipped, with the reason, where it is absent."""
    folder = os.environ.get(SHARED_DATA_VARIABLE, "")
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"no real data: set {SHARED_DATA_VARIABLE} to a folder with the official files")
    return Path(folder).resolve()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own for a test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ATHLOS_CACHE", str(folder))
    return folder


@pytest.fixture
def text_dir(tmp_path: Path) -> Path:
    """Three lines of text, again and again, in the files of data=shakespeare."""
    folder = tmp_path / "text"
    folder.mkdir()
    for split, repeats in (("train", 40), ("val", 4), ("test", 4)):
        (folder / f"{split}.txt").write_text("\n\n".join(LINES * repeats) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def tiny(tmp_path: Path, text_dir: Path, cache: Path) -> list[str]:
    """Overrides of a run of 12 steps in two seconds, with results and cache of its own."""
    return [
        "data=shakespeare",
        f"data.dir={text_dir}",
        f"results_dir={tmp_path / 'results'}",
        "tracking=none",
        "model.architecture.hidden_size=16",
        "model.architecture.intermediate_size=24",
        "model.architecture.num_hidden_layers=2",
        "model.architecture.num_attention_heads=2",
        "model.architecture.num_key_value_heads=1",
        "train.max_steps=12",
        "train.batch_size=4",
        "train.micro_batch_size=2",
        "train.max_length=32",
        "train.val_every=5",
        "train.val_batches=2",
        "train.checkpoint_every=4",
        "train.log_every=1",
        "eval.suites.perplexity.max_length=32",
        "eval.suites.perplexity.stride=32",
        "eval.suites.perplexity.limit_tokens=300",
        "study=tiny",
    ]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: (exit code, stdout, stderr)."""
    from athlos.cli.main import main

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
