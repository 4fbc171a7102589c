"""Facts about names, and the clauses that state, ask and deny them in several wordings.

A `Fact` is one step (the capital of X is Y), a `Claim` a path of steps (the capital of the country of X is Y) and maybe
denied. All relations are functional: a subject has at most one object.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from athlos.errors import DataError
from athlos.lab.grammar import Clause, NounPhrase
from athlos.lab.lexicon import COPULA, WHO_WHAT, is_name


class Kind(StrEnum):
    """What a name is the name of."""

    person = "person"
    city = "city"
    state = "state"
    company = "company"
    stream = "stream"
    coin = "coin"
    ware = "ware"


class Fact(NamedTuple):
    """`relation` of `subject` is `object`; both ends are names (`@17`)."""

    subject: str
    relation: str
    object: str


class Claim(NamedTuple):
    """The last of `relations` of ... the first of `relations` of `subject` is `object`, or is not."""

    subject: str
    relations: tuple[str, ...]
    object: str
    is_denied: bool = False


RELATIONS = {
    "birthplace": (Kind.person, Kind.city),
    "employer": (Kind.person, Kind.company),
    "spouse": (Kind.person, Kind.person),
    "teacher": (Kind.person, Kind.person),
    "nationality": (Kind.person, Kind.state),
    "workplace": (Kind.person, Kind.city),
    "country": (Kind.city, Kind.state),
    "mayor": (Kind.city, Kind.person),
    "river": (Kind.city, Kind.stream),
    "capital": (Kind.state, Kind.city),
    "leader": (Kind.state, Kind.person),
    "currency": (Kind.state, Kind.coin),
    "seat": (Kind.company, Kind.city),
    "founder": (Kind.company, Kind.person),
    "product": (Kind.company, Kind.ware),
}
"""Relation -> kinds of its subject and its object."""
DEFINITIONS = {"nationality": ("birthplace", "country"), "workplace": ("employer", "seat")}
"""Relations that are a path of others: nationality = country of the birthplace, workplace = seat of the employer."""
INVERSES = {"spouse": "spouse", "capital": "country"}
"""If r of x is y, then INVERSES[r] of y is x: marriage is mutual, and a capital lies in its state."""


class StatementWording(StrEnum):
    """Ways of stating a fact."""

    noun = "noun"
    """The capital of X is Y."""
    inverted = "inverted"
    """Y is the capital of X."""
    has = "has"
    """X has-capital Y."""
    serves = "serves"
    """Y serves-as-capital X."""


class QuestionWording(StrEnum):
    """Ways of asking for the object of a fact."""

    noun = "noun"
    """The capital of X is what?"""
    inverted = "inverted"
    """What is the capital of X?"""
    has = "has"
    """X has-capital what?"""
    serves = "serves"
    """What serves-as-capital X?"""


def expand(relations: Sequence[str]) -> tuple[str, ...]:
    """A path with each defined relation written out."""
    steps: list[str] = []
    for relation in relations:
        steps += DEFINITIONS.get(relation, (relation,))
    return tuple(steps)


def claim_of(fact: Fact | Claim) -> Claim:
    return fact if isinstance(fact, Claim) else Claim(fact.subject, (fact.relation,), fact.object)


def term(subject: str, relations: Sequence[str] = ()) -> NounPhrase:
    """`the last relation of ... of the subject` as a phrase; no relation gives the name itself."""
    phrase = NounPhrase(subject)
    for relation in relations:
        phrase = NounPhrase(relation, owner=phrase)
    return phrase


# -- meaning to clause -------------------------------------------------------------------------------------------------


def _clause(owners: NounPhrase, relation: str, value: NounPhrase, wording: str) -> Clause:
    if wording == "has":
        return Clause(f"has-{relation}", owners, value)
    if wording == "serves":
        return Clause(f"serves-as-{relation}", value, owners)
    first = NounPhrase(relation, owner=owners._replace(and_also=None))
    if owners.and_also is not None:
        first = first._replace(and_also=NounPhrase(relation, owner=owners.and_also))
    return Clause(COPULA, first, value) if wording == "noun" else Clause(COPULA, value, first)


def statement(fact: Fact | Claim, wording: StatementWording) -> Clause:
    """The clause that states a fact or claim."""
    if isinstance(fact, Fact):
        return _clause(NounPhrase(fact.subject), fact.relation, NounPhrase(fact.object), wording)
    owners = term(fact.subject, fact.relations[:-1])
    clause = _clause(owners, fact.relations[-1], NounPhrase(fact.object), wording)
    return clause._replace(is_negated=True) if fact.is_denied else clause


def question(fact: Fact | Claim, wording: QuestionWording) -> Clause:
    """The clause that asks for the object; the answer is the phrase `NounPhrase(fact.object)`."""
    claim = claim_of(fact)
    owners = term(claim.subject, claim.relations[:-1])
    clause = _clause(owners, claim.relations[-1], NounPhrase(WHO_WHAT), wording)
    return clause._replace(is_question=True)


def yes_no_question(fact: Fact | Claim, wording: StatementWording) -> Clause:
    """Whether it is so; the answer is `yes` or `no`."""
    return statement(fact, wording)._replace(is_question=True)


def comparison_question(left: Claim, right: Claim) -> Clause:
    """Whether the two paths end in the same object; the objects of the claims are not named."""
    return Clause(COPULA, term(left.subject, left.relations), term(right.subject, right.relations), is_question=True)


# -- clause to meaning -------------------------------------------------------------------------------------------------


def _path(phrase: NounPhrase | None) -> tuple[str, tuple[str, ...]] | None:
    """Name and relations of a phrase, or nothing for other phrases."""
    relations: list[str] = []
    while phrase is not None and not (phrase.adjectives or phrase.count is not None or phrase.and_also is not None):
        if phrase.owner is None:
            return (phrase.head, tuple(reversed(relations))) if is_name(phrase.head) else None
        if phrase.head not in RELATIONS:
            return None
        relations.append(phrase.head)
        phrase = phrase.owner
    return None


def _joined(phrase: NounPhrase) -> list[NounPhrase]:
    if phrase.and_also is None:
        return [phrase]
    return [phrase._replace(and_also=None), *_joined(phrase.and_also)]


def _sides(clause: Clause) -> tuple[NounPhrase, str, NounPhrase | None]:
    """Phrase of the subjects, relation to be added (empty for the copula), phrase of the object."""
    for prefix in ("has-", "serves-as-"):
        relation = clause.verb.removeprefix(prefix)
        if relation != clause.verb and relation in RELATIONS:
            both = (clause.subject, clause.object)
            owners, value = both if prefix == "has-" else both[::-1]
            return (owners or clause.subject), relation, (value if owners else None)
    if clause.verb == COPULA and clause.object is not None:
        is_inverted = clause.subject.owner is None and clause.object.owner is not None
        pair = (clause.object, clause.subject) if is_inverted else (clause.subject, clause.object)
        return pair[0], "", pair[1]
    return clause.subject, "", None


def claims_of(clause: Clause) -> tuple[Claim, ...]:
    """What a clause claims, independent of its wording; empty for questions and clauses about other things."""
    owners, relation, value = _sides(clause)
    target = _path(value)
    subjects = _joined(owners)
    if clause.is_question or clause.adjuncts or target is None or target[1] or (clause.is_negated and subjects[1:]):
        return ()
    claims = []
    for phrase in subjects:
        path = _path(phrase)
        relations = (*path[1], relation) if path and relation else path[1] if path else ()
        if path is None or not relations:
            return ()
        claims.append(Claim(path[0], relations, target[0], clause.is_negated))
    return tuple(claims)


def facts_of(clause: Clause) -> list[Fact]:
    """The one-step facts that a clause states; empty for questions, denials and longer paths."""
    return [
        Fact(claim.subject, claim.relations[0], claim.object)
        for claim in claims_of(clause)
        if len(claim.relations) == 1 and not claim.is_denied
    ]


def asked_of(clause: Clause) -> tuple[str, tuple[str, ...]]:
    """Subject and relations that a question for an object asks about; raises `DataError` for other clauses."""
    if clause.is_question:
        owners, relation, value = _sides(clause)
        if value is not None and owners.head == WHO_WHAT:
            owners, value = value, owners
        path = _path(owners)
        if path is not None and value == NounPhrase(WHO_WHAT):
            relations = (*path[1], relation) if relation else path[1]
            if relations:
                return path[0], relations
    raise DataError(f"lab question: expected one that asks for the object of a relation, got verb '{clause.verb}'")


def compared_of(clause: Clause) -> tuple[tuple[str, tuple[str, ...]], tuple[str, tuple[str, ...]]]:
    """The two paths, as (name, relations), that a comparison asks about; raises `DataError` for other clauses."""
    if clause.is_question and clause.verb == COPULA:
        left, right = _path(clause.subject), _path(clause.object)
        if left is not None and right is not None:
            return left, right
    raise DataError(f"lab question: expected one whether two paths end in the same place, got verb '{clause.verb}'")
