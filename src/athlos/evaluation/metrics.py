"""Metrics as torchmetrics classes over the pure functions of `athlos.text` and `athlos.evaluation.calibration`.

States are lists of tensors that are gathered across processes, so that many processes give the value of one.
"""

import zlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from athlos.evaluation import calibration
from athlos.evaluation.bootstrap import interval_of, resampled_means
from athlos.evaluation.suite import MetricDetail
from athlos.evaluation.translation import corpus_metrics, corpus_signature
from athlos.text.language import Detector, base_language, language_consistent
from athlos.text.matching import cover_em, exact_match, f1
from athlos.text.maths import answers_equal, extract_answer
from athlos.text.normalisation import default_normaliser


def by_language(
    values: Sequence[float], languages: Sequence[str], *, name: str, resamples: int, seed: int
) -> tuple[dict[str, float], dict[str, MetricDetail]]:
    """Mean of each language as `name/<language>` and the macro mean over languages as `name`.

    `values` holds one number an item, nan where undefined; those are left out of the mean of their language and
    counted. A language without a defined item is nan, and then so is the macro mean: over fewer languages it would be
    another metric under the same name. The interval of the macro mean resamples items within each language. The draws
    of a language depend on its name and the seed alone. Raises ValueError for unequal lengths.
    """
    if len(values) != len(languages):
        raise ValueError(f"expected one language a value, got {len(values)} and {len(languages)}")
    items = np.asarray(values, dtype=np.float64)
    labels = np.asarray(languages, dtype=object)
    means: list[float] = []
    draws = []
    metrics: dict[str, float] = {}
    details: dict[str, MetricDetail] = {}
    metrics[name], details[name] = float("nan"), MetricDetail(n=len(items), undefined=int(np.isnan(items).sum()))
    for language in dict.fromkeys(languages):
        of_language = items[labels == language]
        defined = of_language[~np.isnan(of_language)]
        key = f"{name}/{language}"
        details[key] = MetricDetail(n=len(of_language), undefined=len(of_language) - len(defined))
        metrics[key] = float(defined.mean()) if len(defined) else float("nan")
        means.append(metrics[key])
        if resamples > 0 and len(defined):
            generator = np.random.default_rng([seed, zlib.crc32(language.encode())])
            draws.append(resampled_means(defined, resamples=resamples, generator=generator))
            details[key].low, details[key].high = interval_of(draws[-1])
    if means:
        metrics[name] = float(np.mean(means))
    if draws and len(draws) == len(means):
        details[name].low, details[name].high = interval_of(np.mean(draws, axis=0))
    return metrics, details


def _joined(state: list[Tensor] | Tensor) -> Tensor:
    """A list state as one tensor: a list before the processes meet, a tensor after, an empty list without an item."""
    if isinstance(state, Tensor):
        return state
    return torch.cat(state) if state else torch.zeros(0, dtype=torch.float64)


class _Float64Metric(Metric):
    """A metric whose states are all float64, bytes and indices too.

    torchmetrics gives a process without items an empty state of the metric's own dtype; gathering it together with
    states of another dtype would garble both.
    """

    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.set_dtype(torch.float64)


class LanguageMean(_Float64Metric):
    """Mean of item values a language and their macro mean, see `by_language`; subclasses say what the values are.

    `languages` fixes the codes that may come, the same on every process. `compute` returns the metrics by name, for
    example `acc` and `acc/de`; `details` holds n, undefined and interval of the last `compute`.
    """

    higher_is_better = True
    name: ClassVar[str] = "mean"
    values: Any
    language_indices: Any

    def __init__(self, languages: Sequence[str], *, resamples: int = 0, seed: int = 12345, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.languages, self.resamples, self.seed = list(languages), resamples, seed
        self.details: dict[str, MetricDetail] = {}
        self.add_state("values", default=[], dist_reduce_fx="cat")
        self.add_state("language_indices", default=[], dist_reduce_fx="cat")

    def record(self, values: Sequence[float], languages: Sequence[str]) -> None:
        """Add one value an item; raises ValueError for unequal lengths or a language that was not announced."""
        if len(values) != len(languages):
            raise ValueError(f"expected one language a value, got {len(values)} and {len(languages)}")
        indices = [self.languages.index(language) for language in languages]
        self.values.append(torch.tensor(values, dtype=torch.float64, device=self.device))
        self.language_indices.append(torch.tensor(indices, dtype=torch.float64, device=self.device))

    def compute(self) -> dict[str, Tensor]:
        languages = [self.languages[int(index)] for index in _joined(self.language_indices)]
        metrics, self.details = by_language(
            _joined(self.values).tolist(), languages, name=self.name, resamples=self.resamples, seed=self.seed
        )
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in metrics.items()}


