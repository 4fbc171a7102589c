"""What the suites count: noise by level, evidence, gold present and absent, and answers by path."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.assembled import suite_of
from tests.methods.clueanchor.scripted import COMPOSED, RIGHT, Scripted, question, tagged

from athlos.config.compose import run_config
from athlos.errors import DataError
from athlos.generation.decoding import Greedy
from athlos.generation.interface import Prediction
from athlos.methods.clueanchor.module import ClueAnchorModule, PathsModule
from athlos.methods.clueanchor.suites import clue_overlap, content_words, rouge_l
from athlos.parts import PartContext
from athlos.stages import StageStore


def paths_module(folder: Path, generator: Any, *overrides: str) -> tuple[Any, Any]:
    switches = ["method=clueanchor_paths", "objective=next_token", "eval=clueanchor_paths", "train.max_steps=0"]
    run = run_config([*COMPOSED, *switches, *overrides])
    module = PathsModule.__new__(PathsModule)
    module.__dict__.update(config=run, decoding=Greedy(run.decoding))
    index: Any = type("Index", (), {"key": "none"})()
    context = PartContext(config=run, stages=StageStore(folder), generator=generator, index=index)
    PathsModule.prepare(module, context=context)
    return run, module


class Reader(ClueAnchorModule):
    """Answers by what stands in the prompt; remembers the prompts."""

    def __init__(self, run: Any, folder: Path) -> None:
        self.__dict__["config"] = run
        self.__dict__["context"] = PartContext(config=run, stages=StageStore(folder))
        self.__dict__["asked"] = []

    def answer(self, requests: Any, *, progress: Any = None) -> list[Prediction]:
        self.asked.append([request.prompt for request in requests])  # type: ignore[union-attr, operator]
        return [
            Prediction(
                identifier=request.identifier,
                text=tagged("Ada was born in Rome.", "Rome") if "born in Rome" in request.prompt else "Oslo",
                num_prompt_tokens=1,
                num_tokens=1,
                log_prob=0.0,
                finished=True,
            )
            for request in requests
        ]


def evaluated(folder: Path, *overrides: str, records: Any) -> tuple[Any, Reader]:
    run = run_config([*COMPOSED, "model=small/tiny_llama", "method.prompt.top_n=3", *overrides])
    reader = Reader(run, folder)
    return suite_of(run).evaluate(reader, records), reader


QUESTIONS = [
    replace(question(0), meta={"evidence": "direct", "stored": "Rome"}),
    replace(question(1), meta={"evidence": "scattered", "stored": "Oslo"}),
    replace(question(2), meta={"evidence": "direct"}),
]


def test_each_level_of_noise_is_asked_and_only_a_whole_one_takes_the_answer_out(tmp_path):
    result, reader = evaluated(tmp_path, records=QUESTIONS)
    metrics = result.metrics
    assert [metrics[f"acc@noise{level}"] for level in (0, 25, 50, 75, 100)] == [1, 1, 1, 1, 0]
    assert (metrics["acc"], metrics["em"], metrics["format_rate"], metrics["answer_tokens"]) == (1, 1, 1, 1)
    assert (metrics["acc_direct"], metrics["acc_scattered"]) == (1, 1)
    assert result.details["acc_direct"].n == 2
    assert metrics["clue_overlap"] == pytest.approx(3 / 6)
    assert (metrics["acc_gold_present"], metrics["acc_gold_absent"]) == (1, 0)
    assert result.details["acc_gold_absent"].n == 1  # the one whose stored answer is the gold one
    assert len(reader.asked) == 1 + 4 + 2  # the run's own level is asked once
    assert [row["evidence"] for row in result.predictions] == ["direct", "scattered", "direct"]
    assert "clueanchor_prompt_hash" in result.signatures


def test_the_same_prompts_are_asked_once(tmp_path):
    stored = [record for record in QUESTIONS if record.meta.get("stored") in record.answers]
    levels = ("method.noise.share=0.5", "eval.suites.clueanchor.noise_shares=[0.5]")
    result, reader = evaluated(tmp_path, *levels, records=stored)
    assert len(reader.asked) == 2  # with the passages that hold the answer, and without
    assert result.metrics["acc"] == result.metrics["acc@noise50"] == result.metrics["acc_gold_present"]


def test_no_clue_and_no_gold_line_stands_in_a_prompt_of_a_test(tmp_path):
    clue = "Ada was born in Rome, as the builder's diary of the year tells us."
    _, reader = evaluated(tmp_path, records=QUESTIONS)
    record = QUESTIONS[0]
    in_passages = " ".join(passage.text for passage in record.passages)
    windows = {clue[at : at + 20] for at in range(len(clue) - 19)}
    foreign = {window for window in windows if window not in in_passages}
    assert foreign
    for prompts in reader.asked:
        for prompt in prompts:
            assert not any(window in prompt for window in foreign)
            assert "Key clue" not in prompt
            assert "\nAnswer: Rome" not in prompt
    with pytest.raises(DataError, match="has text that has seen the gold answer"):
        evaluated(tmp_path, records=[replace(record, meta={"saw_gold": True})])


@pytest.mark.parametrize("metric", ["cover_em", "clue_acc", "em", "f1", "rouge_l"])
def test_acc_is_the_metric_that_the_config_names(tmp_path, metric):
    if metric == "rouge_l":
        pytest.importorskip("rouge_score")
    long = [replace(question(0), answers=["New Rome", "Rome"])]
    result, _ = evaluated(tmp_path, f"eval.suites.clueanchor.metric={metric}", records=long)
    wanted = {"cover_em": 1, "clue_acc": 0, "em": 1, "f1": 1, "rouge_l": 2 / 3}[metric]
    assert result.metrics["acc"] == pytest.approx(wanted)
    assert result.signatures["acc"] == metric


def test_the_overlap_counts_content_words_of_the_gold_sentences():
    assert content_words("The bridge was built by Ada.", language="en") == {"bridge", "built", "ada"}
    assert content_words("dape ji Pume", language="latn") == {"dape", "ji", "pume"}
    assert clue_overlap("Ada built it", "The bridge was built by Ada.", language="en") == pytest.approx(2 / 3)
    assert clue_overlap("", "The bridge was built by Ada.", language="en") == 0
    assert math.isnan(clue_overlap("x", "", language="en"))


def test_rouge_l_is_rouge_scores():
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=True)
    for answer, gold in (("the old bridges of Rome", "old bridge in Rome"), ("", "Rome"), ("Rome", "Rome")):
        assert rouge_l(answer, gold, language="en") == scorer.score(gold, answer)["rougeL"].fmeasure


def test_the_exploration_is_scored_by_path_and_by_what_the_table_selects(tmp_path):
    replies = {**RIGHT, "internal": tagged("I think.", "Oslo"), "clue": "Rome it is", "verify": "Oslo"}
    run, module = paths_module(tmp_path, Scripted(**replies))
    result = suite_of(run).evaluate(module, [question(0), question(1, answer="Oslo")])
    metrics = result.metrics
    assert (metrics["acc_internal"], metrics["acc_external"], metrics["acc_clue"]) == (0.5, 0.5, 0.5)
    assert (metrics["em_external"], metrics["em_clue"], metrics["format_rate_clue"]) == (0.5, 0, 0)
    assert (metrics["case_external_internal"], metrics["case_internal_external"]) == (1, 1)
    assert (metrics["acc_selected"], result.details["acc_selected"].n) == (1, 2)
    assert (metrics["clue_acc"], metrics["verified"]) == (0.5, 0.5)
    assert [row["case"] for row in result.predictions] == ["external_internal", "internal_external"]
    assert result.predictions[0]["chosen"]["answer"] == "Rome"
    json.dumps(result.predictions)
    again = Scripted(**replies)
    run, module = paths_module(tmp_path, again)
    suite_of(run).evaluate(module, [question(0), question(1, answer="Oslo")])
    assert again.prompts == []
    _, module = paths_module(tmp_path, again, "construct.explore.num_draws=2")
    suite_of(run).evaluate(module, [question(0), question(1, answer="Oslo")])
    assert again.asked.count("external") == 4
    with pytest.raises(DataError, match="clueanchor_paths: data=hotpotqa has no question with an answer"):
        suite_of(run).evaluate(module, [replace(question(0), answers=[])])
