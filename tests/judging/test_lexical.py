"""The judges that compare letters."""

import pytest

from athlos.errors import ConfigError
from athlos.judging.config import ExactJudgeConfig, NoJudgeConfig
from athlos.judging.lexical import ExactJudge, NoJudge


def test_an_answer_is_right_if_it_is_one_of_its_references():
    judge = ExactJudge(ExactJudgeConfig())
    answers = [" Athen\n", "Straße", "12", "", "Rom"]
    references = [["Athens", "athen"], ["STRASSE"], ["1", "2"], [""], []]
    assert judge.scores(answers, references) == [1.0, 1.0, 0.0, 1.0, 0.0]
    assert judge.scores([], []) == []
    with pytest.raises(ValueError, match="zip"):
        judge.scores(["a"], [])


def test_a_run_without_a_judge_says_what_to_choose():
    with pytest.raises(ConfigError, match="judge: got none, but this run judges answers; choose one"):
        NoJudge(NoJudgeConfig()).scores(["a"], [["a"]])
