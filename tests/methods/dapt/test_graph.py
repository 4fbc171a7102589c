"""Graphs of sub-questions: references, order, replies of models, repair."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.methods.dapt.reference import depth, order

from athlos.errors import DataError
from athlos.methods.dapt.graph import (
    Graph,
    depths,
    filled,
    levels,
    parse_graph,
    references,
    renumbered,
    repaired,
    sinks,
    topological_order,
    without_join,
    without_references,
)


@st.composite
def dags(draw: st.DrawFn, *, most: int = 5) -> list[frozenset[int]]:
    """Parents of each node, in a numbering that need not be an order of solution."""
    size = draw(st.integers(1, most))
    names = draw(st.permutations(range(size)))
    parents: list[frozenset[int]] = [frozenset()] * size
    for place, name in enumerate(names):
        parents[name] = frozenset(draw(st.sets(st.sampled_from(names[:place])))) if place else frozenset()
    return parents


@settings(max_examples=40)
@given(dags())
def test_order_and_depths_are_those_of_the_definition(parents):
    assert topological_order(parents) == order(parents)
    assert depths(parents) == [depth(parents, node) for node in range(len(parents))]
    assert sorted(node for level in levels(parents) for node in level) == list(range(len(parents)))


def test_a_reference_is_filled_as_a_whole_token_and_once():
    answers = {1: "Rome", 12: "#1 Record"}
    assert filled("Is #12 older than #1?", answers) == "Is #1 Record older than Rome?"
    with pytest.raises(KeyError):
        filled("#2", answers)


@pytest.mark.parametrize("text", ["#1", "##1", "a ###12 b", "#12345"])
def test_a_text_without_references_has_none(text):
    assert references(without_references(text)) == []
    assert "#" not in without_references(text)


def test_new_numbers_do_not_meet_old_ones():
    assert renumbered("#1 and #2 and #12 and #3", {1: 2, 2: 1, 12: 4}) == "#2 and #1 and #4 and"


FORMS = {
    "plain": '[{"id": 1, "question": "Who wrote it?", "depends_on": []}, {"id": 2, "question": "Where is #1 from?"}]',
    "fenced": 'So:\n```json\n[{"id": "1", "question": "Who wrote it?"}, {"id": "Q2", "text": "Where is #1 from?"},]',
    "wrapped": '{"sub_questions": [{"text": "Who wrote it?"}, {"text": "Where is #1 from?"}]}',
    "strings": '["Who wrote it?", "Where is  #1 from?"]',
    "numbered": "1. Who wrote it?\n2) Where is #1 from?",
    "own ids": '[{"id": 7, "question": "Who wrote it?"}, {"id": 9, "question": "Where is #7 from?"}]',
    "an empty item": '[{"id": 1, "question": "Who wrote it?"}, {"id": 2}, {"id": 3, "question": "Where is #1 from?"}]',
    "brackets before": 'As asked [see above]: [{"question": "Who wrote it?"}, {"question": "Where is #1 from?"}]',
}


@pytest.mark.parametrize("reply", FORMS.values(), ids=FORMS)
def test_replies_of_many_forms_give_one_graph(reply: str):
    assert parse_graph(reply) == ["Who wrote it?", "Where is #1 from?"]


@pytest.mark.parametrize(
    "reply", ["", "I cannot.", "[]", "{}", '[{"id": 1}]', "[1, 2]", "[[[", '{"a": "b"}', "[" * 5000]
)
def test_a_reply_without_questions_gives_nothing(reply: str):
    assert parse_graph(reply) is None


def test_a_reference_to_no_item_is_dangling_even_where_its_number_is_a_place():
    texts = parse_graph('[{"id": 7, "question": "a"}, {"id": 9, "question": "b #1"}]')
    assert texts == ["a", "b #0"]
    assert repaired(texts, question="q", max_nodes=6).texts == ("a", "b", "q (#1; #2)")


def test_repair_breaks_cycles_and_keeps_forward_edges():
    graph = repaired(["of #2", "of #1", "of #2 and #3"], question="q", max_nodes=6)
    assert graph.texts == ("of", "of #1", "of #2 and")


def test_repair_puts_nodes_in_an_order_of_solution():
    assert repaired(["of #2", "first"], question="q", max_nodes=6).texts == ("first", "of #1")


def test_nodes_beyond_the_cap_go_and_the_rest_is_joined():
    texts = ["a", "b #1", "c #2", "d #3"]
    assert repaired(texts, question="the #1 hit?", max_nodes=3).texts == ("a", "b #1", "the 1 hit? (#2)")
    assert repaired(texts, question="q", max_nodes=1).texts == ("q",)
    assert repaired(texts, question="q", max_nodes=4).texts == tuple(texts)


@settings(max_examples=50)
@given(
    st.lists(st.text("ab #0123456789", max_size=12), min_size=1, max_size=8),
    st.integers(1, 6),
    st.text("q #12", max_size=8),
)
def test_what_was_repaired_can_be_solved(texts, cap, question):
    graph = repaired(texts, question=question, max_nodes=cap)
    size = len(graph.texts)
    assert all(1 <= reference <= size for text in graph.texts for reference in references(text))
    assert sorted(topological_order(graph.parents)) == list(range(size))
    assert size <= cap
    assert sinks(graph.parents) == [len(graph.texts) - 1]
    again = repaired(graph.texts, question=question, max_nodes=cap)
    assert again == Graph(tuple(" ".join(text.split()) for text in graph.texts))


def test_a_graph_says_whether_it_was_joined():
    joined = repaired(["a", "b"], question="q", max_nodes=6)
    assert joined == Graph(("a", "b", "q (#1; #2)"), is_joined=True)
    assert without_join(joined) == Graph(("a", "b"))
    assert not repaired(["a", "b #1"], question="q", max_nodes=6).is_joined
    assert without_join(Graph(("q",), is_joined=True)).texts == ("q",)


def test_a_cycle_has_no_order():
    with pytest.raises(DataError, match=r"a cycle goes through the nodes \[1, 2\]"):
        topological_order(Graph(("a #2", "b #1")).parents)


QUESTION = "What is the seat of the county where Van Hook lies?"


@pytest.mark.parametrize(
    ("items", "texts"),
    [
        # The question said again is no node, with and without items that say they depend on it.
        ([(1, QUESTION, []), (2, "Which county?", []), (3, "Seat of #2?", [2])], ["Which county?", "Seat of #1?"]),
        ([(1, QUESTION, []), (2, "Which county?", [1]), (3, "Seat of #2?", [2])], ["Which county?", "Seat of #1?"]),
        ([(1, QUESTION.upper(), [])], [QUESTION.upper()]),
        ([(1, QUESTION, []), (2, "Who founded #1?", [1])], [QUESTION, "Who founded #1?"]),
        # An item that repeats another one stands for it.
        ([(1, "A?", []), (2, "a", [1]), (3, "B of #2?", [])], ["A?", "B of #1?"]),
        ([(1, "A?", []), (2, "B?", [1]), (3, "B?", [2]), (4, "B?", [3])], ["A?", "B? (#1)"]),
        # A text without a reference gets those that it is said to need.
        ([(1, "A?", []), (2, "B?", []), (3, "Are both alike?", [1, "#2"])], ["A?", "B?", "Are both alike? (#1; #2)"]),
        ([(7, "A?", [7, 9, None]), (8, "B of #7?", [7, 9])], ["A?", "B of #1?"]),
    ],
)
def test_what_a_model_repeats_or_says_beside_the_text_is_read(items: list[tuple[int, str, Any]], texts: list[str]):
    reply = json.dumps([{"id": number, "question": text, "depends_on": near} for number, text, near in items])
    assert parse_graph(reply, question=QUESTION) == texts


def test_of_a_list_that_was_cut_off_what_is_whole_is_read():
    reply = '[{"id": 1, "question": "A?"}, {"id": 2, "question": "B of #1?"}, {"id": 3, "quest'
    assert parse_graph(reply) == ["A?", "B of #1?"]
