"""The controlled world: names of seven kinds, functional relations among them, and how often each fact is told.

A fact is never told, rarely, frequently, or it is background: told often and free for chains and documents, so that
those never change the counts of the other three. Same config, same world, in every process.
"""

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from athlos.config.fields import at_least, bounded, wrong_values
from athlos.errors import ConfigError, ConfigErrors
from athlos.lab.facts import (
    DEFINITIONS,
    INVERSES,
    RELATIONS,
    Claim,
    Fact,
    Kind,
    QuestionWording,
    StatementWording,
    question,
    statement,
)
from athlos.lab.grammar import Clause, NounPhrase
from athlos.lab.languages import CODES, Languages
from athlos.lab.lexicon import NUM_NAMES, name


class Exposure(StrEnum):
    """How often a fact occurs in pre-training."""

    none = "none"
    rare = "rare"
    frequent = "frequent"
    background = "background"
    """Told often, outside the three levels that a study compares; chains and training documents use these alone."""


@dataclass(kw_only=True)
class WorldConfig:
    """Everything that makes a world."""

    seed: int = 0
    """Seed of words, names, facts and plan."""
    languages: list[str] = field(default_factory=lambda: list(CODES))
    """Codes, the first one plays the part of English; a non-empty subset of latn, cyrl, grek, thai, hani."""
    language_shares: list[float] = field(default_factory=lambda: [0.5, 0.2, 0.15, 0.1, 0.05])
    """Share of each language in the exposures, one a language, in [0, 1], summing to 1."""
    shared_word_order: bool = False
    """Whether all languages have the word order of the first."""
    num_spare: int = at_least(0, default=0)
    """Nouns without meaning in each lexicon."""
    num_persons: int = at_least(2, default=240)
    """Persons."""
    num_cities: int = 100
    """Cities, >= the number of states."""
    num_states: int = at_least(2, default=20)
    """States."""
    num_companies: int = at_least(2, default=80)
    """Companies."""
    num_streams: int = at_least(2, default=30)
    """Streams."""
    num_coins: int = at_least(2, default=20)
    """Coins."""
    num_wares: int = at_least(2, default=30)
    """Wares."""
    num_fictional: int = at_least(8, default=30)
    """Names of each kind kept for documents about nothing in the world."""
    num_none: int = at_least(0, default=200)
    """Facts that are never told."""
    num_rare: int = at_least(0, default=200)
    """Facts told `rare_exposures` times."""
    num_frequent: int = at_least(0, default=200)
    """Facts told `frequent_exposures` times; all facts left over are background."""
    rare_exposures: int = at_least(1, default=4)
    """Times each rare fact is told."""
    frequent_exposures: int = at_least(1, default=60)
    """Times each frequent fact is told."""
    background_exposures: int = at_least(1, default=60)
    """Times each background fact is told."""
    contradiction_share: float = bounded("[0, 1]", default=0.0)
    """Share of the rare facts that are also told with one wrong object."""
    contradiction_exposures: int = at_least(1, default=4)
    """Times each wrong object is told."""
    question_share: float = bounded("[0, 1]", default=0.25)
    """Share of the exposures of a fact that are a question with its answer; the rest are statements."""
    held_out_wordings: list[QuestionWording] = field(
        default_factory=lambda: [QuestionWording.inverted, QuestionWording.serves]
    )
    """Question wordings that never occur in the exposures; at least one of the four must remain."""

    @property
    def training_wordings(self) -> list[QuestionWording]:
        return [wording for wording in QuestionWording if wording not in self.held_out_wordings]

    def num_of(self, kind: Kind) -> int:
        """Entities of a kind."""
        return {
            Kind.person: self.num_persons,
            Kind.city: self.num_cities,
            Kind.state: self.num_states,
            Kind.company: self.num_companies,
            Kind.stream: self.num_streams,
            Kind.coin: self.num_coins,
            Kind.ware: self.num_wares,
        }[kind]


def config_errors(config: WorldConfig, *, key: str = "lab") -> Iterator[str]:
    """One line for each pair of values that do not go together."""
    if config.num_cities < config.num_states:
        yield f"{key}.num_cities: got {config.num_cities}, expected at least num_states = {config.num_states}"
    shares = config.language_shares
    if len(shares) != len(config.languages) or min(shares, default=-1) < 0 or abs(sum(shares) - 1) > SHARE_TOLERANCE:
        yield (
            f"{key}.language_shares: got {shares}, expected {len(config.languages)} numbers >= 0 that sum to 1, "
            "one a language"
        )
    if not config.languages or len(set(config.languages)) != len(config.languages):
        yield f"{key}.languages: got {config.languages}, expected different codes out of {', '.join(CODES)}"
    num_names = sum(config.num_of(kind) + config.num_fictional for kind in Kind)
    if num_names > NUM_NAMES - NUM_PLACEHOLDERS:
        yield (
            f"{key}.num_*: got {num_names} names with the fictional ones, expected at most "
            f"{NUM_NAMES - NUM_PLACEHOLDERS}"
        )
    if not config.training_wordings:
        yield f"{key}.held_out_wordings: got all of them, expected at least one of {', '.join(QuestionWording)} left"


NUM_PLACEHOLDERS = 2
SHARE_TOLERANCE = 1e-6
"""Shares are typed by hand, in decimals that floats cannot hold."""

Table = dict[tuple[str, str], str]
"""(subject, relation) -> object: what is the case."""


def apportion(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers that sum to `total` in the ratio of `shares`, by largest remainder; ties go to the first."""
    quotas = [total * share / sum(shares) for share in shares]
    counts = [int(quota) for quota in quotas]
    order = sorted(range(len(shares)), key=lambda index: (counts[index] - quotas[index], index))
    for index in order[: total - sum(counts)]:
        counts[index] += 1
    return counts


def spread(counts: Sequence[int]) -> Iterator[int]:
    """Each index as often as its count, spread so evenly that every stretch holds about its share of each."""
    total, credit = sum(counts), [0] * len(counts)
    for _ in range(total):
        credit = [have + count for have, count in zip(credit, counts, strict=True)]
        index = max(range(len(counts)), key=credit.__getitem__)
        credit[index] -= total
        yield index


def make_table(names: Mapping[Kind, Sequence[str]], *, rng: random.Random) -> tuple[Table, list[Fact]]:
    """Random facts about names: what is the case, and the facts that the rest follows from.

    The country of a capital and one direction of each marriage follow from other facts, nationality and workplace by
    definition; they are in the table, not in the list.
    """
    table: Table = {}
    base: list[Fact] = []

    def settle(subject: str, relation: str, value: str) -> None:
        table[subject, relation] = value
        base.append(Fact(subject, relation, value))

    persons, states = list(names[Kind.person]), list(names[Kind.state])
    rng.shuffle(persons)
    for first, second in zip(persons[::2], persons[1::2], strict=False):
        settle(first, "spouse", second)
        table[second, "spouse"] = first
    for state, city in zip(states, rng.sample(list(names[Kind.city]), len(states)), strict=True):
        settle(state, "capital", city)
        table[city, "country"] = state
    for relation, (kind, other) in RELATIONS.items():
        if relation in DEFINITIONS:
            continue
        for subject in names[kind]:
            if relation != "spouse" and (subject, relation) not in table:
                candidates = names[other]
                value = rng.choice(candidates)
                while value == subject:
                    value = rng.choice(candidates)
                settle(subject, relation, value)
    for relation, (first, second) in DEFINITIONS.items():
        for subject in names[RELATIONS[relation][0]]:
            table[subject, relation] = table[table[subject, first], second]
    return table, base


def follow(table: Table, subject: str, relations: Sequence[str]) -> str | None:
    """Where a path from a subject ends, or nothing where it breaks off."""
    at: str | None = subject
    for relation in relations:
        at = table.get((at, relation)) if at is not None else None
    return at


class Told(NamedTuple):
    """One exposure: a fact in a wording and a language. Question wordings come with their answer."""

    fact: Fact
    wording: StatementWording | QuestionWording
    language: str
    is_contradiction: bool = False

    @property
    def clause(self) -> Clause:
        if isinstance(self.wording, QuestionWording):
            return question(self.fact, self.wording)
        return statement(self.fact, self.wording)

    @property
    def answer(self) -> NounPhrase | None:
        """The answer of a question, nothing for a statement."""
        return NounPhrase(self.fact.object) if isinstance(self.wording, QuestionWording) else None


class World:
    """Names, facts and languages. Raises `ConfigErrors` that name every wrong value."""

    def __init__(self, config: WorldConfig) -> None:
        if errors := list(wrong_values(config, path="lab")) or list(config_errors(config)):
            raise ConfigErrors(errors)
        self.config = config
        self.languages = Languages(
            seed=config.seed,
            codes=config.languages,
            num_spare=config.num_spare,
            shared_word_order=config.shared_word_order,
        )
        numbers = iter(self.rng("names").sample(range(NUM_NAMES), NUM_NAMES))
        self.entities = {kind: tuple(name(next(numbers)) for _ in range(config.num_of(kind))) for kind in Kind}
        self.fictional = {kind: tuple(name(next(numbers)) for _ in range(config.num_fictional)) for kind in Kind}
        """Names of no entity, for documents that only reading can answer."""
        self.placeholders = (name(next(numbers)), name(next(numbers)))
        """Names of nothing, that stand for an answer not yet known while a sub-question is rendered."""
        self._kinds = {
            entity: kind
            for names in (self.entities, self.fictional)
            for kind, entities in names.items()
            for entity in entities
        }
        self.table, base = make_table(self.entities, rng=self.rng("facts"))
        self.facts = tuple(sorted(base, key=lambda fact: (tuple(RELATIONS).index(fact.relation), fact)))
        told = set(self.facts)
        self.derived = tuple(
            fact
            for (subject, relation), value in self.table.items()
            if (fact := Fact(subject, relation, value)) not in told
        )
        """Facts that follow from `facts`; never told."""
        self._exposures = self._deal_exposures()
        self.contradictions = self._contradictions()
        """Rare fact -> the wrong fact that is told beside it."""

    def rng(self, *purpose: object) -> random.Random:
        """A generator of its own for each purpose, so that one draw more here changes nothing there."""
        return random.Random(":".join(map(str, (self.config.seed, *purpose))))

    def kind(self, entity: str) -> Kind:
        """The kind of an entity or fictional name; raises `KeyError` for others."""
        return self._kinds[entity]

    def exposure(self, fact: Fact) -> Exposure:
        """How often a fact of `facts` is told; raises `KeyError` for others, derived ones too."""
        return self._exposures[fact]

    def facts_told(self, exposure: Exposure) -> list[Fact]:
        """The facts of one level."""
        return [fact for fact in self.facts if self._exposures[fact] is exposure]

    def follow(self, subject: str, relations: Sequence[str]) -> str | None:
        """The truth about a path, or nothing where it breaks off."""
        return follow(self.table, subject, relations)

    def is_true(self, claim: Claim) -> bool:
        return (self.follow(claim.subject, claim.relations) == claim.object) is not claim.is_denied

    def wrong_object(self, fact: Fact, *, rng: random.Random, avoid: Collection[str] = ()) -> str:
        """Another object of the right kind, so chosen that the wrong fact makes no other true fact follow.

        Raises `ConfigError` when the world has none.
        """
        never = {fact.subject, fact.object, *avoid}
        others = [value for value in self.entities[RELATIONS[fact.relation][1]] if value not in never]
        inverse = INVERSES.get(fact.relation)
        candidates = [value for value in others if inverse is None or self.table.get((value, inverse)) != fact.subject]
        if not candidates:
            raise ConfigError(f"lab.num_*: no wrong object for the {fact.relation} of {fact.subject}; make more names")
        return rng.choice(candidates)

    def _deal_exposures(self) -> dict[Fact, Exposure]:
        """Each level gets about the same share of every relation."""
        config, rng = self.config, self.rng("exposures")
        num_dialled = config.num_none + config.num_rare + config.num_frequent
        if num_dialled > len(self.facts):
            raise ConfigError(
                f"lab.num_none + num_rare + num_frequent: got {num_dialled}, expected at most the {len(self.facts)} "
                "facts of this world; raise num_persons or num_cities"
            )
        order = list(self.facts)
        rng.shuffle(order)
        order.sort(key=lambda fact: tuple(RELATIONS).index(fact.relation))
        counts = [config.num_none, config.num_rare, config.num_frequent, len(self.facts) - num_dialled]
        levels = tuple(Exposure)
        dealt = {fact: levels[index] for fact, index in zip(order, spread(counts), strict=True)}
        return {fact: dealt[fact] for fact in self.facts}

    def _contradictions(self) -> dict[Fact, Fact]:
        rng = self.rng("contradictions")
        rare = self.facts_told(Exposure.rare)
        chosen = rng.sample(rare, round(self.config.contradiction_share * len(rare)))
        return {fact: fact._replace(object=self.wrong_object(fact, rng=rng)) for fact in chosen}


def exposures(world: World) -> Iterator[Told]:
    """The pre-training plan, shuffled: each fact exactly as often as its level says.

    Within each level, and among the contradictions, languages have their shares exactly (largest remainder) and each
    fact gets about its share of each; each fact has its share of questions, and its wordings in turn.
    """
    config, rng = world.config, world.rng("plan")
    plan: list[Told] = []
    for level, times in (
        (Exposure.rare, config.rare_exposures),
        (Exposure.frequent, config.frequent_exposures),
        (Exposure.background, config.background_exposures),
    ):
        plan += _tell(world, world.facts_told(level), times=times, rng=rng)
    wrong = _tell(world, list(world.contradictions.values()), times=config.contradiction_exposures, rng=rng)
    plan += [told._replace(is_contradiction=True) for told in wrong]
    rng.shuffle(plan)
    yield from plan


def _tell(world: World, facts: list[Fact], *, times: int, rng: random.Random) -> list[Told]:
    config = world.config
    rng.shuffle(facts)
    languages = spread(apportion(len(facts) * times, config.language_shares))
    num_statements, _ = apportion(times, [1 - config.question_share, config.question_share])
    wordings: list[tuple[StatementWording | QuestionWording, ...]] = [
        tuple(StatementWording),
        tuple(config.training_wordings),
    ]
    told = []
    for fact in facts:
        firsts = [rng.randrange(len(some)) for some in wordings]
        is_question = [index >= num_statements for index in range(times)]
        rng.shuffle(is_question)
        for asks in is_question:
            some = wordings[asks]
            told.append(Told(fact, some[firsts[asks] % len(some)], config.languages[next(languages)]))
            firsts[asks] += 1
    return told
