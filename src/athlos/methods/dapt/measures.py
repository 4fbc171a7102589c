"""What traces tell: how good the graphs were, what was found, what was read, and which chains broke where.

Each metric is a mean over the questions that it is defined for; one that is defined for none is left out.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from athlos.data.records import QuestionRecord
from athlos.generation.interface import Prediction
from athlos.methods.dapt.components import Question, read_reply
from athlos.methods.dapt.graph import REFERENCE, Graph
from athlos.methods.dapt.merge import Pair, matching
from athlos.methods.dapt.recall import recall
from athlos.methods.dapt.similarity import NEUTRAL, trigram_cosines
from athlos.retrieval.corpora import gold_ids
from athlos.text.matching import exact_match
from athlos.text.normalisation import default_normaliser

SAME_NODE = 0.5
"""Least trigram cosine of a node and the gold node it stands for."""


def measured(solved: Sequence[tuple[Question, QuestionRecord, Prediction]], *, k: int) -> dict[str, float]:
    values: dict[str, list[float]] = defaultdict(list)
    for question, record, prediction in solved:
        for name, value in _of_question(question, record, prediction, k=k).items():
            values[name].append(value)
    means = {name: float(np.mean(items)) for name, items in values.items()}
    sides = [means.pop(name) for name in ("recall_both", "recall_src", "recall_en") if name in means]
    if len(sides) == 3:
        means["retrieval/bilingual_gain"] = bilingual_gain(*sides)
    return means


def bilingual_gain(both: float, source: float, english: float) -> float:
    """Recall with two indexes over that with the better one alone, at equal numbers of passages."""
    return both - max(source, english)


def _of_question(question: Question, record: QuestionRecord, prediction: Prediction, *, k: int) -> dict[str, float]:
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in prediction.trace:
        rows[row["purpose"]].append(row)
    values = {}
    for graphs in rows["graphs"]:
        for side, name in (("source_nodes", "graph/valid_s"), ("english_nodes", "graph/valid_en")):
            if side in graphs:
                values[name] = float(graphs[side] is not None)
    for row in rows["merged"]:
        values["graph/fallback_rate"] = float(row["is_fallback"])
        values |= _against_gold(question, row["graphs"][-1])
    for row in rows["align"]:
        values["graph/merge_agree"] = row["agreement"]
    values |= _of_replies([row["reply"] for row in rows["read"]])
    values |= _of_nodes(record, rows["node"], k=k)
    values |= _of_chain(question, record, prediction, rows["node"])
    return values


def _of_replies(replies: Sequence[str]) -> dict[str, float]:
    """Shares of a reader's replies that keep the form asked for, and of those of which nothing could be taken."""
    readings = [read_reply(reply) for reply in replies]
    if not readings:
        return {}
    return {
        "reading/valid": float(np.mean([reading.is_valid for reading in readings])),
        "reading/lost": float(np.mean([reading.is_lost for reading in readings])),
    }


def _of_nodes(record: QuestionRecord, nodes: Sequence[dict[str, Any]], *, k: int) -> dict[str, float]:
    if not nodes:
        return {}
    values = {"graph/stopped_rate": float(np.mean([node.get("is_stopped", False) for node in nodes]))}
    if gold := gold_ids(record):
        both = recall([name for node in nodes for name in node["fused"]], gold)
        values[f"retrieval/recall@{k}"] = both
        if all(len(node["found"]) == 2 for node in nodes):
            values["recall_both"] = both
            for place, name in enumerate(("recall_src", "recall_en")):
                values[name] = recall([name for node in nodes for name in node["found"][place]], gold)
    return values


def _against_gold(question: Question, nodes: Sequence[Sequence[Any]]) -> dict[str, float]:
    """Edge F1 on nodes that stand for gold ones, and whether the graph has as many nodes."""
    steps = question.english_steps if question.is_english else question.steps
    if not steps:
        return {}
    gold = Graph(tuple(text for text, _ in steps))
    texts = [(english if question.is_english else source) or "" for source, english, _ in nodes]
    parents = [frozenset(near) for _, _, near in nodes]
    pairs = _same_nodes(texts, gold)
    ours = {(pairs.get(parent), pairs.get(child)) for child, near in enumerate(parents) for parent in near}
    theirs = {(parent, child) for child, near in enumerate(gold.parents) for parent in near}
    values = {"graph/hop_acc": float(len(nodes) == len(steps))}
    if theirs:
        values["graph/edge_f1"] = 2 * len(ours & theirs) / (len(ours) + len(theirs))
    return values


def _same_nodes(texts: Sequence[str], gold: Graph) -> dict[int, int]:
    neutral, neutral_gold = ([REFERENCE.sub(NEUTRAL, text) for text in side] for side in (texts, gold.texts))
    pairs: list[Pair] = matching(trigram_cosines(neutral, neutral_gold), tau=SAME_NODE)
    return dict(pairs)


def _of_chain(
    question: Question, record: QuestionRecord, prediction: Prediction, nodes: Sequence[dict[str, Any]]
) -> dict[str, float]:
    """Whether all inner steps were right and the answer wrong, and the other way round."""
    steps = question.english_steps if question.is_english else question.steps
    if len(steps) < 2 or not record.answers:
        return {}

    def is_right(texts: Sequence[str | None], answer: str) -> bool:
        return any(text is not None and _em(text, [answer], record.language) for text in texts)

    answers = [node["answer"][0] for node in nodes if node.get("answer")]
    inner = all(is_right(answers, answer) for _, answer in steps[:-1])
    final = _em(prediction.text, record.answers, record.language)
    return {"graph/composition_failure": float(inner and not final), "graph/shortcut": float(final and not inner)}


def _em(text: str, golds: Sequence[str], language: str) -> bool:
    return bool(exact_match(text, golds, language=language, normaliser=default_normaliser(language)))
