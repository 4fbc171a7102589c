import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.text import reference

from athlos.errors import ConfigError
from athlos.text.normalisation import NORMALISERS, default_normaliser, normalise


@pytest.mark.parametrize(
    ("normaliser", "language", "text", "expected"),
    [
        ("squad", "en", "The Beatles!", "beatles"),
        ("squad", "en", "An apple,  a day\tkeeps", "apple day keeps"),
        ("squad", "en", "a.b.", "ab"),  # punctuation goes before articles: no article is left
        ("squad", "en", "theatre banana", "theatre banana"),
        ("squad", "de", "Der Hund", "der hund"),  # English articles for every language
        ("mkqa", "de", "Der Hund und die Katze.", "hund und katze"),
        ("mkqa", "en", "the Answer -- without, a stop", "answer without stop"),
        ("mkqa", "zh_cn", "北京 市", "北 京 市"),
        ("mkqa", "zh", "北京。", "北 京 。"),  # the fault: only ASCII punctuation
        ("mkqa_unicode", "zh", "北京。", "北 京"),
        ("mkqa_unicode", "zh-CN", "「ＡＢ」１２", "a b 1 2"),
        ("mkqa", "fr", "lancer", "ncer"),  # the fault: no closing boundary
        ("mkqa_unicode", "fr", "lancer la balle", "lancer balle"),
        ("mkqa", "it", "ilaria", "aria"),
        ("mkqa_unicode", "it", "Ilaria è la prima", "ilaria è prima"),
        ("mkqa", "ar", "بالمال", "ب م"),  # the fault: article letters anywhere
        ("mkqa_unicode", "ar", "التفاحة", "تفاحة"),
        ("mkqa_unicode", "ar", "بالمال", "بالمال"),
        ("mkqa_unicode", "ar", "ال، نعم", "ال نعم"),
        ("mkqa_unicode", "hi", "नमस्ते।", "नमस्ते"),
        ("mkqa_unicode", "th", "กรุงเทพ\u0e5a", " ".join("กรุงเทพ")),  # the sign that ends a text
        ("mkqa_unicode", "en", "“The” ﬁnal — answer…", "final answer"),
        ("mkqa_unicode", "nb", "en bil", "bil"),  # Bokmaal is Norwegian
        ("mkqa_unicode", "vi", "Những cái tên", "tên"),
        ("mkqa_unicode", "vi", "Nhu\u031b\u0303ng te\u0302n", "tên"),  # decomposed letters are composed first
        ("mkqa_unicode", "ar", "\u0661\u0669\u0669\u0669", "1999"),
        ("mkqa_unicode", "hi", "१९९९", "1999"),
        ("mkqa_unicode", "ar", "\u200f1999", "1999"),
        ("mkqa_unicode", "fa", "می\u200cخواهم", "میخواهم"),
        ("mkqa_unicode", "de", "Wort\u00adteil", "wortteil"),
        ("mkqa_unicode", "lt", "Ė", "ė"),  # a dot that belongs to the letter stays
        ("mkqa", "ar", "\u0661", "\u0661"),
        ("clue", "en", "New York, City!", "newyorkcity"),
        ("clue", "en", "the  A\n", "thea"),
        ("squad", "en", "", ""),
    ],
)
def test_each_normaliser_on_its_definition(normaliser, language, text, expected):
    assert normalise(text, normaliser=normaliser, language=language) == expected


def test_thai_and_khmer_are_split_in_characters_and_korean_is_not():
    assert normalise("ตอบ", normaliser="mkqa", language="th") == "ต อ บ"
    assert normalise("서울 시", normaliser="mkqa", language="ko") == "서울 시"


@given(st.text(alphabet=string.ascii_letters + string.punctuation + " \n\tàß京"))
def test_squad_equals_its_twin(text):
    assert normalise(text, normaliser="squad", language="en") == reference.squad(text)


@given(st.text(), st.sampled_from(sorted(NORMALISERS)), st.sampled_from(["en", "zh", "fr", "ar", "th", "ru"]))
def test_no_normaliser_leaves_space_at_the_ends_or_double(text, normaliser, language):
    result = normalise(text, normaliser=normaliser, language=language)
    assert result == " ".join(result.split())


@pytest.mark.parametrize(
    ("language", "text", "other"),
    [
        ("tr", "amerikan işaret dili", "Amerikan İşaret Dili"),
        ("tr", "ışık", "IŞIK"),
        ("el", "ΟΔΟΣ", "οδος"),
        ("de", "STRASSE", "Straße"),
    ],
)
def test_case_tells_no_answers_apart(language, text, other):
    first, second = (normalise(one, normaliser="mkqa_unicode", language=language) for one in (text, other))
    assert first == second


def test_the_default_is_the_unicode_one_outside_english():
    assert default_normaliser("en-US") == "squad"
    assert default_normaliser("sw") == "mkqa_unicode"


def test_an_unknown_normaliser_names_the_accepted_ones():
    with pytest.raises(ConfigError, match=r"'sqad'; did you mean 'squad'\? Accepted: squad, mkqa"):
        normalise("x", normaliser="sqad", language="en")
