import time

import pytest
from tests.text.sentences_by_language import SENTENCES

from athlos.text.consistency import MAX_FOREIGN_SHARE, language_consistent, prose
from athlos.text.language import detector

ENGLISH = "She bakes four of them for her friends every single day. Each of them costs two dollars at the market."


@pytest.fixture(scope="module")
def py3langid():
    return detector("py3langid", sorted(SENTENCES))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a $x + y$ b", "a b"),
        ("a $$x$$ b", "a b"),
        (r"a \(x\) b \[y\] c", "a b c"),
        ("from $5 a day to $7 a day", "from $5 a day to $7 a day"),  # dollars are no maths
        (r"costs \$5 and \$6", r"costs \$5 and \$6"),
        ("a `code here` b ```python\nprint()\n``` c", "a b c"),
        ("a ```cut off code", "a"),
        ("hello {name} and %(count)d of %s <b>bold</b> {{x}}", "hello and of bold"),
        ("5% of people", "5% of people"),
        (r"so \boxed{\text{seventy two}} it is", "so it is"),
        ("see https://example.org/a/b now", "see now"),
    ],
)
def test_prose_is_what_belongs_to_a_language(text, kept):
    assert " ".join(prose(text).split()) == kept


def test_fifteen_letters_pass_and_sixteen_are_judged(py3langid):
    assert language_consistent("thecatsandthedo", "zh", py3langid)
    assert not language_consistent("thecatsandthedog", "zh", py3langid)


def test_text_of_maths_alone_passes(py3langid):
    assert language_consistent(r"$x = \text{some long english words here}$ \[ a + b \] 72", "th", py3langid)


def test_the_target_and_only_the_target_passes(py3langid):
    for language, text in SENTENCES.items():
        assert language_consistent(text, language, py3langid)
        assert not language_consistent(text, "de" if language != "de" else "en", py3langid)
    assert language_consistent(SENTENCES["zh"], "zh-cn", py3langid)


def test_thought_and_answer_are_checked_apart(py3langid):
    german, english = SENTENCES["de"], SENTENCES["en"]
    assert language_consistent(f"<think>{german}</think>{german}", "de", py3langid)
    assert language_consistent(f"{german}</think>{german}", "de", py3langid)  # the opening tag stood in the prompt
    assert not language_consistent(f"<think>{english}</think>{german}{german}{german}", "de", py3langid)
    assert not language_consistent(f"<think>{german}{german}{german}</think>{english}", "de", py3langid)
    assert language_consistent(f"<think>{german}</think>72", "de", py3langid)
    assert not language_consistent(f"<think>{german}", "de", py3langid)  # never closed
    assert not language_consistent(f"<think>{german}</think>{german}</think>{german}", "de", py3langid)


def test_empty_text_passes_for_it_is_too_short_to_judge(py3langid):
    assert language_consistent("", "de", py3langid)


@pytest.mark.parametrize("language", sorted({*SENTENCES} - {"en"}))
def test_an_answer_half_in_english_is_in_neither_language(py3langid, language):
    own = f"{SENTENCES[language]}. {SENTENCES[language]}."
    assert language_consistent(own, language, py3langid)
    for mixed in (f"{own} {ENGLISH}", f"{ENGLISH} {own}"):
        assert not language_consistent(mixed, language, py3langid)
    assert not language_consistent(f"{own} {ENGLISH}", "en", py3langid)


def test_a_quoted_sentence_is_a_share_that_passes(py3langid):
    german = f"{SENTENCES['de']}. "
    letters = [sum(map(str.isalpha, text)) for text in (SENTENCES["en"], german)]
    for num_german, passes in ((2, False), (4, True)):
        assert (letters[0] / (letters[0] + num_german * letters[1]) <= MAX_FOREIGN_SHARE) == passes
        text = f"{german * num_german}{SENTENCES['en']}."
        assert language_consistent(text, "de", py3langid) == passes


def test_a_neighbour_of_the_language_asked_for_is_another_language():
    found = detector("py3langid", ["es", "ru"])
    assert not language_consistent("Сьогодні вранці вона пішла на ринок і купила дітям три яблука", "ru", found)
    assert not language_consistent(SENTENCES["pt"], "es", found)


def test_one_short_foreign_sentence_is_not_enough(py3langid):
    foreign = "She bought seven apples."
    assert py3langid.detect(foreign) == "en"
    assert language_consistent(f"Sie hat fünf Äpfel. {foreign} Das sind zwölf.", "de", py3langid)
    assert not language_consistent(f"Sie hat fünf Äpfel. {foreign * 2} Das sind zwölf Äpfel.", "de", py3langid)


@pytest.mark.shared
@pytest.mark.parametrize("language", ["bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh"])
def test_the_questions_of_mgsm_are_in_their_language(shared_data, py3langid, language):
    lines = (shared_data / "mgsm" / f"mgsm_{language}.tsv").read_text(encoding="utf-8").splitlines()
    questions = [line.split("\t")[0] for line in lines]
    assert len(questions) == 250
    assert sum(language_consistent(question, language, py3langid) for question in questions) >= 246


@pytest.mark.parametrize("opening", ["\\[", "\\(", "%(", "$$", "```", "{", "\\boxed{", "<a"])
def test_what_is_no_prose_is_found_in_time_proportional_to_the_text(opening):
    start = time.perf_counter()
    prose(opening * 50_000)
    assert time.perf_counter() - start < 5


def test_a_formula_ends_at_its_own_mark():
    assert prose(r"a \[ b \] c \( d \) e").split() == ["a", "c", "e"]
    assert prose(r"a \[ b \[ c \] d").split() == ["a", r"\[", "b", "d"]
