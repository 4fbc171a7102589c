"""Phases: killed and resumed, shared by a sweep, untouched by evaluation, trained once by two processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.runs.rounds import RUN, STEP_SECONDS, RoundsConfig, Samples, rounds_run

from athlos.config.compose import run_config
from athlos.config.schema import MethodConfig, Phase, RunConfig
from athlos.errors import ConfigError
from athlos.parts import Made, PartContext
from athlos.runs import chain
from athlos.runs.execute import execute
from athlos.runs.watcher import Watcher
from athlos.stages import Product

CLOCKS = ("_s", "peak_mb", "_per_s")
"""Ends of the names of metrics that tell of the machine."""
NAMES = ["warmup", "round-1", "round-2"]
STEPS = [6, 4, 4]


class Told(Watcher):
    """Notes which phases were trained and which were found ready."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, bool]] = []

    def trained(self, phase: str, product: Product) -> None:
        self.phases.append((phase, product.reused))


def done(run: RunConfig) -> tuple[Path, list[tuple[str, bool]]]:
    told = Told()
    return execute(run, watcher=told), told.phases


def metrics_of(folder: Path) -> dict[str, float]:
    found = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in found.items() if not name.endswith(CLOCKS)}


def curve_of(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "events" / "metrics.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if name != "time" and not name.endswith(CLOCKS)}
        for line in lines
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place where a run of three phases was done without interruption; its folder."""
    place = tmp_path_factory.mktemp("whole")
    folder, phases = done(rounds_run(place))
    assert phases == [(name, False) for name in NAMES]
    return folder


def test_metrics_stand_by_phase_and_costs_add_up(whole: Path) -> None:
    metrics = json.loads((whole / "metrics.json").read_text())
    for name in NAMES:
        assert metrics[f"cost/{name}/flops"] > 0
        assert f"val/{name}/loss" in metrics
    for total in ("flops", "tokens", "train_s"):
        assert metrics[f"cost/{total}"] == pytest.approx(sum(metrics[f"cost/{name}/{total}"] for name in NAMES))
    assert metrics["val/loss"] == metrics["val/round-2/loss"] != metrics["val/warmup/loss"]
    assert "test/acc@warmup" in metrics
    assert "test/acc@round-1" not in metrics
    assert "data/round-1/characters" in metrics
    provenance = json.loads((whole / "provenance.json").read_text())
    assert [(phase["name"], phase["steps"]) for phase in provenance["phases"]] == list(zip(NAMES, STEPS, strict=True))


def test_the_curve_goes_on_from_phase_to_phase(whole: Path) -> None:
    losses = [event for event in curve_of(whole) if any(name.endswith("/loss") for name in event)]
    steps = [event["step"] for event in losses if any(name.startswith("train/") for name in event)]
    assert steps == list(range(1, sum(STEPS) + 1))
    named = [name for event in losses for name in event if name.startswith("train/") and name.endswith("/loss")]
    wanted = [f"train/{name}/loss" for name, steps in zip(NAMES, STEPS, strict=True) for _ in range(steps)]
    assert named == wanted


@pytest.fixture
def slow_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STEP_SECONDS, "0.15")


def start(place: Path, *overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.runs.rounds", str(place), *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
        cwd=Path(__file__).resolve().parents[2],
    )


def wait_until_step(place: Path, *, phase: int, step: int, process: subprocess.Popen[str]) -> None:
    """Until the training of a phase, counted from 0, has done some steps."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        finished = list(place.glob("cache/training/*/stage.json"))
        curves = list(place.glob("cache/training/*.building/events/metrics.jsonl"))
        if len(finished) == phase and curves and f'"step": {step},' in curves[0].read_text():
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    raise AssertionError(f"phase {phase} did not reach step {step}")


@pytest.mark.slow
@pytest.mark.parametrize("killed_in", [[0], [1], [2], [0, 1, 2]], ids=lambda phases: "-".join(map(str, phases)))
def test_a_run_killed_in_its_phases_ends_like_one_that_was_not(
    whole: Path, tmp_path: Path, slow_steps: None, killed_in: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for phase in killed_in:
        process = start(tmp_path)
        wait_until_step(tmp_path, phase=phase, step=3, process=process)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    monkeypatch.setenv(STEP_SECONDS, "0")
    folder, phases = done(rounds_run(tmp_path))
    assert phases == [(name, place < killed_in[-1]) for place, name in enumerate(NAMES)]
    assert metrics_of(folder) == metrics_of(whole)
    assert curve_of(folder) == curve_of(whole)
    assert not list(tmp_path.glob("cache/training/*.building"))


def test_a_sweep_over_the_last_phase_trains_the_first_ones_once(whole: Path) -> None:
    place = whole.parents[2]
    folder, phases = done(rounds_run(place, last_lr=3e-3))
    assert phases == [("warmup", True), ("round-1", True), ("round-2", False)]
    assert metrics_of(folder)["val/round-1/loss"] == metrics_of(whole)["val/round-1/loss"]
    assert metrics_of(folder)["val/loss"] != metrics_of(whole)["val/loss"]
    assert len(curve_of(folder)) == len(curve_of(whole))


@pytest.mark.parametrize(
    "change",
    [
        ["decoding.max_new_tokens=4"],
        ["decoding=sampling", "decoding.max_new_tokens=6"],
        ["engine=transformers"],
        ["data.limit_test=1"],
        ["tags=[a]"],
        ["eval.batch_size=3"],
        ["eval.bootstrap=10"],
    ],
    ids=" ".join,
)
def test_what_only_evaluation_reads_trains_nothing(whole: Path, change: list[str]) -> None:
    run = rounds_run(whole.parents[2], *change, f"run_dir={whole.parent / content_free_name(change)}")
    _, phases = done(run)
    assert phases == [(name, True) for name in NAMES]


def content_free_name(change: list[str]) -> str:
    return "-".join(character for character in " ".join(change) if character.isalnum())


@pytest.mark.parametrize(
    "change",
    [
        "seed=2",
        "train.lr=0.5",
        "objective=label_smoothing",
        "data.num_train=25",
        "tuning=lora",
        "model.dtype=bfloat16",
        "train.max_length=150",
        "hardware.precision=bf16-mixed",
        "model.architecture.hidden_size=32",
    ],
)
def test_what_changes_the_weights_changes_the_key(whole: Path, change: str) -> None:
    from athlos.runs.train import Start, training_stage

    def key(*overrides: str) -> str:
        run = run_config([*RUN, *overrides])
        return training_stage(run, start=Start(model=run.model, key="x"), build=lambda folder: None).key

    assert key(change) != key()


@pytest.mark.slow
def test_two_processes_that_want_one_training_wait_for_each_other(
    whole: Path, tmp_path: Path, slow_steps: None
) -> None:
    first = start(tmp_path, "decoding.max_new_tokens=6")
    wait_until_step(tmp_path, phase=0, step=1, process=first)
    second = start(tmp_path, "decoding.max_new_tokens=5")
    folders = []
    for process in (first, second):
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        folders.append(Path(out.splitlines()[-1]))
    built = [
        sum(not stage["reused"] for stage in provenance["stages"] if stage["name"] == "training")
        for provenance in (json.loads((folder / "provenance.json").read_text()) for folder in folders)
    ]
    assert sum(built) == len(NAMES)
    assert metrics_of(folders[0]) == metrics_of(whole)


def test_the_run_folder_keeps_its_weights_when_the_cache_is_emptied(tmp_path: Path) -> None:
    import shutil

    from athlos.runs.export import export_run

    folder = execute(run_config([*RUN, f"results_dir={tmp_path / 'results'}", f"cache_dir={tmp_path / 'cache'}"]))
    [product] = (tmp_path / "cache" / "training").glob("*/model/model.safetensors")
    assert product.samefile(folder / "checkpoints" / "final" / "model.safetensors")
    shutil.rmtree(tmp_path / "cache")
    out = export_run(folder, out=tmp_path / "exported")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in out.iterdir()}


