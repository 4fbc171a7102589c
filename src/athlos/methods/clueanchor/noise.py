"""Which passages stand in a prompt: shares of distractors, the best ranks, and what fits.

A passage bears on a question where the data set marks it as supporting; one that holds a supporting sentence is
required. All others are distractors; where a question has too few of its own, those of other questions serve.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from athlos.data.records import Passage, QuestionRecord
from athlos.methods.clueanchor.config import RESERVE, GoldPassages, NoiseConfig, PromptConfig, Truncation

Count = Callable[[str], int]
"""Tokens of a text."""
Cut = Callable[[str, int], str]
"""The first tokens of a text, as text."""


def is_required(record: QuestionRecord, passage: Passage) -> bool:
    """Whether a passage holds a supporting sentence; any that supports where the data set names no sentences."""
    named = {title for title, _ in record.supporting_facts}
    return passage.title in named if named else passage.is_supporting


def noised(
    record: QuestionRecord, noise: NoiseConfig, *, top_n: int, others: Sequence[Passage], seed: int
) -> QuestionRecord:
    """The record with at most `top_n` passages: as they come at share 0, else round(share x top_n) of them distractors.

    Required passages stay, in place of distractors where need be, unless the share is 1 or gold is absent: then all are
    distractors. Distractors take random ranks. `others` are passages of other questions.
    """
    is_absent = noise.gold is GoldPassages.absent or noise.share == 1
    if noise.share == 0 and not is_absent:
        return replace(record, passages=record.passages[:top_n])
    bearing = sorted(
        (passage for passage in record.passages if passage.is_supporting or is_required(record, passage)),
        key=lambda passage: not is_required(record, passage),
    )
    rng = random.Random(f"{seed}/{record.identifier}/{noise.share}/{noise.gold}")
    distractors = [passage for passage in record.passages if passage not in bearing]
    missing = top_n - len(distractors)
    if missing > 0 and others:
        distractors += rng.sample(list(others), min(missing, len(others)))
    num_required = sum(is_required(record, passage) for passage in bearing)
    num_distractors = top_n if is_absent else min(round(noise.share * top_n), max(0, top_n - num_required))
    kept = [*bearing[: top_n - num_distractors], *distractors[:num_distractors]]
    rng.shuffle(kept)
    return replace(record, passages=kept)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A record whose prompt fits, and whether that took some of a required passage away."""

    record: QuestionRecord
    is_gold_cut: bool


def fitted(record: QuestionRecord, config: PromptConfig, *, count: Count, cut: Cut) -> Fitted:
    """The record with what of its passages fits into `max_tokens` beside the question.

    `passage_aware` leaves whole passages out, from the tail on. `token_cut` joins all and keeps the first
    `max_tokens` - 64 - question tokens, as the official code does.
    """
    room = config.max_tokens - count(record.question)
    if config.truncate is Truncation.token_cut:
        joined = "\n".join(passage.text for passage in record.passages)
        text = cut(joined, max(0, room - RESERVE))
        required = [passage for passage in record.passages if is_required(record, passage)]
        kept = [Passage(title="", text=text)] if text else []
        return Fitted(
            record=replace(record, passages=kept),
            is_gold_cut=any(passage.text not in text for passage in required),
        )
    whole: list[Passage] = []
    for passage in record.passages:
        room -= count(f"{passage.title} {passage.text}")
        if room < 0:
            break
        whole.append(passage)
    lost = record.passages[len(whole) :]
    return Fitted(
        record=replace(record, passages=whole), is_gold_cut=any(is_required(record, passage) for passage in lost)
    )
