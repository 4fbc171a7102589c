"""The text a lab base model is trained on, and the probes that show whether the dials of the world work.

One example is a context, a question and an answer, as text of one language. Only what is to be learnt is an answer: a
fact by its exposure, the value that a document states, a document read back, the steps of a sum, the end of a chain.
"""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from athlos.config.fields import at_least
from athlos.lab.chains import ChainConfig, Form, Split, chain_questions
from athlos.lab.documents import DocumentConfig, Truth, make_case
from athlos.lab.facts import RELATIONS, Fact, Kind, QuestionWording, StatementWording, question, statement
from athlos.lab.grammar import NounPhrase
from athlos.lab.lexicon import name
from athlos.lab.sums import Sums, SumsConfig, render
from athlos.lab.world import Exposure, World, apportion, exposures


class Example(NamedTuple):
    """One thing to learn or to ask. `context` and `question` are empty for running text."""

    identifier: str
    kind: str
    """`fact`, `statement`, `document`, `recital`, `sum` or `chain`."""
    language: str
    answer: str
    question: str = ""
    context: str = ""
    dial: str = ""
    """The setting it belongs to: exposure of a fact, facts in a document, steps of a sum, hops of a chain."""


@dataclass(kw_only=True)
class MixtureConfig:
    """How much of what a base model reads, beside the facts of the world, and how much it is asked afterwards."""

    num_documents: int = at_least(0, default=20000)
    """Documents about fictional names with a question each: reading, not knowing."""
    max_document_facts: int = at_least(1, default=4)
    """Most sentences of a document."""
    num_recitals: int = at_least(0, default=4000)
    """Documents that are read back word by word."""
    num_sums: int = at_least(0, default=16000)
    """Word problems with their steps."""
    chain_repeats: int = at_least(0, default=4)
    """Times each training chain is asked, over all languages."""
    num_probes: int = at_least(1, default=40)
    """Questions asked of the finished model, a setting and language."""
    sums: SumsConfig = field(default_factory=SumsConfig)
    chains: ChainConfig = field(default_factory=ChainConfig)


def words(world: World, config: MixtureConfig) -> Iterator[str]:
    """Every word, name, number and mark of the world's texts; a word that follows a space begins with one."""
    for language in world.languages.values():
        lexicon, script = language.grammar.lexicon, language.script
        gap = " " if script.has_spaces else ""
        names = {
            entity for names in (world.entities, world.fictional) for entities in names.values() for entity in entities
        }
        names |= {name(number) for number in range(config.sums.num_names)}
        yield from (gap + lexicon.word(concept) for concept in (*lexicon.words, *sorted(names)))
        yield from (script.full_stop, script.question_mark, script.comma)
        if not script.has_spaces:  # words that follow a number or a sentence
            yield from (" " + lexicon.word(concept) for concept in (*lexicon.words, *sorted(names)))
    yield from (f" {number}" for number in range(100))
    yield from (" +", " -", " =")


def training_examples(world: World, config: MixtureConfig) -> Iterator[Example]:
    """The whole text, shuffled; no document in it is a probe.

    Languages have their shares exactly (largest remainder): within each kind, and within each exposure for facts and
    statements together.
    """
    examples = [*_told(world), *_documents(world, config), *_recitals(world, config), *_sums(world, config)]
    examples += _chains(world, config)
    world.rng("mixture").shuffle(examples)
    yield from examples


def validation_examples(world: World, config: MixtureConfig) -> Iterator[Example]:
    """Unseen documents and sums in the languages' shares, for the curve of the loss."""
    for index, language in enumerate(_languages(world, config.num_probes, "validation")):
        yield _document(world, config, index=index, language=language, split="val")
        yield _sum(world, Sums(config.sums), split="val", index=index, language=language)


def probes(world: World, config: MixtureConfig) -> Iterator[Example]:
    """What the finished model is asked: `num_probes` questions for each setting, the same ones in every language."""
    for level in Exposure:
        for index, fact in enumerate(world.facts_told(level)[: config.num_probes]):
            for code in world.config.languages:
                yield _asked(world, fact, language=code, dial=level.value, identifier=f"fact-{level}-{index}-{code}")
    yield from _document_probes(world, config)
    for steps in range(config.sums.min_steps, config.sums.max_steps + 1):
        sums = Sums(_of_steps(config.sums, steps))
        for index in range(config.num_probes):
            for code in world.config.languages:
                yield _sum(world, sums, split="test", index=index, language=code)
    first = world.config.languages[0]
    for chain in chain_questions(world, config.chains)[Split.test]:
        if chain.form is Form.linear:
            spoken = world.languages[first]
            yield Example(
                f"{chain.identifier}-{first}",
                "chain",
                first,
                spoken.phrase(chain.answer_phrase),
                spoken.render(chain.clause(world.config.training_wordings[0])),
                dial=str(chain.num_hops),
            )


def _document_probes(world: World, config: MixtureConfig) -> Iterator[Example]:
    for count in range(1, config.max_document_facts + 1):
        shape = DocumentConfig(truth=Truth.fictional, num_documents=1, distractor_share=0.0, facts_per_document=count)
        for index in range(config.num_probes):
            for code in world.config.languages:
                case = make_case(
                    world,
                    shape,
                    index=count * 10_000 + index,
                    language=code,
                    wording=world.config.training_wordings[0],
                )
                spoken = world.languages[code]
                yield Example(
                    f"document-{count}-{index}-{code}",
                    "document",
                    code,
                    spoken.phrase(NounPhrase(case.answer)),
                    spoken.render(case.question),
                    case.documents[0].text,
                    str(count),
                )


