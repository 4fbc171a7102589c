"""Short-answer scores of a whole set, one list of item values a metric, ready for `MacroMean`."""

from collections.abc import Mapping, Sequence

import numpy as np

from athlos.text import matching
from athlos.text.language import base_language
from athlos.text.normalisation import default_normaliser


def score_answers(
    predictions: Sequence[str],
    golds: Sequence[Sequence[str]],
    languages: Sequence[str],
    *,
    normaliser: str | None = None,
) -> dict[str, list[float]]:
    """`em`, `f1`, `cover_em`, `contains_not_em` in [0, 1] and `answer_tokens`, one value an item, in order.

    Without a normaliser each language takes its default: `squad` for English, else `mkqa_unicode`. Raises ValueError
    for unequal lengths.
    """
    scores: dict[str, list[float]] = {"em": [], "f1": [], "cover_em": [], "contains_not_em": [], "answer_tokens": []}
    for prediction, answers, language in zip(predictions, golds, languages, strict=True):
        name = normaliser or default_normaliser(language)
        em = matching.exact_match(prediction, answers, language=language, normaliser=name)
        covered = matching.cover_em(prediction, answers, language=language, normaliser=name)
        scores["em"].append(em)
        scores["f1"].append(matching.f1(prediction, answers, language=language, normaliser=name))
        scores["cover_em"].append(covered)
        scores["contains_not_em"].append(covered * (1.0 - em))
        length = matching.answer_length(prediction, language=language, normaliser=name)
        scores["answer_tokens"].append(float(length))
    return scores


def em_gap(em_of_language: Mapping[str, float]) -> float:
    """EM of English less the mean EM of the others; nan without English or without others."""
    english = [value for language, value in em_of_language.items() if base_language(language) == "en"]
    others = [value for language, value in em_of_language.items() if base_language(language) != "en"]
    return float(english[0] - np.mean(others)) if english and others else float("nan")


def em_std(em_of_language: Mapping[str, float]) -> float:
    """Standard deviation of EM over languages (divided by their number, for they are not a sample); nan without any."""
    return float(np.std(list(em_of_language.values()))) if em_of_language else float("nan")
