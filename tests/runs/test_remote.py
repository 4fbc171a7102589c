"""A run whose answers come from a server: no model here, replies kept, the address no part of what the run is."""

import json
from pathlib import Path

import yaml
from tests.generation.compatible_server import running


def commands(url: str, results: Path) -> list[str]:
    return [
        "run",
        "data=lab",
        "prompt_style=bare",
        "data.kinds=[fact]",
        "eval=qa",
        "train.max_steps=0",
        "engine=openai",
        f"engine.base_url={url}",
        "engine.model=tiny",
        "decoding.max_new_tokens=4",
        "eval.bootstrap=0",
        "data.limit_test=3",
        f"results_dir={results}",
        "progress=false",
    ]


def test_a_server_answers_a_whole_run(run, tmp_path: Path, cache: Path) -> None:
    with running(is_vllm=False) as server:
        code, out, err = run(*commands(server.url, tmp_path / "one"))
        assert code == 0, err
        asked = len(server.bodies)
        assert asked > 0
    folder = Path(out.splitlines()[-1])
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["cost/total_params"] == 0
    assert "test/em" in metrics
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["model"] is None
    assert provenance["engine"]["requests"] == asked
    assert [path for path in cache.rglob("*") if path.is_file()], "replies lie in the cache of the run"
    # The same question to the same server elsewhere is the same run; nothing is asked twice.
    with running(is_vllm=False) as other:
        assert other.url != server.url
        again, out, err = run(*commands(other.url, tmp_path / "one"), "engine.max_in_flight=2")
        assert (again, Path(out.splitlines()[-1])) == (0, folder), err
        assert other.bodies == []
    assert yaml.safe_load((folder / "config.yaml").read_text())["engine"]["base_url"] == server.url
