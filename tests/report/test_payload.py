"""The data of the page stays small, and says what it left out; the file cannot end its own script."""

import base64
import hashlib
import json
import re
from importlib import resources
from pathlib import Path

import pytest
from tests.report.run_folders import decay, png, rows, write_run, write_sweep

from athlos.errors import ConfigError
from athlos.report import payload as module
from athlos.report.payload import payload
from athlos.report.reading import collect
from athlos.report.writing import embedded_json, page, write_page

LIBRARY = resources.files("athlos.report").joinpath("page", "uplot")


def data_of(results: Path, *, num_predictions: int = 50) -> dict:
    records = collect(results, num_predictions=num_predictions)
    return payload(records, title="t", root="r", num_predictions=num_predictions)


def test_config_is_split_into_what_differs_and_what_is_shared(tmp_path: Path):
    write_sweep(tmp_path, lrs=[1e-3, 1e-2], seeds=[1, 2])
    data = data_of(tmp_path)
    assert {column["key"]: (column["values"], column["of"]) for column in data["config"]} == {
        "seed": ([1, 2], [0, 0, 1, 1]),
        "train.lr": ([1e-3, 1e-2], [0, 1, 0, 1]),
    }
    assert data["shared"]["model.name"] == "tiny"
    assert "results_dir" not in data["shared"]
    assert [run["group"] for run in data["runs"]] == [0, 1, 0, 1]


def test_parts_are_shown_by_the_names_that_choose_them(tmp_path: Path):
    write_run(tmp_path / "a", metrics={})
    theirs = {
        "method._target_": "mine.module.MineModule",
        "surgery._target_": "athlos.methods.lisa.surgery.LisaSurgery",
        "data._target_": "athlos.data.sources.mgsm.MgsmSource",
        "data.name": "mgsm",
        "construct": None,
        "eval.suites": {
            "math": {"_target_": "athlos.evaluation.suites.math.MathSuite"},
            "text": {"_target_": "athlos.evaluation.suites.perplexity.PerplexitySuite"},
        },
        "generator._target_": "athlos.generation.openai_engine.OpenAIEngine",
    }
    write_run(tmp_path / "b", config=theirs, metrics={})
    columns = {column["key"]: column["values"] for column in data_of(tmp_path)["config"]}
    assert columns["method"] == ["finetune", "MineModule"]
    assert columns["surgery"] == ["none", "lisa"]
    assert columns["data.name"] == ["sums", "mgsm"]
    assert columns["eval.suites.text"] == ["perplexity"]
    assert columns["generator"] == ["openai"]
    assert not {key for key in columns if "_target_" in key} | {"data", "eval.suites.math"} & set(columns)


def test_the_same_seed_twice_is_told(tmp_path: Path):
    write_run(tmp_path / "a", metrics={})
    write_run(tmp_path / "b", metrics={})
    first, second = data_of(tmp_path)["runs"]
    assert "problems" not in first
    assert second["problems"] == ["same study, config and seed as a: not another seed"]


def test_values_intervals_and_undefined(tmp_path: Path):
    detail = {"low": 0.1, "high": 0.5, "n": 9, "undefined": 2}
    write_run(tmp_path / "a", metrics={"x": 1 / 3, "y": None, "z": 3.0}, details={"x": detail})
    data = data_of(tmp_path)
    assert data["metrics"] == ["x", "y", "z"]
    assert data["runs"][0]["metrics"] == [[0, 0.333333, 0.1, 0.5, 9, 2], [1, None], [2, 3]]


def test_long_curves_are_cut_and_said_so(tmp_path: Path):
    curve = decay(lr=1e-3, seed=1, steps=range(1, 1001))
    write_run(tmp_path / "a", metrics={}, curve=curve)
    data = data_of(tmp_path)
    [run] = data["runs"]
    steps, values = run["curves"][data["curves"].index("train/loss")]
    assert len(values) <= 300
    assert len(run["steps"][steps]) == len(values)
    assert sum(run["steps"][steps]) == 1000, "differences of steps add up to the last step"
    losses = [record["train/loss"] for record in curve if "train/loss" in record]
    assert (min(values), max(values)) == pytest.approx((min(losses), max(losses)), rel=1e-5)
    assert "2 of 3 curves are drawn from at most 300 of their points" in data["notes"][0]


def test_curves_share_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "CURVE_POINTS", 300)
    write_sweep(tmp_path, lrs=[1e-3], seeds=[1, 2, 3])
    data = data_of(tmp_path)
    assert max(len(curve[1]) for run in data["runs"] for curve in run["curves"].values()) <= 33
    assert "at most 33 of their points" in data["notes"][0]


def test_the_same_prompt_is_stored_once(tmp_path: Path):
    write_sweep(tmp_path, lrs=[1e-3], seeds=[1, 2, 3])
    data = data_of(tmp_path)
    prompts = {row["prompt"]["t"] for run in data["runs"] for row in run["predictions"]["math"]["rows"]}
    assert len(prompts) == 12
    assert [data["texts"][position] for position in sorted(prompts)] == [row["prompt"] for row in rows(12)]
    assert len({json.dumps(run["provenance"]) for run in data["runs"]}) == 1


