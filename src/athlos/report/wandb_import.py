"""wandb offline runs, of any program, as Athlos run folders that the report reads.

What comes over: config, last values, curves, tables, pictures, state, and what hardware and packages the run used. What
stays behind: names of hosts and people, addresses, paths, the command line, the console, and secrets in the config.
"""

import json
import logging
import math
import os
import re
import shutil
import time
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from athlos.errors import ConfigError, DataError
from athlos.report.wandb_contents import WandbContents
from athlos.report.wandb_facts import provenance
from athlos.report.wandb_media import WandbMedia, file_name, finite
from athlos.runs.folder import write_atomically
from athlos.training.events import events_file

log = logging.getLogger(__name__)

RUN_FOLDERS = "offline-run-*"
RUNNING_SECONDS = 15 * 60.0
"""A run without an end that wrote this lately is taken for running. wandb writes its file every 15 s."""
MAX_DEPTH = 24
"""Of the config; what lies deeper is not kept."""
SECRET = re.compile(
    r"(?:^|[_.-])(?:api_?key|secret(?:_?key)?|private_?key|(?:hf|auth|access)_?token|password|passwd)$", re.IGNORECASE
)
SECRET_VALUE = re.compile(r"(?:hf_|sk-|ghp_|github_pat_|glpat-|xox[abp]-|AKIA)[A-Za-z0-9_-]{12,}")
REMOVED = "(removed)"


def import_runs(folder: Path, out: Path) -> list[Path]:
    """Write every wandb offline run below `folder` as a run folder `out/<project>/<name>-<hash>`; returns them sorted.

    A run that cannot be read is left out, with a warning of one line; so is one that stands in an Athlos run folder
    below `folder`, which the report reads as it is. A run that was imported before is written anew. Two runs of one id
    (one resumed offline) stay two; of two copies of one run the longer file counts. Links are not followed. Raises
    `ConfigError` where `folder` is no folder or `out` cannot be written.
    """
    if not folder.is_dir():
        raise ConfigError(f"wandb runs: {folder} is no folder")
    sizes: dict[Path, int] = {}
    num_own = 0
    for run_folder in _run_folders(folder):
        if _is_in_athlos_run(run_folder, top=folder):
            num_own += 1
            continue
        try:
            for file in _log_files(run_folder):
                _import_run(file, out, sizes)
        except DataError as error:
            log.warning("left out: %s", _one_line(str(error)))
        except OSError as error:
            raise ConfigError(f"cannot write below {out}: {error.strerror or error}") from error
    if num_own:
        log.info("%s: %d wandb runs stand in Athlos run folders and are not imported", folder, num_own)
    return sorted(sizes)


