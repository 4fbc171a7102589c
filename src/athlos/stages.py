"""Content-addressed stage products: built once, shared by every run of a sweep, never half-made.

The key of a product is a hash of the stage's name and version, its config slice and the hashes of its inputs. A
product is a folder: it is built beside its place and renamed into it; a file lock keeps two jobs from building one
thing twice; a killed job leaves only a folder that the next builder throws away. There is no scheduler here: a stage
asks for the products it needs by calling `StageStore.get` itself.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from athlos.errors import ConfigError, TrainingError

log = logging.getLogger(__name__)

CACHE_VARIABLE = "ATHLOS_CACHE"
MANIFEST = "stage.json"
LOCK_NOTICE_SECONDS = 2.0
"""How long to wait silently for another job that builds the same product before saying so."""


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
    build: Callable[[Path], None] = field(compare=False)
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)

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
    """Time to build it, also when it was found ready."""


class StageStore:
    """Products below `root`, as `<root>/<stage>/<key>/`. `history` lists what this process asked for, in order."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.history: list[Product] = []

    def get(self, stage: Stage) -> Product:
        """The product of a stage, built now if it is not there; waits while another job builds it."""
        target = self.root / stage.name / stage.key
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(str(target) + ".lock")
            self._acquire(lock, stage)
        except OSError as error:
            raise ConfigError(f"cache_dir: cannot write below {self.root}: {error.strerror or error}") from error
        try:
            product = self._ready(stage, target) or self._build(stage, target)
        finally:
            lock.release()
        self.history.append(product)
        return product

    def ready(self, stage: Stage) -> bool:
        """Whether the product is there, without building it."""
        return self._ready(stage, self.root / stage.name / stage.key) is not None

    def _acquire(self, lock: FileLock, stage: Stage) -> None:
        try:
            lock.acquire(timeout=LOCK_NOTICE_SECONDS)
        except Timeout:
            log.info("stage %s: another job is building %s; waiting", stage.name, stage.key)
            lock.acquire()

    def _ready(self, stage: Stage, target: Path) -> Product | None:
        """The product if it is whole: every file of its manifest is there with its size."""
        manifest = target / MANIFEST
        if not manifest.is_file():
            return None
        try:
            record = json.loads(manifest.read_text(encoding="utf-8"))
            for name, size in record["files"].items():
                if (target / name).stat().st_size != size:
                    raise ValueError(name)
        except (OSError, ValueError, KeyError) as error:
            log.warning("stage %s: %s is damaged (%s); building it again", stage.name, target, error)
            shutil.rmtree(target)
            return None
        log.info("stage %s: reused %s", stage.name, stage.key)
        return Product(name=stage.name, key=stage.key, path=target, reused=True, seconds=record["seconds"])

    def _build(self, stage: Stage, target: Path) -> Product:
        log.info("stage %s: building %s", stage.name, stage.key)
        scratch = target.with_name(f"{target.name}.building")  # the lock is ours, so any such folder is a dead job's
        shutil.rmtree(scratch, ignore_errors=True)
        start = time.monotonic()
        try:
            scratch.mkdir()
            stage.build(scratch)
            seconds = time.monotonic() - start
            files = {
                str(path.relative_to(scratch)): path.stat().st_size
                for path in sorted(scratch.rglob("*"))
                if path.is_file()
            }
            record = {
                "stage": stage.name, "version": stage.version, "key": stage.key, "config": dict(stage.config),
                "inputs": dict(stage.inputs), "seconds": seconds, "files": files,
            }  # fmt: skip
            (scratch / MANIFEST).write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
            shutil.rmtree(target, ignore_errors=True)
            scratch.rename(target)
        except OSError as error:
            raise TrainingError(f"stage {stage.name}: cannot write {scratch}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return Product(name=stage.name, key=stage.key, path=target, reused=False, seconds=seconds)
