"""What stands in a cache folder, who uses it, and how to remove what nobody needs. Imports nothing heavy.

A product is removed with its lock held, so never while a job builds it. Lock files stay: a job may wait on one. Links
are listed and left alone, whatever they point to.
"""

import json
import logging
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from filelock import FileLock, Timeout

from athlos.errors import ConfigError, choices
from athlos.stages import BUILDING_SUFFIX, MANIFEST, USERS_FOLDER, read_manifest

log = logging.getLogger(__name__)

PRODUCT_FOLDER = re.compile(rf"([0-9a-f]{{20}})(?:{re.escape(BUILDING_SUFFIX)})?")
LOCK_FILE = re.compile(r"[0-9a-f]{20}\.lock")
AGE = re.compile(r"(\d+)([dh])")
AGE_SECONDS = {"d": 86_400.0, "h": 3_600.0}


class State(StrEnum):
    """What a folder of a stage is."""

    READY = "ready"
    UNFINISHED = "unfinished"
    """A stopped build left it, and no job holds its lock."""
    BUILDING = "being built"
    DAMAGED = "damaged"
    """Its manifest cannot be read or its files differ from it: the next run that wants it builds it again."""


@dataclass(frozen=True, kw_only=True)
class StoredProduct:
    """One folder of a stage: a product, or what a build has written so far."""

    stage: str
    key: str
    path: Path
    state: State
    size: int
    """Bytes of its files; what links point to is not counted."""
    freed: int
    """Bytes of the files that stand here alone: a file with more than one hard link outlives its removal."""
    age_s: float
    """Seconds since it was finished; for one that is not finished, since something was last written in it."""
    users: Sequence[Path] = ()
    """Run folders that noted its use, those that are gone included."""

    @property
    def present_users(self) -> list[Path]:
        """Users that still exist."""
        return [user for user in self.users if user.is_dir()]


@dataclass(frozen=True, kw_only=True)
class OtherEntry:
    """Something in the cache that is no product; it is listed and never removed."""

    name: str
    """Path below the cache folder."""
    description: str
    size: int
    """Bytes; 0 for a link."""


@dataclass(frozen=True, kw_only=True)
class CacheContents:
    root: Path
    products: Sequence[StoredProduct]
    """By stage, the largest first."""
    others: Sequence[OtherEntry]


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """Which products are meant: those that meet every criterion that is set."""

    older_than_s: float | None = None
    is_unused: bool = False
    """Finished or damaged, and used by no run folder that still exists."""
    is_unfinished: bool = False
    """What stopped builds left, and damaged products."""
    stage: str | None = None

    @property
    def is_empty(self) -> bool:
        return self == Criteria()

    def accept(self, product: StoredProduct) -> bool:
        is_finished = product.state in (State.READY, State.DAMAGED)
        return (
            (self.stage is None or product.stage == self.stage)
            and (self.older_than_s is None or product.age_s >= self.older_than_s)
            and (not self.is_unused or (is_finished and not product.present_users))
            and (not self.is_unfinished or product.state is not State.READY)
        )


def age_seconds(text: str) -> float:
    """Seconds of an age like `30d` or `12h`; raises `ConfigError` for anything else."""
    match = AGE.fullmatch(text)
    if match is None:
        raise ConfigError(f"--older-than: got '{text}', expected days or hours such as 30d or 12h")
    return int(match[1]) * AGE_SECONDS[match[2]]


def cache_contents(root: Path) -> CacheContents:
    """Everything in a cache folder. Raises `ConfigError` where there is none or it cannot be read."""
    if not root.is_dir():
        raise ConfigError(f"cache_dir: {root} is no folder; the first run makes it, and --cache-dir names another")
    users = _users(root)
    products: list[StoredProduct] = []
    others: list[OtherEntry] = []
    try:
        for folder in sorted(root.iterdir()):
            if folder.is_symlink() or not _is_stage(folder):
                others.append(_other(folder, root=root))
                continue
            for path in sorted(folder.iterdir()):
                if path.is_dir() and not path.is_symlink() and PRODUCT_FOLDER.fullmatch(path.name):
                    own_users = users.get(_identity(path), ())
                    products.append(_stored(path, users=own_users, is_locked=_is_locked(path)))
                elif not LOCK_FILE.fullmatch(path.name):
                    others.append(_other(path, root=root))
    except OSError as error:
        raise ConfigError(f"cache_dir: cannot read {error.filename or root}: {error.strerror or error}") from error
    products.sort(key=lambda product: (product.stage, -product.size))
    return CacheContents(root=root, products=products, others=others)


def chosen(contents: CacheContents, criteria: Criteria) -> list[StoredProduct]:
    """The products that meet the criteria, those being built included. Raises `ConfigError` for an unknown stage."""
    stages = sorted({product.stage for product in contents.products})
    if criteria.stage is not None and criteria.stage not in stages:
        raise ConfigError(f"--stage: got '{criteria.stage}'{choices(criteria.stage, stages)}")
    return [product for product in contents.products if criteria.accept(product)]


