"""`athlos run` on the command line: one line and an exit code for each mistake, and what `--cfg` prints."""

import json
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


def test_what_is_missing_is_told_before_torch_is_imported(tiny, tmp_path, text_dir):
    """No data folder, no file of any split, no folder, weights or tokenizer of a model: nothing heavy is loaded."""
    bare, pickled, pointer = (tmp_path / name for name in ("bare", "pickled", "pointer"))
    for folder, name, content in (
        (bare, "model.safetensors", b"0"),
        (pickled, "pytorch_model.bin", b"0"),
        (pointer, "model.safetensors", b"version https://git-lfs.github.com/spec/v1"),
    ):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / name).write_bytes(content)
    words = [item for item in tiny if not item.startswith(("model.", "data", "eval."))]
    own = [*words, "data=shakespeare", f"data.dir={text_dir}", "model=own"]
    cases = {
        "data=mmath reads files: set data.dir=": [*words, "data=mmath", "eval=math", "train.max_steps=0"],
        "'/no/such' is not a folder": [*words, "data.dir=/no/such"],
        "absent.txt: no such file": [*tiny, "data.files.test=absent.txt"],
        "missing.txt: no such file": [*tiny, "data.files.train=missing.txt"],
        "data=shakespeare names no test split": [*tiny, "data.test_split=null"],
        "gone is no Hugging Face model folder": [*own, f"model.source=dir:{tmp_path / 'gone'}"],
        "no tokenizer in ": [*own, f"model.source=dir:{bare}"],
        "which are pickles": [*own, f"model.source=dir:{pickled}"],
        "is a pointer of Git LFS": [*own, f"model.source=dir:{pointer}"],
    }
    code = (
        "import json, sys; from athlos.cli.main import main; "
        "codes = [main(['run', *arguments]) for arguments in json.loads(sys.argv[1])]; "
        "print(json.dumps([codes, 'torch' in sys.modules]))"
    )
    command = [sys.executable, "-c", code, json.dumps(list(cases.values()))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    codes, has_torch = json.loads(done.stdout.splitlines()[-1])
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert [expected in line for expected, line in zip(cases, errors, strict=True)] == [True] * len(cases), errors
    assert (codes, has_torch) == ([3] * 5 + [4] * 4, False)


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