class _ShortAnswer(LanguageMean):
    """A score of `athlos.text.matching`; without a normaliser each language takes its default."""

    score: ClassVar[Callable[..., float]]

    def __init__(self, languages: Sequence[str], *, normaliser: str | None = None, **kwargs: Any) -> None:
        super().__init__(languages, **kwargs)
        self.normaliser = normaliser

    def update(self, predictions: Sequence[str], golds: Sequence[Sequence[str]], languages: Sequence[str]) -> None:
        score = type(self).score
        self.record(
            [
                score(
                    prediction, answers, language=language, normaliser=self.normaliser or default_normaliser(language)
                )
                for prediction, answers, language in zip(predictions, golds, languages, strict=True)
            ],
            languages,
        )


class ExactMatch(_ShortAnswer):
    name = "em"
    score = staticmethod(exact_match)


class F1(_ShortAnswer):
    name = "f1"
    score = staticmethod(f1)


class CoverEM(_ShortAnswer):
    name = "cover_em"
    score = staticmethod(cover_em)


class MathAccuracy(LanguageMean):
    """Share of texts whose last boxed answer, else last number, equals the gold."""

    name = "acc"

    def update(self, texts: Sequence[str], golds: Sequence[str], languages: Sequence[str]) -> None:
        pairs = zip(texts, golds, strict=True)
        self.record([float(answers_equal(extract_answer(text), gold)) for text, gold in pairs], languages)


class LanguageConsistency(LanguageMean):
    """Share of texts in the language asked for."""

    name = "lc"

    def __init__(self, languages: Sequence[str], *, detector: Detector, **kwargs: Any) -> None:
        super().__init__(languages, **kwargs)
        self.detector = detector

    def update(self, texts: Sequence[str], languages: Sequence[str]) -> None:
        pairs = zip(texts, languages, strict=True)
        self.record([float(language_consistent(text, language, self.detector)) for text, language in pairs], languages)


class LcAcc(LanguageMean):
    """Share of texts that are right and in the language asked for: the mean of the products, item by item."""

    name = "lc_acc"

    def __init__(self, languages: Sequence[str], *, detector: Detector, **kwargs: Any) -> None:
        super().__init__(languages, **kwargs)
        self.detector = detector

    def update(self, texts: Sequence[str], golds: Sequence[str], languages: Sequence[str]) -> None:
        self.record(
            [
                float(answers_equal(extract_answer(text), gold) and language_consistent(text, language, self.detector))
                for text, gold, language in zip(texts, golds, languages, strict=True)
            ],
            languages,
        )


