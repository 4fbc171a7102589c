"""What traces tell: graphs against gold ones, what was found, and which chains broke where."""

from typing import Any

import pytest
from tests.methods.dapt.world import GERMAN, method, rows, run

from athlos.data.records import NAMED_PASSAGES, Passage, QuestionRecord
from athlos.generation.interface import Prediction
from athlos.methods.dapt.components import Question
from athlos.methods.dapt.measures import measured

RECORD = QuestionRecord(
    identifier="q",
    language="de",
    question=GERMAN.question,
    answers=GERMAN.answers,
    steps=GERMAN.steps,
    passages=[Passage(title="", text=name, identifier=name, is_supporting=name != "c") for name in "abc"],
    meta={**GERMAN.meta, NAMED_PASSAGES: True},
)
GOLD_GRAPH = [["Heim von Anna ?", None, []], ["Fluss von #1 ?", None, [0]]]


def node(
    found: list[list[str]], fused: list[str], answer: tuple[str | None, str | None], **more: Any
) -> dict[str, Any]:
    return {"purpose": "node", "found": found, "fused": fused, "answer": answer, **more}


def values(trace: list[dict[str, Any]], text: str = "Aare-de", record: QuestionRecord = RECORD) -> dict[str, float]:
    prediction = Prediction(
        identifier="q", text=text, num_prompt_tokens=0, num_tokens=0, log_prob=0.0, finished=True, trace=trace
    )
    return measured([(Question.of(record, pivot="en"), record, prediction)], k=2)


def merged(graph: list[Any], *, is_fallback: bool = False) -> dict[str, Any]:
    return {"purpose": "merged", "graphs": [graph], "is_fallback": is_fallback}


def test_a_graph_like_the_gold_one_is_right():
    found = values([merged(GOLD_GRAPH)])
    assert (found["graph/edge_f1"], found["graph/hop_acc"], found["graph/fallback_rate"]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("graph", "edge_f1", "hop_acc"),
    [
        ([["Heim von Anna ?", None, []], ["Fluss von ?", None, []]], 0.0, 1.0),
        ([["Fluss von #2 ?", None, [1]], ["Heim von Anna ?", None, []]], 1.0, 1.0),
        ([*GOLD_GRAPH, ["etwas ganz anderes #2", None, [1]]], 2 / 3, 0.0),
        ([["etwas ganz anderes", None, []]], 0.0, 0.0),
    ],
)
def test_edges_are_compared_on_nodes_that_ask_the_same(graph: list[Any], edge_f1: float, hop_acc: float):
    found = values([merged(graph)])
    assert found["graph/edge_f1"] == pytest.approx(edge_f1)
    assert found["graph/hop_acc"] == hop_acc


def test_validity_counts_the_paths_that_were_taken():
    both = {"purpose": "graphs", "english": "e", "source_nodes": None, "english_nodes": ["x"]}
    assert {name: value for name, value in values([both]).items() if "valid" in name} == {
        "graph/valid_s": 0,
        "graph/valid_en": 1,
    }
    assert "graph/valid_s" not in values([{"purpose": "graphs", "english": "e", "english_nodes": ["x"]}])


def test_recall_and_the_gain_of_two_indexes_are_over_all_nodes_of_a_question():
    trace = [
        node([["a", "x"], ["y", "x"]], ["a", "x"], ("Bern-de", "Bern")),
        node([["x", "y"], ["b", "y"]], ["b", "y"], ("Aare-de", "Aare"), is_stopped=False),
    ]
    found = values(trace)
    assert found["retrieval/recall@2"] == 1  # both gold passages among those of the nodes
    assert found["retrieval/bilingual_gain"] == pytest.approx(1 - 0.5)  # either index alone finds one
    one_sided = [{**row, "found": row["found"][:1]} for row in trace]
    assert "retrieval/bilingual_gain" not in values(one_sided)
    assert "retrieval/bilingual_gain" not in values([trace[0], one_sided[1]])


def test_of_two_graphs_that_vote_the_english_one_is_measured():
    both = {**merged([["etwas ganz anderes", None, []]]), "graphs": [[["etwas ganz anderes", None, []]], GOLD_GRAPH]}
    assert values([both])["graph/edge_f1"] == 1


def test_replies_of_the_reader_are_counted_by_form():
    replies = ['{"answer": "Wien"}', "Wien", "To find this out, I will:\n1. read", "unknown"]
    found = values([{"purpose": "read", "reply": reply} for reply in replies])
    assert (found["reading/valid"], found["reading/lost"]) == (0.25, 0.25)
    assert "reading/valid" not in values([])


@pytest.mark.parametrize(
    ("bridge", "text", "composition_failure", "shortcut"),
    [
        ("Bern-de", "Aare-de", 0, 0),
        ("Bern-de", "falsch", 1, 0),
        ("falsch", "Aare-de", 0, 1),
        ("falsch", "falsch", 0, 0),
        (None, "", 0, 0),
    ],
)
def test_a_chain_breaks_at_its_end_or_is_cut_short(
    bridge: str | None, text: str, composition_failure: int, shortcut: int
):
    trace = [node([["a"]], ["a"], (bridge, None)), node([["b"]], ["b"], (text or None, None), is_stopped=not bridge)]
    found = values(trace, text)
    assert found["graph/composition_failure"] == composition_failure
    assert found["graph/shortcut"] == shortcut
    assert found["graph/stopped_rate"] == (0.0 if bridge else 0.5)


def test_the_measures_of_a_whole_pipeline():
    [prediction] = run(method(), [RECORD])
    found = measured([(Question.of(RECORD, pivot="en"), RECORD, prediction)], k=2)
    assert found["graph/edge_f1"] == found["graph/hop_acc"] == found["graph/merge_agree"] == 1
    assert found["graph/composition_failure"] == found["graph/shortcut"] == found["graph/stopped_rate"] == 0
    assert len(rows(prediction, "node")) == 2
