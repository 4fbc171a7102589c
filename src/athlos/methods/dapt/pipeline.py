"""DaPT for one question, in two parts, so that another merge or another k begins where the graphs stand.

`decompose`: the question is translated; both versions are taken apart in one round; each graph is repaired.
`solve`: the graphs are merged; nodes of one depth are solved together, each searched for in both languages and read
with both wordings; the answer of the last node is the answer.

S source nodes, E English nodes. "English" is the pivot, in the lab the first language.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from athlos.generation.pipeline import Ask, Note, Search, Solver, Steps, together
from athlos.methods.dapt import prompts
from athlos.methods.dapt.components import Answer, Components, Question
from athlos.methods.dapt.config import DaptConfig, Final, Memory, Path, Retrieval, Solve
from athlos.methods.dapt.fusion import fused
from athlos.methods.dapt.graph import (
    REFERENCE,
    Graph,
    filled,
    levels,
    references,
    renumbered,
    repaired,
    without_join,
    without_references,
)
from athlos.methods.dapt.merge import (
    Merged,
    Node,
    agreement,
    alignment_scores,
    from_reply,
    matching,
    merged,
    one_sided,
    prefer_english,
    prefer_source,
    union,
)
from athlos.methods.dapt.similarity import NEUTRAL, trigram_cosines
from athlos.retrieval.interface import Passage

Compare = Callable[[Sequence[str], Sequence[str]], np.ndarray]
"""Cosines [S, E] of two lists of texts."""


@dataclass(frozen=True, kw_only=True)
class Decomposed:
    """What `decompose` found out about a question; a graph is None where its path gave none."""

    english: str | None
    source_graph: Graph | None
    english_graph: Graph | None

    def dumped(self) -> str:
        both = (self.source_graph, self.english_graph)
        graphs = [None if graph is None else [graph.texts, graph.is_joined] for graph in both]
        return json.dumps([self.english, *graphs], ensure_ascii=False)

    @classmethod
    def loaded(cls, text: str) -> "Decomposed":
        english, *graphs = json.loads(text)
        source, pivot = (None if graph is None else Graph(tuple(graph[0]), graph[1]) for graph in graphs)
        return cls(english=english, source_graph=source, english_graph=pivot)


def decompose(question: Question, *, method: DaptConfig, parts: Components) -> Solver:
    """The `Decomposed` question as text. A question in English has one path, whatever `path` says."""
    if question.is_english:
        english: str | None = question.text
    elif method.path is Path.src and method.retrieval is Retrieval.src:
        english = None
    else:
        english = yield from parts.translated_question(question)
    makes_source = method.path is not Path.en and not question.is_english
    makes_english = method.path is not Path.src or question.is_english
    wanted = []
    if makes_source:
        wanted.append(parts.decomposed(question, question.text, language=question.language))
    if makes_english:
        wanted.append(parts.decomposed(question, english, language=question.pivot))
    lists = iter((yield from together(wanted)))
    source = _repaired(next(lists), question.text, method) if makes_source else None
    pivot = _repaired(next(lists), english or question.text, method) if makes_english else None
    yield [
        Note(
            purpose="graphs",
            values={
                "english": english,
                **({"source_nodes": source and list(source.texts)} if makes_source else {}),
                **({"english_nodes": pivot and list(pivot.texts)} if makes_english else {}),
            },
        )
    ]
    return Decomposed(english=english, source_graph=source, english_graph=pivot).dumped()


def _repaired(texts: list[str] | None, question: str, method: DaptConfig) -> Graph | None:
    return None if texts is None else repaired(texts, question=question, max_nodes=method.max_nodes)


@dataclass(frozen=True, kw_only=True)
class DaptSolver:
    """The second part, with what does not change from question to question."""

    method: DaptConfig
    parts: Components
    tau: float
    compare: Compare | None = None
    """Of the encoder; None where nodes are translated and compared by trigrams."""

    def solve(self, question: Question, first: Decomposed) -> Solver:
        graphs = yield from self._graphs(question, first)
        if self.method.solve is Solve.all_at_once:
            return (yield from self._read_at_once(question, graphs[0]))
        answers = yield from together([self._solved(question, graph) for graph in graphs])
        return voted(answers)

    # -- merge ---------------------------------------------------------------------------------------------------------

    def _graphs(self, question: Question, first: Decomposed) -> Steps[list[Merged]]:
        """One merged graph, or two for the vote, with the wordings that are searched with."""
        source, english = first.source_graph, first.english_graph
        is_dual = source is not None and english is not None
        if source is None and english is None:
            text, pivot = without_references(question.text), first.english and without_references(first.english)
            graphs: list[Merged] = [(Node(source=text, english=pivot, parents=frozenset()),)]
        elif source is None or english is None:
            only = source if english is None else english
            assert only is not None
            graphs = [one_sided(only, is_english=source is None)]
        elif self.method.merge.kind.name == "none":
            graphs = [one_sided(source, is_english=False), one_sided(english, is_english=True)]
        else:
            graphs = [(yield from self._merged(question, first, source, english))]
        worded = yield from together([self._worded(question, graph) for graph in graphs])
        yield [
            Note(
                purpose="merged",
                values={
                    "graphs": [
                        [(node.source, node.english, sorted(node.parents)) for node in graph] for graph in worded
                    ],
                    "is_dual": is_dual,
                    "is_fallback": source is None and english is None,
                },
            )
        ]
        return worded

    def _merged(self, question: Question, first: Decomposed, source: Graph, english: Graph) -> Steps[Merged]:
        merge = self.method.merge
        if merge.kind.name == "llm":
            (reply,) = yield [self._merge_call(question, first, source, english)]
            graph = from_reply(reply, max_nodes=self.method.max_nodes)
            if graph is not None:
                return graph
        if merge.kind.name == "union":
            joined = union(source, english)
            return joined if len(joined) <= self.method.max_nodes else one_sided(english, is_english=True)
        whole = english
        is_aligned = merge.kind.name not in ("prefer_src", "prefer_en")
        if is_aligned and source.is_joined != english.is_joined:
            # A graph that fell apart leaves the sink to the other one.
            source, english = without_join(source), without_join(english)
        scores_SE = yield from self.scores(question, source, english)
        pairs = matching(scores_SE, tau=self.tau)
        yield [Note(purpose="align", values={"pairs": pairs, "agreement": agreement(pairs, source, english)})]
        if merge.kind.name == "prefer_src":
            return prefer_source(source, english, pairs)
        if merge.kind.name == "prefer_en":
            return prefer_english(source, english, pairs)
        graph = merged(source, english, pairs, keep_unmatched=merge.keep_unmatched, scores_SE=scores_SE)
        return graph if len(graph) <= self.method.max_nodes else one_sided(whole, is_english=True)

    def scores(self, question: Question, source: Graph, english: Graph) -> Steps[np.ndarray]:
        """S [S, E]: what nodes ask, compared across the languages, and where they stand."""
        neutral_s = [REFERENCE.sub(NEUTRAL, text) for text in source.texts]
        neutral_e = [REFERENCE.sub(NEUTRAL, text) for text in english.texts]
        if self.compare is not None:
            cosine_SE = self.compare(neutral_s, neutral_e)
        else:
            translations = yield from together([self._in_english(question, text) for text in source.texts])
            neutral_s = [REFERENCE.sub(NEUTRAL, text or "") for text in translations]
            cosine_SE = trigram_cosines(neutral_s, neutral_e)
        merge = self.method.merge
        return alignment_scores(cosine_SE, source, english, tau=self.tau, alpha=merge.alpha, beta=merge.beta)

    def _in_english(self, question: Question, text: str) -> Steps[str | None]:
        return self.parts.translated_node(question, text, source=question.language, target=question.pivot)

    def _merge_call(self, question: Question, first: Decomposed, source: Graph, english: Graph) -> Ask:
        prompt = prompts.merge(
            question.text, first.english or "", source.texts, english.texts, language=question.language
        )
        return Ask(purpose="merge", prompt=prompt, max_new_tokens=2 * self.method.max_new_tokens)

    def _worded(self, question: Question, graph: Merged) -> Steps[Merged]:
        """The graph with the missing wordings of the languages that are searched, where they can be translated.

        A question in English has one wording, and nothing to translate.
        """
        if question.is_english:
            return graph
        searched = self._searched(question)
        calls = {
            (index, is_english): self.parts.translated_node(question, text, source=source, target=target)
            for index, node in enumerate(graph)
            for is_english, text, missing, source, target in (
                (True, node.source, node.english, question.language, question.pivot),
                (False, node.english, node.source, question.pivot, question.language),
            )
            if missing is None and text is not None and target in searched
        }
        translations = dict(zip(calls, (yield from together(list(calls.values()))), strict=True))
        nodes = []
        for index, node in enumerate(graph):
            made = {is_english: translations.get((index, is_english)) for is_english in (True, False)}
            # A translation may name only the parents of its node.
            numbers = {parent + 1: parent + 1 for parent in node.parents}
            source, english = (
                None if text is None else renumbered(text, numbers) for text in (made[False], made[True])
            )
            nodes.append(Node(source=node.source or source, english=node.english or english, parents=node.parents))
        return tuple(nodes)

    def _searched(self, question: Question) -> list[str]:
        """Languages of the passages."""
        if question.is_english:
            return [question.pivot]
        return {
            Retrieval.bilingual: [question.language, question.pivot],
            Retrieval.src: [question.language],
            Retrieval.en: [question.pivot],
        }[self.method.retrieval]

    # -- solve ---------------------------------------------------------------------------------------------------------

    def _solved(self, question: Question, graph: Merged) -> Steps[Answer]:
        """The answer of the sink; nodes of one depth are searched and read in one round each."""
        answers: dict[int, Answer] = {}
        for level in levels([node.parents for node in graph]):
            solved = yield from together([self._node(question, graph, index, answers) for index in level])
            answers |= dict(zip(level, solved, strict=True))
        if self.method.final is Final.synth:
            chain = [(node.source or node.english or "", answers[index][0] or "") for index, node in enumerate(graph)]
            composed = yield from self.parts.composed(question, chain, ())
            return composed or None, None
        return answers[len(graph) - 1]

    def _node(self, question: Question, graph: Merged, index: int, answers: Mapping[int, Answer]) -> Steps[Answer]:
        source, english, is_stopped = self._filled(graph, index, answers)
        lists = yield from self._found(question, source, english)
        near = [text for parent in graph[index].parents for text in answers[parent] if text]
        passages = fused(
            lists, k=self.method.k, kind=self.method.fuse, queries=(source or "", english or ""), parents=near
        )
        answer: Answer = (None, None)
        if not is_stopped:
            answer = yield from self.parts.read(question, source, english, passages)
        yield [
            Note(
                purpose="node",
                values={
                    "number": index + 1,
                    "source": source,
                    "english": english,
                    "found": [[passage.identifier for passage in hits] for hits in lists],
                    "fused": [passage.identifier for passage in passages],
                    "read": [] if is_stopped else [passage.identifier for passage in passages],
                    "answer": answer,
                    "is_stopped": is_stopped,
                },
            )
        ]
        return answer

    def _filled(self, graph: Merged, index: int, answers: Mapping[int, Answer]) -> tuple[str | None, str | None, bool]:
        """Both wordings with the answers of the parents; a wording one of whose parents is unknown is left out.

        Where none is left the branch stops: the search goes on with the parents' own texts in place of their answers,
        nothing is read, and the answer is unknown.
        """
        memory = self.method.answer_memory
        node = graph[index]
        sides = []
        for side, text in ((0, node.source), (1, node.english)):
            taken = {Memory.both: side, Memory.src: 0, Memory.en: 1}[memory]
            known = {parent + 1: answer for parent in node.parents if (answer := answers[parent][taken])}
            is_known = text is not None and all(number in known for number in references(text))
            sides.append(filled(text or "", known) if is_known else None)
        if any(side is not None for side in sides):
            return sides[0], sides[1], False
        source = _with_texts_of_parents(graph, index, is_english=False)
        return source, _with_texts_of_parents(graph, index, is_english=True), True

    def _found(self, question: Question, source: str | None, english: str | None) -> Steps[list[list[Passage]]]:
        """One ranked list a language that is searched and has a wording."""
        wording = {question.language: source, question.pivot: english or (source if question.is_english else None)}
        calls = [
            Search(purpose="search", query=text, k=self.method.k, language=language)
            for language in self._searched(question)
            if (text := wording[language])
        ]
        lists: list[list[Passage]] = yield calls
        return lists

    def _read_at_once(self, question: Question, graph: Merged) -> Solver:
        """The ablation: search for every node with its references left out, then read all passages once."""
        blank = [
            (node.source and renumbered(node.source, {}), node.english and renumbered(node.english, {}))
            for node in graph
        ]
        lists_of_nodes = yield from together([self._found(question, source, english) for source, english in blank])
        passages: dict[str, Passage] = {}
        for number, ((source, english), lists) in enumerate(zip(blank, lists_of_nodes, strict=True), start=1):
            queries = (source or "", english or "")
            read = fused(lists, k=self.method.k, kind=self.method.fuse, queries=queries, parents=())
            passages |= {passage.identifier: passage for passage in read}
            values = {"number": number, "found": [[hit.identifier for hit in hits] for hits in lists]}
            names = [passage.identifier for passage in read]
            yield [Note(purpose="node", values={**values, "fused": names, "read": names})]
        return (yield from self.parts.composed(question, (), list(passages.values())))


def _with_texts_of_parents(graph: Merged, index: int, *, is_english: bool) -> str | None:
    def text_of(node: Node) -> str | None:
        return node.english if is_english else node.source

    text = text_of(graph[index])
    if text is None:
        return None
    texts = {parent + 1: renumbered(text_of(graph[parent]) or "", {}) for parent in graph[index].parents}
    return filled(text, {**dict.fromkeys(references(text), ""), **texts})


def voted(answers: Sequence[Answer]) -> str:
    """The answer in the language of the question; of two graphs the English one decides where both know one."""
    known = [source for source, _ in answers if source]
    return known[-1] if known else ""
