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

from athlos.data.records import LongAnswerRecord, Passage
from athlos.errors import ConfigError, DataError
from athlos.judging.building import build_judge
from athlos.judging.config import ScoringJudgeConfig
from athlos.judging.interface import Judge, Pair
from athlos.methods.start.config import ClaimsOf, Combine, Gate, StartRewardConfig
from athlos.objectives.reward_config import same_judge
from athlos.parts import PartContext
from athlos.text.citations import CitedSentence, read_citations
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


def entailed(judge: Judge, pairs: Iterable[Pair], *, threshold: float) -> dict[Pair, bool]:
    """Whether each premise supports its hypothesis; equal pairs are judged once, short ones first.

    Raises `DataError` for a score outside of [0, 1].
    """
    different = sorted(dict.fromkeys(pairs), key=lambda pair: len(pair.premise) + len(pair.hypothesis))
    scores = judge.scores(different) if different else []
    for pair, score in zip(different, scores, strict=True):
        if not 0 <= score <= 1:
            raise DataError(f"judge {judge.id}: got the score {score} of {pair.hypothesis!r}, expected one in [0, 1]")
    return {pair: score >= threshold for pair, score in zip(different, scores, strict=True)}


def premise_of(passages: Sequence[Passage]) -> str:
    """Documents as one premise, each behind its title."""
    return "\n".join(f"{passage.title}\n{passage.text}" if passage.title else passage.text for passage in passages)


def support_pair(sentence: CitedSentence, passages: Sequence[Passage], *, most: int) -> Pair | None:
    """What must hold for a sentence: its first `most` documents support it. None where it cites none, or one that is
    not there, which is tested before citations are cut, as ALCE does."""
    if not sentence.cited or not all(1 <= number <= len(passages) for number in sentence.cited):
        return None
    return Pair(premise_of([passages[number - 1] for number in sentence.cited[:most]]), sentence.text)


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
        return entailed(self.judge, pairs, threshold=self.threshold)

    def score(self, record: LongAnswerRecord, samples: Sequence[Sampled], *, most: int) -> None:
        """Sets Attr and Compre of all samples to one question; both are 0 without a sentence, Compre without a claim.

        Citations of a sentence beyond the first `most` do not count.
        """
        pairs = [[support_pair(one, record.passages, most=most) for one in sample.sentences] for sample in samples]
        supports = self.supports(pair for of_sample in pairs for pair in of_sample if pair)
        supported = {
            sentence.text
            for sample, of_sample in zip(samples, pairs, strict=True)
            for sentence, pair in zip(sample.sentences, of_sample, strict=True)
            if pair is not None and supports[pair]
        }
        claims = self._claims(record, sorted(supported))
        told = self.supports(Pair(sample.told, claim) for sample in samples if sample.sentences for claim in claims)
        for sample, of_sample in zip(samples, pairs, strict=True):
            if not sample.sentences:
                continue
            sample.attr = sum(pair is not None and supports[pair] for pair in of_sample) / len(of_sample)
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
        entails = self.supports(Pair(one, other) for one in texts for other in texts if one != other)
        kept: list[str] = []
        for text in texts:
            if not any(entails[Pair(text, other)] and entails[Pair(other, text)] for other in kept):
                kept.append(text)
        return kept


def sentences_of(passage: Passage, language: str) -> list[str]:
    """Those that the data give, or those that its text is cut into."""
    texts = passage.sentences or sentences(passage.text, language).pieces
    return [text.strip() for text in texts if text.strip()]
