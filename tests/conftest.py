"""Fixtures shared by all tests. Everything runs offline, on the CPU, seeded."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

SHARED_DATA_VARIABLE = "ATHLOS_SHARED_DATA"

# Before torch is imported anywhere: workers of pytest-xdist must not fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")

# How long an example takes says more about the machine's other work than about the code.
settings.register_profile("athlos", deadline=None)
settings.load_profile("athlos")


@pytest.fixture
def shared_data() -> Path:
    """Folder of real data files in official formats; the test is skipped, with the reason, where it is absent."""
    folder = os.environ.get(SHARED_DATA_VARIABLE, "")
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"no real data: set {SHARED_DATA_VARIABLE} to a folder with the official files")
    return Path(folder).resolve()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own for a test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ATHLOS_CACHE", str(folder))
    return folder
