"""Kernels of this folder as libraries, compiled on first use with the machine's C++ compiler and kept in the cache."""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from athlos.stages import cache_dir

log = logging.getLogger(__name__)

COMPILERS = ("c++", "g++")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-funroll-loops", "-fPIC", "-fopenmp")
COMPILE_SECONDS = 120.0


def compiled(source: Path, defines: Sequence[str] = ()) -> ctypes.CDLL | None:
    """The library of a source; None, with a warning that says why, where there is none to be had."""
    try:
        # PyTorch has loaded its OpenMP for all to see; the kernel shares its threads.
        return ctypes.CDLL(str(_library(source, defines)))
    except (OSError, subprocess.SubprocessError) as error:
        words = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        name = source.stem.replace("_", " ")
        log.warning("the kernel '%s' is off, PyTorch takes its place: %s", name, words[0] if words else error)
        return None


def _library(source: Path, defines: Sequence[str]) -> Path:
    """The library, compiled where the cache folder has none for this source, compiler and processor."""
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise OSError(f"no C++ compiler ({', '.join(COMPILERS)}, or the one that CXX names)")
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, text=True).stdout
    texts = [path.read_text(encoding="utf-8") for path in (source, *sorted(source.parent.glob("*.h")))]
    parts = [*texts, version, _processor(), *FLAGS, *defines]
    name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]
    target = cache_dir() / "kernels" / f"{source.stem}-{name}.so"
    if target.is_file():
        return target
    log.info("compiling %s %s", source.name, " ".join(defines))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made, library = Path(folder, "kernel.o"), Path(folder, "kernel.so")
        # Linked without -fopenmp: a second OpenMP beside PyTorch's would fight with it for the cores.
        compiling = [*FLAGS, *defines, "-c", str(source), "-o", str(made)]
        for command in (compiling, ["-shared", str(made), "-o", str(library)]):
            subprocess.run([compiler, *command], check=True, capture_output=True, text=True, timeout=COMPILE_SECONDS)
        library.replace(target)
    return target


def _processor() -> str:
    """What `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(("flags", "model name", "Features"))))
