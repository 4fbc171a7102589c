"""The graph of names: what is a name, the weights, and the walk against a twin and networkx."""

import networkx
import numpy as np
import pytest
from scipy.sparse import csr_array

from athlos.methods.rag.config import GraphConfig
from athlos.methods.rag.graph import NameGraph, capitalised_runs, like_names, scaled, transitions, walk
from athlos.retrieval.interface import CorpusPassage, Passage

CONFIG = GraphConfig(damping=0.5, passage_node_weight=0.05, synonymy=0.8, index_top_k=9, linking_top_k=5)


def exact_walk(weights: np.ndarray, start: np.ndarray, damping: float) -> np.ndarray:
    """The fixed point of r = (1 - d) s + d P r, from the equation: what stands at a node without edges begins anew."""
    size = len(start)
    start = start / start.sum()
    moves = np.zeros((size, size))
    for column in range(size):
        total = sum(weights[row][column] for row in range(size))
        for row in range(size):
            moves[row][column] = weights[row][column] / total if total else start[row]
    return np.linalg.solve(np.eye(size) - damping * moves, (1 - damping) * start)


def random_graph(seed: int, size: int = 9) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    weights = np.triu(rng.random((size, size)) * (rng.random((size, size)) < 0.4), 1)
    weights[:, -1] = 0  # nobody leads to the last one
    return weights + weights.T, rng.random(size)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("damping", [0.0, 0.5, 0.7])
def test_the_walk_is_the_fixed_point_and_networkx_s_pagerank(seed, damping):
    weights, start = random_graph(seed)
    found = walk(transitions(csr_array(weights)), start, damping=damping)
    assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(found, exact_walk(weights, start, damping), atol=1e-9)
    theirs = networkx.pagerank(
        networkx.from_numpy_array(weights),
        alpha=damping,
        personalization=dict(enumerate(start)),
        dangling=dict(enumerate(start)),
        tol=1e-13,
    )
    np.testing.assert_allclose(found, [theirs[node] for node in range(len(start))], atol=1e-9)


def passage(identifier: str, text: str, title: str = "") -> CorpusPassage:
    return CorpusPassage(identifier=identifier, text=text, title=title)


def graph_of(*passages: CorpusPassage, language: str = "en") -> NameGraph:
    return NameGraph(passages, language=language, config=CONFIG)


CORPUS = (
    passage("ulm", "The mayor of Ulm is Ada Krone. It is old.", "Ulm"),
    passage("ada", "She was born in Trento.", "Ada Krone"),
    passage("trento", "A town on the Adige.", "Trento"),
    passage("pears", "Some like pears. Others like Bonn.", "Pears"),
)


def test_names_are_titles_and_runs_of_capitalised_words():
    assert list(capitalised_runs("The mayor, Ada Krone-Bo, met Emil. Bonn")) == [
        (0, "The"),
        (11, "Ada Krone-Bo"),
        (29, "Emil"),
        (35, "Bonn"),
    ]
    graph = graph_of(*CORPUS)
    assert graph.name_list == ["ada krone", "adige", "bonn", "pears", "trento", "ulm"]
    assert graph.held["ulm"] == {0}
    assert graph.held["ada krone"] == {0, 1}
    assert graph.held["trento"] == {1, 2}
    assert graph.names("Pears grow.") == {"pears"}  # a word at the front is a name only where it is a title
    assert graph.names("Some grow.") == set()


def test_titles_are_names_where_letters_have_no_case():
    graph = graph_of(passage("a", "目高林。", "晚食"), passage("b", "晚食目青。", "高林"), language="zh")
    assert graph.held == {"晚食": {0, 1}, "高林": {0, 1}}


def test_a_question_is_linked_to_the_names_in_it_and_to_those_like_them_by_rareness():
    graph = graph_of(*CORPUS)
    assert graph.linked("Where was the mayor of Ulm born?") == {"ulm": 1.0}
    assert graph.linked("Where was Ada Krone born?") == {"ada krone": 0.5}  # two passages hold it
    assert graph.linked("Where was Ada Kron born?") == {"ada krone": pytest.approx(16 / 17 / 2)}
    assert graph.linked("Where is Ferrara?") == {}


def test_the_walk_reaches_a_passage_that_shares_no_word_with_the_question():
    graph = graph_of(*CORPUS)
    scored = [Passage(identifier=name, text="", score=score) for name, score in (("ulm", 3.0), ("pears", 1.0))]
    ranked = graph.ranked("Where was the mayor of Ulm born?", scored)
    assert [found.identifier for found in ranked] == ["ulm", "ada", "trento", "pears"]
    assert ranked[0].text == CORPUS[0].text
    # Nodes: 4 passages, then ada krone, adige, bonn, pears, trento, ulm. One sentence holds Ulm and Ada Krone.
    edges = [(0, 4), (0, 9), (1, 4), (1, 8), (2, 5), (2, 8), (3, 6), (3, 7), (4, 9)]
    weights = np.zeros((10, 10))
    for left, right in edges:
        weights[left, right] = weights[right, left] = 1
    start = np.zeros(10)
    start[9], start[0] = 1.0, 0.05
    exact = exact_walk(weights, start, 0.5)
    assert [found.score for found in ranked] == pytest.approx([exact[0], exact[1], exact[2], exact[3]])


def test_a_question_that_names_nothing_keeps_the_index_s_order():
    scored = [Passage(identifier="pears", text="", score=2.0)]
    assert graph_of(*CORPUS).ranked("who likes them?", scored) == scored


def test_like_names_are_pairs_above_the_bar(monkeypatch):
    monkeypatch.setattr("athlos.methods.rag.graph.NAMES_AT_ONCE", 2)
    names = ["ada", "ada krone", "ada kroner", "ulm", "ulms"]
    found = list(like_names(names, least=0.8))
    assert [(left, right) for left, right, _ in found] == [("ada krone", "ada kroner"), ("ulm", "ulms")]
    assert [score for _, _, score in found] == pytest.approx([18 / 19, 6 / 7], abs=1e-6)


def test_scores_are_scaled_between_the_ends():
    assert scaled([3.0, 1.0, 2.0]) == [1.0, 0.0, 0.5]
    assert scaled([2.0, 2.0]) == [1.0, 1.0]
    assert scaled([]) == []


def test_a_corpus_without_names_has_a_graph():
    graph = graph_of(passage("a", "nothing here"))
    assert graph.linked("Ulm?") == {}
    assert graph.ranked("Ulm?", []) == []


def test_each_node_gives_all_it_has_to_its_neighbours():
    moves = transitions(csr_array(np.array([[0.0, 3.0, 0.0], [2.0, 0.0, 0.0], [2.0, 1.0, 0.0]])))
    np.testing.assert_allclose(moves.toarray(), [[0, 0.75, 0], [0.5, 0, 0], [0.5, 0.25, 0]])
