"""`athlos run` on the command line: one line and an exit code for each mistake, and what `--cfg` prints."""

import os
import subprocess
import sys

import pytest
import yaml


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


def test_cfg_prints_the_config_and_makes_no_folder(tiny, run, tmp_path):
    code, out, _ = run("run", "--cfg", *tiny)
    assert code == 0
    assert yaml.safe_load(out)["train"]["max_steps"] == 12
    assert not (tmp_path / "results").exists()


def test_a_missing_data_folder_is_told_before_the_model_is_loaded(tiny, run):
    code, _, err = run("run", *tiny, "data.dir=/no/such/folder", "model.source=dir:/no/such/model")
    assert (code, "data.dir: '/no/such/folder' is not a folder" in err) == (3, True)


def test_sigterm_ends_a_command_as_ctrl_c_does():
    code = (
        "import os, signal, sys; from athlos.cli import main as entry; "
        "entry._dispatch = lambda options: os.kill(os.getpid(), signal.SIGTERM) or signal.pause(); "
        "sys.exit(entry.main(['list', 'methods']))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "SLURM_JOB_ID"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr.startswith("interrupted")) == (130, True), done.stderr
