"""Graphs of sub-questions: what a decomposition is, how a model's reply is read, and what repairs it.

A text refers to the answer of an earlier sub-question as `#2`, counted from 1; the edge 2 -> v is there exactly when
`#2` stands in the text of v (the convention of MuSiQue). Lists of parents hold indices, which are counted from 0.
"""

import heapq
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from athlos.errors import DataError

REFERENCE = re.compile(r"#(\d{1,4})(?!\d)")
MAX_CHARACTERS = 600
"""Of one sub-question; what a model writes beyond that is cut off."""
MAX_REPLY_NODES = 64
"""Nodes that are read of one reply."""
TEXT_KEYS = ("question", "sub_question", "subquestion", "text", "query")
ID_KEYS = ("id", "number", "step", "index")
_NUMBERED_LINE = re.compile(r"^\s*(?:[-*]\s*)?(?:Q|q|#)?(\d{1,4})\s*[.):]\s+(.+?)\s*$")
_TRAILING_COMMA = re.compile(r",\s*([\]}])")

Parents = Sequence[frozenset[int]]
"""Of each node by index, the indices of the nodes whose answers it needs."""


@dataclass(frozen=True)
class Graph:
    """One decomposition; node i + 1 asks `texts[i]`."""

    texts: tuple[str, ...]
    is_joined: bool = False
    """Whether the last node was made by `repaired`, to join several sinks."""

    @property
    def parents(self) -> tuple[frozenset[int], ...]:
        return tuple(frozenset(number - 1 for number in references(text)) for text in self.texts)


# -- references --------------------------------------------------------------------------------------------------------


def references(text: str) -> list[int]:
    """The numbers that a text refers to, each once, in order."""
    return list(dict.fromkeys(int(number) for number in REFERENCE.findall(text)))


def renumbered(text: str, numbers: Mapping[int, int]) -> str:
    """The text with new numbers in its references; those without a new number are taken out."""

    def new(match: re.Match[str]) -> str:
        number = numbers.get(int(match[1]))
        return "" if number is None else f"#{number}"

    return " ".join(REFERENCE.sub(new, text).split())


def without_references(text: str) -> str:
    """A text in which `#1` is no reference: the number alone is left."""
    return re.sub(r"#+(?=\d)", "", text)


def filled(text: str, answers: Mapping[int, str]) -> str:
    """The text with answers for its references, each replaced once as a whole token: `#12` is never `#1` and a 2.

    What an answer holds is data: a `#1` in it is not replaced in turn. `KeyError` for a reference without an answer.
    """
    return REFERENCE.sub(lambda match: answers[int(match[1])], text)


# -- order -------------------------------------------------------------------------------------------------------------


def topological_order(parents: Parents) -> list[int]:
    """Indices so that each stands behind its parents; the lowest index first where several could follow.

    Raises `DataError` for a cycle.
    """
    children = children_of(parents)
    missing = [len(nodes) for nodes in parents]
    ready = [index for index, count in enumerate(missing) if not count]
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for child in children[index]:
            missing[child] -= 1
            if not missing[child]:
                heapq.heappush(ready, child)
    if len(order) < len(parents):
        raise DataError(f"graph: a cycle goes through the nodes {[i + 1 for i, count in enumerate(missing) if count]}")
    return order


def children_of(parents: Parents) -> list[list[int]]:
    children: list[list[int]] = [[] for _ in parents]
    for index, nodes in enumerate(parents):
        for parent in nodes:
            children[parent].append(index)
    return children


def depths(parents: Parents) -> list[int]:
    """Length of the longest path to each node; 0 for a node without parents."""
    longest = [0] * len(parents)
    for index in topological_order(parents):
        longest[index] = max((longest[parent] + 1 for parent in parents[index]), default=0)
    return longest


def levels(parents: Parents) -> list[list[int]]:
    """Nodes of one depth together, shallow ones first: what can be solved side by side."""
    depth = depths(parents)
    return [[index for index, d in enumerate(depth) if d == level] for level in range(max(depth, default=-1) + 1)]


def sinks(parents: Parents) -> list[int]:
    """Nodes that no other needs."""
    return [index for index, children in enumerate(children_of(parents)) if not children]


def ancestors(parents: Parents, starts: Iterable[int]) -> set[int]:
    """The nodes themselves and all that they rest on."""
    reached: set[int] = set()
    waiting = list(starts)
    while waiting:
        index = waiting.pop()
        if index not in reached:
            reached.add(index)
            waiting += parents[index]
    return reached


def acyclic(num_nodes: int, edges: Iterable[tuple[int, int]]) -> list[frozenset[int]]:
    """Parents of each node after the (parent, child) edges, best first; an edge that closes a cycle is left out."""
    parents: list[frozenset[int]] = [frozenset() for _ in range(num_nodes)]
    for parent, child in edges:
        if child not in ancestors(parents, [parent]):
            parents[child] |= {parent}
    return parents


# -- replies of models -------------------------------------------------------------------------------------------------


def parse_graph(reply: str, *, keys: Sequence[str] = TEXT_KEYS, question: str = "") -> list[str] | None:
    """The texts of the nodes that a reply lists, as written but for their numbers; nothing where it lists none.

    An object's text stands under the first of `keys` that it has. Read are a JSON list of objects or strings, cut off
    or with a comma too many, an object that holds one, both also with text around them, and numbered lines. `#5`
    becomes the place of the item that calls itself 5. A text without a reference gets those that its item says it
    depends on, in brackets. With the `question`, an item that repeats it or an earlier item is none of the nodes.
    """
    items = _json_items(reply)
    if items is None:
        lines = [match for line in reply.splitlines() if (match := _NUMBERED_LINE.match(line))]
        items = [{"id": match[1], "question": match[2]} for match in lines]
    named = [
        _Item(number=_number(item, place), text=_text(item, keys), depends_on=_depends_on(item))
        for place, item in enumerate(items[:MAX_REPLY_NODES], start=1)
    ]
    named = [item for item in named if item.text]
    kept, places = _without_repeats(named, question=question) if question else (named, {})
    for place, item in enumerate(kept, start=1):
        places.setdefault(item.number, place)
    return [_referring(item, places) for item in kept] or None


