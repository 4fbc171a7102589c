"""The generator that answers by rule: replies by purpose, in the forms that pipelines read."""

import pytest

from athlos.config.compose import run_config
from athlos.data.datamodule import build_source
from athlos.errors import ConfigError
from athlos.generation.pipeline import Ask
from athlos.generation.symbolic import SymbolicReader
from athlos.retrieval.interface import Passage
from athlos.text.replies import numbered

LAB = ["data=lab_chains", "generator=symbolic", "eval=qa", "prompt_style=bare", "data.chains.num_test=[1,1,0]"]


@pytest.fixture(scope="module")
def reader() -> SymbolicReader:
    return SymbolicReader(run_config(LAB).generator)


@pytest.fixture(scope="module")
def record():
    return next(iter(build_source(run_config(LAB)).records("test")))


def ask(purpose: str, record, **fields) -> Ask:
    given = {"question": record.question, "language": record.language, **fields}
    return Ask(purpose=purpose, prompt="", max_new_tokens=1, **given)


def shown(record, *, is_supporting: bool = True) -> tuple[Passage, ...]:
    return tuple(
        Passage(identifier=passage.identifier, text=passage.text, score=0.0)
        for passage in record.passages
        if passage.is_supporting is is_supporting
    )


def test_it_reads_one_fact_and_knows_nothing(reader, record):
    step = record.steps[0]
    assert reader.reply(ask("closed", record)) == "unknown"
    assert reader.reply(ask("read", record, question=step.question, passages=shown(record))) == step.answer
    others = shown(record, is_supporting=False)
    assert reader.reply(ask("read", record, question=step.question, passages=others)) == "unknown"
    assert reader.reply(ask("read", record, passages=shown(record))) == "unknown"
    assert reader.reply(ask("read", record, question="What?", passages=shown(record))) == "unknown"


def test_it_splits_and_translates(reader, record):
    assert reader.reply(ask("decompose", record)) == numbered([step.question for step in record.steps])
    translated = reader.reply(ask("translate", record, language="thai"))
    assert reader.reply(ask("translate", record, question=translated)) == record.question


def test_it_asks_what_to_ask_next_until_it_has_the_answer(reader, record):
    answers = [step.answer for step in record.steps]
    said: list[str] = []
    for step in record.steps:
        question = step.question.replace(f"#{len(said)}", said[-1]) if said else step.question
        assert reader.reply(ask("follow_up", record, said=tuple(said))) == f"Next question: {question}"
        said.append(step.answer)
    assert reader.reply(ask("follow_up", record, said=tuple(answers))) == f"Final answer: {record.answers[0]}"
    assert reader.reply(ask("follow_up", record, said=("unknown",))) == "Final answer: unknown"


def test_it_thinks_in_sentences_of_the_passages(reader, record):
    told: list[str] = []
    while not (reply := reader.reply(ask("think", record, passages=shown(record), said=tuple(told)))).startswith("Fi"):
        told.append(reply)
        assert len(told) < 9
    assert reply == f"Final answer: {record.answers[0]}"
    assert len(told) == len(record.steps)
    assert reader.reply(ask("think", record)) == "Final answer: unknown"


def test_an_unknown_purpose_and_a_use_without_pipeline_are_told(reader, record):
    with pytest.raises(ConfigError, match="no reply for the purpose 'reed'; did you mean 'read'"):
        reader.reply(ask("reed", record))
    with pytest.raises(ConfigError, match="one that answers by rule serves pipelines only"):
        reader.generate([], rule=None)


def test_data_without_a_world_are_refused():
    with pytest.raises(ConfigError, match=r"^generator\.world: .*data\.world"):
        run_config([*LAB[1:-1], "data=squad"])
