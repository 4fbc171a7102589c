import sys

import pytest
from benchmarks.language_id import NTREX
from tests.text.sentences_by_language import SENTENCES

from athlos.config.schema import LANGUAGE_DETECTORS
from athlos.errors import ConfigError
from athlos.text.language import CANDIDATES, base_language, detector

MEASURED = {"py3langid": (0.9984, 0.993), "lingua": (0.9900, 0.970)}
"""Share right on the sentences of NTREX, over all and of the worst language, as measured; the tests allow a half point
less."""
SLACK = 0.005


@pytest.mark.parametrize("name", [pytest.param("lingua", marks=pytest.mark.slow), "py3langid"])
def test_the_libraries_name_the_language_of_a_sentence(name):
    pytest.importorskip(name)
    found = detector(name, sorted(SENTENCES))
    assert {language: found.detect(text) for language, text in SENTENCES.items()} == {key: key for key in SENTENCES}


def test_a_text_without_letters_or_in_an_unknown_script_is_in_no_language():
    py3langid = detector("py3langid", ["de"])
    assert py3langid.detect("12 + 3 = 15 !?") is None
    assert py3langid.detect("") is None
    assert py3langid.detect("ꙮꙮꙮ") is None


def test_neighbours_and_foreign_languages_are_told_from_a_runs_own():
    found = detector("py3langid", ["es", "ru", "sw"])
    assert found.detect("Сьогодні вранці вона пішла на ринок і купила дітям три яблука") == "uk"
    assert found.detect(SENTENCES["pt"]) == "pt"
    assert found.detect(SENTENCES["hi"]) == "hi"


def test_ids_name_version_languages_and_candidates():
    found = detector("py3langid", ["ms", "en"])
    assert detector("py3langid", ["en", "ms"]) is found
    assert found.id.startswith("py3langid-")
    assert found.id.endswith(":en+ms/" + "+".join(sorted({"ms", *CANDIDATES})))
    assert detector("py3langid", ["en"]).id != found.id


def test_a_short_text_is_in_a_language_of_the_run_unless_another_is_much_likelier():
    short = "Она уже добавила 5 чашек муки."
    assert detector("py3langid", ["ru"]).detect(short) == "ru"
    assert detector("py3langid", ["en"]).detect(short) == "sr"


def test_unknown_languages_are_one_clear_error():
    with pytest.raises(ConfigError, match="language_detector: 'py3langid' does not know mi, tlh"):
        detector("py3langid", ["en", "mi", "tlh"])
    with pytest.raises(ConfigError, match="language_detector: 'lab' does not know en"):
        detector("lab", ["en"])


def test_the_names_of_the_config_are_those_of_the_detectors():
    for name in LANGUAGE_DETECTORS:
        languages = ["latn"] if name == "lab" else ["en"]
        assert detector(name, languages).id.startswith(f"{name}-")


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "lingua", None)
    with pytest.raises(ConfigError, match=r"athlos\[language-id\].*'py3langid'"):
        detector("lingua", ["en", "mi"])  # a set of languages no other test has built


def test_regions_and_scripts_do_not_matter():
    assert [base_language(code) for code in ("zh-CN", "zh_Hans", "pt_BR", "nb", "NN", "de")] == [
        "zh",
        "zh",
        "pt",
        "no",
        "no",
        "de",
    ]


@pytest.mark.shared
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "lingua" else ()) for name in sorted(MEASURED)]
)
def test_detectors_on_real_news_stay_at_their_measured_level(shared_data, name):
    pytest.importorskip(name)
    found = detector(name, sorted(NTREX))
    shares = {}
    for language, part in NTREX.items():
        lines = (shared_data / "ntrex" / f"newstest2019-{part}.txt").read_text(encoding="utf-8").splitlines()[::5]
        shares[language] = sum(found.detect(line) == language for line in lines) / len(lines)
    overall, worst = MEASURED[name]
    assert sum(shares.values()) / len(shares) >= overall - SLACK
    assert min(shares.values()) >= worst - SLACK, min(shares, key=lambda language: shares[language])