def _one_line(text: str) -> str:
    """Names of folders come from anywhere: nothing of them may steer a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _run_folders(folder: Path) -> list[Path]:
    """Folders of offline runs at and below `folder`, in order of their paths."""
    found = []
    for root, names, _ in os.walk(folder):
        if Path(root).resolve().match(RUN_FOLDERS):
            found.append(Path(root))
            names.clear()
        names.sort()
    return sorted(found)


def _is_in_athlos_run(run_folder: Path, *, top: Path) -> bool:
    """Whether it is `<run>/events/wandb/offline-run-...` of a run folder at or below `top`."""
    if len(run_folder.relative_to(top).parts) < 3:
        return False
    run = run_folder.parents[2]
    return run_folder.parent.parent.name == "events" and all(
        (run / name).is_file() for name in ("config.yaml", "status.json")
    )


def _log_files(run_folder: Path) -> list[Path]:
    try:
        files = [path for path in sorted(run_folder.glob("run-*.wandb")) if path.is_file() and not path.is_symlink()]
    except OSError as error:
        raise DataError(error.strerror or str(error), file=run_folder) from error
    if not files:
        raise DataError("no run-*.wandb file", file=run_folder)
    return files


def _import_run(file: Path, out: Path, sizes: dict[Path, int]) -> None:
    """Write one run beside its place and rename it; `sizes` tells what was imported in this call, and grows."""
    scratch = out / f".import-{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        events = events_file(scratch)
        events.parent.mkdir(parents=True)
        with events.open("w", encoding="utf-8", errors="replace") as handle:
            contents = WandbContents(file, events=handle)
        if not contents.log.num_records:
            raise DataError("holds no record: the run was killed before wandb wrote its first", file=file)
        destination = out / _destination(file, contents)
        size = file.stat().st_size
        if destination in sizes and size <= sizes[destination]:
            log.info("%s: a copy of a run that is already imported", file)
            return
        if not _may_replace(destination):
            raise DataError(f"{destination} is in the way, and was not imported from wandb", file=file)
        _write(scratch, file, contents)
        destination.parent.mkdir(exist_ok=True)
        if destination.exists():
            shutil.rmtree(destination)
        scratch.rename(destination)
        sizes[destination] = size
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _destination(file: Path, contents: WandbContents) -> Path:
    """<project>/<name>-<hash>; the hash is of id, start and folder name, so that it is the same at the next import."""
    run = contents.run
    identity = [file.stem, file.parent.resolve().name]
    if run is None:
        return Path("wandb") / f"{file_name(file.stem)}-{_short_hash(identity)}"
    identity += [run.run_id, f"{run.start_time.seconds}.{run.start_time.nanos}"]
    name = file_name(run.display_name or run.run_id)
    return Path(file_name(run.project or "wandb")) / f"{name}-{_short_hash(identity)}"


def _short_hash(parts: list[str]) -> str:
    return sha256("\0".join(parts).encode(errors="replace")).hexdigest()[:8]


def _may_replace(destination: Path) -> bool:
    """Whether nothing is there, or an earlier import."""
    if not os.path.lexists(destination):
        return True
    if destination.is_symlink():
        return False
    try:
        provenance = json.loads((destination / "provenance.json").read_text(encoding="utf-8"))
        return provenance["imported"]["from"] == "wandb"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False


def _write(target: Path, file: Path, contents: WandbContents) -> None:
    """All files of the run folder but the curves, which are there."""
    media = WandbMedia(target, file.parent, contents)
    media.write()
    config = _config(contents)
    metrics = contents.metrics
    if math.isfinite(contents.runtime_s):
        metrics.setdefault("cost/wall_s", contents.runtime_s)
    found = provenance(file.parent, contents) | _origin(file, contents, left_out=media.left_out)
    if type(config.get("seed")) is int:
        found["seed"] = config["seed"]
    _write_text(target / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    _write_text(target / "metrics.json", _json(metrics))
    _write_text(target / "provenance.json", _json(found))
    _write_text(target / "status.json", _json(_status(file, contents)))


def _write_text(path: Path, text: str) -> None:
    write_atomically(path, _encodable(text))


def _encodable(text: str) -> str:
    """JSON can hold half of a surrogate pair, UTF-8 cannot."""
    return text.encode("utf-8", errors="replace").decode()


def _json(values: dict[str, Any]) -> str:
    return json.dumps(finite(values), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _config(contents: WandbContents) -> dict[str, Any]:
    """The run's config without secrets. The project is its study where it names none; how else it was filed stands
    under `_wandb`, a name that wandb keeps for itself.
    """
    found = {key: _unwrapped(value) for key, value in contents.config.nested().items() if key != "_wandb"}
    config: dict[str, Any] = {_encodable(key): _shown(key, value) for key, value in found.items()}
    run = contents.run
    if run is not None:
        config.setdefault("study", run.project or "wandb")
        filed = {"group": run.run_group, "job_type": run.job_type, "tags": list(run.tags)}
        config |= {"_wandb": known} if (known := {key: value for key, value in filed.items() if value}) else {}
    return config


def _unwrapped(value: Any) -> Any:
    """Older programs wrote {"desc": ..., "value": x} for x."""
    is_wrapped = isinstance(value, dict) and "value" in value and value.keys() <= {"desc", "value"}
    return value["value"] if is_wrapped else value


def _shown(key: str, value: Any, depth: int = 1) -> Any:
    if SECRET.search(key) and value not in (None, ""):
        return REMOVED
    if isinstance(value, dict | list) and depth >= MAX_DEPTH:
        return "(too deep)"
    if isinstance(value, str):
        return REMOVED if SECRET_VALUE.fullmatch(value) else _encodable(value)
    if isinstance(value, dict):
        return {_encodable(inner): _shown(inner, each, depth + 1) for inner, each in value.items()}
    if isinstance(value, list):
        return [_shown("", each, depth + 1) for each in value]
    return value


def _status(file: Path, contents: WandbContents) -> dict[str, Any]:
    """The state as far as the log tells: a run without an end is running where it wrote just now, else failed."""
    last = contents.last_time if math.isfinite(contents.last_time) else file.stat().st_mtime
    status: dict[str, Any] = {"start": _iso(contents.start), "end": _iso(_moment(last))}
    if math.isfinite(contents.runtime_s):
        status["wall_s"] = contents.runtime_s
    if contents.exit is not None:
        code = contents.exit.exit_code
        if code == 0:
            return status | {"state": "finished"}
        return status | {
            "state": "failed", "error": "ExitCode", "exit_code": code,
            "message": f"the program ended with exit code {code}",
        }  # fmt: skip
    if abs(time.time() - last) < RUNNING_SECONDS:  # clocks of two machines may differ
        del status["end"]
        return status | {"state": "running", "message": "wandb's file had no end yet when it was imported"}
    how = "is cut" if contents.log.is_cut else "ends without the run's end"
    return status | {
        "state": "failed", "error": "NoEnd",
        "message": f"wandb's file {how}: the run was killed, or the file is not whole",
    }  # fmt: skip


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, tz=UTC) if 0 < seconds < 2**35 else None


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")


def _origin(file: Path, contents: WandbContents, *, left_out: list[str]) -> dict[str, Any]:
    """Where the run was imported from, and what of it is not in the run folder."""
    run, wandb_log = contents.run, contents.log
    names = {} if run is None else {"id": run.run_id, "name": run.display_name, "notes": run.notes}
    return {
        "imported": {
            "from": "wandb",
            "folder": file.parent.resolve().name,
            **names,
            "records": wandb_log.num_records,
            "damaged_records": wandb_log.num_damaged,
            "skipped_values": dict(contents.skipped),
            "left_out": left_out,
        }
    }
