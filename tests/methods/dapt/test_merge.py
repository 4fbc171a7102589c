"""The merge: matching against all permutations, and what holds for every pair of graphs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.methods.dapt.reference import matching as best_matching
from tests.methods.dapt.test_graph import dags

from athlos.methods.dapt.graph import Graph, ancestors, references, sinks, topological_order
from athlos.methods.dapt.merge import (
    Merged,
    Node,
    agreement,
    alignment_scores,
    auto_tau,
    from_reply,
    matching,
    merged,
    one_sided,
    prefer_english,
    prefer_source,
    reduced,
    union,
)


def graph_of(parents, prefix: str = "n") -> Graph:
    """A graph with one sink, in an order of solution: sinks are joined by a last node."""
    order = topological_order(parents)
    place = {index: number for number, index in enumerate(order, start=1)}
    texts = [
        " ".join([f"{prefix}{index}", *(f"#{place[parent]}" for parent in sorted(parents[index]))]) for index in order
    ]
    ends = sinks(parents)
    if len(ends) > 1:
        texts.append(" ".join([f"{prefix}end", *(f"#{place[end]}" for end in ends)]))
    return Graph(tuple(texts))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Graph, Graph, np.ndarray]:
    source, english = graph_of(draw(dags()), "s"), graph_of(draw(dags()), "e")
    seed = draw(st.integers(0, 2**20))
    return source, english, np.random.default_rng(seed).random((len(source.texts), len(english.texts)))


@settings(max_examples=40)
@given(cases(), st.floats(0, 1))
def test_the_matching_is_the_best_of_all_permutations(case, tau):
    _, _, scores = case
    pairs = matching(scores, tau=tau)
    weight, best = best_matching(scores.tolist(), tau=tau)
    assert set(pairs) == best
    assert sum(scores[i, j] for i, j in matching(scores, tau=0)) == pytest.approx(weight)


def assert_solvable(nodes: Merged) -> None:
    parents = [node.parents for node in nodes]
    assert topological_order(parents) == list(range(len(nodes)))
    assert sinks(parents) == [len(nodes) - 1]
    for node in nodes:
        for text in (node.source, node.english):
            assert text is None or {number - 1 for number in references(text)} <= node.parents
        assert node.source is not None or node.english is not None


@settings(max_examples=40)
@given(cases(), st.floats(0, 1), st.booleans())
def test_a_merge_is_a_graph_with_one_sink_whose_references_are_solved_before_use(case, tau, keep_unmatched):
    source, english, scores = case
    pairs = matching(scores, tau=tau)
    for nodes in (
        merged(source, english, pairs, keep_unmatched=keep_unmatched, scores_SE=scores),
        union(source, english),
        prefer_english(source, english, pairs),
        prefer_source(source, english, pairs),
        one_sided(source, is_english=False),
    ):
        assert_solvable(nodes)
        assert len(nodes) <= len(source.texts) + len(english.texts)
        assert reduced(nodes) == nodes


@settings(max_examples=40)
@given(cases())
def test_the_union_keeps_every_english_edge(case):
    source, english, scores = case
    nodes = merged(source, english, matching(scores, tau=0.5), scores_SE=scores)
    by_word = {node.english.split()[0]: node for node in nodes if node.english}
    for word, node in by_word.items():
        place = [text.split()[0] for text in english.texts].index(word)
        parents = {english.texts[parent].split()[0] for parent in english.parents[place]}
        assert {(nodes[number - 1].english or "").split()[0] for number in references(node.english)} == parents


@settings(max_examples=40)
@given(dags())
def test_a_graph_merged_with_itself_is_itself(parents):
    graph = graph_of(parents)
    size = len(graph.texts)
    cosine = np.eye(size) * 0.6 + 0.3
    scores = alignment_scores(cosine, graph, graph, tau=0.7, alpha=0.1, beta=0.1)
    pairs = matching(scores, tau=0.7)
    nodes = merged(graph, graph, pairs, scores_SE=scores)
    assert [(node.source, node.english) for node in nodes] == [(text, text) for text in graph.texts]
    assert tuple(node.parents for node in nodes) == graph.parents
    assert agreement(pairs, graph, graph) == 1


@settings(max_examples=40)
@given(cases())
def test_no_match_and_english_preferred_is_the_english_path(case):
    source, english, scores = case
    pairs = matching(scores, tau=1.01)
    assert pairs == []
    assert prefer_english(source, english, pairs) == one_sided(english, is_english=True)


def named(nodes: Merged) -> set[tuple[str, str, frozenset[tuple[str, str]]]]:
    """Nodes without their numbers: first words of the wordings, and those of the parents."""

    def words(node: Node) -> tuple[str, str]:
        return (node.source or "-").split()[0], (node.english or "-").split()[0]

    return {(*words(node), frozenset(words(nodes[parent]) for parent in node.parents)) for node in nodes}


@settings(max_examples=40)
@given(cases(), st.floats(0.2, 0.9), st.randoms(use_true_random=False))
def test_other_numbers_change_nothing_but_the_numbers(case, tau, random):
    source, english, scores = case

    def shuffled(graph: Graph) -> tuple[Graph, list[int]]:
        """Another order of solution of the same graph, and the old index of each node."""
        order: list[int] = []
        while len(order) < len(graph.texts):
            ready = [i for i in range(len(graph.texts)) if i not in order and graph.parents[i] <= set(order)]
            order.append(random.choice(ready))
        number = {old + 1: new for new, old in enumerate(order, start=1)}
        texts = []
        for old in order:
            word, *marks = graph.texts[old].split()
            texts.append(" ".join([word, *(f"#{number[int(mark[1:])]}" for mark in marks)]))
        return Graph(tuple(texts)), order

    (other_s, order_s), (other_e, order_e) = shuffled(source), shuffled(english)
    permuted = scores[np.ix_(order_s, order_e)]

    def of(first: Graph, second: Graph, cosine: np.ndarray) -> Merged:
        aligned = alignment_scores(cosine, first, second, tau=tau, alpha=0.1, beta=0.1)
        return merged(first, second, matching(aligned, tau=tau), scores_SE=aligned)

    assert named(of(source, english, scores)) == named(of(other_s, other_e, permuted))


def test_structure_decides_between_equal_words():
    """Both source nodes have the English words; only depth and parents tell them apart."""
    graph = Graph(("mother of Ann", "mother of #1"))
    cosine = np.full((2, 2), 0.8)
    scores = alignment_scores(cosine, graph, graph, tau=0.7, alpha=0.1, beta=0.2)
    # First pass: any assignment; whichever it is, the depth speaks for the diagonal.
    assert scores[0, 0] == pytest.approx(0.8 + 0.1 + 0.2)
    assert scores[0, 1] == pytest.approx(0.8)
    assert scores[1, 1] - scores[1, 0] >= 0.1
    assert matching(scores, tau=0.7) == [(0, 0), (1, 1)]


def test_the_share_of_matched_parents_is_of_the_source_nodes_parents():
    source, english = Graph(("a", "b", "c #1 #2")), Graph(("a", "z #1"))
    cosine = np.array([[0.9, 0.0], [0.0, 0.0], [0.0, 0.9]])
    scores = alignment_scores(cosine, source, english, tau=0.7, alpha=0.0, beta=1.0)
    assert scores[2, 1] == pytest.approx(0.9 + 0.5)
    assert scores[0, 0] == pytest.approx(0.9 + 1.0)
    assert scores[0, 1] == pytest.approx(0.0)


def test_what_one_graph_missed_comes_from_the_other():
    """The English graph lacks the last hop: with unmatched nodes the source's sink is reached, without them not."""
    source, english = Graph(("a", "b #1", "c #2")), Graph(("A", "B #1"))
    nodes = merged(source, english, [(0, 0), (1, 1)])
    assert [(node.source, node.english) for node in nodes] == [("a", "A"), ("b #1", "B #1"), ("c #2", None)]
    nodes = merged(source, english, [(0, 0), (1, 1)], keep_unmatched=False)
    assert [(node.source, node.english) for node in nodes] == [("a", "A"), ("b #1", "B #1")]


