"""Premises in windows of sentences."""

import pytest

from athlos.judging.interface import Pair
from athlos.judging.windows import best_of_windows, windows

TEXT = "One two three. Four five six. Seven eight. Nine ten eleven twelve."


@pytest.mark.parametrize(
    ("num_words", "expected"),
    [
        (0, [TEXT]),
        (12, [TEXT]),
        (6, ["One two three. Four five six.", "Four five six. Seven eight.", "Seven eight. Nine ten eleven twelve."]),
        (1, ["One two three.", "Four five six.", "Seven eight.", "Nine ten eleven twelve."]),
    ],
)
def test_windows_are_whole_sentences_and_begin_at_the_middle_of_the_one_before(num_words, expected):
    assert windows(TEXT, num_words=num_words) == expected


def test_the_next_window_begins_where_half_of_the_words_are_passed():
    assert windows("a. b. c. d. e. f. g. h.", num_words=6) == ["a. b. c. d. e. f.", "d. e. f. g. h."]


def test_every_sentence_is_in_a_window_and_no_window_is_too_long():
    text = " ".join(f"Word {number} is here." for number in range(40))
    found = windows(text, num_words=20)
    assert all(len(window.split()) <= 20 for window in found)
    assert all(any(f"Word {number} " in window for window in found) for number in range(40))
    assert len(found) < 20


def test_texts_without_spaces_have_windows_as_well():
    text = "今天下雨了。天气很冷。我们在家。"
    assert windows(text, num_words=6) == ["今天下雨了。", "天气很冷。我们在家。"]
    assert windows("", num_words=5) == [""]


def test_the_best_window_counts_and_each_is_scored_once():
    asked: list[Pair] = []

    def score(pairs):
        asked.extend(pairs)
        return [float(len(pair.premise)) + (pair.hypothesis == "b") for pair in pairs]

    pairs = [Pair(TEXT, "a"), Pair("short", "a"), Pair(TEXT, "b"), Pair("short", "a")]
    assert best_of_windows(pairs, num_words=6, score=score) == [36.0, 5.0, 37.0, 5.0]
    assert len(asked) == len(set(asked)) == 7