@dataclass(frozen=True, kw_only=True)
class _Item:
    """What a reply says of a node: numbers are its own."""

    number: int
    text: str
    depends_on: tuple[int, ...]


def _without_repeats(items: Sequence[_Item], *, question: str) -> tuple[list[_Item], dict[int, int]]:
    """The items that say something new, and the places of those that repeat one of them.

    The question said again is what the others are there for, unless a text refers to it or it stands alone.
    """
    needed = {number for item in items for number in references(item.text)}
    asked = _words(question)
    new = [item for item in items if item.number in needed or _words(item.text) != asked] or items[:1]
    first: dict[tuple[str, ...], int] = {}
    kept: list[_Item] = []
    places: dict[int, int] = {}
    for item in new:
        words = _words(item.text)
        if words in first:
            places.setdefault(item.number, first[words])
        else:
            kept.append(item)
            first[words] = len(kept)
    return kept, places


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.casefold()))


def _referring(item: _Item, places: Mapping[int, int]) -> str:
    """The text with references by place; one to an item that is not there stays dangling, as #0."""
    if references(item.text):
        return REFERENCE.sub(lambda match: f"#{places.get(int(match[1]), 0)}", item.text)
    own = places[item.number]
    marks = dict.fromkeys(f"#{places[number]}" for number in item.depends_on if places.get(number, own) != own)
    return f"{item.text} ({'; '.join(marks)})" if marks else item.text


def json_in(reply: str) -> Any:
    """The first JSON list or object with something in it that a reply holds; None where there is none."""
    decoder = json.JSONDecoder()
    for match in islice(re.finditer(r"[\[{]", reply), MAX_REPLY_NODES):
        rest = reply[match.start() :]
        for text in (rest, _TRAILING_COMMA.sub(r"\1", rest)):
            try:
                value, _ = decoder.raw_decode(text)
            except (ValueError, RecursionError):
                continue
            if value:
                return value
    return None


def _json_items(reply: str) -> list[Any] | None:
    value = json_in(reply)
    if isinstance(value, dict):
        inner = next((entry for entry in value.values() if isinstance(entry, list)), None)
        value = _objects_in(reply) if inner is None or _text(value, TEXT_KEYS) else inner
    return value if isinstance(value, list) else None


def _objects_in(reply: str) -> list[Any]:
    """The objects of a list that was cut off, one after the other."""
    decoder, start = json.JSONDecoder(), reply.find("{")
    objects: list[Any] = []
    while start >= 0 and len(objects) < MAX_REPLY_NODES:
        try:
            value, end = decoder.raw_decode(reply, start)
        except (ValueError, RecursionError):
            break
        objects.append(value)
        start = reply.find("{", end)
    return objects


def _text(item: Any, keys: Sequence[str]) -> str:
    if isinstance(item, dict):
        item = next((item[key] for key in keys if isinstance(item.get(key), str)), "")
    return " ".join(item.split())[:MAX_CHARACTERS] if isinstance(item, str) else ""


def _number(item: Any, place: int) -> int:
    """What an item calls itself, `Q2` and `#2` too; its place where it says nothing."""
    named = next((item[key] for key in ID_KEYS if key in item), None) if isinstance(item, dict) else None
    digits = re.search(r"\d{1,4}", str(named)) if isinstance(named, int | str) else None
    return int(digits[0]) if digits else place


def _depends_on(item: Any) -> tuple[int, ...]:
    """The numbers that an item names under `depends_on`."""
    named = item.get("depends_on") if isinstance(item, dict) else None
    digits = [re.search(r"\d{1,4}", str(name)) for name in named] if isinstance(named, list) else []
    return tuple(int(match[0]) for match in digits if match)


def without_join(graph: Graph) -> Graph:
    """The graph with its sinks as they were, where something beside the node that joins them is left."""
    return Graph(graph.texts[:-1]) if graph.is_joined and len(graph.texts) > 1 else graph


def repaired(texts: Sequence[str], *, question: str, max_nodes: int) -> Graph:
    """A graph with one sink, at most `max_nodes` nodes, in an order of solution.

    Dangling references are taken out, and those that close a cycle, backward ones before forward ones. Nodes beyond the
    cap go, the last ones first. Several sinks are joined by a final node: the question with their answers.
    """
    edges = [
        (number - 1, child)
        for child, text in enumerate(texts)
        for number in references(text)
        if 1 <= number <= len(texts)
    ]
    parents = acyclic(len(texts), sorted(edges, key=lambda edge: edge[0] > edge[1]))
    order = topological_order(parents)
    is_joined = len(order) > max_nodes or len(sinks(parents)) > 1
    order = order[: max_nodes - 1] if is_joined else order
    place = {index: number for number, index in enumerate(order, start=1)}
    kept = []
    for index in order:
        numbers = {parent + 1: place[parent] for parent in parents[index]}
        kept.append(renumbered(texts[index], numbers))
    if is_joined:
        ends = sinks(Graph(tuple(kept)).parents)
        marks = "; ".join(f"#{end + 1}" for end in ends)
        kept.append(f"{without_references(question)} ({marks})" if ends else without_references(question))
    return Graph(tuple(kept), is_joined)
