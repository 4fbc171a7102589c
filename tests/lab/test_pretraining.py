"""What a lab base model reads and is asked: every promise is checked by parsing the text back."""

import re
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from tests.lab import fresh_process

from athlos.errors import DataError
from athlos.lab.chains import ChainConfig
from athlos.lab.entailment import Judge, Verdict
from athlos.lab.facts import (
    Claim,
    Fact,
    QuestionWording,
    StatementWording,
    asked_of,
    facts_of,
    question,
    statement,
)
from athlos.lab.grammar import Clause
from athlos.lab.pretraining import Example, MixtureConfig, probes, training_examples, validation_examples, words
from athlos.lab.sums import SumsConfig
from athlos.lab.world import Exposure, World, WorldConfig, apportion
from athlos.models.tokenizers import word_tokenizer

WORLD = WorldConfig(
    num_persons=60,
    num_cities=30,
    num_states=6,
    num_companies=20,
    num_streams=8,
    num_coins=8,
    num_wares=8,
    num_fictional=10,
    num_none=40,
    num_rare=40,
    num_frequent=40,
    rare_exposures=3,
    frequent_exposures=13,
    background_exposures=11,
    contradiction_share=0.5,
    contradiction_exposures=2,
    question_share=0.6,
)
MIXTURE = MixtureConfig(
    num_documents=3001,
    num_recitals=203,
    num_sums=1003,
    chain_repeats=3,
    num_probes=20,
    sums=SumsConfig(max_start=9),
    chains=ChainConfig(
        num_train=[30, 10, 3],
        num_dev=[0, 0, 0],
        num_test=[8, 4, 2],
        num_train_comparisons=0,
        num_dev_comparisons=0,
        num_test_comparisons=0,
    ),
)
TIMES = {
    Exposure.none: 0,
    Exposure.rare: WORLD.rare_exposures,
    Exposure.frequent: WORLD.frequent_exposures,
    Exposure.background: WORLD.background_exposures,
}
DIGEST = f"""
import hashlib, sys
from dataclasses import replace
sys.path.insert(0, {str(fresh_process.SOURCE.parent)!r})
from tests.lab.test_pretraining import MIXTURE, WORLD, World, probes, training_examples, validation_examples
small = replace(MIXTURE, num_documents=50, num_sums=50)
world = World(WORLD)
made = [list(make(world, small)) for make in (training_examples, validation_examples, probes)]
print(hashlib.sha256(repr(made).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def world() -> World:
    return World(WORLD)


@pytest.fixture(scope="module")
def training(world: World) -> list[Example]:
    return list(training_examples(world, MIXTURE))


@pytest.fixture(scope="module")
def validation(world: World) -> list[Example]:
    return list(validation_examples(world, MIXTURE))


@pytest.fixture(scope="module")
def asked(world: World) -> list[Example]:
    return list(probes(world, MIXTURE))


def of_kind(examples: list[Example], *kinds: str) -> list[Example]:
    found = [example for example in examples if example.kind in kinds]
    assert found
    return found


def clauses(world: World, text: str, language: str) -> list[Clause]:
    spoken = world.languages[language]
    return [spoken.parse(sentence) for sentence in spoken.sentences(text)]


def claimed(world: World, example: Example) -> Claim:
    """What the question and the answer of an example claim together."""
    spoken = world.languages[example.language]
    subject, relations = asked_of(spoken.parse(example.question))
    return Claim(subject, relations, spoken.parse_phrase(example.answer).head)


def prompt(example: Example) -> tuple[str, str]:
    return example.context, example.question


def told_fact(world: World, example: Example) -> Fact:
    """The one fact of an exposure, from its text alone."""
    if example.kind == "fact":
        claim = claimed(world, example)
        [relation] = claim.relations
        return Fact(claim.subject, relation, claim.object)
    [clause] = clauses(world, example.answer, example.language)
    [fact] = facts_of(clause)
    return fact


def stated(world: World, example: Example) -> set[Fact]:
    """Every one-step fact that any text of an example states, and each step of what a question with answer claims."""
    found: set[Fact] = set()
    for text in (example.context, example.question, example.answer):
        for sentence in world.languages[example.language].sentences(text):
            try:
                found |= set(facts_of(world.languages[example.language].parse(sentence)))
            except DataError:  # a short answer or a step of a sum: no sentence
                assert example.kind in ("fact", "document", "sum", "chain")
    if example.kind in ("fact", "document", "chain"):
        claim = claimed(world, example)
        ends = [claim.subject]
        for relation in claim.relations[:-1]:
            end = world.follow(ends[-1], [relation])
            assert end is not None
            ends.append(end)
        ends.append(claim.object)
        found |= {
            Fact(subject, relation, value)
            for subject, relation, value in zip(ends, claim.relations, ends[1:], strict=False)
        }
    return found


def test_each_fact_is_told_exactly_as_often_as_its_exposure_says(world, training):
    told: Counter[Fact] = Counter()
    asks: Counter[Fact] = Counter()
    for example in of_kind(training, "fact", "statement"):
        fact = told_fact(world, example)
        told[fact] += 1
        asks[fact] += example.kind == "fact"
        assert example.dial == ("contradiction" if fact in world.contradictions.values() else world.exposure(fact))
    expected = {fact: TIMES[world.exposure(fact)] for fact in world.facts}
    expected |= dict.fromkeys(world.contradictions.values(), WORLD.contradiction_exposures)
    assert told == Counter(expected)
    shares = [1 - WORLD.question_share, WORLD.question_share]
    assert asks == Counter({fact: apportion(times, shares)[1] for fact, times in expected.items()})
    assert len(world.contradictions) == 20


def test_no_text_of_any_kind_tells_what_is_never_told(world, training, validation):
    never = set(world.facts_told(Exposure.none)) | set(world.derived)
    assert len(world.facts_told(Exposure.none)) == 40
    by_kind: dict[str, set[Fact]] = defaultdict(set)
    for example in training + validation:
        by_kind[example.kind] |= stated(world, example)
    for kind, facts in by_kind.items():
        assert not facts & never, kind
    assert not by_kind["sum"]
    assert by_kind["chain"] <= set(world.facts_told(Exposure.background))
    made_up = {entity for names in world.fictional.values() for entity in names}
    for kind in ("document", "recital"):
        assert by_kind[kind]
        assert {end for fact in by_kind[kind] for end in (fact.subject, fact.object)} <= made_up


def test_held_out_wordings_never_occur_in_training(world, training, validation):
    seen: dict[str, set[QuestionWording]] = defaultdict(set)
    for example in of_kind(training + validation, "fact", "document", "chain"):
        clause = world.languages[example.language].parse(example.question)
        subject, relations = asked_of(clause)
        claim = Claim(subject, relations, "")
        [wording] = [one for one in QuestionWording if question(claim, one) == clause]
        seen[example.kind].add(wording)
    assert seen == {kind: set(WORLD.training_wordings) for kind in ("fact", "document", "chain")}


def test_no_probe_of_a_sum_or_chain_was_trained_on(training, validation, asked):
    for kind in ("sum", "chain"):
        trained = {prompt(example) for example in of_kind(training, kind)}
        assert not trained & {prompt(example) for example in of_kind(asked, kind)}
    assert not {prompt(example) for example in validation} & {prompt(example) for example in training}


def test_no_probe_of_a_document_was_trained_on(training, asked):
    trained = {prompt(example) for example in of_kind(training, "document")}
    seen = [example.identifier for example in of_kind(asked, "document") if prompt(example) in trained]
    assert seen == []


def test_a_chain_probe_shares_no_joint_with_training(world, training, asked):
    def joints(examples: list[Example]) -> set[tuple[str, str, str]]:
        found = set()
        for example in of_kind(examples, "chain"):
            claim = claimed(world, example)
            assert world.is_true(claim)
            assert example.dial == str(len(claim.relations))
            for index in range(len(claim.relations) - 1):
                start = world.follow(claim.subject, claim.relations[:index])
                assert start is not None
                found.add((start, *claim.relations[index : index + 2]))
        return found

    assert joints(training)
    assert not joints(training) & joints(asked)


@pytest.mark.parametrize("kind", ["document", "recital", "sum", "chain"])
def test_languages_have_their_shares_of_each_kind(world, training, kind):
    found = Counter(example.language for example in of_kind(training, kind))
    shares = apportion(found.total(), WORLD.language_shares)
    assert found == Counter(dict(zip(WORLD.languages, shares, strict=True)))


@pytest.mark.parametrize("dial", ["rare", "frequent", "background", "contradiction"])
def test_languages_have_their_shares_of_each_exposure(training, dial):
    told = [example for example in of_kind(training, "fact", "statement") if example.dial == dial]
    found = Counter(example.language for example in told)
    shares = apportion(len(told), WORLD.language_shares)
    assert found == Counter(dict(zip(WORLD.languages, shares, strict=True)))


def test_amounts_are_those_of_the_config(training, asked):
    amounts = Counter(example.kind for example in training)
    assert (amounts["document"], amounts["recital"], amounts["sum"]) == (3001, 203, 1003)
    assert amounts["chain"] == 3 * (30 + 10 + 3)
    num_languages = len(WORLD.languages)
    expected = {("fact", level.value): 20 * num_languages for level in Exposure}
    expected |= {(kind, str(dial)): 20 * num_languages for kind in ("document", "sum") for dial in range(1, 5)}
    expected |= {("chain", "2"): 8, ("chain", "3"): 4, ("chain", "4"): 2}
    assert Counter((example.kind, example.dial) for example in asked) == Counter(expected)


def test_documents_state_their_answers(world, training, validation, asked):
    judge = Judge(world.languages)
    some = [*of_kind(training, "document")[:400], *of_kind(validation, "document"), *of_kind(asked, "document")]
    for example in some:
        told = clauses(world, example.context, example.language)
        assert example.dial == str(len(told))
        claim = claimed(world, example)
        answered = statement(claim, StatementWording.noun)
        assert judge.verdict(told, answered) is Verdict.supported
        values = {
            fact.object
            for clause in told
            for fact in facts_of(clause)
            if (fact.subject, (fact.relation,)) == (claim.subject, claim.relations)
        }
        assert values == {claim.object}


def test_recitals_repeat_their_context(training):
    assert all(example.answer == example.context and not example.question for example in of_kind(training, "recital"))


def test_the_steps_of_sums_are_right_and_lead_to_the_answer(training, validation, asked):
    for example in of_kind(training + validation + asked, "sum"):
        steps = re.findall(r"([0-9]+) ([-+]) ([0-9]+) = ([0-9]+)", example.answer)
        assert len(steps) == int(example.dial)
        operands = [int(number) for number in re.findall("[0-9]+", example.question)]
        assert [int(steps[0][0]), *(int(right) for _, _, right, _ in steps)] == operands
        total = operands[0]
        for left, sign, right, result in steps:
            assert int(left) == total
            total = total + int(right) if sign == "+" else total - int(right)
            assert int(result) == total
        assert int(re.findall("[0-9]+", example.answer)[-1]) == total


def test_probes_of_facts_are_true_and_the_same_in_every_language(world, asked):
    meant: dict[str, set[Claim]] = defaultdict(set)
    for example in of_kind(asked, "fact"):
        claim = claimed(world, example)
        fact = Fact(claim.subject, *claim.relations, claim.object)
        assert world.exposure(fact) == example.dial
        meant[example.identifier.rpartition("-")[0]].add(claim)
    assert {len(claims) for claims in meant.values()} == {1}
    assert len(meant) == 20 * len(Exposure)


def test_every_text_is_of_its_language(world, training, validation, asked):
    for example in training + validation + asked:
        text = " ".join((example.context, example.question, example.answer))
        assert world.languages.identify(text) == example.language


def test_identifiers_are_unique(training, validation, asked):
    for examples in (training, validation, asked):
        assert len({example.identifier for example in examples}) == len(examples)


def test_the_word_list_covers_all_texts(world, training, validation, asked):
    tokenizer = word_tokenizer(words(world, MIXTURE))
    num_special_and_bytes = 3 + 256
    texts = {text for example in training + validation + asked for text in (example.answer, joined(example))}
    for ids, text in zip(tokenizer(sorted(texts)).input_ids, sorted(texts), strict=True):
        assert not any(one < num_special_and_bytes for one in ids), text
        assert tokenizer.decode(ids) == text


def joined(example: Example) -> str:
    gap = "" if example.language == "hani" else " "
    return gap.join(part for part in (example.context, example.question, example.answer) if part)


def test_the_same_config_gives_the_same_text_in_every_process():
    first, second = fresh_process.printed(DIGEST)
    assert first == second
    assert len(first.strip()) == 64


def test_the_seed_and_the_amounts_change_the_text(world, training):
    other = list(training_examples(World(replace(WORLD, seed=1)), MIXTURE))
    assert len(other) == len(training)
    assert len({joined(one) for one in other} & {joined(one) for one in training}) < len(training) / 100
    longer = list(training_examples(world, replace(MIXTURE, num_sums=1010)))
    assert set(of_kind(longer, "document", "fact", "chain")) == set(of_kind(training, "document", "fact", "chain"))


@pytest.mark.parametrize("kept", list(QuestionWording))
def test_any_one_wording_is_enough(kept):
    """Held-out wordings may be all but one."""
    config = replace(WORLD, held_out_wordings=[one for one in QuestionWording if one is not kept])
    examples = list(training_examples(World(config), replace(MIXTURE, num_documents=20, num_recitals=5, num_sums=5)))
    assert len(of_kind(examples, "chain")) == 3 * (30 + 10 + 3)
