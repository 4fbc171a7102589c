"""Citations in every form that models write them, at the sentences that they belong to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athlos.errors import ConfigError, DataError
from athlos.text.citations import (
    BY_LANGUAGE,
    CitedAnswer,
    Mode,
    Splitter,
    read_citations,
    renumbered,
    splitter_named,
    with_citations,
    without_citations,
)

AT_FULL_STOPS = Splitter("full stops", lambda text, language: [part.strip() + "." for part in text.split(".")[:-1]])


def pairs(answer: CitedAnswer) -> list[tuple[str, tuple[int, ...]]]:
    return [(sentence.text, sentence.cited) for sentence in answer.sentences]


@pytest.mark.parametrize(
    ("answer", "expected", "counted"),
    [
        ("Rome is old [1]. It is big [2][3].", [("Rome is old.", (1,)), ("It is big.", (2, 3))], {}),
        ("Both [1, 3].", [("Both.", (1, 3))], {"normalised": 1}),
        ("Three [1-3].", [("Three.", (1, 2, 3))], {"normalised": 1}),
        ("Mixed [1, 3–4].", [("Mixed.", (1, 3, 4))], {"normalised": 1, "none": 0}),
        ("Wide 【２】.", [("Wide.", (2,))], {"normalised": 1}),
        ("Wide ［1］ and ［2］.", [("Wide and.", (1, 2))], {"normalised": 2}),
        ("In 2010, 2011 and 2012 [12].", [("In 2010, 2011 and 2012.", (12,))], {"out_of_range": 1}),
        ("Years [1998-2005].", [("Years.", (1998, 2005))], {"normalised": 1, "out_of_range": 2}),
        ("Down [3-1].", [("Down.", (3, 1))], {"normalised": 1}),
        ("None [0].", [("None.", (0,))], {"out_of_range": 1}),
        ("After. [1] Next [2].", [("After.", (1,)), ("Next.", (2,))], {"orphan": 1}),
        ("After.[1][2] Next.", [("After.", (1, 2)), ("Next.", ())], {"orphan": 2, "none": 1}),
        ("Last. [3]", [("Last.", (3,))], {"orphan": 1}),
        ("In 632 A.D. [1][2]. Then.", [("In 632 A.D.", (1, 2)), ("Then.", ())], {"orphan": 2, "none": 1}),
        ("[2] says so.", [("says so.", (2,))], {}),
        ("Twice [1][1].", [("Twice.", (1,))], {}),
        ("Many [1][2][3][4].", [("Many.", (1, 2, 3, 4))], {"over3": 1}),
        ("Cut off [1", [("Cut off", (1,))], {}),
        ("- one [1]\n- two [2]", [("- one", (1,)), ("- two", (2,))], {}),
        ("城很大。[1]然后【2】。", [("城很大。", (1,)), ("然后。", (2,))], {"orphan": 1, "normalised": 1}),
        ("ก่อนอื่นบวกกัน [1]", [("ก่อนอื่นบวกกัน", (1,))], {}),
        ("", [], {}),
        ("[1] [2]", [], {}),
    ],
)
def test_strict_reading(answer: str, expected: list[tuple[str, tuple[int, ...]]], counted: dict[str, int]) -> None:
    read = read_citations(answer, num_documents=5)
    assert pairs(read) == expected
    nothing = {"normalised": 0, "orphan": 0, "out_of_range": 0, "over3": 0, "none": 0}
    assert read.counts == nothing | counted


@pytest.mark.parametrize(
    ("answer", "expected", "counted"),
    [
        ("Rome [1]. Big [2][3].", [("Rome.", (1,)), ("Big.", (2, 3))], {}),
        ("Both [1, 3].", [("Both, 3.", (1,))], {}),
        ("Last [0].", [("Last.", (5,))], {}),
        ("Beyond [6].", [("Beyond.", (6,))], {"out_of_range": 1}),
        ("Twice [1][1].", [("Twice.", (1, 1))], {}),
        ("Item [1] | [2].", [("Item.", (1, 2))], {}),
        ("After. [1] next.", [("After.", ()), ("next.", (1,))], {"orphan": 1, "none": 1}),
        ("First [1].\nSecond [2].", [("First.", (1,))], {}),
        ("[2] At the front.", [("At the front.", (2,))], {}),
    ],
)
def test_parity_reads_as_alces_program(answer, expected, counted) -> None:
    read = read_citations(answer, num_documents=5, mode=Mode.parity, splitter=AT_FULL_STOPS)
    assert pairs(read) == expected
    assert read.counts == {"normalised": 0, "orphan": 0, "out_of_range": 0, "over3": 0, "none": 0} | counted


def test_hostile_numbers_are_read_and_no_document() -> None:
    for text in (f"x [{'9' * 5000}].", "x [1-1000000000].", f"x [{'1,' * 3000}1]."):
        for mode in Mode:
            assert len(read_citations(text, num_documents=5, mode=mode).sentences) == 1
    assert read_citations(f"x [{'9' * 5000}].", num_documents=5).counts["out_of_range"] == 1
    assert len(read_citations("x [1-900].", num_documents=1000).sentences[0].cited) == 2


@pytest.mark.parametrize(
    ("sentence", "numbers", "expected"),
    [
        ("Rome is old.", (2, 1), "Rome is old [1][2]."),
        ('He said "yes." ', (3,), 'He said "yes [3]." '),
        ("Really ?", (1,), "Really [1] ?"),
        ("城很大。", (1,), "城很大 [1]。"),
        ("No mark", (10, 9), "No mark [9][10]"),
        ("One. Two.", (1, 1), "One. Two [1]."),
        ("Nothing.", (), "Nothing."),
    ],
)
def test_citations_stand_before_the_final_mark(sentence: str, numbers: tuple[int, ...], expected: str) -> None:
    assert with_citations(sentence, numbers) == expected
    assert without_citations(expected) == sentence


def test_a_document_is_numbered_from_one_on() -> None:
    with pytest.raises(DataError, match="got 0, expected the number of a document"):
        with_citations("x.", (0, 1))


@given(st.text(alphabet="ab 。é", max_size=20), st.sets(st.integers(1, 5), min_size=1))
def test_what_was_written_is_read(words: str, numbers: set[int]) -> None:
    sentence = f"x{words.replace('。', '')}."
    [read] = read_citations(with_citations(sentence, numbers), num_documents=5).sentences
    assert (read.text, read.cited) == (sentence, tuple(sorted(numbers)))


def test_renumbering_writes_all_forms_out_and_misses_nothing() -> None:
    assert renumbered("a [1-2], b 【2】. c [10].", {1: 3, 2: 1, 10: 2}) == "a [3][1], b [1]. c [2]."
    assert renumbered("nothing.", {}) == "nothing."
    with pytest.raises(DataError, match=r"got \[2\], expected one of 1, 3"):
        renumbered("a [1]. b [2].", {1: 1, 3: 2})


@given(st.permutations(range(1, 6)), st.lists(st.sets(st.integers(1, 5), max_size=3), min_size=1, max_size=4))
def test_renumbering_there_and_back(order: list[int], cited: list[set[int]]) -> None:
    answer = " ".join(with_citations("Some fact.", numbers) for numbers in cited)
    there = dict(enumerate(order, start=1))
    moved = renumbered(answer, there)
    assert renumbered(moved, {new: old for old, new in there.items()}) == answer
    read = read_citations(moved, num_documents=5)
    assert [set(sentence.cited) for sentence in read.sentences] == [{there[n] for n in numbers} for numbers in cited]


def test_items_of_a_list_are_read_behind_their_question() -> None:
    listed = splitter_named("commas", question="Which books?")
    for mode in Mode:
        read = read_citations("Marazan [1], Round the Bend [2],.", num_documents=3, mode=mode, splitter=listed)
        assert pairs(read) == [("Which books? Marazan", (1,)), ("Which books? Round the Bend", (2,))]
    assert splitter_named("sentences") is BY_LANGUAGE


def test_punkt_knows_abbreviations() -> None:
    pytest.importorskip("punkt")
    punkt = splitter_named("punkt")
    assert punkt.name.startswith("punkt-english-")
    text = "It began in 632 A.D. [1][2]. Dr. Smith [2] went. After.[3] Last."
    read = read_citations(text, num_documents=5, mode=Mode.parity, splitter=punkt)
    assert [sentence.cited for sentence in read.sentences] == [(1, 2), (2,), (), (3,)]
    assert read.counts["orphan"] == 1
    strict = read_citations(text, num_documents=5, splitter=punkt)
    assert [sentence.cited for sentence in strict.sentences] == [(1, 2), (2,), (3,), ()]


def test_punkt_that_is_not_installed_is_said_in_one_line(monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="got punkt, which needs a package: pip install"):
        splitter_named("punkt")