def test_a_node_that_a_matched_one_rests_on_is_kept():
    source, english = Graph(("a", "b #1")), Graph(("X", "B #1"))
    nodes = merged(source, english, [(1, 1)], keep_unmatched=False)
    assert [(node.source, node.english) for node in nodes] == [("a", None), (None, "X"), ("b #1", "B #2")]
    assert nodes[2].parents == {0, 1}


def test_what_lies_between_matched_nodes_is_kept_and_does_not_part_them():
    source, english = Graph(("a", "x #1", "b #2")), Graph(("A", "Y #1", "B #2"))
    nodes = merged(source, english, [(0, 0), (2, 2)], keep_unmatched=False)
    assert [(node.source, node.english) for node in nodes] == [
        ("a", "A"),
        ("x #1", None),
        (None, "Y #1"),
        ("b #2", "B #3"),
    ]


@pytest.mark.parametrize(("scores", "last"), [((0.9, 0.8, 0.3), "b"), ((0.3, 0.8, 0.9), "a")])
def test_in_a_cycle_the_edge_between_worse_matched_nodes_goes(scores: tuple[float, ...], last: str):
    """The English graph has 3 -> 1; the source's 1 -> 2 and 2 -> 3 cannot both stay beside it."""
    source, english = Graph(("a", "b #1", "c #2")), Graph(("a #3", "b", "c"))
    nodes = merged(source, english, [(0, 0), (1, 1), (2, 2)], scores_SE=np.diag(scores))
    assert nodes[-1].source is not None
    assert nodes[-1].source.split()[0] == last


