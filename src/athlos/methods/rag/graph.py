"""Retrieval in HippoRAG's manner: a walk over passages and the names in them that begins at what a question names.

    nodes    passages and names; a name is a title of the corpus, or a run of capitalised words
    edges    passage - name it holds: 1;  name - name in one sentence: how often;  name - like name: their similarity
    start    w(n) = similarity to the question / passages that hold n, for the `linking_top_k` best names
             w(p) = passage_node_weight * the index's score of p, scaled to [0, 1]
    walk     r = (1 - damping) * start + damping * P r, with P_ij = weight of i-j / all weights at j

A passage that shares no word with the question is reached by the names that it shares with one that does. A question
that names nothing of the graph keeps the ranking of the index. HippoRAG 2 takes names and facts from a model, and
similarities from an encoder; here neither is needed (see the README).

N nodes, the passages first.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
from rapidfuzz import fuzz, process
from scipy.sparse import coo_array, csr_array, diags_array

from athlos.methods.rag.config import GraphConfig
from athlos.retrieval.interface import CorpusPassage, Passage
from athlos.text.sentences import sentences

WALK_STEPS = 60
"""With damping .5 a further step changes nothing that a double holds."""
NAMES_AT_ONCE = 512
"""Names whose similarities to all others are in memory together."""
_WORD = re.compile(r"\w[\w'\u2019-]*")


class NameGraph:
    """The graph of the passages of one language."""

    def __init__(self, passages: Iterable[CorpusPassage], *, language: str, config: GraphConfig) -> None:
        self.config = config
        self.passages = list(passages)
        self.num_passages = len(self.passages)
        titles = {passage.title.lower() for passage in self.passages if passage.title}
        self._titles = titles
        self._uncased_titles = sorted(title for title in titles if title == title.upper())
        self._rows = {passage.identifier: row for row, passage in enumerate(self.passages)}
        held: dict[str, set[int]] = defaultdict(set)
        beside = Counter[tuple[str, str]]()
        for row, passage in enumerate(self.passages):
            if passage.title:
                held[passage.title.lower()].add(row)
            cut = sentences(passage.text, language)
            for sentence in cut.pieces if cut.kind == "sentences" else [passage.text]:
                names = sorted(self.names(sentence))
                for name in names:
                    held[name].add(row)
                beside.update(combinations(names, 2))
        self.held: Mapping[str, set[int]] = dict(held)
        self.name_list = sorted(self.held)
        self._moves = transitions(self._weights(beside))

    def names(self, sentence: str) -> set[str]:
        """The names in a sentence, lower-cased: runs of capitalised words, and titles where letters have no case.

        A single word at the front of a sentence is a name only where it is a title: every sentence has a capital there.
        """
        entities = {
            run.lower()
            for start, run in capitalised_runs(sentence)
            if start or " " in run or run.lower() in self._titles
        }
        return entities | {title for title in self._uncased_titles if title in sentence}

    def _weights(self, beside: Mapping[tuple[str, str], int]) -> csr_array:
        """[N, N]: the weights of the edges, both ways."""
        node = {name: self.num_passages + number for number, name in enumerate(self.name_list)}
        edges: dict[tuple[int, int], float] = {}
        for name, rows in self.held.items():
            edges |= {(row, node[name]): 1.0 for row in rows}
        for (left, right), count in beside.items():
            edges[node[left], node[right]] = float(count)
        for left, right, similarity in like_names(self.name_list, least=self.config.synonymy):
            edges.setdefault((node[left], node[right]), similarity)
        size = self.num_passages + len(node)
        ends = np.array(list(edges), dtype=np.int64).reshape(-1, 2)
        one_way = coo_array((np.array(list(edges.values())), (ends[:, 0], ends[:, 1])), shape=(size, size)).tocsr()
        return one_way + one_way.T

    def linked(self, question: str) -> dict[str, float]:
        """The names that a question is linked to, with their share of the start: those in it, and those like them."""
        if not self.name_list:
            return {}
        similar: dict[str, float] = {}
        for mention in self.names(question):
            for name, score, _ in process.extract(
                mention,
                self.name_list,
                scorer=fuzz.ratio,
                score_cutoff=100 * self.config.synonymy,
                limit=self.config.linking_top_k,
            ):
                similar[name] = max(similar.get(name, 0.0), score / 100)
        weights = {name: similarity / len(self.held[name]) for name, similarity in similar.items()}
        best = sorted(weights, key=lambda name: (-weights[name], name))[: self.config.linking_top_k]
        return {name: weights[name] for name in best}

    def ranked(self, question: str, scored: Sequence[Passage]) -> list[Passage]:
        """All passages, best first, with the share of the walk that they hold; `scored` is the index's own list."""
        linked = self.linked(question)
        if not linked:
            return list(scored)
        start_N = np.zeros(self.num_passages + len(self.name_list))
        for passage, share in zip(scored, scaled([passage.score for passage in scored]), strict=True):
            start_N[self._rows[passage.identifier]] = self.config.passage_node_weight * share
        for name, weight in linked.items():
            start_N[self.num_passages + self.name_list.index(name)] = weight
        shares_N = walk(self._moves, start_N, damping=self.config.damping)
        order = np.argsort(-shares_N[: self.num_passages], kind="stable")
        return [found_passage(self.passages[row], score=float(shares_N[row])) for row in order.tolist()]


