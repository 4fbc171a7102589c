"""The contract of a run: folder, files, exit codes, resume, skip, refuse."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from tests.run_record import curve, metrics_of, only_run, without_clock

FILES = {
    "config.yaml",
    "status.json",
    "metrics.json",
    "metric_details.json",
    "provenance.json",
    "checkpoints",
    "events",
}


def test_a_run_leaves_the_whole_record_and_prints_its_folder_last(tiny, run, tmp_path):
    code, out, _ = run("run", *tiny, "eval.base=true")
    folder = only_run(tmp_path / "results")
    assert code == 0
    assert out.splitlines()[-1] == str(folder)
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} >= FILES
    metrics = metrics_of(folder)
    assert metrics["test/ppl"] < metrics["test/ppl_base"]
    assert metrics["test/ppl"] == pytest.approx(math.exp(metrics["test/nll"]))
    expected = {
        "cost/wall_s",
        "cost/tokens_per_s",
        "cost/peak_mb",
        "cost/flops",
        "cost/trainable_params",
        "cost/trainable_share",
        "cost/total_params",
        "cost/train_s",
        "cost/train_cpu_s",
        "cost/tokens",
        "cost/step_s",
        "val/loss",
        "val/ppl",
    }
    assert expected <= set(metrics)
    assert metrics["cost/trainable_share"] == 1.0
    assert metrics["cost/flops"] > 0
    provenance = json.loads((folder / "provenance.json").read_text())
    assert set(provenance["data"]["splits"]) == {"train", "val", "test"}
    assert provenance["versions"]["torch"].startswith("2.")
    [training] = [stage["key"] for stage in provenance["stages"] if stage["name"] == "training"]
    assert provenance["phases"] == [{"name": "train", "key": training, "steps": 12}]
    assert provenance["overrides"] == [*tiny, "eval.base=true"]
    assert [event["step"] for event in curve(folder) if "train/loss" in event] == list(range(1, 13))
    assert yaml.safe_load((folder / "config.yaml").read_text())["train"]["max_steps"] == 12


def test_the_same_command_again_does_nothing_and_a_lost_checkpoint_is_redone(tiny, run, tmp_path, caplog):
    run("run", *tiny)
    folder = only_run(tmp_path / "results")
    first, stamp = metrics_of(folder), (folder / "metrics.json").stat().st_mtime_ns
    with caplog.at_level("INFO", logger="athlos"):
        code, out, _ = run("run", *tiny)
    assert code == 0
    assert out.splitlines()[-1] == str(folder)
    assert "already finished, nothing to do" in caplog.text
    assert (folder / "metrics.json").stat().st_mtime_ns == stamp
    (folder / "checkpoints" / "final" / "model.safetensors").unlink()
    code, _, _ = run("run", *tiny)
    assert code == 0
    assert (folder / "metrics.json").stat().st_mtime_ns != stamp
    assert without_clock(metrics_of(folder)) == without_clock(first)
    assert len([event for event in curve(folder) if "train/loss" in event]) == 12


def start(arguments: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "athlos.cli.main", "run", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # A shell starts background jobs with ctrl-C ignored, and children keep that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_step(results: Path, step: int, process: subprocess.Popen) -> Path:
    """Wait until the curve of the only run has reached a step."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        events = list(results.glob("[!.]*/*/events/metrics.jsonl"))
        if events and f'"step": {step},' in events[0].read_text():
            return events[0].parents[1]
        time.sleep(0.02)
    raise AssertionError(f"step {step} was not reached")


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_run_goes_on_as_if_uninterrupted(tiny, run, tmp_path, signal_number):
    """Killed in mid-training, then the same command: same curve, same metrics, data order and dropout included."""
    longer = [
        *tiny,
        "train.max_steps=300",
        "train.val_every=70",
        "train.checkpoint_every=20",
        "+model.architecture.attention_dropout=0.2",
    ]
    # In a cache of its own, or the run below would find its training there.
    run("run", *longer, f"results_dir={tmp_path / 'whole'}", f"cache_dir={tmp_path / 'cache of whole'}")
    process = start(longer)
    folder = wait_for_step(tmp_path / "results", 50, process)
    process.send_signal(signal_number)
    _, err = process.communicate(timeout=60)
    if signal_number != signal.SIGKILL:
        assert process.returncode == 130
        status = json.loads((folder / "status.json").read_text())
        assert (status["state"], status["exit_code"]) == ("interrupted", 130)
        assert "interrupted" in err
        assert "Traceback" not in err
    else:
        assert json.loads((folder / "status.json").read_text())["state"] == "running"
    assert not (folder / "metrics.json").exists()
    code, _, _ = run("run", *longer)
    whole = only_run(tmp_path / "whole")
    assert code == 0
    assert curve(folder) == curve(whole)
    assert without_clock(metrics_of(folder)) == without_clock(metrics_of(whole))


def test_a_run_killed_during_the_evaluation_does_not_train_again(tiny, run, tmp_path, monkeypatch):
    from athlos.evaluation.suites.perplexity import PerplexitySuite

    with monkeypatch.context() as patch:
        patch.setattr(PerplexitySuite, "evaluate", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        code, _, _ = run("run", *tiny)
    assert code == 130
    folder = only_run(tmp_path / "results")
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("interrupted", 130)
    assert run("run", *tiny)[0] == 0
    stages = json.loads((folder / "provenance.json").read_text())["stages"]
    assert [stage["reused"] for stage in stages if stage["name"] == "training"] == [True]
    assert len([event for event in curve(folder) if "train/loss" in event]) == 12


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("place", ["athlos.runs.train._Training._write", "athlos.runs.execute._Execution._evaluate"])
def test_what_was_trained_before_has_the_metrics_of_an_uninterrupted_run(
    tiny, run, tmp_path, monkeypatch, place, tuning
):
    """To the last digit: stopped behind the last step, or behind the training, and gone on in another process."""
    arguments = [*tiny, f"tuning={tuning}", "train.val_every=12"]
    assert run("run", *arguments, f"results_dir={tmp_path / 'whole'}", f"cache_dir={tmp_path / 'other'}")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(place, lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run("run", *arguments)[0] == 130
    process = start(arguments)
    assert process.wait(timeout=120) == 0, process.communicate()[1]
    whole, resumed = only_run(tmp_path / "whole"), only_run(tmp_path / "results")
    assert curve(resumed) == curve(whole)
    assert without_clock(metrics_of(resumed)) == without_clock(metrics_of(whole))


def test_an_interrupted_run_tells_wandb_each_step_once(tiny, run, tmp_path, monkeypatch):
    """Interrupted at step 7, taken up from the checkpoint after step 5: what `wandb sync` finds then."""
    from athlos.training.events import EventWriter

    pytest.importorskip("wandb")
    append = EventWriter.append

    def interrupted(writer, metrics, *, step):
        append(writer, metrics, step=step)
        if step == 7:
            raise KeyboardInterrupt

    arguments = [*(item for item in tiny if item != "tracking=none"), "tracking=wandb", "train.checkpoint_every=5"]
    with monkeypatch.context() as patch:
        patch.setattr(EventWriter, "append", interrupted)
        assert run("run", *arguments)[0] == 130
    folder = only_run(tmp_path / "results")
    first = offline_steps(folder)
    assert max(first) < 12
    assert run("run", *arguments)[0] == 0
    assert offline_steps(folder) == sorted({event["step"] for event in curve(folder) if "train/loss" in event})
    assert len(curve(folder)) > len(first)


def offline_steps(folder: Path) -> list[int]:
    """Steps with a training loss in all of a run's offline files of wandb, in order, as often as they stand there."""
    import wandb

    wandb.teardown()  # its service writes the end of a log after the run has finished
    steps = []
    for log in (folder / "events" / "wandb").glob("offline-run-*/*.wandb"):
        command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", log]
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        records = [json.loads(line) for line in shown.splitlines()]
        rows = [record["history"] for record in records if record["type"] == "history"]
        steps += [row["step"]["num"] for row in rows if "train/loss" in row["item"]]
    return sorted(steps)