def prune(contents: CacheContents, criteria: Criteria, *, is_dry: bool = False) -> Iterator[tuple[StoredProduct, bool]]:
    """Remove the products that meet the criteria; yields each with whether it went, as it goes.

    One whose lock another process holds stays. `is_dry` removes nothing. Raises `ConfigError` without any criterion,
    for an unknown stage, and where a product cannot be removed.
    """
    if criteria.is_empty:
        raise ConfigError(
            "cache prune: got no criterion, expected at least one of --older-than, --unused, --unfinished, --stage"
        )
    for product in chosen(contents, criteria):
        if is_dry:
            yield product, product.state is not State.BUILDING
            continue
        try:
            removed = _remove(product, criteria)
        except Timeout:
            yield product, False
        except OSError as error:
            raise ConfigError(f"cache prune: cannot remove {product.path}: {error.strerror or error}") from error
        else:
            if removed is not None:
                yield removed, True


def _remove(product: StoredProduct, criteria: Criteria) -> StoredProduct | None:
    """The product as it was when it was removed, or None where it no longer meets the criteria.

    Raises `Timeout` where another job holds its lock.
    """
    with FileLock(_lock_file(product.path), timeout=0):
        if not product.path.is_dir():
            return None
        # Since it was listed, another job may have built it or written in it.
        current = _stored(product.path, users=product.users, is_locked=False)
        if not criteria.accept(current):
            return None
        shutil.rmtree(product.path)
        return current


def _is_stage(folder: Path) -> bool:
    return folder.is_dir() and any(
        PRODUCT_FOLDER.fullmatch(path.name) or LOCK_FILE.fullmatch(path.name) for path in folder.iterdir()
    )


def _identity(path: Path) -> tuple[str, str]:
    """Stage and key of a folder of a stage."""
    return path.parent.name, path.name.removesuffix(BUILDING_SUFFIX)


def _lock_file(path: Path) -> Path:
    return path.with_name(f"{path.name.removesuffix(BUILDING_SUFFIX)}.lock")


def _is_locked(path: Path) -> bool:
    """Whether a job holds the lock of a product; a lock that may not be taken counts as held."""
    lock = _lock_file(path)
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except (Timeout, OSError):
        return True


def _stored(path: Path, *, users: Sequence[Path], is_locked: bool) -> StoredProduct:
    stage, key = _identity(path)
    size, freed, written_at = _measured(path)
    if path.name.endswith(BUILDING_SUFFIX):
        state = State.BUILDING if is_locked else State.UNFINISHED
        made_at = written_at
    else:
        state, made_at = _finished(path, written_at=written_at)
    return StoredProduct(
        stage=stage,
        key=key,
        path=path,
        state=state,
        size=size,
        freed=freed,
        age_s=max(0.0, time.time() - made_at),
        users=users,
    )


def _finished(path: Path, *, written_at: float) -> tuple[State, float]:
    """State of a product, and when it was made, in seconds since 1970."""
    try:
        made = read_manifest(path).get("made")
        # An older Athlos noted no time, but it wrote the manifest last.
        made_at = (path / MANIFEST).stat().st_mtime if made is None else datetime.fromisoformat(made).timestamp()
    except (OSError, ValueError, TypeError):
        return State.DAMAGED, written_at
    return State.READY, made_at


def _measured(path: Path) -> tuple[int, int, float]:
    """Bytes of a folder or file, bytes that its removal frees, time of its newest part; never follows a link."""
    size, freed = 0, 0
    written_at = path.lstat().st_mtime
    for parent, _, names in os.walk(path):
        for name in names:
            try:
                status = Path(parent, name).lstat()
            except FileNotFoundError:
                continue  # a job is at work here
            written_at = max(written_at, status.st_mtime)
            if stat.S_ISREG(status.st_mode):
                size += status.st_size
                freed += status.st_size if status.st_nlink == 1 else 0
    return size, freed, written_at


def _other(path: Path, *, root: Path) -> OtherEntry:
    is_link = path.is_symlink()
    size = 0 if is_link else _measured(path)[0] if path.is_dir() else path.lstat().st_size
    return OtherEntry(
        name=str(path.relative_to(root)),
        description=f"a link to {path.readlink()}, not followed" if is_link else _description(path, root=root),
        size=size,
    )


def _description(path: Path, *, root: Path) -> str:
    if path.parent != root:
        return "no product of this stage"
    if path.name == USERS_FOLDER:
        return "which run folders use which products"
    if path.name == "kernels":
        return "compiled kernels of generation"
    if any(path.glob("[0-9a-f][0-9a-f]/*.json")):  # its name is the user's choice, engine.cache
        return "replies of servers"
    return "unknown to athlos"


def _users(root: Path) -> dict[tuple[str, str], list[Path]]:
    """(stage, key) -> run folders that noted its use. A damaged note is told and left out."""
    users: dict[tuple[str, str], list[Path]] = {}
    for path in sorted((root / USERS_FOLDER).glob("*.json")):
        try:
            note = json.loads(path.read_text(encoding="utf-8"))
            for product in note["products"]:
                users.setdefault((product["stage"], product["key"]), []).append(Path(note["run_folder"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("cache_dir: %s is damaged (%s); its run folder is not counted", path, error)
    return users
