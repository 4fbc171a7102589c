"""Where a run's numbers come from: commit, versions, hardware, seeds, hashes. Never environment values or secrets."""

import contextlib
import os
import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import athlos

PACKAGES = (
    "torch",
    "transformers",
    "pytorch-lightning",
    "hydra-core",
    "omegaconf",
    "torchmetrics",
    "tokenizers",
    "safetensors",
    "peft",
    "numpy",
    "sacrebleu",
    "math-verify",
    "wandb",
)

RESET_PEAK = "5"
"""Written to a process's clear_refs it sets the highest resident size to the present one (Linux)."""


def code_state() -> dict[str, Any]:
    """Version of Athlos, and commit and dirty flag where it runs from a checkout."""
    root = Path(__file__).resolve().parents[3]
    state: dict[str, Any] = {"athlos": athlos.__version__, "commit": None, "dirty": None}
    if (root / ".git").exists():
        state["commit"] = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain")
        state["dirty"] = None if changes is None else bool(changes)
    return state


def _git(root: Path, *arguments: str) -> str | None:
    """Output of a git command, or nothing where git is not installed or the folder is no repository of ours."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Installed versions of the packages that numbers depend on."""
    versions_of = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions_of[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions_of


def hardware() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def reset_peak() -> None:
    """Begin the peak anew: the runs of a sweep share a process, and the largest would lend its peak to all after it.

    Where the system cannot (no Linux), the peak stays that of the process.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text(RESET_PEAK, encoding="utf-8")


def peak_mb() -> float:
    """Greatest memory since `reset_peak`, MiB: of the GPU where one is used, else resident memory of this process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.is_file():  # first: on Linux getrusage also counts what the process held that started this one
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, KiB here
