"""Shared words: values by hand, bounds, and equality with rouge_score where that is installed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tolerances import EXACT

from athlos.text.overlap import distinct, extractiveness, harmonic, rouge_1, rouge_l


def test_rouge_l_by_hand() -> None:
    found = rouge_l("cat sat on mat", "cat on big mat today", language="en")
    assert found == pytest.approx((3 / 4, 3 / 5, 2 / 3), abs=EXACT)
    assert rouge_l("mat cat", "cat mat", language="en").recall == 1 / 2  # the order counts
    assert rouge_1("mat cat", "cat mat", language="en").recall == 1
    assert rouge_1("cat cat", "cat mat", language="en") == pytest.approx((1 / 2, 1 / 2, 1 / 2), abs=EXACT)
    assert rouge_l("", "cat", language="en") == (0, 0, 0)
    assert all(map(math.isnan, rouge_l("cat", "", language="en")))
    assert rouge_l("城很大", "城大", language="zh").recall == 1


def test_copied_pieces_do_not_run_from_one_document_into_the_next() -> None:
    documents = ["one two three four five", "six seven"]
    assert extractiveness("one two three four five six", documents, language="en") == 2 / 3
    assert extractiveness("five six seven eight", documents, language="en") == 0
    assert math.isnan(extractiveness("one two", documents, language="en"))
    assert extractiveness("one two", documents, language="en", n=2) == 1


def test_repetition() -> None:
    assert distinct("x y x y", language="en", n=2) == 2 / 3
    assert math.isnan(distinct("x", language="en", n=2))


def test_harmonic_mean() -> None:
    assert (harmonic(0, 0), harmonic(1, 1)) == (0, 1)
    assert harmonic(1, 0.5) == pytest.approx(2 / 3, abs=EXACT)


TEXTS = st.lists(st.sampled_from(["red", "green", "blue", "sea"]), min_size=1, max_size=9).map(" ".join)


@given(TEXTS, TEXTS)
def test_plain_loops_and_bounds(answer: str, reference: str) -> None:
    one, two = answer.split(), reference.split()
    longest = [[0] * (len(two) + 1) for _ in range(len(one) + 1)]
    for i, left in enumerate(one):
        for j, right in enumerate(two):
            longest[i + 1][j + 1] = longest[i][j] + 1 if left == right else max(longest[i][j + 1], longest[i + 1][j])
    found = rouge_l(answer, reference, language="en")
    assert found.recall == longest[-1][-1] / len(two)
    assert found.precision == longest[-1][-1] / len(one)
    assert found.recall <= rouge_1(answer, reference, language="en").recall <= 1


@given(TEXTS, TEXTS)
def test_equal_to_rouge_score(answer: str, reference: str) -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rouge1", "rougeL"])
    wanted = scorer.score(reference, answer)
    assert rouge_l(answer, reference, language="en").f1 == pytest.approx(wanted["rougeL"].fmeasure, abs=EXACT)
    assert rouge_1(answer, reference, language="en").recall == pytest.approx(wanted["rouge1"].recall, abs=EXACT)
