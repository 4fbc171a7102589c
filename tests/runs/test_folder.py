"""The run folder: one config for ever, one process at a time."""

from athlos.config.compose import run_config
from athlos.runs.folder import RunFolder


def test_another_config_in_the_folder_is_refused_with_the_differing_keys(tiny, run, tmp_path):
    here = f"run_dir={tmp_path / 'mine'}"
    assert run("run", *tiny, here)[0] == 0
    code, _, err = run("run", *tiny, here, "train.lr=0.5", "seed=9")
    assert code == 2
    assert "holds another config: seed: 1 there, 9 now; train.lr: 0.001 there, 0.5 now" in err


def test_a_folder_in_use_is_refused(tiny, run, tmp_path):
    with RunFolder(run_config([*tiny, f"run_dir={tmp_path / 'mine'}"])):
        code, _, err = run("run", *tiny, f"run_dir={tmp_path / 'mine'}")
    assert code == 2
    assert "is in use by another process" in err


def test_a_read_only_results_folder_is_a_config_error(tiny, run, tmp_path):
    (tmp_path / "file").write_text("a file where a folder is wanted")
    code, _, err = run("run", *tiny, f"results_dir={tmp_path / 'file'}")
    assert code == 2
    assert "results_dir: cannot write" in err