def _of_steps(config: SumsConfig, steps: int) -> SumsConfig:
    return SumsConfig(**{**vars(config), "min_steps": steps, "max_steps": steps})


def _languages(world: World, count: int, purpose: str) -> list[str]:
    shares = apportion(count, world.config.language_shares)
    codes = [code for code, share in zip(world.config.languages, shares, strict=True) for _ in range(share)]
    world.rng("languages", purpose).shuffle(codes)
    return codes


def _told(world: World) -> Iterator[Example]:
    for index, told in enumerate(exposures(world)):
        spoken = world.languages[told.language]
        text = spoken.render(told.clause)
        dial = "contradiction" if told.is_contradiction else world.exposure(told.fact).value
        if told.answer is None:
            yield Example(f"told-{index}", "statement", told.language, text, dial=dial)
        else:
            yield Example(f"told-{index}", "fact", told.language, spoken.phrase(told.answer), text, dial=dial)


def _asked(world: World, fact: Fact, *, language: str, dial: str, identifier: str) -> Example:
    spoken = world.languages[language]
    asked = spoken.render(question(fact, world.config.training_wordings[0]))
    return Example(identifier, "fact", language, spoken.phrase(NounPhrase(fact.object)), asked, dial=dial)


def _fictional_facts(world: World, count: int, rng: random.Random) -> list[Fact]:
    """Facts about names of nothing, no two of one subject and relation."""
    facts: dict[tuple[str, str], Fact] = {}
    relations = list(RELATIONS)
    while len(facts) < count:
        relation = rng.choice(relations)
        kinds: tuple[Kind, Kind] = RELATIONS[relation]
        subject, value = (rng.choice(world.fictional[kind]) for kind in kinds)
        if subject != value:
            facts.setdefault((subject, relation), Fact(subject, relation, value))
    return list(facts.values())


def _documents(world: World, config: MixtureConfig) -> Iterator[Example]:
    # A short document about few names comes up twice by chance: those that the model is asked later are drawn again.
    asked = {(probe.context, probe.question) for probe in _document_probes(world, config)}
    for index, language in enumerate(_languages(world, config.num_documents, "documents")):
        attempts = (
            _document(world, config, index=index, language=language, split="train", attempt=attempt)
            for attempt in itertools.count()
        )
        yield next(document for document in attempts if (document.context, document.question) not in asked)


def _document(
    world: World, config: MixtureConfig, *, index: int, language: str, split: str, attempt: int = 0
) -> Example:
    rng = world.rng("document", split, index, *([attempt] if attempt else []))
    facts = _fictional_facts(world, rng.randint(1, config.max_document_facts), rng)
    spoken = world.languages[language]
    told = spoken.join(spoken.render(statement(fact, rng.choice(tuple(StatementWording)))) for fact in facts)
    asked = rng.choice(facts)
    wording = rng.choice(world.config.training_wordings)
    return Example(
        f"document-{split}-{index}",
        "document",
        language,
        spoken.phrase(NounPhrase(asked.object)),
        spoken.render(question(asked, wording)),
        told,
        str(len(facts)),
    )


def _recitals(world: World, config: MixtureConfig) -> Iterator[Example]:
    for index, language in enumerate(_languages(world, config.num_recitals, "recitals")):
        rng = world.rng("recital", index)
        facts = _fictional_facts(world, rng.randint(1, config.max_document_facts), rng)
        spoken = world.languages[language]
        text = spoken.join(spoken.render(statement(fact, rng.choice(tuple(StatementWording)))) for fact in facts)
        yield Example(f"recital-{index}", "recital", language, text, context=text)


def _sums(world: World, config: MixtureConfig) -> Iterator[Example]:
    sums = Sums(config.sums)
    for index, language in enumerate(_languages(world, config.num_sums, "sums")):
        yield _sum(world, sums, split="train", index=index, language=language)


def _sum(world: World, sums: Sums, *, split: str, index: int, language: str) -> Example:
    item = sums.item(split, index)
    asked, steps = render(item, world.languages[language])
    identifier = f"sum-{item.difficulty}-{item.id}-{language}"
    return Example(identifier, "sum", language, steps, asked, dial=str(item.difficulty))


def _chains(world: World, config: MixtureConfig) -> Iterator[Example]:
    chains = [chain for chain in chain_questions(world, config.chains)[Split.train] if chain.form is Form.linear]
    accepted = world.config.training_wordings
    wordings = [wording for wording in accepted if wording is not QuestionWording.serves] or accepted
    codes = _languages(world, len(chains) * config.chain_repeats, "chains")
    for index, language in enumerate(codes):
        chain = chains[index % len(chains)]
        spoken = world.languages[language]
        asked = spoken.render(chain.clause(wordings[index // len(chains) % len(wordings)]))
        yield Example(
            f"chain-{index}", "chain", language, spoken.phrase(chain.answer_phrase), asked, dial=str(chain.num_hops)
        )
