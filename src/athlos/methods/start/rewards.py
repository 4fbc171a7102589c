"""What a sampled answer is worth: R = 1[Attr = 1] * Compre * Robust, and how each part is judged.

    Attr    share of its sentences that the documents they cite support
    Compre  share of the claims that the answer supports
    Robust  exp(-|l(S | q, D_cited) - l(S | q, D)|), l the mean log-probability of a token: 1 where the documents that
            are not cited do not matter

Source: our specification, 3.2; the three criteria are the paper's, the exact form is ours.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from athlos.data.records import LongAnswerRecord, Passage
from athlos.errors import DataError
from athlos.judging.interface import Judge, Pair
from athlos.methods.start.config import ClaimsOf, Combine, Gate, StartRewardConfig
from athlos.text.citations import CitedSentence, read_citations, without_citations
from athlos.text.sentences import sentences


@dataclass(kw_only=True)
class Sampled:
    """A sampled answer, as it was read and scored."""

    text: str
    """With its citations, all forms written out."""
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


def robustness(cited_log_prob: float, all_log_prob: float) -> float:
    """In (0, 1]: min(r, 1/r) with r the ratio of the two likelihoods."""
    return math.exp(-abs(cited_log_prob - all_log_prob))


def combined(attr: float, compre: float, robust: float, *, config: StartRewardConfig) -> float:
    """R of an answer; without `robust` that part is left out."""
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
    """Documents as one premise, each with its title before it."""
    return "\n".join(f"{passage.title}\n{passage.text}" if passage.title else passage.text for passage in passages)


def read_sample(text: str, *, finished: bool, record: LongAnswerRecord) -> Sampled:
    """An answer over the record's passages, read sentence by sentence."""
    answer = read_citations(text, num_documents=len(record.passages), language=record.language)
    return Sampled(text=text, finished=finished, sentences=answer.sentences, counts=answer.counts)


def support_pair(sentence: CitedSentence, record: LongAnswerRecord, *, most: int) -> Pair | None:
    """What must hold for a sentence: its first `most` documents support it. None where it cites none, or one that is
    not there: tested before citations are cut, as ALCE does."""
    if not sentence.cited or not all(1 <= number <= len(record.passages) for number in sentence.cited):
        return None
    return Pair(premise_of([record.passages[number - 1] for number in sentence.cited[:most]]), sentence.text)


def claims_of(
    record: LongAnswerRecord,
    samples: Sequence[Sampled],
    supports: Mapping[Pair, bool],
    *,
    config: StartRewardConfig,
    judge: Judge,
    threshold: float,
    most: int,
) -> list[str]:
    """c_j of a question. Raises `DataError` where the record has none of the wanted kind."""
    if config.claims is ClaimsOf.pooled:
        return _pooled(record, samples, supports, judge=judge, threshold=threshold, most=most)
    if config.claims is ClaimsOf.oracle:
        found = [claim.text for claim in record.claims]
    else:
        found = [one.strip() for passage in record.passages for one in _sentences(passage, record.language)]
    if not found:
        raise DataError(f"question '{record.identifier}': no claim for reward.claims={config.claims}")
    return found


def _sentences(passage: Passage, language: str) -> list[str]:
    return passage.sentences or sentences(passage.text, language).pieces


def _pooled(
    record: LongAnswerRecord,
    samples: Sequence[Sampled],
    supports: Mapping[Pair, bool],
    *,
    judge: Judge,
    threshold: float,
    most: int,
) -> list[str]:
    """Supported sentences of all samples; of those that entail each other the first."""
    supported = dict.fromkeys(
        sentence.text
        for sample in samples
        for sentence in sample.sentences
        if (pair := support_pair(sentence, record, most=most)) is not None and supports[pair]
    )
    texts = list(supported)
    entails = entailed(judge, (Pair(a, b) for a in texts for b in texts if a != b), threshold=threshold)
    kept: list[str] = []
    for text in texts:
        if not any(entails[Pair(text, other)] and entails[Pair(other, text)] for other in kept):
            kept.append(text)
    return kept


def score(
    record: LongAnswerRecord,
    samples: Sequence[Sampled],
    *,
    judge: Judge,
    threshold: float,
    config: StartRewardConfig,
    most: int,
) -> None:
    """Sets Attr and Compre of all samples to one question; both are 0 without a sentence, Compre without a claim."""
    pairs = [[support_pair(one, record, most=most) for one in sample.sentences] for sample in samples]
    supports = entailed(judge, (pair for of_sample in pairs for pair in of_sample if pair), threshold=threshold)
    claims = claims_of(
        record, samples, supports, config=config, judge=judge, threshold=threshold, most=most
    )
    bare = [without_citations(sample.text) for sample in samples]
    told = entailed(
        judge,
        (Pair(text, claim) for text, sample in zip(bare, samples, strict=True) if sample.sentences for claim in claims),
        threshold=threshold,
    )
    for sample, of_sample, text in zip(samples, pairs, bare, strict=True):
        if not sample.sentences:
            continue
        sample.attr = sum(pair is not None and supports[pair] for pair in of_sample) / len(of_sample)
        sample.compre = sum(told[Pair(text, claim)] for claim in claims) / len(claims) if claims else 0.0