def capitalised_runs(text: str) -> Iterator[tuple[int, str]]:
    """(place, words) of neighbouring words that begin with a capital letter, and of no others."""
    start, end = 0, -1
    for match in _WORD.finditer(text):
        if not match[0][0].isupper():
            continue
        if end >= 0 and text[end : match.start()] != " ":
            yield start, text[start:end]
            end = -1
        start, end = (match.start() if end < 0 else start), match.end()
    if end >= 0:
        yield start, text[start:end]


def found_passage(passage: CorpusPassage, *, score: float) -> Passage:
    return Passage(
        identifier=passage.identifier, title=passage.title, text=passage.text, language=passage.language, score=score
    )


def like_names(names: Sequence[str], *, least: float) -> Iterator[tuple[str, str, float]]:
    """Pairs of different names whose letters are alike, in [least, 1]: indel similarity (rapidfuzz `ratio`)."""
    for first in range(0, len(names), NAMES_AT_ONCE):
        rows = names[first : first + NAMES_AT_ONCE]
        similarities = process.cdist(rows, names[first:], scorer=fuzz.ratio, score_cutoff=100 * least, dtype=np.float32)
        for row, column in zip(*np.nonzero(np.triu(similarities, k=1)), strict=True):
            yield rows[row], names[first + column], float(similarities[row, column]) / 100


def scaled(scores: Sequence[float]) -> list[float]:
    """Scores between the lowest, as 0, and the highest, as 1; all 1 where they are equal."""
    if not scores:
        return []
    low, high = min(scores), max(scores)
    return [(score - low) / (high - low) if high > low else 1.0 for score in scores]


def transitions(weights_NN: csr_array) -> csr_array:
    """P [N, N] of `r = P r`: columns sum to 1, those of nodes without edges to 0."""
    sums_N = np.asarray(weights_NN.sum(axis=0)).ravel()
    inverse_N = np.divide(1.0, sums_N, out=np.zeros_like(sums_N), where=sums_N > 0)
    return csr_array(weights_NN @ diags_array(inverse_N))


def walk(moves_NN: csr_array, start_N: np.ndarray, *, damping: float) -> np.ndarray:
    """Personalised PageRank, [N], summing to 1: where a walk is that begins anew at `start_N` with 1 - damping.

    What would leave a node without edges begins anew as well.
    """
    start_N = start_N / start_N.sum()
    shares_N = start_N
    for _ in range(WALK_STEPS):
        moved_N = damping * (moves_NN @ shares_N)
        shares_N = moved_N + (1 - moved_N.sum()) * start_N
    return shares_N
