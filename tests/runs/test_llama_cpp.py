"""A run whose answers come through llama.cpp: of a GGUF file as it is, or of weights of our own, converted once."""

import json
from pathlib import Path

import pytest
from tests.models.tiny_gguf import tiny_gguf

from athlos.generation import llama_cpp_server
from athlos.stages import file_hash

pytest.importorskip("xllamacpp", reason="the extra `llama-cpp` is not installed")
pytest.importorskip("gguf", reason="the extra `gguf` is not installed")


def test_a_gguf_file_answers_a_whole_run(run, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr("athlos.runs.assemble.load_model", lambda *_, **__: pytest.fail("weights were loaded"))
    command = [
        *["run", "data=lab", "prompt_style=bare", "data.kinds=[fact]", "eval=qa", "train.max_steps=0"],
        *["engine=llama_cpp", "engine.api=completions", f"engine.source=dir:{tmp_path}", "engine.context_length=256"],
        *["hardware.num_threads=1", "decoding.max_new_tokens=4", "eval.bootstrap=0", "data.limit_test=3"],
        *["tracking=none", f"results_dir={tmp_path / 'results'}", "progress=false"],
    ]
    code, out, err = run(*command)
    assert code == 0, err
    assert not llama_cpp_server._running, "the server outlives its run"
    folder = Path(out.splitlines()[-1])
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["cost/total_params"] == 0
    assert "test/em" in metrics
    record = json.loads((folder / "provenance.json").read_text())
    assert record["model"] == {
        "source": f"dir:{tmp_path}",
        "license": "unknown",
        "fingerprint": file_hash(tmp_path / "tiny.gguf"),
    }
    assert record["engine"]["name"] == f"llama_cpp:dir:{tmp_path}"
    assert record["engine"]["requests"] == len(list(cache.rglob("replies/*/*.json"))) > 0


def test_what_an_experiment_trained_answers_through_llama_cpp(run, tmp_path: Path, cache: Path, text_dir: Path) -> None:
    sizes = ["hidden_size=32", "intermediate_size=48", "num_attention_heads=2", "num_key_value_heads=1"]
    made = [f"data.dir={text_dir}", "train.max_steps=3", "train.batch_size=4", "train.micro_batch_size=4"]
    made += ["train.max_length=32", *(f"model.architecture.{size}" for size in sizes)]
    source = "run:finetune/tiny," + ",".join(made)
    command = ["run", "model=own", f"model.source='{source}'", "data=lab", "prompt_style=bare", "data.kinds=[fact]"]
    command += ["eval=qa", "train.max_steps=0", "decoding.max_new_tokens=6", "eval.bootstrap=0", "data.limit_test=4"]
    command += ["hardware.num_threads=1", "tracking=none", f"results_dir={tmp_path / 'results'}", "progress=false"]
    served = ["engine=llama_cpp", "engine.api=completions", "engine.context_length=256", "engine.format=f32"]
    answers = []
    for engine in ([], served):
        code, out, err = run(*command, *engine)
        assert code == 0, err
        folder = Path(out.splitlines()[-1])
        rows = (folder / "predictions" / "qa.jsonl").read_text().splitlines()
        answers.append([json.loads(row)["prediction"] for row in rows])
        record = json.loads((folder / "provenance.json").read_text())
    assert answers[0] == answers[1]
    assert any(answers[0])
    assert record["model"]["source"] == record["engine"]["name"].removeprefix("llama_cpp:") == source
    assert record["model"]["fingerprint"] == file_hash(next(cache.glob("gguf_model/*/model.gguf")))
    assert len(list(cache.glob("training/*/stage.json"))) == 1


def test_other_weights_in_the_same_folder_answer_anew(run, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "rome.txt").write_text("The mayor of Rome was born in Ostia.")
    command = ["ask", "Where was the mayor born?", "corpus=files", f"corpus.path={tmp_path / 'notes'}"]
    command += ["engine=llama_cpp", "engine.api=completions", f"engine.source=dir:{tmp_path}"]
    command += ["engine.context_length=1024", "method.max_new_tokens=6", "hardware.num_threads=1"]
    told = []
    for seed in (0, 1, 1):
        tiny_gguf(tmp_path / "tiny.gguf", seed=seed)
        code, out, err = run(*command)
        assert code == 0, err
        told.append(out)
    assert told[0] != told[1] == told[2]
