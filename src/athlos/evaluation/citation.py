"""ALCE's citation scores of answers whose sentences were judged, and its scores of what an answer says.

Values are in [0, 1], where ALCE prints percent. An answer without a sentence is nan: it is skipped and counted. Means
are over answers; `macro_f1` alone is of the means. Source: eval.py of princeton-nlp/ALCE.
"""

import math
import zlib
from collections.abc import Sequence

import numpy as np

from athlos.config.schema import EvalConfig
from athlos.evaluation.bootstrap import Array, interval_of, resampled
from athlos.evaluation.metrics import Computed
from athlos.evaluation.suite import MetricDetail
from athlos.judging.interface import Judge, Pair
from athlos.judging.support import SentenceSupport, scores_of
from athlos.text.matching import cover_em
from athlos.text.normalisation import default_normaliser
from athlos.text.overlap import harmonic


def citation_scores(supports: Sequence[SentenceSupport]) -> dict[str, float]:
    """The scores of one answer from what is known of its sentences.

    `cite_rec`: supported sentences by all. `cite_prec`: needed citations by those that count, 0 where none counts.
    `cite_f1_item`: their harmonic mean. `sent_prec` (ours): supported sentences by those that cite. Of sentences with
    several citations: `multi_cite_share` of all sentences, `multi_cite_supported` of them, `overcite_share` of those
    supported that have one too many. Shares of nothing are nan.
    """
    cited = [support for support in supports if support.num_cited]
    several = [support for support in supports if support.num_cited > 1]
    well = [support for support in several if support.is_supported]
    num_counted = sum(support.num_counted for support in supports)
    recall = _share(sum(support.is_supported for support in supports), len(supports))
    precision = _share(sum(support.num_needed for support in supports), num_counted)
    if supports and not num_counted:
        precision = 0.0
    return {
        "cite_rec": recall,
        "cite_prec": precision,
        "cite_f1_item": harmonic(recall, precision),
        "sent_prec": _share(sum(support.is_supported for support in cited), len(cited)),
        "multi_cite_share": _share(len(several), len(supports)),
        "multi_cite_supported": _share(len(well), len(several)),
        "overcite_share": _share(sum(support.num_needed < support.num_counted for support in well), len(well)),
    }


def macro_f1(
    name: str, recalls: Sequence[float], precisions: Sequence[float], groups: Sequence[str], *, evaluation: EvalConfig
) -> Computed:
    """Harmonic mean of the mean recall and the mean precision of each group, and the mean over groups as `name`.

    An answer whose recall is nan is left out and counted. ALCE's program prints no F1: this is ours.
    """
    columns = np.array([recalls, precisions], dtype=np.float64)
    metrics, details, values, draws = {name: math.nan}, {name: MetricDetail(n=len(recalls))}, [], []
    for group in dict.fromkeys(groups):
        of_group = columns[:, [own == group for own in groups]]
        defined = of_group[:, ~np.isnan(of_group[0])]
        detail = MetricDetail(n=of_group.shape[1], undefined=of_group.shape[1] - defined.shape[1])
        details[name].undefined += detail.undefined
        values.append(float(_f1_of_means(defined[0], defined[1], axis=-1)) if defined.size else math.nan)
        metrics[f"{name}/{group}"], details[f"{name}/{group}"] = values[-1], detail
        if evaluation.bootstrap and defined.size:
            generator = np.random.default_rng([evaluation.bootstrap_seed, zlib.crc32(group.encode())])
            draws.append(resampled(_f1_of_means, *defined, resamples=evaluation.bootstrap, generator=generator))
            detail.low, detail.high = interval_of(draws[-1])
    if values:
        metrics[name] = float(np.mean(values))
    if draws and len(draws) == len(values):
        details[name].low, details[name].high = interval_of(np.mean(draws, axis=0))
    return metrics, details


def em_recall(answer: str, short_answers: Sequence[Sequence[str]], *, language: str) -> float:
    """Share of the sub-answers of which some accepted form stands in the answer; nan without a sub-answer."""
    normaliser = default_normaliser(language)
    told = [cover_em(answer, forms, language=language, normaliser=normaliser) for forms in short_answers]
    return _share(sum(told), len(told))


def str_hit(answer: str, short_answers: Sequence[Sequence[str]], *, language: str) -> float:
    """1 where `em_recall` finds all sub-answers, else 0; nan without a sub-answer."""
    recall = em_recall(answer, short_answers, language=language)
    return recall if math.isnan(recall) else float(recall == 1.0)


def claim_recall(
    judge: Judge, answers: Sequence[str], claims: Sequence[Sequence[str]], *, threshold: float
) -> list[float]:
    """Share of the claims of each item that its answer, without citations, supports; nan without a claim."""
    pairs = [[Pair(answer, claim) for claim in of_item] for answer, of_item in zip(answers, claims, strict=True)]
    score = scores_of(judge, (pair for of_item in pairs for pair in of_item))
    return [_share(sum(score[pair] >= threshold for pair in of_item), len(of_item)) for of_item in pairs]


def _share(part: float, whole: int) -> float:
    return part / whole if whole else math.nan


def _f1_of_means(recalls: Array, precisions: Array, axis: int) -> Array:
    recall, precision = recalls.mean(axis=axis), precisions.mean(axis=axis)
    total = recall + precision
    f1: Array = 2 * recall * precision / np.where(total > 0, total, 1.0)  # 0 where both are 0
    return f1
