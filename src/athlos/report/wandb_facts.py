"""What a wandb run says of the machine and the packages it used: only facts that name no host and no person."""

import re
from pathlib import Path
from typing import Any

from athlos.errors import DataError
from athlos.report.wandb_contents import WandbContents, as_float
from athlos.report.wandb_log import decoded
from athlos.report.wandb_media import kept_file

MAX_TEXT_BYTES = 2**20
MAX_GPUS = 64
REQUIREMENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.+!_-]+)")


def provenance(run_folder: Path, contents: WandbContents) -> dict[str, Any]:
    """Hardware, packages and commit: facts that name no host and no person."""
    facts = _facts(run_folder, contents)
    cpu = _part(facts, "cpu")
    hardware = {
        "system": _text(facts.get("os")).partition("-")[0] or None,  # the rest names a kernel, which can name a host
        "cpu": _text(cpu.get("model")) or None,
        "cores": _count(facts.get("cpu_count_logical")) or _count(facts.get("cpu_count")),
        "memory_gib": _gib(_part(facts, "memory").get("total")),
        "gpus": _gpus(facts),
    }
    python = _text(facts.get("python")).rpartition(" ")[2]
    telemetry = None if contents.run is None else contents.run.telemetry
    if telemetry is not None:
        python = python or _text(telemetry.python_version)
    versions = {**_packages(run_folder), "python": python}
    if telemetry is not None:
        versions["wandb"] = _text(telemetry.cli_version)
    versions["cuda"] = _text(facts.get("cuda_version") or facts.get("cudaVersion"))
    commit = _text(_part(facts, "git").get("commit") or ("" if contents.run is None else contents.run.git.commit))
    return {
        "commit": commit if re.fullmatch(r"[0-9a-f]{7,64}", commit) else None,
        "hardware": hardware,
        "versions": {name: version for name, version in versions.items() if version},
    }


def _facts(run_folder: Path, contents: WandbContents) -> dict[str, Any]:
    """What wandb saw of the machine: from the log, or from the file that older versions wrote."""
    if contents.environment is not None:
        from google.protobuf.json_format import MessageToDict

        return MessageToDict(contents.environment, preserving_proto_field_name=True)
    facts = decoded(_kept_text(run_folder, "wandb-metadata.json"))
    return facts if isinstance(facts, dict) else {}


def _part(facts: dict[str, Any], name: str) -> dict[str, Any]:
    part = facts.get(name)
    return part if isinstance(part, dict) else {}


def _text(value: Any) -> str:
    return value[:100] if isinstance(value, str) else ""


def _count(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


def _gib(value: Any) -> float | None:
    """Bytes in GiB; protobuf gives them as text."""
    is_number = type(value) is int or (isinstance(value, str) and value.isdecimal() and len(value) < 20)
    return round(as_float(int(value)) / 2**30, 1) if is_number else None


def _gpus(facts: dict[str, Any]) -> list[str]:
    """One name a GPU."""
    listed = facts.get("gpu_nvidia") or facts.get("gpu_devices")
    if isinstance(listed, list):
        return [_text(gpu.get("name")) for gpu in listed[:MAX_GPUS] if isinstance(gpu, dict)]
    kind = _text(facts.get("gpu_type") or facts.get("gpu"))
    return [kind] * min(_count(facts.get("gpu_count")) or 0, MAX_GPUS) if kind else []


def _packages(run_folder: Path) -> dict[str, str]:
    """Name -> version; a package installed from a path or an address is left out."""
    lines = _kept_text(run_folder, "requirements.txt").splitlines()
    return dict(match.groups() for line in lines if (match := REQUIREMENT.fullmatch(line.strip())))


def _kept_text(run_folder: Path, name: str) -> str:
    """Text of a file; empty when it is missing, too large, or cannot be read: these facts are a gift."""
    try:
        content = kept_file(run_folder, name, MAX_TEXT_BYTES)
    except DataError:
        return ""
    return "" if content is None else content.decode(errors="replace")
