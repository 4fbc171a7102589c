"""The reader of the lab: one fact a question, from the passages given, in every language."""

import pytest

from athlos.data.sources.lab_chains import chain_record
from athlos.errors import DataError
from athlos.lab.chains import ChainConfig, Split, chain_questions
from athlos.lab.documents import passages
from athlos.lab.reader import LabReader
from athlos.lab.world import Exposure, World, WorldConfig


@pytest.fixture(scope="module")
def world() -> World:
    sizes = {"num_persons": 40, "num_cities": 20, "num_states": 6, "num_companies": 10, "num_streams": 6}
    more = {"num_coins": 6, "num_wares": 6, "num_none": 5, "num_rare": 5, "num_frequent": 5, "num_fictional": 8}
    return World(WorldConfig(**sizes, **more))


@pytest.fixture(scope="module")
def chains(world: World):
    config = ChainConfig(
        num_train=[0, 0, 0],
        num_dev=[0, 0, 0],
        num_test=[2, 2, 2],
        num_train_comparisons=0,
        num_dev_comparisons=0,
        num_test_comparisons=4,
    )
    return chain_questions(world, config)[Split.test]


@pytest.mark.parametrize("code", ["latn", "cyrl", "grek", "thai", "hani"])
def test_the_gold_plan_leads_to_the_gold_answer_and_the_whole_question_to_none(world, chains, code):
    reader = LabReader(world)
    documents = passages(world, world.facts_told(Exposure.background), language=code)
    for chain in chains:
        record = chain_record(world, chain, language=code, documents=documents)
        texts = [passage.text for passage in record.passages]
        assert reader.sub_questions(record.question) == [step.question for step in record.steps]
        assert reader.answer(record.question, texts, language=code) is None
        answers: list[str] = []
        for step in record.steps:
            question = step.question
            for number, answer in enumerate(answers, start=1):
                question = question.replace(f"#{number}", answer)
            supporting = [passage.text for passage in record.passages if passage.identifier == step.supporting]
            answers.append(reader.answer(question, supporting, language=code) or "")
            if step.supporting:
                others = [text for text in texts if text not in supporting]
                assert reader.answer(question, others, language=code) is None
        assert answers == [step.answer for step in record.steps]
        assert [answers[-1]] == record.answers


def test_a_chain_of_thought_tells_each_fact_once_and_ends_in_the_answer(world, chains):
    reader = LabReader(world)
    documents = passages(world, world.facts_told(Exposure.background), language="grek")
    for chain in chains:
        record = chain_record(world, chain, language="grek", documents=documents)
        texts, told = [passage.text for passage in record.passages], list[str]()
        for _ in chain.facts:
            step = reader.next_step(record.question, texts, told)
            assert step is not None
            assert step.answer == ""
            told.append(step.sentence)
        assert len(set(told)) == len(chain.facts)
        step = reader.next_step(record.question, [], told)  # what was told needs no passage
        assert step is not None
        assert (step.sentence, [step.answer]) == ("", record.answers)
        assert reader.next_step(record.question, [], told[:-1]) is None


def test_questions_sub_questions_and_answers_are_translated(world, chains):
    reader = LabReader(world)
    for chain in chains:
        source, target = (chain_record(world, chain, language=code) for code in ("thai", "latn"))
        assert reader.translation(source.question, language="latn") == target.question
        for left, right in zip(source.steps, target.steps, strict=True):
            assert reader.translation(left.question, language="latn") == right.question
            assert reader.translation(right.question, language="thai") == left.question


def test_an_answer_comes_in_the_language_that_is_asked_for(world, chains):
    reader = LabReader(world)
    documents = [document.text for document in passages(world, world.facts, language="latn")]
    first, there = (chain_record(world, chains[0], language=code).steps[0] for code in ("latn", "hani"))
    assert reader.answer(first.question, documents, language="hani") == there.answer
    assert reader.answer(there.question, documents, language="latn") == first.answer


@pytest.mark.parametrize("text", ["", "123", "What is it?", "\u0416\u0443 abc?"])
def test_other_texts_cannot_be_read(world, text):
    with pytest.raises(DataError):
        LabReader(world).answer(text, [], language="latn")
