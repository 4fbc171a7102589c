"""What a sampled answer is worth: R = 1[Attr = 1] * Compre * Robust, and how each part is judged.

    Attr    share of its sentences that the documents they cite support
    Compre  share of the claims that the answer supports
    Robust  exp(-|l(S | q, D_cited) - l(S | q, D)|), l the mean log-probability of a token: 1 where the documents that
            are not cited do not matter (`likelihood.py` has the two l)

A judge's score counts as support from its threshold on. Source: our specification, 3.2; that the three criteria count
is the paper's, the exact form is ours.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from athlos.data.records import LongAnswerRecord, Passage
from athlos.errors import ConfigError, DataError
from athlos.judging.answers import passage_text
from athlos.judging.building import build_judge
from athlos.judging.config import ScoringJudgeConfig, scoring_values
from athlos.judging.interface import Judge, Pair
from athlos.judging.support import cited_support, scores_of
from athlos.methods.start.config import ClaimsOf, Combine, Gate, StartRewardConfig
from athlos.objectives.reward_config import same_judge
from athlos.parts import PartContext
from athlos.text.citations import CitedAnswer, CitedSentence, read_citations
from athlos.text.sentences import sentences


@dataclass(kw_only=True)
class Sampled:
    """A sampled answer, as it was read and scored."""

    text: str
    finished: bool
    sentences: list[CitedSentence]
    counts: Mapping[str, int] = field(default_factory=dict)
    """What reading it met: `normalised`, `orphan`, `out_of_range`, `over3`, `none`."""
    attr: float = 0.0
    compre: float = 0.0
    robust: float = 0.0
    reward: float = 0.0

    @property
    def is_read(self) -> bool:
        """Whether it has a sentence and came to its end."""
        return self.finished and bool(self.sentences)

    @property
    def cited(self) -> list[int]:
        """Numbers that any of its sentences cites, ascending."""
        return sorted({number for sentence in self.sentences for number in sentence.cited})

    @property
    def told(self) -> str:
        """Its sentences without citations."""
        return " ".join(sentence.text for sentence in self.sentences)


def read_sample(text: str, *, finished: bool, record: LongAnswerRecord) -> Sampled:
    """An answer over the record's passages, read sentence by sentence."""
    answer = read_citations(text, num_documents=len(record.passages), language=record.language)
    return Sampled(text=text, finished=finished, sentences=answer.sentences, counts=answer.counts)


def robustness(cited_log_prob: float, all_log_prob: float) -> float:
    """In (0, 1]: min(r, 1/r) with r the ratio of the two likelihoods."""
    return math.exp(-abs(cited_log_prob - all_log_prob))


def combined(attr: float, compre: float, robust: float, *, config: StartRewardConfig) -> float:
    """R of an answer; where `config.robust` is false that part is left out."""
    gate = float(attr == 1) if config.gate is Gate.hard else attr
    if config.combine is Combine.gated_product:
        return gate * compre * (robust if config.robust else 1.0)
    return gate * ((compre + robust) / 2 if config.robust else compre)


