"""Which pairs of a memory come first for a sentence. Source: arXiv 2305.17367; what it leaves open is tagged in conf/.

    fms             fuzzy match score over a shortlist (`retrieval/fuzzy.py`): the method
    bm25, cosine    the search engine's own order, without the edit distance
    ngram_coverage  of BM25's best, one after the other, the pair that adds most n-grams of the sentence not seen yet
    random          any pairs, by seed and sentence

Every ranking is cut at `MOST_PAIRS`, so that all k share its product. Equal scores go by shorter source, then by id.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from athlos.config.compose import plain
from athlos.data.json_lines import read_rows, write_rows
from athlos.data.records import ParallelRecord
from athlos.errors import ConfigError
from athlos.methods.tm.config import MOST_PAIRS, Domain, FmsUnit, Rank, Shortlist, TmConfig
from athlos.methods.tm.memory import Memory, Pair, domain_of, normalised
from athlos.retrieval.config import DenseIndexConfig, FuzzyIndexConfig, LexicalIndexConfig, Prefilter
from athlos.retrieval.corpus import GivenCorpus
from athlos.retrieval.dense import DenseIndex
from athlos.retrieval.fuzzy import FuzzyIndex
from athlos.retrieval.interface import CorpusPassage, Index
from athlos.retrieval.lexical import LexicalIndex
from athlos.stages import Stage, StageStore, content_hash
from athlos.text.fuzzy import MatchUnit, fuzzy_match_score, match_units

VERSION = 1
"""Raised when the same memory and sentences give other matches."""
MATCHES = "matches.jsonl"
COVERAGE_POOL, MOST_WORDS_OF_NGRAM = 100, 4
"""Candidates of `ngram_coverage`, and its longest n-gram. Source: second-hand, R-BM25."""
K1, B = 1.2, 0.75
"""BM25's constants, those of Lucene."""

Scored = list[tuple[str, float]]
"""Ids of pairs with their scores, best first."""
Tokenize = Callable[[str], list[int]]


@dataclass(frozen=True, kw_only=True)
class Found:
    """A pair for a sentence and the score by which it was ranked."""

    pair: Pair
    score: float


