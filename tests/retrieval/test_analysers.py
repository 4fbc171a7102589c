"""Words by language: scripts with and without spaces, marks, and languages that nobody knows."""

import pytest

from athlos.errors import ConfigError
from athlos.retrieval.analysers import analyser


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("en", "It's 3rd_of 1.5 Über!", ["it", "s", "3rd_of", "1", "5", "über"]),
        ("hi", "हिन्दी में लिखा", ["हिन्दी", "में", "लिखा"]),
        ("ar", "كَتَبَ، ثم", ["كَتَبَ", "ثم"]),
        ("zh", "北京大学。iPhone 12", ["北京", "京大", "大学", "iphone", "12"]),
        ("zh_Hans", "我", ["我"]),
        ("ja", "東京タワー", ["東京", "京タ", "タワ", "ワー"]),
        ("th", "น้ำดี", ["น้", "้ำ", "ำด", "ดี"]),
        ("en", "", []),
        ("zh", "、。", []),
    ],
)
def test_words_of_a_language(language, text, words):
    assert analyser(language)(text) == words


def test_an_unknown_language_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"language: got 'thaii', .* did you mean 'thai'\? accepted: .*zh"):
        analyser("thaii")
    with pytest.raises(ConfigError, match=r"language: got 'xx', .*; accepted: "):
        analyser("xx")
