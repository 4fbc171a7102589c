"""Resumable checkpoints: two are kept, a damaged one is passed over, and what is left says what to delete."""

from pathlib import Path

import pytest
import torch

from athlos.errors import TrainingError
from athlos.training.checkpoints import STATE, WEIGHTS, FolderCheckpointIO, latest, remove_older, step_folder


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """Checkpoints of steps 5, 10 and 15."""
    for step in (5, 10, 15):
        state = {"state_dict": {"weight": torch.full((100,), float(step))}, "global_step": step}
        FolderCheckpointIO().save_checkpoint(state, step_folder(tmp_path, step))
    return tmp_path


def cut(path: Path) -> None:
    """Leave the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_the_newest_two_are_kept_and_the_newest_is_read(checkpoints: Path) -> None:
    remove_older(checkpoints)
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-00000010", "step-00000015"]
    assert latest(checkpoints) == step_folder(checkpoints, 15)
    assert FolderCheckpointIO().load_checkpoint(latest(checkpoints))["state_dict"]["weight"][0] == 15


@pytest.mark.parametrize("part", [WEIGHTS, STATE])
def test_a_damaged_one_is_passed_over_for_the_one_before(
    part: str, checkpoints: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut(step_folder(checkpoints, 15) / part)
    assert latest(checkpoints) == step_folder(checkpoints, 10)
    assert "step-00000015 is damaged; going on from step 10" in caplog.text
    (step_folder(checkpoints, 10) / part).unlink()
    assert latest(checkpoints) == step_folder(checkpoints, 5)


def test_where_all_are_damaged_the_folder_to_delete_is_named(checkpoints: Path) -> None:
    for step in (5, 10, 15):
        cut(step_folder(checkpoints, step) / STATE)
    with pytest.raises(TrainingError, match=rf"step-00000015 is damaged.*delete {checkpoints}$"):
        latest(checkpoints)
    assert latest(checkpoints / "none") is None
