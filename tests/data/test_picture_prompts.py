"""Letters read from answers in six scripts, and the form of prompts."""

import pytest

from athlos.data.picture_prompts import IMAGE_TOKEN, asked, listed, read_letter, templates, to_translate, what_is_in_it
from athlos.errors import ConfigError

ANSWERS = [
    ("A", "A"),
    ("B.", "B"),
    ("(C)", "C"),
    ("D: a cat", "D"),
    ("The answer is B", "B"),
    ("Answer: C", "C"),
    ("Ｂ", "B"),
    ("（Ｃ）", "C"),
    ("答案是B。", "B"),
    ("答え：D", "D"),
    ("В", "B"),
    ("Ответ: С", "C"),
    ("Это А.", "A"),
    ("Η απάντηση: Β", "B"),
    ("उत्तर: A।", "A"),
    ("คำตอบ: C", "C"),
    ("A cat on a mat", None),
    ("B or C", None),
    ("", None),
    ("banana", None),
    ("E", None),
    ("I think D", "D"),
]


@pytest.mark.parametrize(("text", "letter"), ANSWERS)
def test_the_letter_of_an_answer(text: str, letter: str | None):
    assert read_letter(text, num_options=4) == letter


def test_a_letter_past_the_options_is_none():
    assert read_letter("C", num_options=2) is None
    assert read_letter("C", num_options=3) == "C"


def test_prompts_name_the_picture_once_and_list_the_options():
    assert asked("What?", ["x", "y"]) == f"{IMAGE_TOKEN} What?\nA: x\nB: y\n"
    assert asked("What?") == f"{IMAGE_TOKEN} What?\n"
    prompt = to_translate("Was?", ["x"], instruction="Translate:", has_picture=True)
    assert prompt == f"{IMAGE_TOKEN} Was?{listed(['x'])}\nTranslate:\n"
    assert IMAGE_TOKEN not in to_translate("Was?", [], instruction="Translate:", has_picture=False)


def test_every_template_is_a_text_of_its_own_and_unknown_languages_are_named():
    questions = templates()["question"]
    assert len(set(questions.values())) == len(questions) == 14
    with pytest.raises(ConfigError, match="got 'xx', no question is written in it"):
        what_is_in_it("xx")