class StartReward:
    """Attr and Compre of samples by the judge of the reward; Robust and R once the likelihoods are known."""

    def __init__(self, config: StartRewardConfig) -> None:
        self.config = config

    def prepare(self, *, context: PartContext) -> None:
        """Build the judge. Raises `ConfigError` where it is that of the run, as a copy of its weights may be."""
        assert isinstance(self.config.judge, ScoringJudgeConfig)
        self.judge: Judge = build_judge(self.config.judge, stages=context.stages)
        self.threshold = self.config.judge.threshold
        evaluates = context.config.judge
        is_allowed = isinstance(evaluates, ScoringJudgeConfig) and evaluates.allow_same
        if context.judge is not None and self.judge.id == context.judge.id and not is_allowed:
            raise ConfigError(same_judge("reward.judge"))

    def supports(self, pairs: Iterable[Pair]) -> dict[Pair, bool]:
        """Whether each premise supports its hypothesis; all are asked at once, equal ones once."""
        return {pair: value >= self.threshold for pair, value in scores_of(self.judge, pairs).items()}

    def score(self, record: LongAnswerRecord, samples: Sequence[Sampled], *, most: int) -> None:
        """Sets Attr and Compre of all samples to one question; both are 0 without a sentence, Compre without a claim.

        Citations of a sentence beyond the first `most` do not count.
        """
        supports = cited_support(
            self.judge,
            [CitedAnswer(sample.sentences, dict(sample.counts)) for sample in samples],
            [list(map(passage_text, record.passages))] * len(samples),
            threshold=self.threshold,
            max_citations=most,
        )
        supported = {support.sentence.text for of_sample in supports for support in of_sample if support.is_supported}
        claims = self._claims(record, sorted(supported))
        told = self.supports(Pair(sample.told, claim) for sample in samples if sample.sentences for claim in claims)
        for sample, of_sample in zip(samples, supports, strict=True):
            if not sample.sentences:
                continue
            sample.attr = sum(support.is_supported for support in of_sample) / len(of_sample)
            sample.compre = sum(told[Pair(sample.told, claim)] for claim in claims) / len(claims) if claims else 0.0

    def _claims(self, record: LongAnswerRecord, supported: Sequence[str]) -> list[str]:
        """c_j of a question. Raises `DataError` where the data have none of the wanted kind."""
        if self.config.claims is ClaimsOf.pooled:
            return self._merged(supported)
        if self.config.claims is ClaimsOf.oracle:
            claims = [claim.text for claim in record.claims]
        else:
            claims = [text for passage in record.passages for text in sentences_of(passage, record.language)]
        if not claims:
            raise DataError(f"question '{record.identifier}': no claim for reward.claims={self.config.claims}")
        return claims

    def _merged(self, texts: Sequence[str]) -> list[str]:
        """The texts, of those that entail each other the first."""
        entails = self.supports(Pair(text, other) for text in texts for other in texts if text != other)
        kept: list[str] = []
        for text in texts:
            if not any(entails[Pair(text, other)] and entails[Pair(other, text)] for other in kept):
                kept.append(text)
        return kept


def prepared_reward(context: PartContext) -> StartReward:
    assert isinstance(context.config.reward, StartRewardConfig)
    reward = StartReward(context.config.reward)
    reward.prepare(context=context)
    return reward


def judge_values(reward: Any) -> dict[str, Any]:
    """What decides the verdicts of the reward's judge."""
    assert isinstance(reward, StartRewardConfig)
    assert isinstance(reward.judge, ScoringJudgeConfig)
    return {**scoring_values(reward.judge), "threshold": reward.judge.threshold}


def sample_metrics(
    groups: Sequence[Sequence[Sampled]], chosen: Sequence[Sampled | None], *, number: int
) -> dict[str, float]:
    """Of an iteration: shares of samples that pass, of queries that have one, means of the rewards, and forms."""
    samples = [sample for of_query in groups for sample in of_query]
    answered = [sample for sample in samples if sample.sentences]

    def mean(values: Iterable[float]) -> float:
        return fmean([*values] or [0.0])

    metrics = {
        "construct/pass_rate": mean(_passes(sample) for sample in samples),
        "construct/query_pass_rate": mean(any(map(_passes, of_query)) for of_query in groups),
        "construct/chosen_rate": mean(sample is not None for sample in chosen),
        "construct/format_rate": mean(sample.is_read and not sample.counts["none"] for sample in samples),
        "construct/sentences": mean(len(sample.sentences) for sample in answered),
        "construct/words": mean(len(sample.told.split()) for sample in answered),
        "construct/distinct": mean(len({sample.text for sample in of_query}) / len(of_query) for of_query in groups),
        "reward/attr": mean(sample.attr for sample in samples),
        "reward/compre": mean(sample.compre for sample in samples),
        "reward/robust": mean(sample.robust for sample in samples),
        "reward/reward": mean(sample.reward for sample in samples),
    }
    for name in ("normalised", "orphan", "out_of_range", "over3", "none"):
        metrics[f"cite/{name}"] = float(sum(sample.counts[name] for sample in samples))
    return {f"{name}@{number}": value for name, value in metrics.items()}


def _passes(sample: Sampled) -> bool:
    return sample.is_read and sample.attr == 1


def sentences_of(passage: Passage, language: str) -> list[str]:
    """Those that the data give, or those that its text is cut into."""
    texts = passage.sentences or sentences(passage.text, language).pieces
    return [text.strip() for text in texts if text.strip()]
