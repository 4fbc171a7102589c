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
from tests.cli.conftest import curve

from athlos.runs.folder import RunFolder

FILES = {
    "config.yaml",
    "status.json",
    "metrics.json",
    "metric_details.json",
    "provenance.json",
    "checkpoints",
    "events",
}


def only_run(results: Path) -> Path:
    [folder] = list(results.glob("[!.]*/*"))
    return folder


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def without_clock(metrics: dict) -> dict:
    return {
        key: value for key, value in metrics.items() if key not in ("cost/wall_s", "cost/tokens_per_s", "cost/peak_mb")
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
    expected = {"cost/wall_s", "cost/tokens_per_s", "cost/peak_mb", "cost/flops", "cost/trainable_params",
                "cost/trainable_share", "val/loss", "val/ppl"}  # fmt: skip
    assert expected <= set(metrics)
    assert metrics["cost/trainable_share"] == 1.0
    assert metrics["cost/flops"] > 0
    provenance = json.loads((folder / "provenance.json").read_text())
    assert set(provenance["data"]["splits"]) == {"train", "val", "test"}
    assert provenance["versions"]["torch"].startswith("2.")
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


def test_another_config_in_the_folder_is_refused_with_the_differing_keys(tiny, run, tmp_path):
    here = f"run_dir={tmp_path / 'mine'}"
    assert run("run", *tiny, here)[0] == 0
    code, _, err = run("run", *tiny, here, "train.lr=0.5", "seed=9")
    assert code == 2
    assert "holds another config: seed: 1 there, 9 now; train.lr: 0.001 there, 0.5 now" in err


def test_a_folder_in_use_is_refused(tiny, run, tmp_path):
    from athlos.config.compose import run_config

    with RunFolder(run_config([*tiny, f"run_dir={tmp_path / 'mine'}"])):
        code, _, err = run("run", *tiny, f"run_dir={tmp_path / 'mine'}")
    assert code == 2
    assert "is in use by another process" in err


def start(arguments: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "athlos.cli.main", "run", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # A shell starts background jobs with ctrl-C ignored, and children keep that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


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
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on_as_if_uninterrupted(tiny, run, tmp_path, signal_number):
    """SIGKILL in mid-training, then the same command: same curve, same metrics, data order and dropout included."""
    longer = [*tiny, "train.max_steps=300", "train.val_every=70", "train.checkpoint_every=20",
              "+model.architecture.attention_dropout=0.2"]  # fmt: skip
    run("run", *longer, f"results_dir={tmp_path / 'whole'}")
    process = start(longer)
    folder = wait_for_step(tmp_path / "results", 50, process)
    process.send_signal(signal_number)
    _, err = process.communicate(timeout=60)
    if signal_number == signal.SIGINT:
        assert process.returncode == 130
        assert json.loads((folder / "status.json").read_text())["state"] == "interrupted"
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
    weights = folder / "checkpoints" / "final" / "model.safetensors"
    stamp = weights.stat().st_mtime_ns
    assert run("run", *tiny)[0] == 0
    assert weights.stat().st_mtime_ns == stamp
    assert len([event for event in curve(folder) if "train/loss" in event]) == 12


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


def test_not_a_number_stops_with_the_batch_saved(tiny, run, tmp_path):
    from safetensors.torch import load_file

    code, _, err = run("run", *tiny, "train.lr=1e30", "train.clip_norm=0", "train.warmup_ratio=0")
    assert code == 5
    assert "loss is nan" in err or "gradient norm is" in err
    folder = only_run(tmp_path / "results")
    [batch] = list((folder / "failure").glob("*.safetensors"))
    assert load_file(batch)["input_ids"].shape == (2, 32)
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


@pytest.mark.parametrize(
    ("change", "code", "expected"),
    [
        ("train.lrr=1", 2, "train.lrr: unknown key; did you mean 'train.lr'?"),
        ("train.max_steps=many", 2, "train.max_steps: got 'many' (str), expected Integer"),
        ("model=gpt5", 2, "model: got 'gpt5'"),
        ("+suite@eval.suites.text=perplexty", 2, "suite: got 'perplexty'; did you mean 'perplexity'?"),
        ("data.files.test=absent.txt", 3, "absent.txt: no such file"),
        ("data.dir=/no/such/folder", 3, "data.dir: '/no/such/folder' is not a folder"),
        ("model.architecture.hidden_sise=4", 2, "did you mean 'hidden_size'?"),
        ("model.source=dir:/no/such/model", 4, "/no/such/model"),
        ("hardware=gpu", 2, "hardware.accelerator: got 'gpu'"),
    ],
)
def test_each_mistake_is_one_clear_line_with_its_exit_code(tiny, run, change, code, expected):
    found, _, err = run("run", *tiny, change)
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    assert (found, len(errors)) == (code, 1)
    assert expected in errors[0]
    assert "Traceback" not in err


def test_a_broken_line_names_file_and_line(tiny, run, text_dir):
    lines = (text_dir / "train.txt").read_bytes().split(b"\n")
    lines[16] = b"\xff\xfe broken"
    (text_dir / "train.txt").write_bytes(b"\n".join(lines))
    code, _, err = run("run", *tiny)
    assert code == 3
    assert "train.txt:17: not UTF-8" in err


def test_an_empty_split_is_a_data_error(tiny, run, text_dir):
    (text_dir / "train.txt").write_text("")
    code, _, err = run("run", *tiny)
    assert code == 3
    assert "split 'train'" in err
    assert "empty" in err


def test_a_read_only_results_folder_is_a_config_error(tiny, run, tmp_path):
    (tmp_path / "file").write_text("a file where a folder is wanted")
    code, _, err = run("run", *tiny, f"results_dir={tmp_path / 'file'}")
    assert code == 2
    assert "results_dir: cannot write" in err


def test_a_full_disk_is_one_line_and_nothing_half_written_is_trusted(tiny, run, tmp_path, monkeypatch):
    from athlos.training import checkpoints

    with monkeypatch.context() as patch:

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        patch.setattr(checkpoints, "save_file", full)
        code, _, err = run("run", *tiny)
    assert code == 5
    assert "No space left on device" in err
    folder = only_run(tmp_path / "results")
    assert not list((folder / "checkpoints").glob("step-*"))
    assert run("run", *tiny)[0] == 0
    assert metrics_of(folder)["test/ppl"] > 0


def test_evaluation_only_trains_nothing(tiny, run, tmp_path):
    code, _, _ = run("run", *tiny, "train.max_steps=0", "data.train_split=null")
    metrics = metrics_of(only_run(tmp_path / "results"))
    assert code == 0
    assert metrics["cost/trainable_params"] == 0
    assert not (only_run(tmp_path / "results") / "checkpoints").exists()


def test_cfg_prints_the_config_and_makes_no_folder(tiny, run, tmp_path):
    code, out, _ = run("run", "--cfg", *tiny)
    assert code == 0
    assert yaml.safe_load(out)["train"]["max_steps"] == 12
    assert not (tmp_path / "results").exists()


def test_a_missing_data_folder_is_told_before_the_model_is_loaded(tiny, run):
    code, _, err = run("run", *tiny, "data.dir=/no/such/folder", "model.source=dir:/no/such/model")
    assert (code, "data.dir: '/no/such/folder' is not a folder" in err) == (3, True)