@dataclass(kw_only=True)
class Matcher:
    """Ranks the pairs of a memory for sentences of one language. `tokenize` is needed by `fms_unit=subword` alone."""

    method: TmConfig
    memory: Memory
    language: str
    stages: StageStore
    seed: int
    tokenize: Tokenize | None = None

    def matches(self, records: Sequence[ParallelRecord], *, rank: Rank, prefilter: Shortlist) -> list[list[Found]]:
        """At most `MOST_PAIRS` pairs for each sentence, best first; fewer where fewer share anything with it."""
        stage = Stage(
            name="tm_matches",
            version=VERSION,
            config=self._identity(rank, prefilter),
            inputs={
                "memory": self.memory.key,
                "sentences": content_hash([[record.identifier, record.source, record.domain] for record in records]),
            },
            build=lambda folder: self._write(folder / MATCHES, records, rank=rank, prefilter=prefilter),
        )
        return [
            [Found(pair=self.memory.pairs[identifier], score=score) for identifier, score in row["matches"]]
            for row in read_rows(self.stages.get(stage).path / MATCHES)
        ]

    def _identity(self, rank: Rank, prefilter: Shortlist) -> dict[str, Any]:
        values = plain(self.method)
        names = ["tm_domain"]
        if rank is Rank.fms:
            names += ["fms_unit", "fms_lower", "fms_strip_punctuation"]
            names += [] if prefilter is Shortlist.all else ["candidates"]
        if rank is Rank.cosine or (rank is Rank.fms and prefilter is Shortlist.dense):
            names.append("encoder")
        identity = {name: values[name] for name in names}
        identity |= {"rank": rank.value, "prefilter": prefilter.value if rank is Rank.fms else ""}
        if rank is Rank.random:
            identity["seed"] = self.seed
        if rank is Rank.fms and self.method.fms_unit is FmsUnit.subword:
            # A tokenizer is known by what it makes of the memory.
            identity["tokens"] = content_hash([self._text(pair.source) for pair in self.memory.pairs.values()])
        return identity

    def _write(self, path: Path, records: Sequence[ParallelRecord], *, rank: Rank, prefilter: Shortlist) -> None:
        ranked_by_place: dict[int, Scored] = {}
        for group, places in self._by_domain(records).items():
            pairs = self._pairs_for(group)
            ranked = self._ranked(pairs, [records[place] for place in places], rank=rank, prefilter=prefilter)
            ranked_by_place |= dict(zip(places, ranked, strict=True))
        write_rows(
            path,
            ({"id": record.identifier, "matches": ranked_by_place[place]} for place, record in enumerate(records)),
        )

    def _by_domain(self, records: Sequence[ParallelRecord]) -> dict[str, list[int]]:
        """Places of the sentences that use one part of the memory, by the domain that decides it."""
        groups: dict[str, list[int]] = {}
        for place, record in enumerate(records):
            group = "" if self.method.tm_domain is Domain["mixed"] else domain_of(record)
            groups.setdefault(group, []).append(place)
        return groups

    def _pairs_for(self, domain: str) -> list[Pair]:
        """The part of the memory that a sentence of this domain may use, by id."""
        wanted = self.method.tm_domain
        if wanted is Domain["mixed"]:
            return list(self.memory.pairs.values())
        is_in = wanted is Domain["in"]
        return [pair for pair in self.memory.pairs.values() if (pair.domain == domain) == is_in]

    def _ranked(
        self, pairs: Sequence[Pair], records: Sequence[ParallelRecord], *, rank: Rank, prefilter: Shortlist
    ) -> list[Scored]:
        if not pairs:
            return [[] for _ in records]
        if rank is Rank.random:
            return [self._drawn(pairs, record) for record in records]
        sources = [record.source for record in records]
        if rank is Rank.bm25:
            return self._searched(self._lexical(pairs), sources, k=MOST_PAIRS)
        if rank is Rank.cosine:
            return self._searched(self._dense(pairs), sources, k=MOST_PAIRS)
        by_id = {pair.identifier: pair.source for pair in pairs}
        if rank is Rank.ngram_coverage:
            pools = self._searched(self._lexical(pairs), sources, k=COVERAGE_POOL)
            return [
                covering(self._units(source), {identifier: self._units(by_id[identifier]) for identifier, _ in pool})
                for source, pool in zip(sources, pools, strict=True)
            ]
        if prefilter is Shortlist.dense:
            pools = self._searched(self._dense(pairs), sources, k=self.method.candidates)
            return [
                self._compared(source, {identifier: by_id[identifier] for identifier, _ in pool})
                for source, pool in zip(sources, pools, strict=True)
            ]
        return self._searched(self._fuzzy(pairs, prefilter), list(map(self._text, sources)), k=MOST_PAIRS)

    def _drawn(self, pairs: Sequence[Pair], record: ParallelRecord) -> Scored:
        rng = random.Random(f"random:{self.seed}:{record.identifier}")
        identifiers = sorted(pair.identifier for pair in pairs)
        return [(identifier, 0.0) for identifier in rng.sample(identifiers, min(MOST_PAIRS, len(identifiers)))]

    def _compared(self, source: str, candidates: Mapping[str, str]) -> Scored:
        units = self._units(source)
        others = {identifier: self._units(text) for identifier, text in candidates.items()}
        scores = {identifier: fuzzy_match_score(units, other) for identifier, other in others.items()}
        order = sorted(scores, key=lambda identifier: (-scores[identifier], len(others[identifier]), identifier))
        return [(identifier, scores[identifier]) for identifier in order[:MOST_PAIRS]]

    def _searched(self, index: Index, sources: Sequence[str], *, k: int) -> list[Scored]:
        lists = index.search(sources, k=k)
        return [[(passage.identifier, float(passage.score)) for passage in passages] for passages in lists]

    def _fuzzy(self, pairs: Sequence[Pair], prefilter: Shortlist) -> Index:
        config = FuzzyIndexConfig(
            _target_="",
            unit=self._unit,
            lower=self.method.fms_lower,
            strip_punctuation=self.method.fms_strip_punctuation,
            prefilter=Prefilter[prefilter.value],
            candidates=self.method.candidates,
        )
        return FuzzyIndex(config, corpus=self._corpus(pairs, self._text), stages=self.stages)

    def _lexical(self, pairs: Sequence[Pair]) -> Index:
        config = LexicalIndexConfig(_target_="", k1=K1, b=B)
        return LexicalIndex(config, corpus=self._corpus(pairs, str), stages=self.stages)

    def _dense(self, pairs: Sequence[Pair]) -> Index:
        config = DenseIndexConfig(_target_="", encoder=self.method.encoder, batch_size=32)
        return DenseIndex(config, corpus=self._corpus(pairs, str), stages=self.stages)

    def _corpus(self, pairs: Sequence[Pair], text_of: Callable[[str], str]) -> GivenCorpus:
        """Rows stand by length and id, so that a tie within an index goes as it does here."""
        rows = [
            CorpusPassage(identifier=pair.identifier, text=text_of(pair.source), language=self.language)
            for pair in pairs
        ]
        return GivenCorpus(sorted(rows, key=lambda row: (len(row.text.split()), row.identifier)))

    @property
    def _unit(self) -> MatchUnit:
        unit = self.method.fms_unit
        return MatchUnit.word if unit is FmsUnit.subword else MatchUnit[unit.value]

    def _text(self, source: str) -> str:
        """What is compared; the tokens of `fms_unit=subword` are written as words."""
        if self.method.fms_unit is not FmsUnit.subword:
            return source
        if self.tokenize is None:
            raise ConfigError("method.fms_unit: got subword, which needs a model here whose tokens are counted")
        return " ".join(map(str, self.tokenize(source.lower() if self.method.fms_lower else source)))

    def _units(self, source: str) -> list[str]:
        return match_units(
            self._text(source),
            language=self.language,
            unit=self._unit,
            lower=self.method.fms_lower,
            strip_punctuation=self.method.fms_strip_punctuation,
        )


def covering(sentence: Sequence[str], candidates: Mapping[str, Sequence[str]]) -> Scored:
    """Greedily the candidates that add most n-grams of the sentence; those that add none are left out.

    The score is the share of its n-grams that a candidate adds; ties go to the candidate named first.
    """
    wanted = ngrams(sentence)
    total, open_ngrams = len(wanted), set(wanted)
    left = {identifier: ngrams(units) for identifier, units in candidates.items()}
    chosen: Scored = []
    while left and len(chosen) < MOST_PAIRS:
        best = max(left, key=lambda identifier: len(open_ngrams & left[identifier]))
        gain = len(open_ngrams & left[best])
        if not gain:
            break
        chosen.append((best, gain / total))
        open_ngrams -= left.pop(best)
    return chosen


def ngrams(units: Sequence[str]) -> set[tuple[str, ...]]:
    lengths = range(1, MOST_WORDS_OF_NGRAM + 1)
    return {tuple(units[at : at + n]) for n in lengths for at in range(len(units) - n + 1)}


def exact_matches(record: ParallelRecord, matches: Iterable[Found]) -> list[Found]:
    """Those whose source is the sentence itself but for case, white space and marks at its end."""
    return [match for match in matches if normalised(match.pair.source) == normalised(record.source)]
