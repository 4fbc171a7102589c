"""Which of the explored replies is preferred to which: the official table, and what it is compared with.

I: the internal answer is right and its thought is not empty. e, c: the external, the clue answer is right; v: the clue
alone was enough to answer. A pair names two paths, the chosen one first.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from athlos.methods.clueanchor.config import PATHS, SelectConfig, Selector
from athlos.text.matching import answer_length, f1
from athlos.text.normalisation import default_normaliser, normalise
from athlos.text.sentences import sentences

Pair = tuple[str, str]
LEAST_OVERLAP = 0.5
"""Share of the words of a thought's sentence that one passage must hold."""


@dataclass(frozen=True, kw_only=True)
class Explored:
    """One reply on a path."""

    path: str
    text: str
    think: str
    answer: str
    is_right: bool
    """By `clue_acc`."""
    is_formatted: bool


def code_table(
    *, i: bool, e: bool, c: bool, v: bool, thinks: Mapping[str, bool], verify_gate: bool = True
) -> Pair | None:
    """The pair by who was right; None drops the question. `thinks` says which paths have a thought.

    Source: ClueAnchor's code. Without the gate v counts as true.
    """
    knows = i and thinks["internal"]
    if knows and e and c:
        return None
    if knows:
        return ("internal", "clue") if e else ("internal", "external")
    if e and thinks["external"]:
        return "external", "internal"
    if not e and c and (v or not verify_gate) and thinks["clue"]:
        return "clue", "internal"
    return None


def table_pair(replies: Mapping[str, Explored], *, v: bool, verify_gate: bool) -> Pair | None:
    """The table's pair over the paths that were explored (ours where one is missing).

    A missing path is wrong and without a thought; where the table rejects it, another wrong one takes its place.
    """
    right = {path: path in replies and replies[path].is_right for path in PATHS}
    thinks = {path: path in replies and bool(replies[path].think) for path in PATHS}
    pair = code_table(
        i=right["internal"], e=right["external"], c=right["clue"], v=v, thinks=thinks, verify_gate=verify_gate
    )
    if pair is None or pair[1] in replies:
        return pair
    wrong = [path for path in PATHS if path in replies and not right[path]]
    return (pair[0], wrong[0]) if wrong else None


def reward(reply: Explored, *, v: bool, gold: str, passages: Sequence[str], language: str, max_length: int) -> float:
    """R = acc + .2 F1 + .1 [v = 1 and path is clue] + .1 s - .05 len/len_max (ours; lengths in words).

    s is the share of the thought's sentences that hold a word of the answer and share at least half of their words with
    some passage; 0 without a thought.
    """
    normaliser = default_normaliser(language)

    def words(text: str) -> set[str]:
        return set(normalise(text, normaliser=normaliser, language=language).split())

    of_answer, of_passages = words(reply.answer), [words(passage) for passage in passages]
    pieces = [piece_words for piece in sentences(reply.think, language).pieces if (piece_words := words(piece))]
    anchored = [
        bool(piece_words & of_answer)
        and any(len(piece_words & held) >= LEAST_OVERLAP * len(piece_words) for held in of_passages)
        for piece_words in pieces
    ]
    s = sum(anchored) / len(anchored) if anchored else 0.0
    length = answer_length(reply.text, language=language, normaliser=normaliser)
    score = f1(reply.answer, [gold], language=language, normaliser=normaliser)
    return reply.is_right + 0.2 * score + 0.1 * (v and reply.path == "clue") + 0.1 * s - 0.05 * length / max_length


def reward_pair(rewards: Mapping[str, float], *, min_gap: float) -> Pair | None:
    """The best path against the worst; None where they are nearer than `min_gap`. Of equals internal comes first."""
    order = sorted(rewards, key=lambda path: (-rewards[path], PATHS.index(path)))
    best, worst = order[0], order[-1]
    return None if rewards[best] - rewards[worst] < min_gap else (best, worst)


def random_pair(replies: Mapping[str, Explored], *, rng: random.Random) -> Pair | None:
    """A right path and a wrong one, whichever."""
    right = [path for path in PATHS if path in replies and replies[path].is_right]
    wrong = [path for path in PATHS if path in replies and not replies[path].is_right]
    return (rng.choice(right), rng.choice(wrong)) if right and wrong else None


def ddr_pair(draws: Mapping[str, Sequence[Explored]]) -> tuple[Explored, Explored] | None:
    """RAG-DDR's best and worst of all replies, by whether they are right; None where all are alike.

    Of equals the answer without passages is preferred, and the one with passages rejected. Source: RAG-DDR's code.
    """
    replies = [reply for path in ("internal", "external") for reply in draws.get(path, ())]
    right, wrong = ([reply for reply in replies if reply.is_right is is_right] for is_right in (True, False))
    return (right[0], wrong[-1]) if right and wrong else None


def first_right(draws: Sequence[Explored]) -> Explored:
    """The reply that stands for a path: the first right one, else the first."""
    return next((draw for draw in draws if draw.is_right), draws[0])


@dataclass(frozen=True, kw_only=True)
class Question:
    """What the selection reads of an exploration."""

    identifier: str
    language: str
    gold: str
    passages: Sequence[str]
    draws: Mapping[str, Sequence[Explored]]
    """Replies by path; a path that was not taken has none."""
    v: bool


def selected(
    question: Question, config: SelectConfig, *, verify_gate: bool, max_length: int, seed: int
) -> tuple[Explored, Explored] | None:
    """(chosen, rejected), or None for a question without a pair. Never two replies of one text."""
    replies = {path: first_right(draws) for path, draws in question.draws.items() if draws}
    chosen: tuple[Explored, Explored] | None = None
    if config.selector is Selector.ddr:
        chosen = ddr_pair(question.draws)
    else:
        if config.selector is Selector.code_table:
            pair = table_pair(replies, v=question.v, verify_gate=verify_gate)
        elif config.selector is Selector.random:
            pair = random_pair(replies, rng=random.Random(f"{seed}/{question.identifier}"))
        else:
            rewards = {
                path: reward(
                    reply,
                    v=question.v,
                    gold=question.gold,
                    passages=question.passages,
                    language=question.language,
                    max_length=max_length,
                )
                for path, reply in replies.items()
            }
            pair = reward_pair(rewards, min_gap=config.min_gap)
        chosen = (replies[pair[0]], replies[pair[1]]) if pair else None
    if chosen is None or chosen[0].text == chosen[1].text or (config.require_wrong_rejected and chosen[1].is_right):
        return None
    return chosen
