"""The judges that compare letters and words."""

import pytest
from tests.judging.reference import overlap

from athlos.config.compose import run_config
from athlos.errors import ConfigError
from athlos.judging.config import CoverJudgeConfig, ExactJudgeConfig, NoJudgeConfig
from athlos.judging.interface import Pair
from athlos.judging.lexical import CoverJudge, ExactJudge, LexicalJudge, NoJudge

PREMISE = "In 1889 the engineer Eiffel built a tower in Paris. It is 300 m high. Nobody did not like it."


def lexical(name: str, *overrides: str) -> LexicalJudge:
    return LexicalJudge(run_config([f"judge={name}", *overrides]).judge)


def test_an_answer_is_right_if_it_equals_its_reference():
    judge = ExactJudge(ExactJudgeConfig())
    pairs = [
        ("athen", " Athen\n"),
        ("STRASSE", "Straße"),
        ("1", "12"),
        ("-3", "3"),
        ("", ""),
        ("new york", "New  York"),
    ]
    assert judge.scores([Pair(*pair) for pair in pairs]) == [1.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    assert judge.scores([]) == []


def test_what_stands_in_the_premise_in_whole_words_is_covered():
    judge = CoverJudge(CoverJudgeConfig())
    pairs = [
        ("It is  New\nYork.", "new york"),
        ("12 men", "2"),
        ("Paris", "It is Paris"),
        ("a (b) c", "(b)"),
        ("a", ""),
    ]
    assert judge.scores([Pair(*pair) for pair in pairs]) == [1.0, 0.0, 0.0, 1.0, 0.0]


def test_a_run_without_a_judge_says_what_to_choose():
    with pytest.raises(ConfigError, match="judge: got none, but this run judges answers; choose one"):
        NoJudge(NoJudgeConfig()).scores([Pair("a", "a")])


@pytest.mark.parametrize(
    ("hypothesis", "expected"),
    [
        ("Eiffel built the tower.", 1.0),
        ("Eiffel built a bridge.", 2 / 3),
        ("The tower, a TOWER of towers", 1 / 2),
        ("It is the.", 0.0),
        ("", 0.0),
    ],
)
def test_overlap_is_the_share_of_different_content_words(hypothesis, expected):
    judge = lexical("overlap")
    assert judge.scores([Pair(PREMISE, hypothesis)]) == [expected]
    assert expected == overlap(PREMISE, hypothesis, stop_words=judge.stop_words)


def test_the_premise_is_what_words_are_looked_for_in():
    assert lexical("overlap").scores([Pair("red", "red blue"), Pair("red blue", "red")]) == [0.5, 1.0]


def test_unspaced_scripts_are_compared_by_pairs_of_characters():
    assert lexical("overlap", "judge.language=zh").scores([Pair("北京是首都", "北京大学")]) == [1 / 3]


@pytest.mark.parametrize(
    ("hypothesis", "expected"),
    [
        ("The engineer Eiffel built a tower in 1889.", 1.0),
        ("The engineer Eiffel built a tower in 1890.", 0.0),
        ("The tower is 3 m high.", 0.0),
        ("In Rome the engineer built a tower.", 0.0),
        ("The engineer never built a tower.", 0.0),
        ("The engineer didn\u2019t build a tower.", 0.0),
        ("Tower engineer.", 1.0),
    ],
)
def test_a_strict_judge_wants_numbers_names_and_the_same_denial(hypothesis, expected):
    assert lexical("lexical").scores([Pair(PREMISE, hypothesis)]) == [expected]


def test_a_judge_is_named_by_all_that_its_scores_depend_on():
    ids = [
        lexical(name, *overrides).id
        for name, *overrides in (
            ("overlap",),
            ("lexical",),
            ("overlap", "judge.window_words=20"),
            ("overlap", "judge.language=de"),
        )
    ]
    assert len(set(ids)) == len(ids)
    assert lexical("overlap", "judge.threshold=.9", "judge.allow_same=true").id == ids[0]
