"""Content-addressed stage products: built once, shared by every run of a sweep, never half-made.

The key of a product is a hash of the stage's name and version, its config slice and the hashes of its inputs. A
product is a folder: it is built beside its place and renamed into it; a file lock keeps two jobs from building one
thing twice; a killed job leaves only a folder that the next builder throws away, or, where the stage is resumable, goes
on in. There is no scheduler here: a stage asks for the products it needs by calling `StageStore.get` itself.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from athlos.errors import ConfigError, TrainingError

log = logging.getLogger(__name__)

CACHE_VARIABLE = "ATHLOS_CACHE"
MANIFEST = "stage.json"
BUILDING_SUFFIX = ".building"
USERS_FOLDER = "users"
"""Below the cache folder: one JSON file a run folder, with the products that the run used."""
LOCK_NOTICE_SECONDS = 2.0
"""How long to wait silently for another job that builds the same product before saying so."""
PRODUCT_WAIT_SECONDS, PRODUCT_POLL_SECONDS = 600.0, 0.1
"""How long, and how often, a process that took part in a build looks for the product that the writer renames."""


def cache_dir(configured: str | None = None) -> Path:
    """The cache folder: the configured one, else $ATHLOS_CACHE, else ~/.cache/athlos."""
    return Path(configured or os.environ.get(CACHE_VARIABLE) or "~/.cache/athlos").expanduser().resolve()


def content_hash(value: Any) -> str:
    """sha256 of a JSON-able value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of work. `build(folder)` writes the product into an empty folder.

    `version` is raised whenever the product changes meaning. `inputs` holds content hashes (of data, of a model, of
    other products), `config` the plain values that matter. `build` is not part of the key: code changes that keep the
    meaning keep the cache.
    """

    name: str
    version: int
    build: Callable[[Path], object] = field(compare=False)
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    is_resumable: bool = field(default=False, compare=False)
    """Whether `build` goes on from what an earlier, stopped call left in its folder. Then the folder is kept when a
    build fails or is killed, and `build` removes what the product does not need before it returns."""

    @property
    def key(self) -> str:
        """First 20 hex digits of the content hash."""
        parts = {"name": self.name, "version": self.version, "config": dict(self.config), "inputs": dict(self.inputs)}
        return content_hash(parts)[:20]


@dataclass(frozen=True, kw_only=True)
class Product:
    """A finished stage: its folder, its key, and whether this process found it ready."""

    name: str
    key: str
    path: Path
    reused: bool
    seconds: float
    """Time to build it, also when it was found ready; of a resumed build, the time of its last part."""
    started: str | None = None
    """ISO 8601, UTC: when the build, or the last part of a resumed one, began; None where an older Athlos made it."""
    made: str | None = None
    """ISO 8601, UTC: when it was finished; None where an older Athlos made it."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a product that is whole: every file that it lists is there with its size.

    Raises `OSError` where the manifest or a file cannot be read, `ValueError` with the reason for a damaged product.
    """
    record = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    try:
        sizes, _ = dict(record["files"]), float(record["seconds"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{MANIFEST} is no manifest") from error
    for name, size in sizes.items():
        actual = (folder / name).stat().st_size
        if actual != size:
            raise ValueError(f"{name} has {actual} bytes, expected {size}")
    return dict(record)


class StageStore:
    """Products below `root`, as `<root>/<stage>/<key>/`. `history` lists what this process asked for, in order.

    In a run of several processes that build a resumable stage together, one is the writer: it owns the lock, the
    folder and the renaming. The others only call `build` with the same folder.
    """

    def __init__(self, root: Path, *, is_writer: bool = True) -> None:
        self.root, self.is_writer = root, is_writer
        self.history: list[Product] = []

    def get(self, stage: Stage) -> Product:
        """The product of a stage, built now if it is not there; waits while another job builds it.

        Raises `ConfigError` where the cache cannot be written, `TrainingError` where the disk fails in the build, or,
        in a process that is not the writer, where the writer has not finished the product in time.
        """
        is_guest = stage.is_resumable and not self.is_writer
        product = (self.find(stage) or self._take_part(stage)) if is_guest else self._locked(stage)
        if product.reused:
            log.info("stage %s: reused %s", stage.name, stage.key)
        self.history.append(product)
        return product

    def find(self, stage: Stage) -> Product | None:
        """The product if it is there and whole. Builds nothing, waits for nobody and changes nothing."""
        target = self._target(stage)
        if not (target / MANIFEST).is_file():
            return None
        try:
            record = read_manifest(target)
        except (OSError, ValueError) as error:
            log.warning("stage %s: %s is damaged (%s)", stage.name, target, error)
            return None
        return _product(record, path=target, reused=True)

    def ready(self, stage: Stage) -> bool:
        """Whether the product is there, without building it."""
        return self.find(stage) is not None

    def building(self, stage: Stage) -> Path:
        """The folder that the stage is built in; for a resumable one it outlives a stopped build."""
        return self._target(stage).with_name(f"{stage.key}{BUILDING_SUFFIX}")

    def note_user(self, run_folder: Path, keys: Sequence[tuple[str, str]]) -> None:
        """Record the products, as (stage name, key), that a run folder uses, in place of those recorded before.

        `athlos cache` reads this to tell which products nobody needs. Raises `TrainingError` when it cannot be written.
        """
        path = run_folder.resolve()
        note = {"run_folder": str(path), "products": [{"stage": name, "key": key} for name, key in keys]}
        target = self.root / USERS_FOLDER / f"{content_hash(str(path))[:20]}.json"
        scratch = target.with_name(f"{target.stem}.{os.getpid()}.writing")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(json.dumps(note, indent=1), encoding="utf-8")
            scratch.replace(target)
        except OSError as error:
            raise TrainingError(f"cache_dir: cannot write {target}: {error.strerror or error}") from error

    def _target(self, stage: Stage) -> Path:
        return self.root / stage.name / stage.key

    def _locked(self, stage: Stage) -> Product:
        target = self._target(stage)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(f"{target}.lock")
            self._acquire(lock, stage)
        except OSError as error:
            raise ConfigError(f"cache_dir: cannot write below {self.root}: {error.strerror or error}") from error
        try:
            return self.find(stage) or self._build(stage)
        finally:
            lock.release()

    def _acquire(self, lock: FileLock, stage: Stage) -> None:
        try:
            lock.acquire(timeout=LOCK_NOTICE_SECONDS)
        except Timeout:
            log.info("stage %s: another job is building %s; waiting", stage.name, stage.key)
            lock.acquire()

    def _build(self, stage: Stage) -> Product:
        target, scratch = self._target(stage), self.building(stage)
        is_resumed = stage.is_resumable and scratch.is_dir()
        log.info("stage %s: %s %s", stage.name, "going on with" if is_resumed else "building", stage.key)
        shutil.rmtree(target, ignore_errors=True)  # what stands here is damaged
        if not stage.is_resumable:
            shutil.rmtree(scratch, ignore_errors=True)  # the lock is ours, so any such folder is a dead job's
        started, start = _now(), time.monotonic()
        try:
            with _disk_errors(stage, scratch):
                scratch.mkdir(exist_ok=True)
                stage.build(scratch)
                record = {
                    "stage": stage.name,
                    "version": stage.version,
                    "key": stage.key,
                    "config": dict(stage.config),
                    "inputs": dict(stage.inputs),
                    "seconds": time.monotonic() - start,
                    "started": started,
                    "made": _now(),
                    "files": _file_sizes(scratch),
                }
                (scratch / MANIFEST).write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
                scratch.rename(target)
        finally:
            if not stage.is_resumable:
                shutil.rmtree(scratch, ignore_errors=True)
        return _product(record, path=target, reused=False)

    def _take_part(self, stage: Stage) -> Product:
        """Build beside the writer, which has the lock, and wait until it has renamed the folder."""
        with _disk_errors(stage, self.building(stage)):
            stage.build(self.building(stage))
        deadline = time.monotonic() + PRODUCT_WAIT_SECONDS
        while (product := self.find(stage)) is None:
            if time.monotonic() > deadline:
                raise TrainingError(
                    f"stage {stage.name}: process 0 has not finished {stage.key} {PRODUCT_WAIT_SECONDS:.0f} s after "
                    f"this process did its part"
                )
            time.sleep(PRODUCT_POLL_SECONDS)
        return replace(product, reused=False)


def _product(record: Mapping[str, Any], *, path: Path, reused: bool) -> Product:
    return Product(
        name=path.parent.name,
        key=path.name,
        path=path,
        reused=reused,
        seconds=float(record["seconds"]),
        started=record.get("started"),
        made=record.get("made"),
    )


def _file_sizes(folder: Path) -> dict[str, int]:
    """Path below the folder -> bytes, without the manifest that a build killed just before its renaming left."""
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: size for name, size in sizes.items() if name != MANIFEST}


@contextmanager
def _disk_errors(stage: Stage, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TrainingError(f"stage {stage.name}: cannot write {folder}: {error.strerror or error}") from error


def tenths_logged(what: str) -> Callable[..., None]:
    """A function of what is done and of how many, which logs each tenth of a long stage; the `Progress` of an engine.

    What else it is told, it ignores.
    """
    tenths = 0

    def progress(done: int, whole: int, *_: int) -> None:
        nonlocal tenths
        if 10 * done // whole > tenths:
            tenths = 10 * done // whole
            log.info("%s: %d of %d", what, done, whole)

    return progress


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
