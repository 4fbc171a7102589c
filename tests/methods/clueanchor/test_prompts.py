"""The five prompts and the replies: how they are read, what they share, and what no test prompt may hold."""

from dataclasses import replace

import pytest
from tests.methods.clueanchor.scripted import question

from athlos.data.records import InstructionRecord
from athlos.errors import ConfigError, DataError
from athlos.methods.clueanchor.prompts import LAYOUTS, SAW_GOLD, layout_of, parse, thought, written
from athlos.text.matching import clue_acc
from athlos.text.prompts import build_prompt, completion, read_answer


@pytest.mark.parametrize(
    ("text", "think", "answer", "is_formatted"),
    [
        ("<think> a b </think> <answer> c </answer>", "a b", "c", True),
        ("a b </think><answer>c</answer>", "a b", "c", True),
        ("<think> a </think> c", "a", "c", False),
        ("<think> a </think> <answer> c", "a", "c", False),
        ("<think> a <answer> c </answer>", "", "c", False),
        ("<think> a </think> <answer>c</answer> <answer>d</answer>", "a", "c", True),
        ("<think> a </think> <answer>c\nd</answer>", "a", "c\nd", True),
        ("<think> <answer>x</answer> a </think> <answer>c</answer>", "<answer>x</answer> a", "c", True),
        ("<think>   </think> <answer> c </answer>", "", "c", False),
        ("<think> a </think> b </think> <answer> c </answer>", "a", "c", True),
        ("c", "", "c", False),
        ("", "", "", False),
    ],
)
def test_replies_are_read_into_thought_and_answer(text, think, answer, is_formatted):
    reply = parse(text)
    assert (reply.think, reply.answer, reply.is_formatted) == (think, answer, is_formatted)


def test_a_forced_thought_ends_at_the_first_tag_that_the_model_writes():
    assert thought(" a b </think> <answer> c") == "a b"
    assert thought(" a b <answer> c </think>") == "a b"
    assert thought(" a b ") == "a b"


def test_a_written_reply_is_read_back():
    reply = parse(written("a b", "c"))
    assert (reply.think, reply.answer, reply.is_formatted) == ("a b", "c", True)


def test_clue_acc_is_a_substring_without_case_space_and_punctuation():
    assert clue_acc("The Eiffel-Tower, Paris", "eiffel tower") == 1
    assert clue_acc("Lyon", "Paris") == 0
    assert clue_acc("California, or maybe Nevada", "Nevada") == 1
    assert clue_acc("another", "no") == 1


@pytest.mark.parametrize("style", LAYOUTS)
def test_paths_differ_in_passages_and_clue_alone(style):
    record, layout = question(), layout_of(style)
    internal, external = layout.internal(record), layout.external(record)
    anchored = layout.clue(record, "Ada liked tea, and more.")
    for passage in record.passages:
        assert passage.text in external
        assert passage.text in anchored
        assert passage.text not in internal
    assert "Ada liked tea, and more." in anchored
    assert all(record.question in prompt for prompt in (internal, external, anchored))
    assert "Rome" in layout.extract(record, "Rome").replace("Ada was born in Rome.", "")
    assert "Rome" not in layout.extract(record, "").replace("Ada was born in Rome.", "")
    assert all(passage.text not in layout.verify(record, "CLUE") for passage in record.passages)


def test_the_prompts_of_a_question_share_its_passages_up_to_the_clue():
    record, layout = question(), layout_of("clueanchor")
    shared = layout.external(record).partition("Answer the question")[0]
    assert shared.count("\n") == 5
    assert layout.clue(record, "CLUE").startswith(shared)
    assert layout.extract(record, "Rome").startswith(shared)


@pytest.mark.parametrize("style", LAYOUTS)
def test_what_has_seen_the_gold_answer_makes_no_prompt_of_a_test(style):
    record = replace(question(), meta={SAW_GOLD: True})
    with pytest.raises(DataError, match="record 'q0' has text that has seen the gold answer"):
        build_prompt(record, shots=(), style=style)
    with pytest.raises(DataError, match="seen the gold answer"):
        layout_of(style).external(record)
    assert build_prompt(question(), shots=(), style=style) == layout_of(style).external(question())


def test_the_styles_read_answers_and_leave_lessons_as_they_are_written():
    assert read_answer(written("because", " Rome "), question(), style="clueanchor") == "Rome"
    lesson = InstructionRecord(identifier="l", prompt="p", completion=" c")
    assert build_prompt(lesson, shots=(), style="clueanchor_bare") == "p"
    assert completion(lesson, "clueanchor_bare") == " c"


def test_another_style_has_no_layouts():
    with pytest.raises(ConfigError, match="prompt_style: got 'bare', expected one of clueanchor, clueanchor_bare"):
        layout_of("bare")