def test_predictions_are_cut_by_the_option_and_by_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_run(tmp_path / "a", metrics={}, predictions={"math": rows(30)})
    data = data_of(tmp_path, num_predictions=10)
    shown = data["runs"][0]["predictions"]["math"]
    assert (len(shown["rows"]), shown["total"]) == (10, 30)
    assert data["notes"] == ["Of each prediction file the first 10 rows are shown at most (--predictions 10)."]
    monkeypatch.setattr(module, "PREDICTION_CHARACTERS", 2000)
    data = data_of(tmp_path)
    kept = len(data["runs"][0]["predictions"]["math"]["rows"])
    assert 1 <= kept < 20
    assert data["notes"] == [f"Of each prediction file the first {kept} rows are shown at most (the size of the page)."]


def test_a_huge_text_is_cut(tmp_path: Path):
    row = {"id": "1", "prompt": "p" * 50_000, "gold": ["g" * 50_000], "prediction": "short"}
    write_run(tmp_path / "a", metrics={}, config={"train.note": "n" * 50_000}, predictions={"math": [row]})
    data = data_of(tmp_path)
    assert max(map(len, data["texts"])) < 21_000
    assert data["texts"][0].endswith("[cut here: 50,000 characters in all]")
    assert "2 texts of predictions are cut after 20,000 characters." in data["notes"]
    assert len(json.dumps(data)) < 60_000


def test_figures_have_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_run(tmp_path / "a", metrics={}, figures={"b/small.png": png(), "large.png": png() + bytes(3000)})
    monkeypatch.setattr(module, "MAX_FIGURE_BYTES", 2000)
    data = data_of(tmp_path)
    assert [figure["name"] for figure in data["figures"]] == ["b/small"]
    assert base64.b64decode(data["figures"][0]["data"]) == png()
    assert data["notes"][0].startswith("1 figures are not embedded")
    assert data["notes"][0].endswith("a/large.")


def test_json_cannot_leave_its_element():
    data = {"</script>": ["<!--", "\u2028", "\ud800 half", "<script>"]}
    text = embedded_json(data)
    assert "<" not in text
    assert json.loads(text) == {"</script>": ["<!--", "\u2028", "? half", "<script>"]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        embedded_json({"a": float("nan")})


def test_the_policy_names_exactly_what_is_shipped(tmp_path: Path):
    write_run(tmp_path / "a", metrics={})
    text = page(data_of(tmp_path) | {"title": '<b>"quoted"</b> @@data@@'})
    assert "<title>&lt;b&gt;&quot;quoted&quot;&lt;/b&gt; @@data@@</title>" in text
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy[1]
    for element, directive in (("script", "script-src"), ("style", "style-src")):
        content = re.search(rf"<{element}>(.*?)</{element}>", text, re.S)
        assert content is not None
        digest = base64.b64encode(hashlib.sha256(content[1].encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy[1]
    addresses = set(re.findall(r"\b(?:https?:|//)[\w./-]+\w", re.sub(r"//.*", "", text.partition("<body>")[2])))
    assert not {address for address in addresses if "www.w3.org/2000/svg" not in address}
    assert "eval(" not in text
    assert "innerHTML" not in text


def test_a_place_that_cannot_be_written(tmp_path: Path):
    write_run(tmp_path / "runs" / "a", metrics={})
    data = data_of(tmp_path / "runs")
    with pytest.raises(ConfigError, match=r"--out: .* is a folder, expected a file name"):
        write_page(data, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--out: cannot write"):
        write_page(data, tmp_path / "file" / "report.html")
    assert write_page(data, tmp_path / "new" / "report.html").is_file()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]


def test_claims_are_those_that_the_runs_say_something_on(tmp_path: Path):
    where = {"study": "spannorm_step", "benchmark": "spannorm_step", "options.layers": 3, "options.hidden": 8}
    details = {"ratio/spannorm/prenorm": {"n": 20, "undefined": 0, "low": 1.1, "high": 1.3}}
    metrics = {"ratio/spannorm/prenorm": 1.2}
    write_run(tmp_path / "step", config=where, metrics=metrics, details=details)
    records = collect(tmp_path)
    [claim] = payload(records, title="t", root="r", num_predictions=0)["claims"]
    assert (claim["id"], claim["verdict"], claim["paper"]) == ("span.cost", "not reproduced", "1 ratio")
    [[label, ours, method, verdict]] = claim["rows"]
    assert (label, ours, verdict) == ("step, spannorm / prenorm layers=3 hidden=8", "1.2 [1.1, 1.3]", "not reproduced")
    assert "20 items or rounds" in method
    apart = payload([], title="t", root="r", num_predictions=0, committed=records)
    assert (apart["claims"], apart["committed"]) == ([], [claim])
    records[0].is_imported = True
    assert payload(records, title="t", root="r", num_predictions=0)["claims"] == []


def test_the_vendored_library_is_the_one_that_its_readme_names():
    named = dict(re.findall(r"\| `(\S+)` \| `\S+` \| `([0-9a-f]{64})` \|", LIBRARY.joinpath("README.md").read_text()))
    assert named == {
        name: hashlib.sha256(LIBRARY.joinpath(name).read_bytes()).hexdigest()
        for name in ("uPlot.iife.min.js", "uPlot.min.css")
    }


def test_a_page_carries_the_licence_of_the_library(tmp_path: Path):
    write_run(tmp_path / "a", metrics={})
    assert LIBRARY.joinpath("LICENSE").read_text() in page(data_of(tmp_path))
