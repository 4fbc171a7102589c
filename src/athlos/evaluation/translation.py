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
    from sacrebleu.metrics import BLEU, CHRF, TER

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


def corpus_signature(metric: Any) -> str:
    """The signature of a fresh metric with one reference; it holds no bootstrap, so that it names the score alone."""
    metric.corpus_score(["a"], [["a"]])
    return str(metric.get_signature())


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


def corpus_scores(
    hypotheses: Sequence[str], references: Sequence[str], *, target_language: str, resamples: int, seed: int
) -> tuple[dict[str, float], dict[str, MetricDetail], dict[str, str]]:
    """(metrics, details, signatures), each by `bleu`, `chrf`, `ter`. One reference a hypothesis.

    No segments give nan with n 0; fewer than two resamples or segments give no interval. Raises ValueError for unequal
    lengths.
    """
    if len(hypotheses) != len(references):
        raise ValueError(f"expected one reference a hypothesis, got {len(hypotheses)} and {len(references)}")
    metrics: dict[str, float] = {}
    details: dict[str, MetricDetail] = {}
    signatures = {name: corpus_signature(metric) for name, metric in corpus_metrics(target_language).items()}
    for name, metric in corpus_metrics(target_language).items():
        details[name] = MetricDetail(n=len(hypotheses))
        if not hypotheses:
            metrics[name] = float("nan")
            continue
        num_resamples = resamples if resamples > 1 and len(hypotheses) > 1 else 1
        with _sacrebleu_seed(seed):
            scored = _with_plain_numbers(metric)
            score = scored.corpus_score(list(hypotheses), [list(references)], n_bootstrap=num_resamples)
        metrics[name] = float(score.score)
        if num_resamples > 1:
            centre, half = float(score._mean), float(score._ci)
            details[name].low, details[name].high = centre - half, centre + half
    return metrics, details, signatures


@dataclass(frozen=True, kw_only=True)
class PairedScore:
    """One corpus metric of two systems: difference = system - baseline, p two-sided by sacrebleu's paired bootstrap."""

    baseline: float
    system: float
    difference: float
    p: float


def paired_corpus_test(
    baseline: Sequence[str],
    system: Sequence[str],
    references: Sequence[str],
    *,
    target_language: str,
    resamples: int = 1000,
    seed: int = 12345,
) -> dict[str, PairedScore]:
    """Whether two systems differ on the same segments, by `bleu`, `chrf`, `ter`; sacrebleu's test, untouched."""
    from sacrebleu.significance import PairedTest

    metrics = corpus_metrics(target_language)
    with _sacrebleu_seed(seed):
        _, found = PairedTest(
            [("baseline", list(baseline)), ("system", list(system))], metrics, [list(references)],
            test_type="bs", n_samples=resamples,
        )()  # fmt: skip
    columns = {name.lower().rstrip("2"): column for name, column in found.items() if name != "System"}
    scores = {}
    for name in metrics:
        before, after = columns[name]
        scores[name] = PairedScore(
            baseline=float(before.score), system=float(after.score),
            difference=float(after.score - before.score), p=float(after.p_value),
        )  # fmt: skip
    return scores
