"""A run whose answers come from a GGUF file: no weights of torch, the file's hash in the record."""

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
