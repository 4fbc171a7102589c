"""A run so small that the whole contract can be tested in seconds."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from athlos.cli.main import main

LINES = ["To be, or not to be, that is the question:", "Whether 'tis nobler in the mind to suffer", "über Größe 言葉"]


@pytest.fixture
def text_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    for split, repeats in (("train", 40), ("val", 4), ("test", 4)):
        (folder / f"{split}.txt").write_text("\n\n".join(LINES * repeats) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def tiny(tmp_path: Path, text_dir: Path, cache: Path) -> list[str]:
    """Overrides of a run of 12 steps in two seconds, with results and cache of its own."""
    return [
        "data=shakespeare", f"data.dir={text_dir}", f"results_dir={tmp_path / 'results'}", "tracking=none",
        "model.architecture.hidden_size=16", "model.architecture.intermediate_size=24",
        "model.architecture.num_hidden_layers=2", "model.architecture.num_attention_heads=2",
        "model.architecture.num_key_value_heads=1", "train.max_steps=12", "train.batch_size=4",
        "train.micro_batch_size=2", "train.max_length=32", "train.val_every=5", "train.val_batches=2",
        "train.checkpoint_every=4", "train.log_every=1", "eval.suites.perplexity.max_length=32",
        "eval.suites.perplexity.stride=32", "eval.suites.perplexity.limit_tokens=300", "study=tiny",
    ]  # fmt: skip


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def curve(folder: Path) -> list[dict]:
    """The recorded curve without clock values, which differ between two runs of one config."""
    lines = (folder / "events" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    clock = ("time", "train/tokens_per_s")
    return [{key: value for key, value in json.loads(line).items() if key not in clock} for line in lines]
