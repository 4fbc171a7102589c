"""Rewards of responses: is it in the language of the question, well formed, right? Usable without the rest of Athlos.

Each part is judged on the response alone, never on the prompt or its hint. No torch.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from athlos.methods.lang.config import FormatRule, RewardConfig, RewardRule
from athlos.text.language import (
    CLOSING_THINK_TAG,
    OPENING_THINK_TAG,
    Detector,
    base_language,
    language_consistent,
    prose,
)
from athlos.text.maths import answers_equal, ascii_digits, extract_answer

ADAMAME_BONUS = 2.0
"""B of AdaMame. Source: its code."""
ADAMAME_FLOOR = 0.1
"""Least factor of the bonus, so that the question's language is favoured from the first step on."""
WEIGHT_OF_ACCURACY = 0.9
"""Of M-Thinker's soft variant; language consistency has the rest. Source: its code."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}")


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What was found in a response. `language` is the detected one, None where it has too few letters to tell."""

    lc: bool
    format: bool
    acc: bool
    language: str | None
    agreement: float = 0.0
    """With the English trace, in [0, 1]; computed for `m_thinker` alone."""


def judge(
    response: str, *, language: str, answer: str, detector: Detector, config: RewardConfig, truncated: bool = False,
    english: str = "",
) -> Judged:  # fmt: skip
    """The parts of the reward of one response. One that was cut by length is neither well formed nor right.

    Thought and answer are checked apart where there are thinking tags, and texts of at most 15 letters without LaTeX
    pass (`text.language.language_consistent`). Accuracy compares the last box, else the last number,
    behind the thought.
    """
    found = extract_answer(response.rsplit(CLOSING_THINK_TAG, 1)[-1])
    return Judged(
        lc=language_consistent(response, language, detector),
        format=not truncated and _well_formed(response, config, found),
        acc=not truncated and answers_equal(found, answer),
        language=detector.detect(prose(response)),
        agreement=trace_agreement(response, english) if config.rule is RewardRule.m_thinker else 0.0,
    )


def _well_formed(response: str, config: RewardConfig, found: str | None) -> bool:
    if len(response) < config.min_chars:
        return False
    if config.format_rule is FormatRule.think:
        before, _, after = response.partition(CLOSING_THINK_TAG)
        return response.count(CLOSING_THINK_TAG) == 1 and bool(after.strip()) and before.count(OPENING_THINK_TAG) <= 1
    if config.format_rule is FormatRule.boxed:
        return bool(_BOX.search(response.rsplit(CLOSING_THINK_TAG, 1)[-1]))
    return found is not None


def trace_agreement(response: str, english: str) -> float:
    """F1 of the numbers of two traces, each as often as it stands there; 0 without an English trace.

    Numbers are what traces in two languages share; it stands for the model that judges M-Thinker's alignment.
    """
    ours, theirs = (Counter(_NUMBER.findall(ascii_digits(text))) for text in (response, english))
    total = ours.total() + theirs.total()
    return 2 * (ours & theirs).total() / total if total else 0.0


def group_rewards(
    judged: Sequence[Judged], *, language: str, config: RewardConfig, progress: float
) -> list[float]:  # fmt: skip
    """The rewards of the responses to one prompt in `language`; `progress` is t/T, in [0, 1].

    `conjunction`: 1 if every part that counts holds, else 0. `lc_penalty`: (0 or -1 for language) + (1 if in language
    and right). `m_thinker`: that + agreement with the English trace. `weighted`: .9 accuracy + .1 language. `adamame`:
    accuracy x (1 + (n / n_lang - 1) c) x (1 + B max(1 - c, .1) [in language]), c = (1 + cos(pi t/T)) / 2, n_lang the
    responses of the group in this one's language. Parts that are switched off hold always.
    """
    if config.rule is RewardRule.adamame:
        return _adamame(judged, language=language, config=config, progress=progress)
    return [_reward(one, config) for one in judged]


def _parts(one: Judged, config: RewardConfig) -> tuple[bool, bool, bool]:
    return one.lc or not config.lc, one.format or not config.format, one.acc or not config.accuracy


def is_right(one: Judged, config: RewardConfig) -> bool:
    """Whether every part that counts holds: what the conjunction rewards."""
    return all(_parts(one, config))


def _reward(one: Judged, config: RewardConfig) -> float:
    lc, well_formed, right = _parts(one, config)
    if config.rule is RewardRule.conjunction:
        return float(is_right(one, config))
    solved = right and well_formed
    if config.rule is RewardRule.weighted:
        return WEIGHT_OF_ACCURACY * solved + (1 - WEIGHT_OF_ACCURACY) * lc
    penalised = (0.0 if lc else -1.0) + float(lc and solved)
    return penalised + one.agreement if config.rule is RewardRule.m_thinker else penalised


def _adamame(judged: Sequence[Judged], *, language: str, config: RewardConfig, progress: float) -> list[float]:
    rarity = 0.5 * (1 + math.cos(math.pi * progress))
    counts = Counter(one.language for one in judged)
    rewards = []
    for one in judged:
        _, well_formed, right = _parts(one, config)
        share = 1 + (len(judged) / counts[one.language] - 1) * rarity
        is_native = one.language is not None and base_language(one.language) == base_language(language)
        bonus = 1 + ADAMAME_BONUS * max(1 - rarity, ADAMAME_FLOOR) * is_native
        rewards.append(float(well_formed and right) * share * bonus)
    return rewards


def repeated_share(token_ids: Sequence[int], *, length: int = 4) -> float:
    """Share of the token n-grams of a response that stood in it before, in [0, 1); 0 for fewer than two n-grams."""
    grams = [tuple(token_ids[start : start + length]) for start in range(len(token_ids) - length + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