class Phases(MethodConfig):
    """Gives the phases that a test wants."""

    def __init__(self, *phases: Phase) -> None:
        self._phases = phases

    def phases(self, run: RunConfig) -> Iterator[Phase]:
        yield from self._phases


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([("a", "previous"), ("a", "previous")], "method: two phases are called 'a'"),
        ([("a", "previous"), ("b", "c")], "method: phase 'b' starts from 'c'"),
        ([("a", "b"), ("b", "previous")], "method: phase 'a' starts from 'b'"),
    ],
)
def test_phases_that_make_no_sense_are_refused(phases: list[tuple[str, str]], message: str) -> None:
    run = run_config(RUN)
    run = replace(run, method=Phases(*(Phase(name=name, run=run, start=begin) for name, begin in phases)))
    with pytest.raises(ConfigError, match=message):
        chain.phases_of(run)
    made_by = Phases(Phase(name="a", run=run), Phase(name="b", run=run, made_by="c"))
    with pytest.raises(ConfigError, match="method: phase 'b' is made by 'c'"):
        chain.phases_of(replace(run, method=made_by))


def test_a_construction_may_read_other_weights_than_its_phase_starts_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from athlos.stages import StageStore

    read, bases = [], []

    class Notes(Samples):
        def build(self, *, context: PartContext) -> Made:
            assert context.start is not None
            read.append(next(context.start.model.parameters()).detach().clone())
            bases.append(next(context.base_model.parameters()).detach().clone())
            return super().build(context=context)

    monkeypatch.setattr("tests.runs.rounds.Samples", Notes)
    run = rounds_run(tmp_path)
    warmup, alone, _ = RoundsConfig(rounds=2).phases(run)
    alone = replace(alone, start="base")
    other = replace(alone, name="other", made_by="warmup")
    trained = chain.chain(replace(run, method=Phases(warmup, alone, other)), stages=StageStore(tmp_path / "cache"))
    inputs = [json.loads((one.product.path / "stage.json").read_text())["inputs"] for one in trained]
    assert [values["start"] for values in inputs] == ["random"] * 3
    assert [values.get("made_by") for values in inputs] == [None, None, trained[0].product.key]
    left = load_file(trained[0].product.path / "model" / "model.safetensors")
    assert torch.equal(read[1], left["model.embed_tokens.weight"])
    assert not torch.equal(read[0], read[1])
    assert all(torch.equal(base, read[0]) for base in bases)


def test_a_phase_may_start_from_the_base_or_from_an_earlier_one(tmp_path: Path) -> None:
    run = rounds_run(tmp_path)
    phases = list(RoundsConfig(rounds=2).phases(run))
    phases[1], phases[2] = replace(phases[1], start="base"), replace(phases[2], start="warmup")
    from athlos.stages import StageStore

    run = replace(run, method=Phases(*phases))
    trained = chain.chain(run, stages=StageStore(tmp_path / "cache"))
    starts = [json.loads((one.product.path / "stage.json").read_text())["inputs"]["start"] for one in trained]
    assert starts == ["random", "random", trained[0].product.key]
