"""Unfaithful answers made of a reference by rule, and which unfaithful answers teach nothing."""

import math
import random
import re
from collections.abc import Sequence
from enum import StrEnum

from bm25s.stopwords import STOPWORDS_EN_PLUS

from athlos.methods.rhio.config import FilterConfig
from athlos.text.citations import BY_LANGUAGE
from athlos.text.overlap import distinct, rouge_l

ENTITY = re.compile(r"\d[\d.,]*\d|\d|[^\W\d_a-z]\w*(?:\s[^\W\d_a-z]\w*)*")
"""A number, or words that begin with a capital: what names something in a script that has capitals."""
NUM_GRAM = 2


class Drop(StrEnum):
    """Why a negative goes."""

    degenerate = "degenerate"
    copy = "copy"
    faithful = "faithful"


def entities(text: str, *, language: str) -> list[re.Match[str]]:
    """Names and numbers of a text, less English words that only begin a sentence."""
    matches = ENTITY.finditer(text)
    return [match for match in matches if language != "en" or match[0].lower() not in STOPWORDS_EN_PLUS]


def entity_swap(reference: str, documents: Sequence[str], *, language: str, rng: random.Random) -> str:
    """The reference with one name or number of it, everywhere, made another one of the documents.

    A number is replaced by a number. The reference itself where there is nothing to replace, or to replace it by.
    """
    own = [match[0] for match in entities(reference, language=language)]
    others = list(
        dict.fromkeys(
            match[0] for text in documents for match in entities(text, language=language) if match[0] not in own
        )
    )
    rng.shuffle(own)
    for old in own:
        of_same_kind = [other for other in others if other[0].isdigit() == old[0].isdigit()]
        if of_same_kind:
            return re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", rng.choice(of_same_kind).replace("\\", r"\\"), reference)
    return reference


def relation_perturb(reference: str, *, language: str) -> str:
    """The reference with the first and the last name of each sentence exchanged: who did it to whom is turned round."""
    return " ".join(_turned(piece.strip(), language=language) for piece in BY_LANGUAGE.split(reference, language))


def _turned(sentence: str, *, language: str) -> str:
    matches = entities(sentence, language=language)
    if len(matches) < 2 or matches[0][0] == matches[-1][0]:
        return sentence
    first, last = matches[0], matches[-1]
    between = sentence[first.end() : last.start()]
    return f"{sentence[: first.start()]}{last[0]}{between}{first[0]}{sentence[last.end() :]}"


def dropped(
    negative: str,
    reference: str,
    *,
    faith: float,
    reference_faith: float,
    language: str,
    filters: FilterConfig,
    by_rule: bool = False,
) -> Drop | None:
    """Why a negative teaches nothing; None keeps it.

    Degenerate: no words, or word salad. Copy: nearly the reference; one that is made of it `by_rule` differs in a name,
    and is a copy where nothing was changed. Faithful: supported as well as the reference, where
    both can be judged; one that cannot, such as a refusal, is degenerate.
    """
    variety = distinct(negative, language=language, n=NUM_GRAM)
    if not negative.strip() or math.isnan(faith) or variety < filters.min_distinct:
        return Drop.degenerate
    overlap = float(negative == reference) if by_rule else rouge_l(negative, reference, language=language).f1
    if overlap > filters.max_overlap:
        return Drop.copy
    if filters.less_faithful and faith >= reference_faith:
        return Drop.faithful
    return None
