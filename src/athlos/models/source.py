"""`model.source` read and looked at, without torch: what is not there is told at once, before anything heavy loads."""

from dataclasses import dataclass
from pathlib import Path

from athlos.config.schema import ModelConfig
from athlos.errors import ModelError, did_you_mean

SOURCES = ("random", "hub", "dir", "wheel", "run", "llava")
HUB_BRANCH = "main"
LFS_POINTER = b"version https://git-lfs"
CONVERSION = "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder) in a place where you trust them"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.*", "*.model", "*.tiktoken", "tekken.json")
"""One of them stands beside the weights of any model that brings a tokenizer."""
NO_TOKENIZER = "; put its tokenizer.json and tokenizer_config.json there"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A parsed `model.source`: its kind and what stands behind the colon."""

    kind: str
    reference: str = ""
    revision: str = ""
    """Branch, tag or commit of a hub repository."""


def parse_source(text: str) -> Source:
    """Parse `random`, `hub:<repo>@<revision>`, `dir:<path>`, `wheel:<distribution>==<version>`, `run:<experiment>`.

    A repository without a revision is read at `main`, which may move; best is a commit.
    """
    kind, colon, reference = text.partition(":")
    if kind not in SOURCES or (kind == "random") != (not colon):
        accepted = (
            "random, hub:<repo>@<revision>, dir:<path>, wheel:<distribution>==<version>, run:<experiment>, "
            "llava:<decoder>+<encoder>"
        )
        raise ModelError(f"model.source: got '{text}'{did_you_mean(kind, SOURCES)}; accepted: {accepted}")
    if kind != "hub":
        if kind in ("dir", "run") and not reference:
            missing, wanted = ("a folder", "dir:<path>") if kind == "dir" else ("an experiment", "run:<experiment>")
            raise ModelError(f"model.source: got '{text}' without {missing}; expected {wanted}")
        return Source(kind=kind, reference=reference)
    repository, at, revision = reference.partition("@")
    if not repository or (at and not revision):
        raise ModelError(
            f"model.source: got '{text}', expected hub:<repo>@<revision> (a branch, a tag or, best, a commit)"
        )
    return Source(kind=kind, reference=repository, revision=revision or HUB_BRANCH)


def check_source(config: ModelConfig) -> None:
    """Raises `ModelError` for a folder that lacks config, weights or tokenizer, and for what is no source at all."""
    source = parse_source(config.source)
    if source.kind != "dir":
        return
    folder = model_folder(source)
    brings_tokenizer = config.tokenizer.kind in ("source", "trimmed")
    if brings_tokenizer and not any(path for pattern in TOKENIZER_FILES for path in folder.glob(pattern)):
        raise ModelError(f"model.source: no tokenizer in {folder}{NO_TOKENIZER}")


def model_folder(source: Source) -> Path:
    """The folder of a `dir:` source, once it is sure to hold a config and safetensors."""
    folder = Path(source.reference).expanduser().resolve()
    if not (folder / "config.json").is_file():
        is_adapter = (folder / "adapter_config.json").is_file()
        reason = "a LoRA adapter alone; merge it into its model and save that" if is_adapter else "no config.json in it"
        raise ModelError(f"model.source: {folder} is no Hugging Face model folder ({reason})")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickles = sorted(path.name for path in folder.glob("*") if path.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        got = "none; download them beside config.json"
        if pickles:
            got = f"only {', '.join(pickles[:3])}, which are pickles and can run code; convert them ({CONVERSION})"
        raise ModelError(f"model.source: {folder} must hold weights as *.safetensors; found {got}")
    if _is_lfs_pointer(weights[0]):
        raise ModelError(f"model.source: {weights[0]} is a pointer of Git LFS, no weights; run `git lfs pull` there")
    return folder


def _is_lfs_pointer(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER
