"""Documents in prose: questions over them with known evidence, retrieval corpora, and long answers with citations.

Every sentence knows the facts it states, every case the sentences that its answer rests on. Truth is a table: the
world's own, the world's with one fact changed (a document that contradicts what the model has stored), or one about
names of nothing, which only reading can answer.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from athlos.config.fields import at_least, bounded, wrong_values
from athlos.errors import ConfigErrors, DataError
from athlos.lab.chains import chain_claim
from athlos.lab.facts import (
    DEFINITIONS,
    INVERSES,
    RELATIONS,
    Claim,
    Fact,
    Kind,
    QuestionWording,
    StatementWording,
    claim_of,
    facts_of,
    question,
    statement,
)
from athlos.lab.grammar import Clause
from athlos.lab.world import Exposure, Table, World, make_table

FICTIONAL_PER_KIND = 8
"""Names of each kind in a fictional table: enough for distractors, few enough to be met again in one case."""


class Evidence(StrEnum):
    """How the documents of a case hold the answer."""

    direct = "direct"
    """One sentence states it."""
    implicit = "implicit"
    """One inference away, in one document: the other direction of a marriage, the capital of a state, a definition."""
    scattered = "scattered"
    """Each step of a path is in a document of its own."""
    buried = "buried"
    """One sentence states it, at a depth of a long document."""


class Truth(StrEnum):
    """What the documents are true of."""

    world = "world"
    """The world."""
    contradicted = "contradicted"
    """The world with the asked fact changed: the documents say otherwise than pre-training."""
    fictional = "fictional"
    """Names of nothing in the world."""


@dataclass(kw_only=True)
class DocumentConfig:
    """One kind of case."""

    evidence: Evidence = Evidence.direct
    """How the answer is held: direct, implicit, scattered or buried."""
    truth: Truth = Truth.world
    """What the documents are true of: world, contradicted or fictional."""
    num_documents: int = at_least(1, default=4)
    """Documents of a case, >= the number of steps for scattered evidence."""
    distractor_share: float = bounded("[0, 1]", default=0.5)
    """Share of the documents that do not bear on the question; 1 leaves the answer out. Below 1 the
    documents that the answer takes are always there, even if that makes fewer distractors."""
    facts_per_document: int = at_least(1, default=4)
    """Sentences of a document, >= 2 for implicit evidence."""
    buried_sentences: int = at_least(2, default=16)
    """Sentences of a document with buried evidence."""
    depth: float = bounded("[0, 1]", default=0.5)
    """Place of the buried sentence, from 0 (first) to 1 (last)."""
    num_hops: int = bounded("[2, 3]", default=2)
    """Steps of scattered evidence."""


def document_config_errors(config: DocumentConfig, *, key: str = "documents") -> Iterable[str]:
    """One line a wrong value."""
    yield from wrong_values(config, path=key)
    if config.evidence is Evidence.scattered and 1 <= config.num_documents < config.num_hops:
        yield f"{key}.num_documents: got {config.num_documents}, expected an integer >= {config.num_hops}"
    if config.evidence is Evidence.implicit and config.facts_per_document == 1:
        yield f"{key}.facts_per_document: got 1, expected an integer >= 2"


class Document(NamedTuple):
    """Prose of one language."""

    identifier: str
    language: str
    clauses: tuple[Clause, ...]
    sentences: tuple[str, ...]
    text: str

    @property
    def facts(self) -> list[list[Fact]]:
        """Facts of each sentence."""
        return [facts_of(clause) for clause in self.clauses]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A question over documents."""

    identifier: str
    language: str
    config: DocumentConfig
    asked: Claim
    """Subject, relations and, as `object`, the answer by the documents' truth."""
    question: Clause
    documents: tuple[Document, ...]
    support: tuple[tuple[int, int], ...]
    """(document, sentence) indices of one smallest evidence, in order; empty when gold is absent."""
    gold: tuple[int, ...]
    """Indices of the documents that bear on the question: all but the distractors."""
    stored_answer: str | None
    """What the world says, as a concept; nothing for fictional cases."""

    @property
    def answer(self) -> str:
        """The concept of the answer by the documents; `unknown` when they do not hold it."""
        return self.asked.object if self.support else "unknown"


# -- tables ------------------------------------------------------------------------------------------------------------


