"""wandb offline runs, of any program, as Athlos run folders that the report reads.

What comes over: config, last values, curves, tables, PNG pictures, state, and what hardware and packages the run used.
What stays behind: names of hosts and people, addresses, paths, the command line, the console, secrets in the config.
A name out of a run never becomes a path: it is only ever the last part of one, and made of plain characters. Only what
really lies below the run's own `files/` is read.
"""

import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from athlos.errors import ConfigError, DataError
from athlos.report.reading import PNG
from athlos.report.wandb_log import WandbLog
from athlos.runs.folder import to_json, write_atomically
from athlos.runs.values import one_line, parse_json, printable, reason_of
from athlos.training.events import events_file

log = logging.getLogger(__name__)

RUN_FOLDERS = "offline-run-*"
RUNNING_SECONDS = 15 * 60.0
"""A run without an end that wrote this lately is taken for running. wandb writes its file every 15 s."""
NOTICE_SECONDS = 2.0
SECRET = re.compile(
    r"(?:^|[_.-])(?:api_?key|secret(?:_?key)?|private_?key|(?:hf|auth|access)_?token|password|passwd)$", re.IGNORECASE
)
SECRET_VALUE = re.compile(r"(?:hf_|sk-|ghp_|github_pat_|glpat-|xox[abp]-|AKIA)[A-Za-z0-9_-]{12,}")
REMOVED = "(removed)"
REQUIREMENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.+!_-]+)", re.MULTILINE)
MAX_BYTES = 2**26
"""A larger table or picture is left out."""
MAX_PICTURES_OF_A_NAME = 64
MAX_NAME = 48
"""Characters of a name in a file name: at four bytes each, with a number and an ending, below 255 bytes."""


def import_runs(folder: Path, out: Path) -> list[Path]:
    """Write every wandb offline run below `folder` as a run folder `out/<project>/<name>-<hash>`; returns them sorted.

    A run that cannot be read is left out, with a warning of one line; so is one that stands in an Athlos run folder
    below `folder`, which the report reads as it is. Two runs of one id (one resumed offline) stay two; of two copies of
    one run the longer file counts. Links are not followed. Raises `ConfigError` where `folder` is no folder or `out`
    cannot be written.
    """
    if not folder.is_dir():
        raise ConfigError(f"wandb runs: {folder} is no folder")
    files = sorted(_log_files(folder), key=lambda file: (-file.stat().st_size, file))
    imported, noticed = [], time.monotonic()
    for number, file in enumerate(files):
        if time.monotonic() - noticed > NOTICE_SECONDS:
            noticed = time.monotonic()
            log.info("%d of %d wandb runs read", number, len(files))
        try:
            out.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=out, prefix=".import-") as scratch:
                imported += _imported(file, out, scratch=Path(scratch, "run"))
        except DataError as error:
            log.warning("left out: %s", one_line(str(error)))
        except OSError as error:
            raise ConfigError(f"cannot write below {out}: {error.strerror or error}") from error
    return sorted(imported)


def _log_files(folder: Path) -> Iterator[Path]:
    """The logs of the offline runs at and below `folder`, none inside another run or an Athlos run folder."""
    for root, names, _ in os.walk(folder):
        path = Path(root)
        if not path.resolve().match(RUN_FOLDERS):
            continue
        names.clear()
        if _is_in_athlos_run(path, top=folder):
            log.info("%s stands in an Athlos run folder and is not imported", one_line(root))
            continue
        files = [file for file in path.glob("run-*.wandb") if file.is_file() and not file.is_symlink()]
        if not files:
            log.warning("left out: %s: no run-*.wandb file", one_line(root))
        yield from files


def _is_in_athlos_run(run_folder: Path, *, top: Path) -> bool:
    """Whether it is `<run>/events/wandb/offline-run-...` of a run folder at or below `top`."""
    if len(run_folder.relative_to(top).parts) < 3:
        return False
    run = run_folder.parents[2]
    return run_folder.parent.parent.name == "events" and all(
        (run / name).is_file() for name in ("config.yaml", "status.json")
    )


