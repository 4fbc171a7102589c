"""Whole runs in the lab: the truth gives EM 1, noise takes from it, and another merge begins at the graphs."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.run_record import metrics_of

from athlos.config.compose import run_config
from athlos.data.datamodule import build_source
from athlos.data.records import PARALLEL, QuestionRecord
from athlos.errors import ConfigError, DataError
from athlos.runs.execute import execute

LAB = [
    "experiment=dapt/lab",
    "data.chains.num_test=[2,1,1]",
    "data.chains.num_dev=[2,1,0]",
    "data.chains.num_test_comparisons=1",
    "data.world.languages=[latn,grek]",
    "data.world.language_shares=[.5,.5]",
    "model.architecture.hidden_size=16",
    "model.architecture.intermediate_size=24",
    "model.architecture.num_hidden_layers=1",
    "tracking=none",
    "eval.bootstrap=0",
]


@pytest.fixture
def lab(tmp_path: Path, cache: Path) -> list[str]:
    return [*LAB, f"results_dir={tmp_path / 'results'}"]


def built(cache: Path, name: str) -> int:
    return len([path for path in (cache / name).iterdir() if path.is_dir()]) if (cache / name).is_dir() else 0


def test_the_truth_gives_em_1_and_tau_is_fitted_between_equal_and_other_nodes(lab: list[str]):
    metrics = metrics_of(execute(run_config([*lab, "method.noise.decompose_s=0", "method.noise.decompose_en=0"])))
    for name in ("test/em", "test/f1", "graph/valid_s", "graph/valid_en", "graph/edge_f1", "graph/hop_acc"):
        assert metrics[name] == 1
    assert metrics["graph/merge_agree"] == 1
    assert metrics["test/em_hop2"] == metrics["test/em_hop4"] == 1
    assert metrics["test/em_gap"] == 0
    assert metrics["retrieval/recall@5"] == metrics["retrieval/recall"] == 1
    assert metrics["graph/fallback_rate"] == metrics["graph/composition_failure"] == metrics["graph/shortcut"] == 0
    assert 0.5 < metrics["graph/tau"] < 1.2
    assert metrics["cost/calls"] == metrics["cost/tokens"] == 0


def test_another_merge_or_k_begins_at_the_graphs(lab: list[str], cache: Path):
    """Two evaluations, one decomposition; another noise takes new ones."""
    runs: list[Any] = [[], ["method.merge.kind=union"], ["method.k=3"]]
    for more in runs:
        execute(run_config([*lab, "method.merge.tau=0.7", *more]))
    assert built(cache, "decompositions") == 1
    assert built(cache, "answers") == 3
    execute(run_config([*lab, "method.merge.tau=0.7", "method.noise.decompose_s=0.9"]))
    assert built(cache, "decompositions") == 2


def test_another_run_translates_through_its_predictions(lab: list[str], tmp_path: Path):
    """The seam for method=tm: its predictions are the English questions, by id. They stand in the trace."""
    asked = run_config(lab)
    source = build_source(asked)
    rows = [
        {"id": record.identifier, "prediction": f"translated {record.meta[PARALLEL]['question']}"}
        for record in source.records("test")
        if record.language != "latn"
    ]
    path = tmp_path / "translation.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    more = ["method.translator=file", f"method.translations={path}", "method.merge.tau=0.7"]
    folder = execute(run_config([*lab, *more]))
    predictions = [
        json.loads(line) for line in (folder / "predictions" / "chains.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    english = {row["id"]: row["trace"][0]["english"] for row in predictions}
    assert all(english[row["id"]] == row["prediction"] for row in rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[1:]), encoding="utf-8")
    with pytest.raises(DataError, match="no row translates question"):
        execute(run_config([*lab, *more, "seed=5"]))


@pytest.mark.slow
def test_a_run_of_tm_translates_the_questions_of_dapt(lab: list[str], tmp_path: Path):
    """The stack of two methods: tm translates them from a memory of other questions, dapt reads its predictions."""
    source = build_source(run_config(lab))
    pairs = ["data=parallel_tsv", "data.source_language=grek", "data.target_language=latn", "data.val_split=null"]
    in_greek: dict[str, list[QuestionRecord]] = {}
    for split in ("dev", "test"):
        records = [record for record in source.records(split) if isinstance(record, QuestionRecord)]
        in_greek[split] = [record for record in records if record.language == "grek"]
        rows = [f"{record.question}\t{record.meta[PARALLEL]['question']}" for record in in_greek[split]]
        (tmp_path / split).mkdir()
        text = "\n".join(["grek\tlatn", *rows]) + "\n"
        (tmp_path / split / "grek-latn.tsv").write_text(text, encoding="utf-8")
    memory = [
        *pairs,
        f"data.dir={tmp_path / 'dev'}",
        "data.split_shares={train: 1.0, val: 0.0, test: 0.0}",
        "data.test_split=null",
    ]
    asked = in_greek["test"]
    tm = [
        "method=tm",
        "model=lab/tm",
        *(item for item in LAB if item.startswith(("model.", "tracking"))),
        *pairs,
        f"data.dir={tmp_path / 'test'}",
        "data.split_shares={train: 0.0, val: 0.0, test: 1.0}",
        "data.train_split=null",
        "eval=tm",
        "eval.bootstrap=0",
        "train.max_steps=0",
        "prompt_style=bare",
        "model.tokenizer.kind=byte",
        f"method.pairs.data={json.dumps(memory)}",
        "method.pairs.min_words=1",
        "method.k=2",
        "decoding.max_new_tokens=8",
        f"results_dir={tmp_path / 'results'}",
    ]
    translations = execute(run_config(tm)) / "predictions" / "tm.jsonl"
    translated = {
        row["source"]: row["prediction"]
        for row in map(json.loads, translations.read_text(encoding="utf-8").splitlines())
    }
    assert set(translated) == {record.question for record in asked}
    more = ["method.translator=file", f"method.translations={translations}", "method.merge.tau=0.7"]
    folder = execute(run_config([*lab, *more]))
    english = {
        row["id"]: row["trace"][0]["english"]
        for row in map(json.loads, (folder / "predictions" / "chains.jsonl").read_text(encoding="utf-8").splitlines())
    }
    for record in asked:
        assert english[record.identifier] == (translated[record.question] or None)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.merge.tau=high", "method.merge.tau: got 'high', expected a number or auto"),
        ("data.val_split=null", "method.merge.tau: got auto, which needs a validation split"),
        ("method.final=synth", "method.final: got synth"),
        ("method.solve=all_at_once", "method.solve: got all_at_once"),
        ("method.path=src method.merge.kind=llm", "method.merge.kind: got llm"),
        ("method.decomposer=model", "method.decomposer=model is not damaged"),
        ("method.translator=file", "belong together"),
        ("train.max_steps=3", "trains nothing"),
        ("method.k=0", "method.k: got 0"),
        ("eval=step_recall corpus=none index=none", "choose corpus=contexts"),
    ],
)
def test_contradictions_are_refused(override: str, message: str):
    with pytest.raises(ConfigError, match=message):
        run_config(["experiment=dapt/lab", "method.merge.tau=auto", *override.split()])