class _CorpusScore(_Float64Metric):
    """A corpus score of sacrebleu, 0-100. Texts travel between processes as UTF-8 bytes and their lengths."""

    name: ClassVar[str]
    hypothesis_bytes: list[Tensor] | Tensor
    hypothesis_lengths: list[Tensor] | Tensor
    reference_bytes: list[Tensor] | Tensor
    reference_lengths: list[Tensor] | Tensor

    def __init__(self, *, target_language: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target_language = base_language(target_language)
        for side in ("hypothesis", "reference"):
            self.add_state(f"{side}_bytes", default=[], dist_reduce_fx="cat")
            self.add_state(f"{side}_lengths", default=[], dist_reduce_fx="cat")

    @property
    def signature(self) -> str:
        """sacrebleu's signature: scores are comparable only under an equal one."""
        return corpus_signature(corpus_metrics(self.target_language)[self.name])

    def update(self, hypotheses: Sequence[str], references: Sequence[str]) -> None:
        if len(hypotheses) != len(references):
            raise ValueError(f"expected one reference a hypothesis, got {len(hypotheses)} and {len(references)}")
        self._store(hypotheses, self.hypothesis_bytes, self.hypothesis_lengths)
        self._store(references, self.reference_bytes, self.reference_lengths)

    def _store(self, texts: Sequence[str], all_bytes: list[Tensor], lengths: list[Tensor]) -> None:
        encoded = [text.encode() for text in texts]
        all_bytes.append(torch.tensor(list(b"".join(encoded)), dtype=torch.float64, device=self.device))
        lengths.append(torch.tensor([len(text) for text in encoded], dtype=torch.float64, device=self.device))

    def compute(self) -> Tensor:
        hypotheses = _texts(self.hypothesis_bytes, self.hypothesis_lengths)
        references = _texts(self.reference_bytes, self.reference_lengths)
        if not hypotheses:
            return torch.tensor(float("nan"), dtype=torch.float64)
        metric = corpus_metrics(self.target_language)[self.name]
        return torch.tensor(metric.corpus_score(hypotheses, [references]).score, dtype=torch.float64)


def _texts(all_bytes: list[Tensor] | Tensor, lengths: list[Tensor] | Tensor) -> list[str]:
    flat = bytes(_joined(all_bytes).to(torch.uint8).tolist())
    lengths_of_texts = _joined(lengths).long()
    ends = lengths_of_texts.cumsum(0)
    starts = ends - lengths_of_texts
    return [flat[start:end].decode() for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


class Bleu(_CorpusScore):
    name = "bleu"
    higher_is_better = True


class Chrf(_CorpusScore):
    name = "chrf"
    higher_is_better = True


class Ter(_CorpusScore):
    name = "ter"
    higher_is_better = False


class _ConfidenceMetric(_Float64Metric):
    """A function of `athlos.evaluation.calibration`. Unparsed confidences (nan) are left out and counted.

    `num_undefined` is their number at the last `compute`.
    """

    measure: ClassVar[Callable[..., float]]
    conf: list[Tensor] | Tensor
    correct: list[Tensor] | Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_undefined = 0
        self.add_state("conf", default=[], dist_reduce_fx="cat")
        self.add_state("correct", default=[], dist_reduce_fx="cat")

    def update(self, conf: Tensor, correct: Tensor) -> None:
        """Confidences in [0, 1] or nan and correctness 0 or 1, both of shape (items,)."""
        if conf.shape != correct.shape or conf.ndim != 1:
            raise ValueError(f"expected one correctness a confidence, got shapes {conf.shape} and {correct.shape}")
        self.conf.append(conf.double())
        self.correct.append(correct.double())

    def measured(self, conf: calibration.Array, correct: calibration.Array) -> float:
        return type(self).measure(conf, correct)

    def compute(self) -> Tensor:
        conf, correct, self.num_undefined = calibration.defined(
            _joined(self.conf).cpu().numpy(), _joined(self.correct).cpu().numpy()
        )
        return torch.tensor(self.measured(conf, correct), dtype=torch.float64)


class _BinnedMetric(_ConfidenceMetric):
    higher_is_better = False

    def __init__(self, *, num_bins: int = calibration.NUM_BINS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_bins = num_bins

    def measured(self, conf: calibration.Array, correct: calibration.Array) -> float:
        return type(self).measure(conf, correct, num_bins=self.num_bins)


class EceMass(_BinnedMetric):
    measure = staticmethod(calibration.ece_mass)


class EceWidth(_BinnedMetric):
    measure = staticmethod(calibration.ece_width)


class Mce(_BinnedMetric):
    measure = staticmethod(calibration.mce)


class Brier(_ConfidenceMetric):
    measure = staticmethod(calibration.brier)
    higher_is_better = False


class Auroc(_ConfidenceMetric):
    measure = staticmethod(calibration.auroc)
    higher_is_better = True


class Aurc(_ConfidenceMetric):
    measure = staticmethod(calibration.aurc)
    higher_is_better = False


class EAurc(_ConfidenceMetric):
    measure = staticmethod(calibration.e_aurc)
    higher_is_better = False


class Perplexity(_Float64Metric):
    """exp(summed negative log-likelihood / scored tokens), in nats; the denominator is tokens over all processes."""

    higher_is_better = False
    nll_sum: Tensor
    num_tokens: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("nll_sum", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_tokens", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, nll_sum: Tensor | float, num_tokens: Tensor | int) -> None:
        """Sum of the token NLL of a batch, in nats, and the number of tokens it is over."""
        self.nll_sum += nll_sum
        self.num_tokens += num_tokens

    def compute(self) -> Tensor:
        """nan without a token."""
        return torch.exp(self.nll_sum / self.num_tokens)


class Throughput(_Float64Metric):
    """Tokens a second of all processes together: their tokens over the time of the slowest one."""

    higher_is_better = True
    num_tokens: Tensor
    seconds: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("num_tokens", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("seconds", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="max")

    def update(self, num_tokens: int, seconds: float) -> None:
        """Tokens of a batch and the wall time it took on this process."""
        self.num_tokens += num_tokens
        self.seconds += seconds

    def compute(self) -> Tensor:
        """nan before any time has passed."""
        is_started = bool(self.seconds > 0)
        return self.num_tokens / self.seconds if is_started else torch.tensor(float("nan"), dtype=torch.float64)
