"""Changed models go through transformers' own save_pretrained and from_pretrained, and come back changed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2Model

from athlos.config.registry import Part, registry
from athlos.config.schema import SurgeryConfig
from athlos.errors import SurgeryError
from athlos.models.architecture import build, hf_config
from athlos.models.sites import backbone
from athlos.models.surgical import record_surgery, surgeries

LLAMA = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 40,
    "tie_word_embeddings": True,
}
GEMMA = LLAMA | {"model_type": "gemma3_text", "head_dim": 8}


@dataclass(kw_only=True)
class WideConfig(SurgeryConfig):
    """Of the surgery below."""


class Wide:
    """Gives the FFN of some layers an output of its own shape: a thin matrix before the old one."""

    @staticmethod
    def rebuild(model: Any, plan: dict[str, Any]) -> None:
        for layer in (backbone(model).layer(index) for index in plan["layers"]):
            layer.ffn.thin = torch.nn.Linear(plan["width"], plan["width"], bias=False)
            layer.ffn.register_forward_pre_hook(lambda module, inputs: (module.thin(inputs[0]),))


@pytest.fixture(autouse=True)
def wide() -> Iterator[None]:
    part = Part(group="surgery", name="wide", schema=WideConfig, target=f"{__name__}.Wide", summary="for this test")
    registry().add(part)
    yield
    del registry().parts["surgery", "wide"]


def changed(architecture: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    model = build(hf_config(architecture)).eval()
    plan = {"layers": [0, 2], "width": 16}
    Wide.rebuild(model, plan)
    record_surgery(model, name="wide", plan=plan)
    return model


def program(text: str) -> "subprocess.CompletedProcess[str]":
    """What a Python program of its own says."""
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("architecture", [LLAMA, GEMMA], ids=["llama", "gemma3_text"])
def test_a_changed_model_comes_back_with_its_weights(architecture: dict[str, Any], tmp_path: Path) -> None:
    model, ids = changed(architecture), torch.arange(6)[None]
    model.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert (stored["model_type"], stored["base_model_type"]) == ("athlos", architecture["model_type"])
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(again) is type(model)
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert surgeries(again.config) == [{"name": "wide", "plan": {"layers": [0, 2], "width": 16}}]
    again.save_pretrained(tmp_path / "twice")
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path / "twice")(ids).logits, model(ids).logits)


def test_surgeries_are_rebuilt_in_their_order(tmp_path: Path) -> None:
    model = changed(LLAMA)
    record_surgery(model, name="wide", plan={"layers": [], "width": 1})
    model.save_pretrained(tmp_path)
    assert [one["plan"]["layers"] for one in surgeries(AutoConfig.from_pretrained(tmp_path))] == [[0, 2], []]


@pytest.mark.slow
def test_one_import_is_all_that_another_program_needs(tmp_path: Path) -> None:
    """No surgery here, so that the program needs no part of this test."""
    torch.manual_seed(0)
    model = build(hf_config(LLAMA))
    record_surgery(model, name="wide", plan={"layers": [], "width": 1})
    model.config.athlos_surgeries = []
    model.save_pretrained(tmp_path)
    load = (
        f"from transformers import AutoModelForCausalLM\n"
        f"print(type(AutoModelForCausalLM.from_pretrained({str(tmp_path)!r})).__name__)"
    )
    done = program(f"import athlos.hf\n{load}")
    assert done.stdout.strip() == "AthlosLlamaForCausalLM", done.stderr
    for lacking in ("", "import athlos\n"):
        done = program(lacking + load)
        assert done.returncode != 0
        assert "model type `athlos`" in done.stderr


@pytest.mark.slow
def test_picture_encoders_are_known_after_the_import_as_well(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "athlos_vision", "hidden_size": 8}', encoding="utf-8")
    load = (
        f"from transformers import AutoConfig, AutoModel\n"
        f"print(type(AutoModel.from_config(AutoConfig.from_pretrained({str(tmp_path)!r}))).__name__)"
    )
    done = program(f"import athlos.hf\n{load}")
    assert done.stdout.strip() == "AthlosVisionModel", done.stderr
    assert "model type `athlos_vision`" in program(load).stderr


def test_a_model_without_head_is_refused() -> None:
    with pytest.raises(SurgeryError, match="GPT2Model is no causal language model"):
        record_surgery(GPT2Model(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=10)), name="wide", plan={})


@pytest.mark.parametrize("base", ["lama", ""])
def test_an_unknown_base_is_named(base: str, tmp_path: Path) -> None:
    changed(LLAMA).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_type": base}), encoding="utf-8")
    with pytest.raises(SurgeryError, match=f"base_model_type: got '{base}'"):
        AutoConfig.from_pretrained(tmp_path)