@pytest.mark.parametrize("batching", ["pack", "bucket"])
def test_four_micro_batches_of_two_equal_one_batch_of_eight(tiny, run, tmp_path, batching):
    """Token-weighted denominators: the split of a step does not change the curve, whatever the lengths of rows."""
    shared = [*tiny, "train.batch_size=8", f"train.batching={batching}", "train.max_length=64", "train.max_steps=6"]
    run("run", *shared, "train.micro_batch_size=8", f"run_dir={tmp_path / 'one'}")
    run("run", *shared, "train.micro_batch_size=2", f"run_dir={tmp_path / 'four'}")
    # The gradient norm too: Adam alone would hide a wrong factor.
    curves = [
        [(event["train/loss"], event["train/grad_norm"]) for event in curve(tmp_path / name) if "train/loss" in event]
        for name in ("one", "four")
    ]
    for one, four in zip(*curves, strict=True):
        assert one == pytest.approx(four, rel=1e-3)
    assert curves[0][0][0] != pytest.approx(curves[0][-1][0], rel=1e-3)


def test_not_a_number_stops_with_the_batch_saved(tiny, run, tmp_path, cache):
    from safetensors.torch import load_file

    code, _, err = run("run", *tiny, "train.lr=1e30", "train.clip_norm=0", "train.warmup_ratio=0")
    assert code == 5
    assert "loss is nan" in err or "gradient norm is" in err
    [batch] = (cache / "training").glob("*.building/failure/*.safetensors")
    assert f"the batch is in {batch}" in err
    assert load_file(batch)["input_ids"].shape == (2, 32)
    folder = only_run(tmp_path / "results")
    status = json.loads((folder / "status.json").read_text())
    assert (status["state"], status["error"], status["exit_code"]) == ("failed", "NumericalError", 5)
    # A sweep counts it as diverged, not as missing.
    assert json.loads((folder / "metrics.json").read_text()) == {"train/diverged": 1.0}


def test_out_of_memory_says_what_to_lower(tiny, run, monkeypatch):
    from athlos.objectives.next_token import NextTokenObjective

    def explode(self, model, batch):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(NextTokenObjective, "loss", explode)
    code, _, err = run("run", *tiny)
    assert code == 5
    assert "out of memory: lower train.micro_batch_size (now 2), train.max_length (now 32)" in err


def test_a_full_disk_is_one_line_and_nothing_half_written_is_trusted(tiny, run, tmp_path, cache, monkeypatch):
    from athlos.training import checkpoints

    with monkeypatch.context() as patch:

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        patch.setattr(checkpoints, "save_file", full)
        code, _, err = run("run", *tiny)
    assert code == 5
    assert "No space left on device" in err
    assert list((cache / "training").glob("*.building"))
    assert not list((cache / "training").glob("*.building/checkpoints/step-*"))
    assert run("run", *tiny)[0] == 0
    assert metrics_of(only_run(tmp_path / "results"))["test/ppl"] > 0


def test_evaluation_only_trains_nothing(tiny, run, tmp_path):
    code, _, _ = run("run", *tiny, "train.max_steps=0", "data.train_split=null")
    metrics = metrics_of(only_run(tmp_path / "results"))
    assert code == 0
    assert metrics["cost/trainable_params"] == 0
    assert not (only_run(tmp_path / "results") / "checkpoints").exists()
