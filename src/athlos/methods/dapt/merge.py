"""The merge of two graphs of one question, in its own language and in English, into one whose nodes have both wordings.

    S[i, j] = cos + alpha * (equal depth) + beta * (share of parents of i that are matched to parents of j)
    M       = maximum-weight bipartite matching on S, pairs with S >= tau

S nodes of the source graph, E nodes of the English graph. Depth and parents come in at a second pass, because which
parents are matched is known only after the first. Source: this project's own reading of the paper's merge.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from athlos.methods.dapt.graph import (
    Graph,
    Parents,
    acyclic,
    ancestors,
    depths,
    parse_graph,
    references,
    renumbered,
    sinks,
    topological_order,
)

Pair = tuple[int, int]
"""Index of a node of the source graph and of the English node that asks the same."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One sub-question of a merged graph. A wording that is not known yet is None."""

    source: str | None
    english: str | None
    parents: frozenset[int]


Merged = tuple[Node, ...]
"""In an order of solution; the last node is the sink."""


# -- alignment ---------------------------------------------------------------------------------------------------------


def matching(scores_SE: np.ndarray, *, tau: float) -> list[Pair]:
    """The pairs of a maximum-weight matching whose score is at least tau."""
    rows, columns = linear_sum_assignment(scores_SE, maximize=True)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if scores_SE[i, j] >= tau]


def alignment_scores(
    cosine_SE: np.ndarray, source: Graph, english: Graph, *, tau: float, alpha: float, beta: float
) -> np.ndarray:
    """S after the first pass: the cosine, and what structure adds to it."""
    first = set(matching(cosine_SE, tau=tau))
    depth_s, depth_e = depths(source.parents), depths(english.parents)
    scores_SE = cosine_SE.astype(np.float64).copy()
    for i, parents_s in enumerate(source.parents):
        for j, parents_e in enumerate(english.parents):
            scores_SE[i, j] += alpha * (depth_s[i] == depth_e[j])
            scores_SE[i, j] += beta * _parent_match(parents_s, parents_e, first)
    return scores_SE


def _parent_match(parents_s: frozenset[int], parents_e: frozenset[int], pairs: set[Pair]) -> float:
    """1 for two nodes without parents: nothing of theirs is unmatched."""
    if not parents_s:
        return float(not parents_e)
    matched = sum(any((i, j) in pairs for j in parents_e) for i in parents_s)
    return matched / len(parents_s)


def auto_tau(same: Sequence[float], other: Sequence[float]) -> float:
    """Halfway between the mean score of nodes that ask the same and that of nodes that do not."""
    return (sum(same) / len(same) + sum(other) / len(other)) / 2


def agreement(pairs: Sequence[Pair], source: Graph, english: Graph) -> float:
    """Matched nodes over the nodes of the larger graph."""
    return len(pairs) / max(len(source.texts), len(english.texts))


# -- graphs from pairs -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Slot:
    """A node to be: an index into the source graph, into the English graph, or both."""

    source: int | None
    english: int | None


def merged(
    source: Graph,
    english: Graph,
    pairs: Sequence[Pair],
    *,
    keep_unmatched: bool = True,
    scores_SE: np.ndarray | None = None,
) -> Merged:
    """Matched nodes become one, and each keeps the edges that either graph gives it.

    Where the union has a cycle, edges of the source graph alone are left out, those between worse matched nodes first;
    where it has several sinks, the matched one is kept, else the English one. Nodes that do not lead to it go, and with
    `keep_unmatched` false also those that no matched node rests on.
    """
    slots = [_Slot(i, j) for i, j in pairs]
    slots += [_Slot(i, None) for i in range(len(source.texts)) if i not in {i for i, _ in pairs}]
    slots += [_Slot(None, j) for j in range(len(english.texts)) if j not in {j for _, j in pairs}]
    of_source = {slot.source: place for place, slot in enumerate(slots) if slot.source is not None}
    of_english = {slot.english: place for place, slot in enumerate(slots) if slot.english is not None}

    def confidence(edge: tuple[int, int]) -> tuple[float, list[str]]:
        ends = [slots[place] for place in edge]
        score = sum(
            float(scores_SE[slot.source, slot.english])
            for slot in ends
            if scores_SE is not None and slot.source is not None and slot.english is not None
        )
        return -score, [source.texts[slot.source] if slot.source is not None else "" for slot in ends]

    edges = [*_edges(english.parents, of_english), *sorted(_edges(source.parents, of_source), key=confidence)]
    parents = acyclic(len(slots), edges)
    kept = set(range(len(slots)))
    if not keep_unmatched:
        matched = [place for place, slot in enumerate(slots) if None not in (slot.source, slot.english)]
        kept = ancestors(parents, matched or of_english.values())
    ends = [place for place in kept if not any(place in parents[other] for other in kept)]
    sink = min(ends, key=lambda place: _sink_rank(slots[place], source))
    return _built(source, english, slots, parents, kept=ancestors(parents, [sink]))


