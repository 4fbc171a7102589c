"""Sentences of many scripts; pieces always join to the text, and no cut falls inside a formula."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athlos.text.sentences import LATEX, sentences


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Eins. Zwei! Drei? Vier", "de", ["Eins. ", "Zwei! ", "Drei? ", "Vier"]),
        ("It is 3.5 m. Then 1,000.", "en", ["It is 3.5 m. ", "Then 1,000."]),
        ("首先相加。然后除以二！对吗？", "zh", ["首先相加。", "然后除以二！", "对吗？"]),
        ("まず足す。次に割る。", "ja", ["まず足す。", "次に割る。"]),
        ("먼저 더한다. 그 다음 나눈다.", "ko", ["먼저 더한다. ", "그 다음 나눈다."]),
        ("أولا نجمع. هل هذا صحيح؟ نعم۔", "ar", ["أولا نجمع. ", "هل هذا صحيح؟ ", "نعم۔"]),
        ("প্রথমে যোগ করি। তারপর ভাগ করি।", "bn", ["প্রথমে যোগ করি। ", "তারপর ভাগ করি।"]),
        ("መጀመሪያ። ከዚያ።", "am", ["መጀመሪያ። ", "ከዚያ።"]),
        ("Πόσα; Δέκα.", "el", ["Πόσα; ", "Δέκα."]),
        ("a; b. c", "en", ["a; b. ", "c"]),
        ('He said "yes." Then left.', "en", ['He said "yes." ', "Then left."]),
        ("Sum $x. y$ here. End.", "en", ["Sum $x. y$ here. ", "End."]),
        ("So \\boxed{a. b} it is. Yes.", "en", ["So \\boxed{a. b} it is. ", "Yes."]),
    ],
)
def test_sentences_by_script(text: str, language: str, expected: list[str]) -> None:
    found = sentences(text, language)
    assert found.pieces == expected
    assert found.kind == "sentences"


def test_a_text_without_marks_is_cut_by_lines_and_a_line_into_parts() -> None:
    thai = "ก่อนอื่นบวกกัน\nจากนั้นหารสอง\nได้ห้า"
    assert sentences(thai, "th").kind == "lines"
    assert sentences(thai, "th").pieces == ["ก่อนอื่นบวกกัน\n", "จากนั้นหารสอง\n", "ได้ห้า"]
    line = "ก่อนอื่นเอาจำนวนทั้งสองมาบวกกันแล้วหารด้วยสองจะได้ผลลัพธ์"
    found = sentences(line, "th")
    assert found.kind == "parts"
    assert len(found.pieces) == 8
    assert "".join(found.pieces) == line
    words = sentences("eins zwei drei vier fünf sechs sieben acht neun zehn", "de")
    assert words.kind == "parts"
    assert all(piece.endswith(" ") for piece in words.pieces[:-1])


@given(
    st.text(alphabet="ab .!?;\n$\\{}[]()ก้。।؟", max_size=60),
    st.sampled_from(["de", "zh", "th", "el"]),
)
def test_pieces_join_to_the_text_and_formulas_stay_whole(text: str, language: str) -> None:
    units = sentences(text, language)
    if text.strip():
        assert "".join(units.pieces) == text
    inside = [match.span() for match in LATEX.finditer(text)]
    place = 0
    for piece in units.pieces[:-1]:
        place += len(piece)
        assert not any(start < place < end for start, end in inside)


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_empty_texts_have_no_pieces(text: str) -> None:
    assert "".join(sentences(text, "en").pieces).strip() == ""
