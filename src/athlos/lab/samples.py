"""A readable sample of the factual half of the lab world: kind, text, and what it says in English."""

from collections.abc import Iterator

from athlos.lab.chains import ChainConfig, Form, Split, chain_questions, node_clause, node_text
from athlos.lab.documents import DocumentConfig, Evidence, Truth, make_case
from athlos.lab.facts import QuestionWording, StatementWording, question, statement, yes_no_question
from athlos.lab.grammar import Clause, NounPhrase
from athlos.lab.lexicon import is_name
from athlos.lab.world import Exposure, World

GLOSS_LANGUAGE = "latn"


def gloss_phrase(world: World, phrase: NounPhrase) -> str:
    """A phrase in English words, names in Latin letters where the world has them, as `@17` elsewhere."""
    words = [*phrase.adjectives, phrase.head]
    if is_name(phrase.head) and GLOSS_LANGUAGE in world.languages:
        words[-1] = world.languages[GLOSS_LANGUAGE].phrase(NounPhrase(phrase.head))
    if phrase.count is not None:
        words.insert(0, str(phrase.count))
    if phrase.owner is not None:
        words += ["of", gloss_phrase(world, phrase.owner)]
    if phrase.and_also is not None:
        words += ["and", gloss_phrase(world, phrase.and_also)]
    return " ".join(words)


def gloss(world: World, clause: Clause) -> str:
    """A clause in English words: `capital of country of Kaba is Mero`."""
    words = [gloss_phrase(world, clause.subject), *(["not"] if clause.is_negated else []), clause.verb]
    if clause.object is not None:
        words.append(gloss_phrase(world, clause.object))
    for adposition, phrase in clause.adjuncts:
        words += [adposition, gloss_phrase(world, phrase)]
    return " ".join(words) + ("?" if clause.is_question else "")


def sample_lines(world: World, language: str) -> Iterator[tuple[str, str, str]]:
    """(kind, text, gloss): a fact in all wordings, chains with their sub-questions, a case of each kind of evidence."""
    spoken = world.languages[language]

    def line(kind: str, clause: Clause, text: str | None = None) -> tuple[str, str, str]:
        return kind, text or spoken.render(clause), gloss(world, clause)

    for level in Exposure:
        for fact in world.facts_told(level)[:1]:
            yield line(f"fact, told: {level}", statement(fact, StatementWording.noun))
    fact = world.facts[0]
    for stated in StatementWording:
        yield line(f"statement, {stated}", statement(fact, stated))
    for asked in QuestionWording:
        held_out = ", held out" if asked in world.config.held_out_wordings else ""
        yield line(f"question, {asked}{held_out}", question(fact, asked))
    answer = NounPhrase(fact.object)
    yield "answer", spoken.phrase(answer), gloss_phrase(world, answer)
    yield line("question, yes or no", yes_no_question(fact, StatementWording.noun))
    yield from _chain_lines(world, language)
    for evidence in Evidence:
        for truth in Truth if evidence is Evidence.direct else (Truth.world,):
            case = make_case(
                world, DocumentConfig(evidence=evidence, truth=truth, num_documents=2), index=0, language=language
            )
            label = f"{evidence} evidence, {truth}"
            yield line(f"{label}: question", case.question)
            for index, document in enumerate(case.documents):
                role = "document" if index in case.gold else "distractor"
                yield f"{label}: {role}", document.text, "; ".join(gloss(world, clause) for clause in document.clauses)
            phrase = NounPhrase(case.answer)
            yield f"{label}: answer", spoken.phrase(phrase), gloss_phrase(world, phrase)


def _chain_lines(world: World, language: str) -> Iterator[tuple[str, str, str]]:
    spoken = world.languages[language]
    config = ChainConfig(
        num_train=[0, 0, 0],
        num_dev=[0, 0, 0],
        num_test=[1, 1, 1],
        num_train_comparisons=0,
        num_dev_comparisons=0,
        num_test_comparisons=2,
    )
    for chain in chain_questions(world, config)[Split.test]:
        label = f"chain of {chain.num_hops}" if chain.form is Form.linear else "comparison"
        yield label, spoken.render(chain.clause()), gloss(world, chain.clause())
        for node in chain.nodes():
            names = [f"#{argument}" if isinstance(argument, int) else argument for argument in node.arguments]
            text = node_text(world, node, language)
            yield f"{label}: step {node.number}", text, gloss(world, node_clause(node, names))
        yield f"{label}: answer", spoken.phrase(chain.answer_phrase), gloss_phrase(world, chain.answer_phrase)