def fictional_table(world: World, *, rng: random.Random) -> tuple[Table, list[Fact]]:
    """A small world of names of nothing: its table and the facts that the rest follows from."""
    names = {kind: rng.sample(entities, FICTIONAL_PER_KIND) for kind, entities in world.fictional.items()}
    # As many cities as states would leave no city that is not a capital, whose country is told and not inferred.
    names[Kind.state] = names[Kind.state][: FICTIONAL_PER_KIND // 2]
    return make_table(names, rng=rng)


def changed_facts(facts: Iterable[Fact], claim: Fact) -> list[Fact]:
    """The facts with one changed; those that the change makes false or that would deny it go."""
    inverse = INVERSES.get(claim.relation)
    taken = {(claim.subject, claim.relation)} | ({(claim.object, inverse)} if inverse else set())
    kept = [
        fact
        for fact in facts
        if (fact.subject, fact.relation) not in taken and (fact.object, INVERSES.get(fact.relation, "")) not in taken
    ]
    return [*kept, claim]


# -- documents ---------------------------------------------------------------------------------------------------------


def make_document(
    world: World,
    facts: Sequence[Fact],
    *,
    identifier: str,
    language: str,
    rng: random.Random,
    wordings: Sequence[StatementWording] = tuple(StatementWording),
) -> Document:
    """Facts as prose, one sentence each in a wording drawn from all, or from those that are given."""
    clauses = tuple(statement(fact, rng.choice(wordings)) for fact in facts)
    return document_of(world, clauses, identifier=identifier, language=language)


def document_of(world: World, clauses: Sequence[Clause], *, identifier: str, language: str) -> Document:
    spoken = world.languages[language]
    sentences = tuple(spoken.render(clause) for clause in clauses)
    return Document(identifier, language, tuple(clauses), sentences, spoken.join(sentences))


class _Plan(NamedTuple):
    """What a case asks and the facts it takes, by document."""

    asked: Claim
    parts: tuple[tuple[Fact, ...], ...]


def make_case(
    world: World,
    config: DocumentConfig,
    *,
    index: int,
    language: str,
    facts: Sequence[Fact] | None = None,
    wording: QuestionWording = QuestionWording.noun,
    chain: Sequence[Fact] | None = None,
) -> Case:
    """The case of a number: the same number, the same case; another language, the same facts and wordings.

    `facts` is what may be asked, and told beside background facts: those alone unless given, so that training on cases
    never tells what pre-training must not. `chain` fixes the path of a scattered case. Raises `ConfigErrors` for a
    wrong config, `DataError` when no such case can be made.
    """
    errors = list(document_config_errors(config))
    if errors:
        raise ConfigErrors(errors)
    rng = world.rng("case", index, config.evidence, config.truth, config.num_hops)
    if config.truth is Truth.fictional:
        pool = askable = fictional_table(world, rng=rng)[1]
    else:
        pool = world.facts_told(Exposure.background)
        askable = list(facts) if facts is not None else pool
        pool = list(dict.fromkeys([*pool, *askable]))
    stored: str | None = None
    plan = _plan(askable, pool, config, rng=rng) if chain is None else _chain_plan(chain)
    if config.truth is not Truth.fictional:
        stored = world.follow(plan.asked.subject, plan.asked.relations)
    if config.truth is Truth.contradicted:
        plan, pool = _changed(world, plan, pool, rng=rng)
    return _Writer(
        world,
        config,
        plan,
        pool,
        rng=rng,
        language=language,
        identifier=f"case-{config.evidence}-{config.truth}-{index}",
    ).case(stored, wording=wording)


def _plan(askable: Sequence[Fact], pool: Sequence[Fact], config: DocumentConfig, *, rng: random.Random) -> _Plan:
    by_key = {(fact.subject, fact.relation): fact for fact in pool}
    plans = {
        Evidence.direct: _direct_plans,
        Evidence.buried: _direct_plans,
        Evidence.implicit: _implicit_plans,
        Evidence.scattered: _scattered_plans,
    }[config.evidence]
    order = list(askable)
    rng.shuffle(order)
    for fact in order:
        plans_of_fact = plans(fact, by_key, config.num_hops)
        if plans_of_fact:
            return rng.choice(plans_of_fact)
    raise DataError(f"lab case: none of {len(askable)} facts can be asked with {config.evidence} evidence")


def _chain_plan(chain: Sequence[Fact]) -> _Plan:
    """Each fact of a chain in a document of its own."""
    return _Plan(chain_claim(chain), tuple((step,) for step in chain))


def _direct_plans(fact: Fact, by_key: dict[tuple[str, str], Fact], num_hops: int) -> list[_Plan]:
    return [_Plan(claim_of(fact), ((fact,),))]


def _implicit_plans(fact: Fact, by_key: dict[tuple[str, str], Fact], num_hops: int) -> list[_Plan]:
    implicit = []
    if fact.relation in INVERSES:
        implicit.append(_Plan(Claim(fact.object, (INVERSES[fact.relation],), fact.subject), ((fact,),)))
    for relation, (first, second) in DEFINITIONS.items():
        rest = by_key.get((fact.object, second))
        if fact.relation == first and rest:
            implicit.append(_Plan(Claim(fact.subject, (relation,), rest.object), ((fact, rest),)))
    return implicit


def _scattered_plans(fact: Fact, by_key: dict[tuple[str, str], Fact], num_hops: int) -> list[_Plan]:
    """Paths from a fact that visit no name twice."""
    paths: list[tuple[Fact, ...]] = [(fact,)]
    for _ in range(num_hops - 1):
        paths = [
            (*path, after)
            for path in paths
            for relation in RELATIONS
            if (after := by_key.get((path[-1].object, relation)))
            and after.object not in {path[0].subject, *(step.object for step in path)}
        ]
    return [_chain_plan(path) for path in paths]


def _changed(world: World, plan: _Plan, pool: Sequence[Fact], *, rng: random.Random) -> tuple[_Plan, list[Fact]]:
    """The plan with the answer changed: its last fact says another object, or of implicit evidence another subject."""
    last = plan.parts[-1][-1]
    names = {plan.asked.subject, *(fact.subject for part in plan.parts for fact in part)}
    if plan.asked.subject == last.object and len(plan.asked.relations) == 1:
        others = [name for name in world.entities[RELATIONS[last.relation][0]] if name not in last]
        new = last._replace(subject=rng.choice(others))
        asked = plan.asked._replace(object=new.subject)
    else:
        new = last._replace(object=world.wrong_object(last, rng=rng, avoid=names))
        asked = plan.asked._replace(object=new.object)
    parts = (*plan.parts[:-1], (*plan.parts[-1][:-1], new))
    kept = changed_facts([fact for fact in pool if fact != last], new)
    needed = {fact for part in parts for fact in part}
    return _Plan(asked, parts), [*kept, *(fact for fact in needed if fact not in set(kept))]


class _Writer:
    """Writes the documents of one case."""

    def __init__(
        self,
        world: World,
        config: DocumentConfig,
        plan: _Plan,
        pool: Sequence[Fact],
        *,
        rng: random.Random,
        identifier: str,
        language: str,
    ) -> None:
        self.world, self.config, self.plan, self.rng = world, config, plan, rng
        self.identifier, self.language = identifier, language
        asked = plan.asked
        self.needed = {fact for part in plan.parts for fact in part}
        self.steps = {(fact.subject, fact.relation) for fact in self.needed} | {(asked.subject, asked.relations[0])}
        self.near_relations = {*asked.relations, *(fact.relation for fact in self.needed)}
        self.near_subjects = {asked.subject, *(fact.subject for fact in self.needed)}
        self.fillers = [fact for fact in pool if self._is_harmless(fact)]
        self.near = [fact for fact in self.fillers if self._is_near(fact)]

    def _is_harmless(self, fact: Fact) -> bool:
        """Whether a fact cannot help to the answer.

        All inference about an asked path goes along its steps, so a fact is kept out when it is one of them or says one
        in the other direction.
        """
        inverse = INVERSES.get(fact.relation)
        return (fact.subject, fact.relation) not in self.steps and (fact.object, inverse) not in self.steps

    def _is_near(self, fact: Fact) -> bool:
        """Same relation of another subject, or another relation of the same subject."""
        return fact.relation in self.near_relations or fact.subject in self.near_subjects

    def case(self, stored: str | None, *, wording: QuestionWording) -> Case:
        config = self.config
        num_gold = 0
        if config.distractor_share < 1:
            num_distractors = round(config.num_documents * config.distractor_share)
            num_gold = max(len(self.plan.parts), config.num_documents - num_distractors)
        contents = [self._gold(index) for index in range(num_gold)]
        contents += [self._distractor() for _ in range(config.num_documents - num_gold)]
        order = list(range(len(contents)))
        self.rng.shuffle(order)
        documents = tuple(
            make_document(
                self.world,
                contents[number],
                identifier=f"{self.identifier}-document-{place}",
                language=self.language,
                rng=self.rng,
            )
            for place, number in enumerate(order)
        )
        return Case(
            identifier=self.identifier,
            language=self.language,
            config=config,
            asked=self.plan.asked,
            question=question(self.plan.asked, wording),
            documents=documents,
            support=self._support([contents[number] for number in order]) if num_gold else (),
            gold=tuple(place for place, number in enumerate(order) if number < num_gold),
            stored_answer=stored,
        )

    def _gold(self, index: int) -> list[Fact]:
        config = self.config
        part = list(self.plan.parts[index % len(self.plan.parts)])
        if config.evidence is Evidence.buried:
            others = self._draw(config.buried_sentences - 1)
            place = round(config.depth * len(others))
            return [*others[:place], *part, *others[place:]]
        facts = [*part, *self._draw(config.facts_per_document - len(part))]
        self.rng.shuffle(facts)
        return facts

    def _distractor(self) -> list[Fact]:
        is_long = self.config.evidence is Evidence.buried
        size = self.config.buried_sentences if is_long else self.config.facts_per_document
        facts = self._draw(size, least_near=1)
        self.rng.shuffle(facts)
        return facts

    def _draw(self, size: int, *, least_near: int = 0) -> list[Fact]:
        """Harmless facts without repetition, half of them near the question where there are enough."""
        if size <= 0:
            return []
        near = self.rng.sample(self.near, min(max(size // 2, least_near), len(self.near)))
        taken = set(near)
        rest = [fact for fact in self.fillers if fact not in taken]
        if len(rest) < size - len(near):
            raise DataError(f"lab case: {size} sentences asked for, {len(self.fillers)} facts to tell")
        facts = near + self.rng.sample(rest, size - len(near))
        self.rng.shuffle(facts)
        return facts

    def _support(self, contents: Sequence[Sequence[Fact]]) -> tuple[tuple[int, int], ...]:
        """First place of each needed fact; the facts of one part from one document."""
        places = []
        for part in self.plan.parts:
            document = next(index for index, facts in enumerate(contents) if set(part) <= set(facts))
            places += [(document, contents[document].index(fact)) for fact in part]
        return tuple(places)


# -- retrieval ---------------------------------------------------------------------------------------------------------


class Placement(StrEnum):
    """In which indexes a passage stands."""

    own = "own"
    """In the language of the question only."""
    first = "first"
    """In the first language only."""
    both = "both"
    """In both, under one identifier."""


def passage_identifier(subject: str) -> str:
    """The same for every language and corpus."""
    return f"passage-{subject.lstrip('@')}"


def passages(world: World, facts: Iterable[Fact], *, language: str) -> list[Document]:
    """One passage a subject, with all its facts; wordings depend on the subject alone."""
    by_subject: dict[str, list[Fact]] = {}
    for fact in facts:
        by_subject.setdefault(fact.subject, []).append(fact)
    return [
        make_document(
            world, several, identifier=passage_identifier(subject), language=language, rng=world.rng("passage", subject)
        )
        for subject, several in by_subject.items()
    ]


# -- long answers ------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class CitedConfig:
    """Long answers of several sentences, each with the documents it rests on."""

    num_sentences: int = at_least(1, default=4)
    """Sentences of an answer."""
    two_document_share: float = bounded("[0, 1]", default=0.25)
    """Share of the sentences that two documents support together and none alone; where it gives an answer no whole
    number of them, each answer has the number below or above, by chance."""
    num_distractors: int = at_least(0, default=2)
    """Documents that support no sentence."""
    facts_per_document: int = at_least(1, default=3)
    """Sentences of a document."""
    wordings: list[StatementWording] = field(default_factory=lambda: list(StatementWording))
    """Ways in which documents and answers state a fact, one or more."""
    truth: Truth = Truth.fictional
    """What the documents are true of: world or fictional."""


@dataclass(frozen=True, kw_only=True)
class CitedAnswer:
    """Questions and a long answer over documents."""

    identifier: str
    language: str
    questions: tuple[Clause, ...]
    answer: tuple[Clause, ...]
    """One sentence a question."""
    citations: tuple[tuple[int, ...], ...]
    """Document indices of each sentence, ascending: they support it together, and none can be spared."""
    documents: tuple[Document, ...]


def cited_config_errors(config: CitedConfig, *, key: str = "cited") -> Iterable[str]:
    """One line a wrong value."""
    yield from wrong_values(config, path=key)
    if not config.wordings:
        yield f"{key}.wordings: got none, expected one or more of {', '.join(StatementWording)}"
    if config.truth is Truth.contradicted:
        yield f"{key}.truth: got contradicted, expected world or fictional"


def make_cited(world: World, config: CitedConfig, *, index: int, language: str) -> CitedAnswer:
    """The long answer of a number. Raises `ConfigErrors`, and `DataError` where the facts do not suffice."""
    errors = list(cited_config_errors(config))
    if errors:
        raise ConfigErrors(errors)
    rng = world.rng("cited", index, config.truth)
    is_fictional = config.truth is Truth.fictional
    pool = fictional_table(world, rng=rng)[1] if is_fictional else world.facts_told(Exposure.background)
    plans = _cited_plans(config, pool, rng=rng)
    contents = [list(part) for plan in plans for part in plan.parts]
    steps = {fact for part in contents for fact in part}
    asked = {(fact.subject, fact.relation) for fact in steps}
    asked |= {(fact.object, INVERSES[fact.relation]) for fact in steps if fact.relation in INVERSES}
    # A filler that says a step in the other direction would support a sentence from a second place.
    fillers = [
        fact
        for fact in pool
        if (fact.subject, fact.relation) not in asked and (fact.object, INVERSES.get(fact.relation)) not in asked
    ]
    contents += [[] for _ in range(config.num_distractors)]
    for content in contents:
        size = config.facts_per_document - len(content)
        if size > len(fillers):
            raise DataError(f"lab long answer: {size} more sentences asked for, {len(fillers)} facts to tell")
        content += rng.sample(fillers, size)
        rng.shuffle(content)
    order = list(range(len(contents)))
    rng.shuffle(order)
    place = {number: at for at, number in enumerate(order)}
    numbers = iter(range(len(contents)))
    citations = tuple(tuple(sorted(place[next(numbers)] for _ in plan.parts)) for plan in plans)
    documents = tuple(
        make_document(
            world,
            contents[number],
            identifier=f"cited-{index}-document-{at}",
            language=language,
            rng=rng,
            wordings=config.wordings,
        )
        for at, number in enumerate(order)
    )
    return CitedAnswer(
        identifier=f"cited-{index}",
        language=language,
        questions=tuple(question(plan.asked, rng.choice(world.config.training_wordings)) for plan in plans),
        answer=tuple(statement(plan.asked, rng.choice(config.wordings)) for plan in plans),
        citations=citations,
        documents=documents,
    )


def _cited_plans(config: CitedConfig, pool: Sequence[Fact], *, rng: random.Random) -> list[_Plan]:
    """Plans that share no fact and no subject-relation pair, those of two documents first, then shuffled."""
    whole, part = divmod(config.num_sentences * config.two_document_share, 1)
    num_two = int(whole) + (part > 0 and rng.random() < part)
    by_key = {(fact.subject, fact.relation): fact for fact in pool}
    order = list(pool)
    plans: list[_Plan] = []
    taken: set[Fact] = set()
    rng.shuffle(order)
    for fact in order:
        if len(plans) == config.num_sentences:
            break
        makers = _scattered_plans if len(plans) < num_two else _direct_plans
        cited = [
            plan
            for plan in makers(fact, by_key, 2)
            if not taken.intersection(step for part in plan.parts for step in part)
        ]
        if cited:
            plan = rng.choice(cited)
            plans.append(plan)
            taken.update(step for part in plan.parts for step in part)
    if len(plans) < config.num_sentences:
        raise DataError(f"lab long answer: {config.num_sentences} sentences asked for, facts suffice for {len(plans)}")
    rng.shuffle(plans)
    return plans
