"""How replies of models are read: lists of sub-questions, steps, short answers."""

import pytest

from athlos.text.replies import (
    UNKNOWN,
    filled,
    final_answer,
    next_question,
    numbered,
    read_numbered,
    references,
    short_answer,
)


def test_a_numbered_list_is_read_back_and_other_lines_are_passed_over():
    questions = ["Who founded Ulm?", "Where was #1 born?"]
    assert read_numbered(numbered(questions)) == questions
    assert read_numbered("Sure:\n 1) One? \n- Two?\n\n3: Three?\nThat is all.\n4.\n") == ["One?", "Two?", "Three?"]


def test_whole_numbers_are_filled_in():
    answers = [f"a{number}" for number in range(1, 13)]
    assert filled("#1 and #12 and #2", answers) == "a1 and a12 and a2"
    assert references("#1 and #12") == [1, 12]
    assert filled("of #1", ["#2"]) == "of #2"  # an answer is no pattern
    with pytest.raises(IndexError):
        filled("#3", ["a"])


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (" Rome.\nIt is old.", "Rome"),
        ('"Rome".', "Rome"),
        ("\u300cRome\u300d\u3002", "Rome"),
        ("**U.S.**", "U.S"),
        ("Unknown.", UNKNOWN),
        ("", UNKNOWN),
        (" . ", UNKNOWN),
        ("unknown river", "unknown river"),
    ],
)
def test_an_answer_is_the_first_line_without_quotes_and_full_stop(reply, answer):
    assert short_answer(reply) == answer


def test_steps_are_read_by_their_first_words():
    assert next_question("Next question: Who?\nIts answer: Ada") == "Who?"
    assert next_question("Next question:") is None
    assert next_question("Who?") is None
    assert final_answer("So. Final answer: Ada.") == "Ada"
    assert final_answer("Final answer:") == UNKNOWN
    assert final_answer("Ada") is None
