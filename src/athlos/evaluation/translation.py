"""BLEU, chrF and TER at corpus level, 0-100, by sacrebleu and never re-implemented; the signature goes with each score.

Intervals are sacrebleu's own bootstrap: 95 % around the mean of the resampled scores. A score is comparable only with
one of the same signature.
"""

import importlib.util
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from torchmetrics import Metric

from athlos.config.schema import EvalConfig
from athlos.evaluation.bootstrap import interval_of
from athlos.evaluation.suite import MetricDetail
from athlos.text.language import base_language

CHARACTER_TARGETS = frozenset({"th", "km", "lo", "my"})
"""Written without spaces, and sacrebleu has no word tokeniser for them: BLEU over characters. chrF leads there."""
_SEED_VARIABLE = "SACREBLEU_SEED"
_seed_lock = threading.Lock()


def bleu_tokenizer(target_language: str) -> str:
    """sacrebleu tokeniser of a target language: 13a; `zh`; `ja-mecab` where installed, else `char`; Thai `char`."""
    language = base_language(target_language)
    if language == "zh":
        return "zh"
    if language == "ja":
        has_mecab = importlib.util.find_spec("MeCab") and importlib.util.find_spec("ipadic")
        return "ja-mecab" if has_mecab else "char"
    return "char" if language in CHARACTER_TARGETS else "13a"


def corpus_metrics(target_language: str) -> dict[str, Any]:
    """Fresh sacrebleu metric objects by name."""
    from sacrebleu import BLEU, CHRF, TER

    return {"bleu": BLEU(tokenize=bleu_tokenizer(target_language)), "chrf": CHRF(), "ter": TER()}


def _with_plain_numbers(metric: Any) -> Any:
    """The metric with scores as Python floats: sacrebleu 2.6 mixes them with numpy's where a resample matches nothing,
    and its own mean refuses the mixture with a TypeError."""
    compute = metric._compute_score_from_stats

    def computed(stats: list[Any]) -> Any:
        score = compute(stats)
        score.score = float(score.score)
        return score

    metric._compute_score_from_stats = computed
    return metric


@contextmanager
def _sacrebleu_seed(seed: int) -> Iterator[None]:
    """sacrebleu reads the seed of its bootstrap from the environment only."""
    with _seed_lock:
        before = os.environ.get(_SEED_VARIABLE)
        os.environ[_SEED_VARIABLE] = str(seed)
        try:
            yield
        finally:
            if before is None:
                del os.environ[_SEED_VARIABLE]
            else:
                os.environ[_SEED_VARIABLE] = before


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """How much higher one system scores than another on the same segments."""

    difference: float
    low: float
    high: float
    """Percentile interval over resampled segments."""
    p_value: float
    """Two-sided: twice the share of resamples on the other side of 0, one added to both counts, at most 1."""


def paired_bootstrap(
    name: str,
    ours: Sequence[str],
    theirs: Sequence[str],
    references: Sequence[str],
    *,
    target_language: str,
    evaluation: EvalConfig,
) -> PairedDifference:
    """Difference in `bleu`, `chrf` or `ter` with a paired bootstrap of `evaluation.bootstrap` resamples.

    Segments are drawn with sacrebleu's generator, the same for both systems. Raises ValueError for no segments.
    """
    if not references:
        raise ValueError("a paired bootstrap needs segments")
    metric = _with_plain_numbers(corpus_metrics(target_language)[name])
    stats_SNF = [
        np.array(metric._extract_corpus_statistics(list(system), [list(references)]), dtype=np.float64)
        for system in (ours, theirs)
    ]
    num_segments = len(references)
    rng = np.random.default_rng(evaluation.bootstrap_seed)
    draws_RN = rng.choice(num_segments, size=(evaluation.bootstrap, num_segments), replace=True)
    scores = [
        np.array([metric._compute_score_from_stats(stats_NF[draw_N].sum(0)).score for draw_N in draws_RN])
        for stats_NF in stats_SNF
    ]
    whole = [float(metric._compute_score_from_stats(stats_NF.sum(0)).score) for stats_NF in stats_SNF]
    differences_R = scores[0] - scores[1]
    other_side = min(int((differences_R <= 0).sum()), int((differences_R >= 0).sum()))
    low, high = interval_of(differences_R)
    return PairedDifference(
        difference=whole[0] - whole[1],
        low=low,
        high=high,
        p_value=min(1.0, 2 * (1 + other_side) / (1 + len(differences_R))),
    )


class CorpusScores(Metric):
    """`bleu`, `chrf` and `ter` of one target language; fewer than two resamples or segments give no interval."""

    hypotheses: list[str]
    references: list[str]

    def __init__(self, target_language: str, *, evaluation: EvalConfig) -> None:
        super().__init__(sync_on_compute=False)
        self.target_language, self.evaluation = target_language, evaluation
        self.add_state("hypotheses", default=[])
        self.add_state("references", default=[])

    def update(self, hypotheses: Sequence[str], references: Sequence[str]) -> None:
        """Add segments, one reference a hypothesis; raises ValueError for unequal lengths."""
        if len(hypotheses) != len(references):
            raise ValueError(f"expected one reference a hypothesis, got {len(hypotheses)} and {len(references)}")
        self.hypotheses.extend(hypotheses)
        self.references.extend(references)

    def compute(self) -> tuple[dict[str, float], dict[str, MetricDetail]]:
        metrics, details = {}, {}
        has_interval = self.evaluation.bootstrap > 1 and len(self.hypotheses) > 1
        for name, metric in corpus_metrics(self.target_language).items():
            with _sacrebleu_seed(self.evaluation.bootstrap_seed):
                score = _with_plain_numbers(metric).corpus_score(
                    self.hypotheses, [self.references], n_bootstrap=self.evaluation.bootstrap if has_interval else 1
                )
            metrics[name], details[name] = float(score.score), MetricDetail(n=len(self.hypotheses))
            if has_interval:
                centre, half = float(score._mean), float(score._ci)
                details[name].low, details[name].high = centre - half, centre + half
        return metrics, details

    @property
    def signatures(self) -> dict[str, str]:
        """sacrebleu's, by metric, for one reference and without a bootstrap, so that they name the score alone."""
        signatures = {}
        for name, metric in corpus_metrics(self.target_language).items():
            metric.corpus_score(["a"], [["a"]])
            signatures[name] = str(metric.get_signature())
        return signatures