def test_agreement_is_over_the_nodes_of_the_larger_graph():
    two, three = Graph(("a", "b #1")), Graph(("A", "X", "B #1 #2"))
    assert agreement([(0, 0)], two, three) == agreement([(0, 0)], three, two) == pytest.approx(1 / 3)


def test_in_a_cycle_the_english_edge_wins_and_the_other_reference_goes():
    source, english = Graph(("a", "b #1")), Graph(("B", "A #1"))
    nodes = merged(source, english, [(0, 1), (1, 0)])
    assert [(node.source, node.english) for node in nodes] == [("b", "B"), ("a", "A #1")]


def test_of_several_sinks_the_matched_one_wins_then_the_english_one():
    source, english = Graph(("a", "b #1")), Graph(("A", "B #1"))
    assert [node.english for node in merged(source, english, [(0, 0)])] == ["A", "B #1"]
    three = Graph(("a", "x", "b #1 #2"))
    nodes = merged(three, english, [(2, 1)])
    assert (nodes[-1].source, nodes[-1].english) == ("b #1 #3", "B #2")


def test_tau_lies_halfway():
    assert auto_tau([0.82, 0.84], [0.79, 0.64, 0.64]) == pytest.approx((0.83 + 0.69) / 2)


def test_a_merge_by_a_model_needs_both_wordings_and_one_sink():
    reply = '[{"id": 1, "question": "a #2", "english": "A #2"}, {"id": 2, "question": "b", "english": "B"}]'
    nodes = from_reply(reply, max_nodes=6)
    assert nodes is not None
    assert [(node.source, node.english) for node in nodes] == [("b", "B"), ("a #1", "A #1")]
    assert from_reply(reply, max_nodes=1) is None
    assert from_reply('[{"question": "a"}]', max_nodes=6) is None
    two = '[{"question": "a", "english": "A"}, {"question": "b", "english": "B"}]'
    assert from_reply(two, max_nodes=6) is None
    assert from_reply("no", max_nodes=6) is None


def test_ancestors_are_what_a_node_rests_on():
    assert ancestors([frozenset(), frozenset({0}), frozenset()], [1]) == {0, 1}
