"""Resumable checkpoints as folders: weights in safetensors, the rest of the state beside them.

A checkpoint holds what trains, not the frozen base. It is written aside and renamed, an older one is removed only
then, so a killed run always finds a whole one; two are kept, in case the disk damages the newer. Nothing is unpickled:
the state is read with `weights_only=True`.
"""

import logging
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from athlos.errors import TrainingError

log = logging.getLogger(__name__)

WEIGHTS, STATE = "model.safetensors", "state.pt"
STEP_DIGITS = 8
NUM_KEPT = 2
FULL_DISK_BYTES = 1 << 20
"""Less free space than this is a full disk; torch's own message does not say so."""


def step_folder(checkpoints: Path, step: int) -> Path:
    """The folder of the resumable checkpoint after `step` optimizer steps."""
    return checkpoints / f"step-{step:0{STEP_DIGITS}d}"


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def latest(checkpoints: Path) -> Path | None:
    """The whole checkpoint of the greatest step; scratch folders of killed runs are not looked at.

    A damaged one is passed over with a warning. Raises `TrainingError` where all are damaged.
    """
    folders = sorted(checkpoints.glob("step-*"), reverse=True)
    whole = next(filter(_is_whole, folders), None)
    if folders and whole is None:
        raise TrainingError(f"checkpoint {folders[0]} is damaged, and so is every one before it; delete {checkpoints}")
    if whole is not None and whole != folders[0]:
        log.warning("checkpoint %s is damaged; going on from step %d", folders[0], step_of(whole))
    return whole


def _is_whole(folder: Path) -> bool:
    """Whether both files are there to their ends: safetensors begins with its length, and a zip ends with a table."""
    try:
        with safe_open(folder / WEIGHTS, framework="pt"):
            return zipfile.is_zipfile(folder / STATE)
    except (OSError, SafetensorError):
        return False


def remove_older(checkpoints: Path) -> None:
    """Keep the newest `NUM_KEPT`."""
    for folder in sorted(checkpoints.glob("step-*"))[:-NUM_KEPT]:
        shutil.rmtree(folder, ignore_errors=True)


class FolderCheckpointIO(CheckpointIO):
    """Lightning's checkpoint dictionary as a folder of two files."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        scratch = target.with_name(f".{target.name}.writing")
        shutil.rmtree(scratch, ignore_errors=True)
        state = dict(checkpoint)
        weights = state.pop("state_dict")
        try:
            scratch.mkdir(parents=True)
            save_weights(weights, scratch / WEIGHTS)
            torch.save(state, scratch / STATE)
            shutil.rmtree(target, ignore_errors=True)
            scratch.rename(target)
        except (OSError, RuntimeError) as error:  # torch and safetensors report a full disk as RuntimeError
            is_full = shutil.disk_usage(target.parent).free < FULL_DISK_BYTES  # before the scratch folder goes
            shutil.rmtree(scratch, ignore_errors=True)
            reason = "No space left on device; free space or set results_dir" if is_full else str(error)
            raise TrainingError(f"cannot write checkpoint {target}: {reason}") from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        folder = Path(path)
        try:
            state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
            state["state_dict"] = load_file(folder / WEIGHTS)
        except (OSError, RuntimeError, ValueError) as error:
            raise TrainingError(f"cannot read checkpoint {folder}: {error}; delete it to start again") from error
        return state

    def remove_checkpoint(self, path: Any) -> None:
        shutil.rmtree(path, ignore_errors=True)


def save_weights(weights: dict[str, Tensor], path: Path) -> None:
    """Tensors to safetensors; of tensors that share memory (tied weights) the first name is kept."""
    seen: set[tuple[int, torch.Size]] = set()
    kept: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        place = (tensor.data_ptr(), tensor.shape)
        if place not in seen or tensor.numel() == 0:
            kept[name] = tensor.detach().contiguous()
        seen.add(place)
    save_file(kept, path)


def trained_weights(module: nn.Module) -> dict[str, Tensor]:
    """The parameters that train, by name, whole: sharded ones are gathered, so every process must call this."""
    weights = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if parameter.requires_grad:
            data = parameter.detach()
            weights[name] = data.full_tensor() if isinstance(data, DTensor) else data
    return weights
