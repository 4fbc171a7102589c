"""`model=own`: any causal model in a folder trains, is evaluated and exported; what needs sites is refused at once."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.models.conftest import OTHER_FAMILIES, UNKNOWN_FAMILIES
from tests.tolerances import FLOAT32
from transformers import AutoModelForCausalLM, AutoTokenizer

from athlos.models.architecture import build, hf_config
from athlos.models.tokenizers import byte_tokenizer

TEMPLATE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}"
TOKENS = {"vocab_size": 259, "pad_token_id": 256, "bos_token_id": 257, "eos_token_id": 258}
IDS = torch.tensor([[70, 71, 72, 73, 74]])


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """`folder(family)`: a tiny model as another program would leave it, tokenizer and chat template beside it."""

    def write(family: str, **changes: object) -> Path:
        architecture = {**OTHER_FAMILIES, **UNKNOWN_FAMILIES}[family] | TOKENS | changes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = build(hf_config(architecture), dtype=torch.float32)
        place = tmp_path / family
        model.save_pretrained(place)
        tokenizer = byte_tokenizer()
        tokenizer.chat_template = TEMPLATE
        tokenizer.save_pretrained(place)
        return place

    return write


@pytest.fixture
def own(tiny: list[str]) -> list[str]:
    """The overrides of `tiny` for a model whose architecture is its folder's."""
    return [item for item in tiny if not item.startswith("model.")] + ["model=own", "train.max_steps=2"]


@pytest.mark.parametrize(
    ("family", "choices", "is_counted"),
    [
        ("gpt2", [], True),
        ("opt", ["tuning=lora"], True),
        ("mixtral", ["selection=layers", "selection.layers=[0]"], False),
        ("mamba", ["tuning=lora"], False),
        ("falcon", [], False),
        ("bloom", ["tuning=lora"], False),
        ("gptj", [], False),
    ],
)
def test_a_model_of_any_family_trains_and_is_exported(
    family: str,
    choices: list[str],
    is_counted: bool,
    own: list[str],
    folder: Callable[..., Path],
    run,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = folder(family)
    code, out, err = run("run", *own, f"model.source=dir:{place}", *choices, "train.lr=0.01")
    assert code == 0, err
    assert "model.architecture" not in caplog.text
    run_folder = Path(out.splitlines()[-1])
    metrics = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["cost/flops"] is not None) == is_counted
    assert metrics["test/ppl"] > 1
    exported = tmp_path / "exported"
    assert run("export", str(run_folder), "--out", str(exported))[0] == 0
    trained = AutoModelForCausalLM.from_pretrained(exported).eval()
    kept = AutoModelForCausalLM.from_pretrained(run_folder / "checkpoints" / "final").eval()
    start = AutoModelForCausalLM.from_pretrained(place).eval()
    with torch.no_grad():
        logits = trained(IDS).logits
        assert torch.equal(logits, kept(IDS).logits)
        assert not torch.allclose(logits, start(IDS).logits, atol=FLOAT32)
    assert {name for name, _ in trained.named_parameters()} == {name for name, _ in start.named_parameters()}
    chat = [{"role": "user", "content": "hi"}]
    rendered = AutoTokenizer.from_pretrained(exported).apply_chat_template(chat, tokenize=False)
    assert rendered == "<user>hi"


def test_another_engine_answers_for_layers_that_native_does_not_know(own, folder, run, caplog) -> None:
    words = [item for item in own if not item.startswith(("data", "eval"))]
    sums = [
        "data=lab_sums",
        "eval=math",
        "eval.shots=0",
        "prompt_style=bare",
        "eval.suites.math.language_detector=lab",
        "data.limit_test=3",
        "data.limit_train=20",
        "decoding.max_new_tokens=4",
    ]
    with caplog.at_level(logging.INFO, logger="athlos"):
        code, out, err = run("run", *words, *sums, "train.max_length=128", f"model.source=dir:{folder('mamba')}")
    assert code == 0, err
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("engine:")]
    assert told == ["engine: transformers, since engine=native does not know the layers of a mamba model"]
    provenance = json.loads((Path(out.splitlines()[-1]) / "provenance.json").read_text(encoding="utf-8"))
    assert provenance["engine"]["name"] == provenance["signatures"]["math_engine"] == "transformers"


@pytest.mark.parametrize(
    ("family", "part", "message"),
    [
        ("bloom", "selection=layers selection.layers=[0]", "sites are known of Llama"),
        ("falcon", "method=spannorm selection=all", "sites are known of Llama"),
        ("gpt2", "surgery=spannorm surgery.from_scratch=true", "surgeries are written for Llama"),
        ("gpt_neox", "surgery=lisa surgery.layers.count=1", "surgeries are written for Llama"),
        ("mamba", "surgery=mqa_meanpool", "sites are known of Llama"),
    ],
)
def test_what_needs_sites_is_refused_before_the_first_step(family, part, message, own, folder, run, tmp_path) -> None:
    code, _, err = run("run", *own, f"model.source=dir:{folder(family)}", *part.split())
    [line] = [line for line in err.splitlines() if line.startswith("error:")]
    assert (code, message in line) == (4, True), err
    assert not list(tmp_path.glob("cache/training/*/checkpoints"))
    assert all(not path.read_text(encoding="utf-8") for path in tmp_path.glob("**/metrics.jsonl"))


@pytest.mark.parametrize(
    ("family", "is_counted"), [("gpt2", True), ("mamba", False), ("mixtral", False), ("qwen2_moe", False)]
)
def test_a_dry_run_says_what_it_cannot_count(family, is_counted, own, folder, run) -> None:
    code, out, err = run("run", *own, f"model.source=dir:{folder(family)}", "dry_run=true")
    assert code == 0, err
    assert "memory: training  " in out
    assert ("not counted for this architecture" in out) != is_counted


def test_only_a_key_that_the_user_sets_is_held_against_the_weights(tiny, folder, run, caplog) -> None:
    words = [item for item in tiny if not item.startswith("model.")]
    source = [f"model.source=dir:{folder('gpt2')}", "model.tokenizer.kind=source", "train.max_steps=0"]
    code, _, err = run("run", *words, *source)
    assert (code, "model.architecture" in caplog.text) == (0, False), err
    for model in ([], ["model=own"]):
        code, _, err = run(
            "run", *words, *model, *source, "++model.architecture.hidden_size=32", f"study=s{len(model)}"
        )
        assert code == 0, err
        assert "model.architecture.hidden_size: 32 here, but the weights say 24" in caplog.text
        caplog.clear()


def test_a_model_without_a_source_names_the_key(own, run) -> None:
    code, _, err = run("run", *own)
    assert (code, "model.source: no value; give one with model.source=..." in err) == (2, True)


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([{"prompt": f"{number}?", "completion": f" {number}."} for number in range(3)], r"data\.test_share: got 0\.1"),
        ([{"ask": "1?", "reply": " 1."}] * 40, r"prompt"),
    ],
)
def test_records_that_serve_no_split_are_told_before_weights_are_loaded(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[dict], line: str
) -> None:
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr("athlos.runs.chain.start_of", lambda *_, **__: pytest.fail("the model was looked at"))
    command = ["data=own", f"data.path={tmp_path / 'mine.jsonl'}", "eval=completions", f"results_dir={tmp_path}"]
    code, _, err = run("run", *command, "tracking=none", "train.max_steps=1")
    assert code == 3
    assert re.search(line, err), err