def _edges(parents: Parents, places: Mapping[int, int]) -> Iterable[tuple[int, int]]:
    return [(places[parent], places[child]) for child, nodes in enumerate(parents) for parent in sorted(nodes)]


def _sink_rank(slot: _Slot, source: Graph) -> tuple[int, str]:
    if slot.source is not None and slot.english is not None:
        return 0, ""
    if slot.source is None:
        return 1, ""
    return (2 if slot.source in sinks(source.parents) else 3), source.texts[slot.source]


def _built(source: Graph, english: Graph, slots: Sequence[_Slot], parents: Parents, *, kept: set[int]) -> Merged:
    """The kept slots as nodes in an order of solution, ties by their place in either graph."""

    def place(slot_place: int) -> tuple[int, bool]:
        slot = slots[slot_place]
        indices = [index for index in (slot.source, slot.english) if index is not None]
        return min(indices), slot.source is None

    before = sorted(kept, key=place)
    index_of = {slot_place: index for index, slot_place in enumerate(before)}
    inner = [frozenset(index_of[parent] for parent in parents[slot_place]) for slot_place in before]
    order = topological_order(inner)
    number = {before[index]: position for position, index in enumerate(order, start=1)}
    nodes = []
    for slot_place in (before[index] for index in order):
        slot = slots[slot_place]
        near = parents[slot_place]
        numbers_s = {slots[p].source + 1: number[p] for p in near if slots[p].source is not None}  # type: ignore[operator]
        numbers_e = {slots[p].english + 1: number[p] for p in near if slots[p].english is not None}  # type: ignore[operator]
        nodes.append(
            Node(
                source=None if slot.source is None else renumbered(source.texts[slot.source], numbers_s),
                english=None if slot.english is None else renumbered(english.texts[slot.english], numbers_e),
                parents=frozenset(number[p] - 1 for p in near),
            )
        )
    return tuple(nodes)


def union(source: Graph, english: Graph) -> Merged:
    """Both graphs side by side, joined in their sinks alone."""
    return merged(source, english, [(sinks(source.parents)[0], sinks(english.parents)[0])])


def prefer_english(source: Graph, english: Graph, pairs: Sequence[Pair]) -> Merged:
    """The English graph; a matched node has its source wording too where that needs no answer the graph lacks."""
    return _preferred(english, source, {j: i for i, j in pairs}, is_english=True)


def prefer_source(source: Graph, english: Graph, pairs: Sequence[Pair]) -> Merged:
    return _preferred(source, english, dict(pairs), is_english=False)


def _preferred(graph: Graph, other: Graph, other_of: Mapping[int, int], *, is_english: bool) -> Merged:
    place_of = {there: here for here, there in other_of.items()}
    nodes = []
    for here, text in enumerate(graph.texts):
        wording, near = None, graph.parents[here]
        there = other_of.get(here)
        if there is not None and {place_of.get(parent) for parent in other.parents[there]} <= near:
            numbers = {parent + 1: place_of[parent] + 1 for parent in other.parents[there]}
            wording = renumbered(other.texts[there], numbers)
        source, english = (wording, text) if is_english else (text, wording)
        nodes.append(Node(source=source, english=english, parents=near))
    return reduced(nodes)


def one_sided(graph: Graph, *, is_english: bool) -> Merged:
    """A graph that has no other beside it."""
    return _preferred(graph, Graph(()), {}, is_english=is_english)


def from_reply(reply: str, *, max_nodes: int) -> Merged | None:
    """The graph with both wordings that a model lists; nothing where an item lacks one, or where several are sinks."""
    source, english = parse_graph(reply, keys=("question",)), parse_graph(reply, keys=("english",))
    if source is None or english is None or len(source) != len(english) or len(source) > max_nodes:
        return None
    every = range(len(source))
    edges = [(j - 1, v) for v in every for j in references(f"{english[v]} {source[v]}") if 1 <= j <= len(source)]
    parents = acyclic(len(source), sorted(edges, key=lambda edge: edge[0] > edge[1]))
    if len(sinks(parents)) != 1:
        return None
    order = topological_order(parents)
    number = {index: position for position, index in enumerate(order, start=1)}
    numbers_of = [{parent + 1: number[parent] for parent in near} for near in parents]
    return tuple(
        Node(
            source=renumbered(source[index], numbers_of[index]),
            english=renumbered(english[index], numbers_of[index]),
            parents=frozenset(number[parent] - 1 for parent in parents[index]),
        )
        for index in order
    )


def reduced(nodes: Sequence[Node]) -> Merged:
    """The last node and what it rests on, renumbered."""
    parents = [node.parents for node in nodes]
    kept = sorted(ancestors(parents, [len(nodes) - 1]))
    place = {index: position for position, index in enumerate(kept)}
    numbers = {index + 1: position + 1 for index, position in place.items()}
    return tuple(
        Node(
            source=None if nodes[index].source is None else renumbered(nodes[index].source or "", numbers),
            english=None if nodes[index].english is None else renumbered(nodes[index].english or "", numbers),
            parents=frozenset(place[parent] for parent in parents[index]),
        )
        for index in kept
    )
