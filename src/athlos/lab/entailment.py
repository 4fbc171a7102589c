"""The exact judge: what follows from sentences, what they contradict, and which of them it takes.

A claim is a path of relations from a name to a name. From premises these rules derive more, and nothing else does:

    definition   nationality is written as birthplace, country; workplace as employer, seat
    path         p of x is z and q of z is y      =>  p, q of x is y
    cut          p of x is z and p, q of x is y   =>  q of z is y            (relations are functional)
    inverse      r of x is y                      =>  r' of y is x           (spouse, spouse; capital, country)
    uninverse    p, r of x is y and r' of y is z  =>  p of x is z

A claim is supported when it is derived. It is contradicted when it is not derived and, taken as a further premise,
makes two different objects of one path, or a denied one, that the premises alone do not make. Otherwise it is unknown.
Objects are compared before paths are put together, so that premises at odds with each other do not speak against
whatever leads to them.
A denial is supported where the claim is contradicted, and contradicted where it is supported.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from functools import lru_cache
from itertools import combinations, product
from typing import NamedTuple

from athlos.errors import DataError
from athlos.lab.facts import INVERSES, Claim, claims_of, expand
from athlos.lab.grammar import Clause
from athlos.lab.languages import Languages
from athlos.lab.scripts import SCRIPTS

Triple = tuple[str, tuple[str, ...], str]
"""(name, path, name) with definitions written out."""
Supports = set[frozenset[int]]
"""Smallest sets of premise numbers that derive something; none holds another."""

ASSUMED = -1
"""Number of the claim itself where it is taken as a premise."""
NUM_CACHED_SENTENCES = 1 << 16
_END_MARKS = re.escape("".join(script.full_stop + script.question_mark for script in SCRIPTS.values()))
_SENTENCE = re.compile(rf"[^{_END_MARKS}]*[{_END_MARKS}]|[^{_END_MARKS}]+")


class Verdict(StrEnum):
    """How premises stand to a claim."""

    supported = "supported"
    contradicted = "contradicted"
    unknown = "unknown"
    unparseable = "unparseable"
    """The claim is no sentence of one of the languages, or claims nothing about a relation."""


class Judgement(NamedTuple):
    """A verdict with its evidence."""

    verdict: Verdict
    evidence: tuple[int, ...] = ()
    """Smallest set of premise indices with this verdict, ascending; the first in order among equals; empty if
    unknown or unparseable."""
    unread: tuple[int, ...] = ()
    """Indices of the premises that no sentence could be read from; they say nothing."""


class Closure:
    """All that premises derive, each with the sets of premises it takes."""

    def __init__(self, premises: Iterable[tuple[Triple, int]]) -> None:
        self._supports: dict[Triple, Supports] = {}
        self._by_subject: dict[str, list[Triple]] = defaultdict(list)
        self._by_object: dict[str, list[Triple]] = defaultdict(list)
        self._pending: list[tuple[Triple, frozenset[int]]] = []
        for triple, number in premises:
            self._add(triple, frozenset((number,)))
        while self._pending:
            triple, support = self._pending.pop()
            if support in self._supports[triple]:
                self._derive(triple, support)

    def _add(self, triple: Triple, support: frozenset[int]) -> None:
        known = self._supports.get(triple)
        if known is None:
            self._supports[triple] = {support}
            self._by_subject[triple[0]].append(triple)
            self._by_object[triple[2]].append(triple)
        elif not _insert(known, support):
            return
        self._pending.append((triple, support))

    def _derive(self, triple: Triple, support: frozenset[int]) -> None:
        """Cut, inverse and uninverse with this triple in either place; paths are put together when asked for."""
        x, path, y = triple
        if len(path) == 1 and path[0] in INVERSES:
            self._add((y, (INVERSES[path[0]],), x), support)
        for other, derived in [*self._cuts(triple), *self._uninverses(triple)]:
            for more in list(self._supports[other]):
                self._add(derived, support | more)

    def _cuts(self, triple: Triple) -> Iterator[tuple[Triple, Triple]]:
        """(the other premise, what follows)."""
        x, path, y = triple
        for other in self._by_subject[x]:
            _, steps, end = other
            if len(path) < len(steps) and steps[: len(path)] == path:
                yield other, (y, steps[len(path) :], end)
            elif len(steps) < len(path) and path[: len(steps)] == steps:
                yield other, (end, path[len(steps) :], y)

    def _uninverses(self, triple: Triple) -> Iterator[tuple[Triple, Triple]]:
        """(the other premise, what follows)."""
        x, path, y = triple
        if len(path) == 1:
            for other in self._by_object[x]:
                start, steps, _ = other
                if len(steps) > 1 and INVERSES.get(steps[-1]) == path[0]:
                    yield other, (start, steps[:-1], y)
        elif path[-1] in INVERSES:
            for other in self._by_subject[y]:
                if other[1] == (INVERSES[path[-1]],):
                    yield other, (x, path[:-1], other[2])

    def ends(self, subject: str, path: tuple[str, ...]) -> dict[str, Supports]:
        """Where a path from a subject may end, with what each end takes."""
        supports_of_end: dict[str, Supports] = {}
        for triple in self._by_subject.get(subject, ()):
            _, steps, end = triple
            if path[: len(steps)] != steps:
                continue
            rests = {end: {frozenset[int]()}} if steps == path else self.ends(end, path[len(steps) :])
            for last, more in rests.items():
                for first, second in product(self._supports[triple], more):
                    _insert(supports_of_end.setdefault(last, set()), first | second)
        return supports_of_end

    def clashes(self) -> Iterator[tuple[Supports, Supports]]:
        """Pairs of different objects of one path."""
        by_key: dict[tuple[str, tuple[str, ...]], list[Supports]] = defaultdict(list)
        for (x, path, _), supports in self._supports.items():
            by_key[x, path].append(supports)
        for ends in by_key.values():
            yield from combinations(ends, 2)


def _insert(supports: Supports, support: frozenset[int]) -> bool:
    """Add a set unless a smaller one is there; those that it makes needless go."""
    if any(known <= support for known in supports):
        return False
    supports.difference_update([known for known in supports if support <= known])
    supports.add(support)
    return True


class _Premises(NamedTuple):
    stated: list[tuple[Triple, int]]
    denied: list[tuple[Triple, int]]

    def only(self, numbers: frozenset[int]) -> "_Premises":
        return _Premises(*([pair for pair in pairs if pair[1] in numbers] for pairs in self))


def _triple(claim: Claim) -> Triple:
    return claim.subject, expand(claim.relations), claim.object


def _supporting(premises: _Premises, closure: Closure, claim: Claim) -> Supports:
    """Smallest sets that support a claim."""
    x, path, y = _triple(claim)
    if claim.is_denied:
        return _refuting(premises, closure, claim._replace(is_denied=False))
    return closure.ends(x, path).get(y, set())


def _refuting(premises: _Premises, closure: Closure, claim: Claim) -> Supports:
    """Smallest sets that contradict a claim that is not supported; empty where the whole does not contradict it."""
    x, path, y = _triple(claim)
    if claim.is_denied:
        return closure.ends(x, path).get(y, set())
    if y in closure.ends(x, path):
        return set()
    assumed = Closure([*premises.stated, ((x, path, y), ASSUMED)])
    candidates: Supports = set()
    is_new = False
    pairs = [*assumed.clashes(), *_denial_clashes(premises, assumed)]
    for first, second in pairs:
        is_new = is_new or not (_is_free(first) and _is_free(second))
        for support, other in product(first, second):
            if ASSUMED in support | other:
                _insert(candidates, (support | other) - {ASSUMED})
    if not is_new:
        return set()
    # A clash that the whole makes without the claim may still be new to a part of it, so each part is asked itself.
    return {numbers for numbers in candidates if _is_refuted(premises.only(numbers), claim)}


def _is_refuted(premises: _Premises, claim: Claim) -> bool:
    assumed = Closure([*premises.stated, (_triple(claim), ASSUMED)])
    return any(
        not (_is_free(first) and _is_free(second))
        for first, second in [*assumed.clashes(), *_denial_clashes(premises, assumed)]
    )


def _denial_clashes(premises: _Premises, closure: Closure) -> Iterator[tuple[Supports, Supports]]:
    for (x, path, y), number in premises.denied:
        ends = closure.ends(x, path)
        if y in ends:
            yield ends[y], {frozenset((number,))}


def _is_free(supports: Supports) -> bool:
    """Whether it follows without the claim."""
    return any(ASSUMED not in support for support in supports)


def _first(supports: Supports) -> tuple[int, ...]:
    return min((tuple(sorted(support)) for support in supports), key=lambda numbers: (len(numbers), numbers))


class Judge:
    """Judges sentences of a world's languages; premises and claim may be in different ones."""

    def __init__(self, languages: Languages) -> None:
        self.languages = languages
        self.clauses = lru_cache(maxsize=NUM_CACHED_SENTENCES)(self._clauses)

    def _clauses(self, text: str) -> tuple[Clause, ...]:
        """The clauses of a text, each sentence in any language; raises `DataError` for other texts, empty ones too."""
        sentences = _sentences(text)
        if not sentences:
            raise DataError("lab judge: got an empty text")
        return tuple(self._clause(sentence) for sentence in sentences)

    def _clause(self, sentence: str) -> Clause:
        code = self.languages.identify(sentence)
        if code is None:
            raise DataError("lab judge: expected a sentence of one of the languages")
        return self.languages[code].parse(sentence)

    def claims(self, text: str | Clause) -> list[Claim]:
        """What a text claims; raises `DataError` when a sentence cannot be read or claims nothing about a relation."""
        claims: list[Claim] = []
        for clause in (text,) if isinstance(text, Clause) else self.clauses(text):
            clause_claims = claims_of(clause)
            if not clause_claims:
                raise DataError("lab judge: expected a sentence that claims something about a relation")
            claims += clause_claims
        return claims

    def judge(self, premises: Sequence[str | Clause], claim: str | Clause) -> Judgement:
        """Verdict and evidence for a claim of one or more sentences.

        A premise is a sentence or a text of several; a text counts as one. Several claims are supported when all are,
        contradicted when one is. Sentences of a premise that cannot be read, or claim nothing, say nothing.
        """
        read, unread = self._read(premises)
        try:
            claims = self.claims(claim)
        except DataError:
            return Judgement(Verdict.unparseable, unread=unread)
        closure = Closure(read.stated)
        supports = [_supporting(read, closure, part) for part in claims]
        if all(supports):
            return Judgement(Verdict.supported, _first(_unions(supports)), unread)
        refutes: Supports = set()
        for part in claims:
            refutes |= _refuting(read, closure, part)
        if refutes:
            return Judgement(Verdict.contradicted, _first(refutes), unread)
        return Judgement(Verdict.unknown, unread=unread)

    def verdict(self, premises: Sequence[str | Clause], claim: str | Clause) -> Verdict:
        return self.judge(premises, claim).verdict

    def supporting_subset(self, premises: Sequence[str | Clause], claim: str | Clause) -> tuple[int, ...] | None:
        """Smallest set of premise indices that supports the claim, or nothing when it is not supported."""
        judgement = self.judge(premises, claim)
        return judgement.evidence if judgement.verdict is Verdict.supported else None

    def needs_two_documents(self, documents: Sequence[str], claim: str | Clause) -> bool:
        """Whether the documents support the claim together and none of them alone."""
        return self.verdict(documents, claim) is Verdict.supported and not any(
            self.verdict([document], claim) is Verdict.supported for document in documents
        )

    def _read(self, premises: Sequence[str | Clause]) -> tuple[_Premises, tuple[int, ...]]:
        read, unread = _Premises([], []), []
        for index, premise in enumerate(premises):
            clauses = list(self._readable(premise))
            if not clauses:
                unread.append(index)
            for clause in clauses:
                for claim in claims_of(clause):
                    (read.denied if claim.is_denied else read.stated).append((_triple(claim), index))
        return read, tuple(unread)

    def _readable(self, premise: str | Clause) -> Iterator[Clause]:
        if isinstance(premise, Clause):
            yield premise
            return
        for sentence in _sentences(premise):
            try:
                yield from self.clauses(sentence)
            except DataError:
                continue


def _sentences(text: str) -> list[str]:
    """A text cut behind every end mark of any script; a rest without one is the last."""
    return [sentence.strip() for sentence in _SENTENCE.findall(text) if sentence.strip()]


def _unions(parts: Sequence[Supports]) -> Supports:
    """Smallest sets that hold one set of each part."""
    whole: Supports = {frozenset()}
    for part in parts:
        more: Supports = set()
        for support, other in product(whole, part):
            _insert(more, support | other)
        whole = more
    return whole