def _imported(file: Path, out: Path, *, scratch: Path) -> list[Path]:
    """The run folder of one log, made as `scratch` and renamed; nothing for a copy of a run that is there."""
    events = events_file(scratch)
    events.parent.mkdir(parents=True)
    with events.open("w", encoding="utf-8") as handle:
        wandb_log = WandbLog(handle)
        wandb_log.read(file)
    run = wandb_log.run
    # The hash is the same at the next import, and another for a second run of the same id.
    identity = "\0".join([file.stem, file.parent.resolve().name, run.get("run_id", ""), run.get("start_time", "")])
    name = f"{file_name(run.get('display_name') or run.get('run_id') or file.stem)}-{_short_hash(identity)}"
    target = out / file_name(run.get("project") or "wandb") / name
    if target.exists():
        log.info("%s: a copy of a run that is already imported", one_line(str(file)))
        return []
    left_out = list(_write_media(scratch, file.parent, wandb_log))
    config = _config(wandb_log)
    write_atomically(scratch / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    metrics = ({} if wandb_log.runtime_s is None else {"cost/wall_s": wandb_log.runtime_s}) | wandb_log.metrics
    write_atomically(scratch / "metrics.json", printable(to_json(metrics)))
    origin = {
        "from": "wandb",
        "folder": file.parent.resolve().name,
        "id": run.get("run_id"),
        "name": run.get("display_name"),
        "notes": run.get("notes"),
        "damage": wandb_log.damage,
        "skipped_values": dict(wandb_log.skipped),
        "left_out": left_out,
    }
    seed = {"seed": config["seed"]} if type(config.get("seed")) is int else {}
    facts = _machine(file.parent, wandb_log) | seed | {"imported": origin}
    write_atomically(scratch / "provenance.json", printable(to_json(facts)))
    write_atomically(scratch / "status.json", printable(to_json(_status(file, wandb_log))))
    target.parent.mkdir(exist_ok=True)
    scratch.rename(target)
    return [target]


def file_name(name: str) -> str:
    """`name` as a part of a file name: letters, digits and `._-`, no dot first, at most `MAX_NAME` characters."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._-")[:MAX_NAME] or "unnamed"


def _short_hash(text: str) -> str:
    return sha256(text.encode(errors="replace")).hexdigest()[:8]


def _config(log: WandbLog) -> dict[str, Any]:
    """The run's config without secrets. The project is its study where it names none; how else it was filed stands
    under `_wandb`, a name that wandb keeps for itself.
    """
    config: dict[str, Any] = {}
    for key, value in log.config.items():
        is_wrapped = isinstance(value, dict) and "value" in value and value.keys() <= {"desc", "value"}
        if key != "_wandb":  # older programs wrote {"desc": ..., "value": x} for x
            config[printable(key)] = _shown(key, value["value"] if is_wrapped else value)
    config.setdefault("study", log.run.get("project") or "wandb")
    filed = {"group": log.run.get("run_group"), "job_type": log.run.get("job_type"), "tags": log.run.get("tags")}
    return config | ({"_wandb": known} if (known := {key: value for key, value in filed.items() if value}) else {})


def _shown(key: str, value: Any) -> Any:
    if SECRET.search(key) and value not in (None, ""):
        return REMOVED
    if isinstance(value, str):
        return REMOVED if SECRET_VALUE.fullmatch(value) else printable(value)
    if isinstance(value, dict):
        return {printable(inner): _shown(inner, each) for inner, each in value.items()}
    if isinstance(value, list):
        return [_shown("", each) for each in value]
    return value


def _status(file: Path, log: WandbLog) -> dict[str, Any]:
    """The state as far as the log tells: a run without an end is running where it wrote just now, else failed."""
    last = file.stat().st_mtime if log.last_time is None else log.last_time
    times = {"start": log.run.get("start_time"), "end": _iso(last), "wall_s": log.runtime_s}
    status = {key: value for key, value in times.items() if value is not None}
    if log.exit_code == 0:
        return status | {"state": "finished"}
    if log.exit_code is not None:
        said = f"the program ended with exit code {log.exit_code}"
        return status | {"state": "failed", "error": "ExitCode", "exit_code": log.exit_code, "message": said}
    if abs(time.time() - last) < RUNNING_SECONDS:  # clocks of two machines may differ
        del status["end"]
        return status | {"state": "running", "message": "wandb's file had no end yet when it was imported"}
    said = "wandb's file ends without the run's end: the run was killed, or the file is not whole"
    return status | {"state": "failed", "error": "NoEnd", "message": said}


def _iso(seconds: float) -> str | None:
    """`seconds` since 1970 as wandb writes a start: to the microsecond, or a short run ends before it began."""
    is_date = 0 < seconds < 2**35
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if is_date else None


def _machine(run_folder: Path, log: WandbLog) -> dict[str, Any]:
    """Hardware, packages and commit: facts that name no host and no person."""
    facts = log.environment
    memory = int(facts.get("memory", {}).get("total") or 0)  # bytes, which protobuf gives as text
    hardware = {
        "system": facts.get("os", "").partition("-")[0],  # the rest names a kernel, which can name a host
        "cpu": facts.get("cpu", {}).get("model"),
        "cores": facts.get("cpu_count_logical") or facts.get("cpu_count"),
        "memory_gib": round(memory / 2**30, 1) if memory else None,
        "gpus": [gpu.get("name") for gpu in facts.get("gpu_nvidia", [])],
    }
    try:
        # A package installed from a path or an address has no `==`, and is left out.
        packages = REQUIREMENT.findall(_kept_file(run_folder, "requirements.txt").decode(errors="replace"))
    except DataError:
        packages = []
    versions = dict(packages) | {
        "python": facts.get("python", "").rpartition(" ")[2],
        "wandb": log.run.get("telemetry", {}).get("cli_version"),
        "cuda": facts.get("cuda_version"),
    }
    return {
        "commit": (facts.get("git") or log.run.get("git") or {}).get("commit"),
        "hardware": hardware,
        "versions": {name: version for name, version in versions.items() if version},
    }


def _kept_file(run_folder: Path, name: Any) -> bytes:
    """What a file that the run kept under `files/` holds. Raises `DataError` where it is not really there."""
    files = os.path.realpath(run_folder / "files")
    try:
        path = Path(os.path.realpath(Path(files, name)))
        if not path.is_relative_to(files):
            raise ValueError("a link out of the run folder")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise ValueError(f"{size} bytes are too many")
        return path.read_bytes()
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"cannot be read: {reason_of(error)}") from error


def _write_media(target: Path, run_folder: Path, log: WandbLog) -> Iterator[str]:
    """The last table or pictures of each name; yields, a line each, what is not in the run folder."""
    for name, description in sorted(log.media.items()):
        if (number := log.num_media[name]) > 1:
            yield f"{name}: the first {number - 1} of {number}"
        try:
            if description["_type"] == "table-file":
                _free(target / "predictions", name, ".jsonl").write_text(_table(run_folder, description), "utf-8")
                continue
            files = description.get("filenames", [description.get("path")])
            if not isinstance(files, list):
                raise DataError("no list of files")
            for file in files[:MAX_PICTURES_OF_A_NAME]:
                content = _kept_file(run_folder, file)
                if not content.startswith(PNG):
                    raise DataError("no PNG")
                _free(target / "figures", name, ".png").write_bytes(content)
            if len(files) > MAX_PICTURES_OF_A_NAME:
                yield f"{name}: all but the first {MAX_PICTURES_OF_A_NAME} of {len(files)}"
        except DataError as error:
            yield f"{name}: {error}"


def _free(parent: Path, name: str, ending: str) -> Path:
    """A file that no other table or picture has, the first of this name without a number."""
    parent.mkdir(exist_ok=True)
    paths = (parent / f"{file_name(name)}{'' if number == 1 else f'-{number}'}{ending}" for number in count(1))
    return next(path for path in paths if not path.exists())


def _table(run_folder: Path, description: dict[str, Any]) -> str:
    """One JSON object a row."""
    try:
        table = parse_json(_kept_file(run_folder, description.get("path")))
        columns = _distinct([str(column) for column in table["columns"]])
        rows = [dict(zip(columns, row, strict=False)) for row in table["data"]]
        return printable("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"no table that can be read: {type(error).__name__}") from error


def _distinct(columns: list[str]) -> list[str]:
    """Two columns of one name would be one key: the later ones get a number."""
    return [
        name if (times := columns[:index].count(name)) == 0 else f"{name}-{times + 1}"
        for index, name in enumerate(columns)
    ]
