"""`<source>` -> a GGUF file on this machine and the hash of its content: what llama.cpp reads. No torch here."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from athlos.errors import ModelError
from athlos.models import wheels
from athlos.stages import StageStore, file_hash

SUFFIX = ".gguf"
MAGIC = b"GGUF"
KINDS = ("dir", "wheel")
ACCEPTED = "dir:<a .gguf file, or a folder with one> or wheel:<distribution>==<version>"


@dataclass(frozen=True, kw_only=True)
class GGUFFile:
    path: Path
    sha256: str
    """Of the file's bytes."""
    license: str
    """As the source names it, or `unknown`."""


def gguf_file(source: str, *, stages: StageStore) -> GGUFFile:
    """The file of a source of one of the `KINDS`; that of a wheel is fetched on first use and kept in the cache.

    Raises `ModelError` in one line where there is none.
    """
    kind, _, reference = source.partition(":")
    if kind == "wheel":
        model = wheels.find(reference)
        path = wheels.joined(model, stages=stages).path / wheels.GGUF_NAME
        return GGUFFile(path=path, sha256=model.sha256, license=model.license)
    if kind != "dir":
        raise ModelError(f"engine.source: got '{source}', expected {ACCEPTED}")
    path = _found(Path(reference).expanduser().resolve())
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ModelError(f"engine.source: {path} is no GGUF file (it does not begin with {MAGIC.decode()})")
    changed = path.stat()
    return GGUFFile(path=path, sha256=_hash(path, changed.st_size, changed.st_mtime_ns), license="unknown")


def _found(place: Path) -> Path:
    """The file itself, or the only one of a folder."""
    if place.is_file():
        return place
    found = sorted(place.glob(f"*{SUFFIX}"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found[:3]) or "none"
        if not found and any(place.glob("*.safetensors")):
            names += "; convert its safetensors with convert_hf_to_gguf.py of llama.cpp"
        raise ModelError(f"engine.source: {place} must be a {SUFFIX} file or a folder with one; found {names}")
    return found[0]


@lru_cache(maxsize=8)
def _hash(path: Path, num_bytes: int, changed_ns: int) -> str:
    """`file_hash`, once for a file that stays as it is."""
    return file_hash(path)
