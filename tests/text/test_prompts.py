"""Prompt styles: what stands in a prompt, what answers it, where an answer ends, and where examples come from."""

import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from athlos.data.records import (
    CaptionRecord,
    LongAnswerRecord,
    MathRecord,
    ParallelRecord,
    Passage,
    QuestionRecord,
    Record,
    TextRecord,
)
from athlos.errors import ConfigError
from athlos.text.consistency import language_consistent
from athlos.text.language import detector
from athlos.text.maths import answers_equal, extract_answer
from athlos.text.prompt_styles import PROMPT_STYLES, gold_answers, language_name
from athlos.text.prompts import (
    build_prompt,
    built_in_shots,
    completion,
    drawn_shots,
    prompt_hash,
    read_answer,
    split_shots,
    stop_strings,
    styles,
)

MGSM_LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")


def problem(language="en", **values):
    fields = {"identifier": "p", "question": "Two and three?", "answer": "5", "solution": "2 + 3 = 5."}
    return MathRecord(language=language, **{**fields, **values})


def pair(source="Hello", target="Hallo", **values):
    return ParallelRecord(
        **{
            "identifier": source,
            "language": "de",
            "source_language": "en",
            "source": source,
            "target": target,
            **values,
        }
    )


def question(**values):
    fields = {"identifier": "q", "question": "Where is it?", "answers": ["in Paris", "Paris"]}
    return QuestionRecord(**{**fields, **values})


EXAMPLES = {
    MathRecord: problem(),
    ParallelRecord: pair(),
    QuestionRecord: question(passages=[Passage(title="T", text="It is in Paris.")]),
    TextRecord: TextRecord(identifier="t", text="Once upon a time.\n"),
}
ALL_STYLES = [(record, style) for kind, record in EXAMPLES.items() for style in styles(kind)]


@pytest.mark.parametrize(("record", "style"), ALL_STYLES)
def test_prompt_and_completion_read_like_one_more_example(record, style):
    if isinstance(record, TextRecord):
        assert build_prompt(record, shots=(), style=style) + completion(record, style) == record.text
        return
    one = build_prompt(record, shots=(), style=style)
    shown = build_prompt(record, shots=[record], style=style)
    assert shown == one + completion(record, style) + "\n\n" + one
    assert not one.endswith(" ")  # a space belongs to the first token of the answer


@pytest.mark.parametrize(("record", "style"), ALL_STYLES)
def test_no_completion_holds_its_own_stop(record, style):
    assert not any(stop in completion(record, style) for stop in stop_strings(record, style))


@pytest.mark.parametrize(("record", "style"), ALL_STYLES)
def test_a_model_that_goes_on_with_another_example_is_read_right(record, style):
    if isinstance(record, TextRecord):
        return
    said = completion(record, style) + "\n\n" + build_prompt(record, shots=(), style=style)
    expected = completion(record, style).strip()
    if style.startswith("clueanchor"):  # the answer is what stands in its tags
        expected = expected.partition("<answer>")[2].partition("</answer>")[0].strip()
    assert read_answer(said, record, style=style) == expected


def test_math_prompt_in_full():
    assert build_prompt(problem(), shots=[problem(question="One?", answer="1", solution="")], style="default") == (
        "Question: One?\nStep-by-Step Answer: The answer is 1.\n\nQuestion: Two and three?\nStep-by-Step Answer:"
    )
    assert completion(problem(), "default") == " 2 + 3 = 5. The answer is 5."
    assert completion(problem(), "direct") == " 5"


def test_wide_colons_take_no_space():
    assert build_prompt(problem("zh"), shots=(), style="native_cot") == "问题：Two and three?\n逐步解答："
    assert completion(problem("zh", solution=""), "native_cot") == "答案是 5。"


def test_english_steps_keep_the_question():
    prompt = build_prompt(problem("th", question="ถามว่า"), shots=(), style="english_cot")
    assert prompt == "Question: ถามว่า\nStep-by-Step Answer:"
    [shot] = built_in_shots(MathRecord, "english_cot", language="th", num_shots=1)
    assert shot.question == built_in_shots(MathRecord, "native_cot", language="th", num_shots=1)[0].question
    assert shot.solution == built_in_shots(MathRecord, "native_cot", language="en", num_shots=1)[0].solution


@pytest.mark.parametrize("language", MGSM_LANGUAGES)
def test_worked_problems_are_right_and_in_their_language(language):
    judge = detector("py3langid", MGSM_LANGUAGES)
    shots = built_in_shots(MathRecord, "native_cot", language=language, num_shots=3)
    assert [shot.answer for shot in shots] == ["19", "15", "33"]
    for shot in shots:
        text = completion(shot, "native_cot")
        assert answers_equal(extract_answer(text), shot.answer)
        assert answers_equal(extract_answer(shot.solution), shot.answer)
        assert language_consistent(text, language, judge)
        assert language_consistent(shot.question, language, judge)


@pytest.mark.parametrize("language", MGSM_LANGUAGES)
def test_worked_problems_have_the_numbers_of_the_english_ones(language):
    def numbers(text):
        return sorted(word for word in "".join(c if c in "0123456789" else " " for c in text).split())

    for shot, english in zip(
        built_in_shots(MathRecord, "native_cot", language=language, num_shots=3),
        built_in_shots(MathRecord, "native_cot", language="en", num_shots=3),
        strict=True,
    ):
        assert set(numbers(shot.question)) == set(numbers(english.question))
        assert set(numbers(shot.solution)) >= set(numbers(english.solution)) - set(numbers(english.question))


@pytest.mark.parametrize("language", MGSM_LANGUAGES)
def test_the_label_of_the_next_problem_ends_an_answer(language):
    record = problem(language)
    said = completion(record, "native_cot") + "\n" + build_prompt(record, shots=(), style="native_cot")
    assert read_answer(said, record, style="native_cot") == completion(record, "native_cot").strip()


def test_translation_prompt_in_full():
    prompt = build_prompt(pair("a\nb"), shots=[pair("One", "Eins\nzwei")], style="labelled")
    assert prompt == "English: One\nGerman: Eins\\nzwei\n\nEnglish: a\\nb\nGerman:"
    assert read_answer(" Eins\\nzwei\nEnglish: more", pair(), style="default") == "Eins\nzwei"


@pytest.mark.parametrize("style", ["labelled", "bare"])
@given(text=st.text(alphabet="\\n\nä"))
@example(text="C:\\neu")
@example(text="a\\\nb")
def test_a_segment_comes_back_as_it_was(style, text):
    record = pair(target=text)
    assert "\n" not in completion(record, style)
    assert read_answer(completion(record, style), record, style=style) == text.strip()


def test_latex_in_a_question_stays_as_it_is():
    assert r"$\nu \neq 1$" in build_prompt(question(question=r"$\nu \neq 1$?"), shots=(), style="closed_book")


GOLDS = [
    r"\frac{3}{4}",
    r"-\frac{3}{4}",
    "1/2",
    "2 1/2",
    "-3",
    "1,234",
    "0.5",
    r"\sqrt{2}",
    r"2\pi",
    "(1,2)",
    r"\{1, 2\}",
    r"1-\frac{1}{\mathrm{e}}",
    "12_{(5)}",
    "6或8",
    r"\boxed{5}",
    "50%",
    r"50\%",
    "72 apples",
    "7 km/h",
    "x=5",
    "7万",
    "Monday",
    r"\begin{pmatrix}1\\2\end{pmatrix}",
    r"\text{(B)}",
    "١٢",
    "2^{10}",
    "1, 2",
]


def read_back(record):
    for style in styles(MathRecord):
        text = read_answer(completion(record, style), record, style=style)
        assert answers_equal(extract_answer(text), record.answer), (style, text)


@pytest.mark.parametrize("language", ["en", "ja", "th", "fi"])
@pytest.mark.parametrize("gold", GOLDS)
def test_every_style_states_an_answer_that_is_read_back(gold, language):
    if language == "fi":
        record = problem(language, answer=gold, solution="")
        text = read_answer(completion(record, "direct"), record, style="direct")
        assert answers_equal(extract_answer(text), gold)
        return
    read_back(problem(language, answer=gold, solution=""))
    solution = rf"A step: \boxed{{99}}, {gold}."
    text = completion(problem(language, answer=gold, solution=solution), "native_cot")
    assert answers_equal(extract_answer(text), gold)


@given(
    st.integers(-(10**6), 10**6), st.integers(1, 999), st.sampled_from([r"\frac{%d}{%d}", "%d/%d", "%d.%d", "(%d,%d)"])
)
def test_every_style_states_a_drawn_answer_that_is_read_back(first, second, form):
    read_back(problem(answer=form % (first, second), solution=""))


def test_a_number_is_stated_without_a_box():
    assert completion(problem(answer="-5", solution=""), "direct") == " -5"
    assert completion(problem(answer=r"\frac34", solution=""), "native_cot") == r" The answer is $\frac34$.".replace(
        "$", ""
    )
    assert completion(problem(answer=r"\pi", solution=""), "bare") == r" \boxed{\pi}"


@pytest.mark.shared
def test_every_gold_of_the_sources_is_read_back(shared_data):
    for path in sorted((shared_data / "mgsm").glob("*.tsv")):
        for line in path.read_text(encoding="utf-8").splitlines():
            read_back(problem(path.stem.rsplit("_", 1)[-1], answer=line.split("\t")[1], solution=""))


def test_language_names_by_code_region_and_script():
    assert [language_name(code) for code in ("de", "pt_BR", "pt-BR", "zh_Hans", "es_MX", "nb")] == [
        "German",
        "Brazilian Portuguese",
        "Brazilian Portuguese",
        "Simplified Chinese",
        "Spanish",
        "Norwegian Bokmål",
    ]
    with pytest.raises(ConfigError, match="'xx'"):
        language_name("xx")


def test_passages_of_a_question_and_of_an_example():
    passages = [
        Passage(title="A", text="First\nline."),
        Passage(title="", text="Second.", is_supporting=True),
    ]
    record = question(passages=passages)
    asked = "Passage 1 (A): First\\nline.\nPassage 2: Second.\nQuestion: Where is it?\nAnswer:"
    assert build_prompt(record, shots=(), style="default") == asked
    example = "Passage 1: Second.\nQuestion: Where is it?\nAnswer: in Paris\n\n"
    assert build_prompt(record, shots=[record], style="passages") == example + asked
    assert build_prompt(record, shots=(), style="closed_book") == "Question: Where is it?\nAnswer:"


def test_unanswerable_question():
    assert completion(question(answers=[]), "closed_book") == " noanswer"
    assert gold_answers(question(answers=[])) == ["noanswer"]


def test_unknown_style_names_the_nearest():
    with pytest.raises(ConfigError, match=r"'native_cto' for MathRecord; did you mean 'native_cot'\?.*english_cot"):
        build_prompt(problem(), shots=(), style="native_cto")


def test_the_default_of_a_type_is_its_first_built_in_style():
    defaults = {
        kind.__name__: next(style.name for style in PROMPT_STYLES if style.record_type is kind) for kind in EXAMPLES
    }
    assert defaults == {
        "MathRecord": "native_cot",
        "ParallelRecord": "labelled",
        "QuestionRecord": "passages",
        "TextRecord": "text",
    }
    for kind, record in EXAMPLES.items():
        first = defaults[kind.__name__]
        assert build_prompt(record, shots=(), style="default") == build_prompt(record, shots=(), style=first)


def test_record_without_prompts():
    assert styles(CaptionRecord) == ()
    with pytest.raises(ConfigError, match="CaptionRecord has no prompt style"):
        build_prompt(CaptionRecord(identifier="c", captions={}), shots=(), style="default")


def test_language_without_worked_problems():
    with pytest.raises(ConfigError, match=r"'ko'.*english_cot"):
        build_prompt(problem("ko"), shots=(), style="native_cot")
    assert build_prompt(problem("ko"), shots=(), style="direct").endswith("Answer:")


def test_more_built_in_examples_than_there_are():
    with pytest.raises(ConfigError, match=r"eval.shots: got 4.*has 3"):
        built_in_shots(MathRecord, "native_cot", language="en", num_shots=4)


def test_split_shots_takes_the_front_of_each_language():
    records = [
        Record(identifier=str(n), language=language) for n, language in enumerate(["en", "de", "en", "de", "en"])
    ]
    shots, rest = split_shots(records, 1)
    assert [record.identifier for record in shots] == ["0", "1"]
    assert [record.identifier for record in rest] == ["2", "3", "4"]
    assert split_shots(records, 0) == ([], records)


def test_drawn_shots_follow_the_seed_and_leave_test_items_out():
    pool = [pair(f"word {n}", f"Wort {n}") for n in range(20)] + [pair("mot", "mot", language="fr")]
    draw = {"language": "de", "style": "labelled", "num_shots": 5}
    first, again, other = (drawn_shots(pool, **draw, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    forbidden = {build_prompt(record, shots=(), style="labelled") for record in pool[:15]}
    assert {record.source for record in drawn_shots(pool, **draw, seed=1, exclude=forbidden)} == {
        f"word {n}" for n in range(15, 20)
    }
    with pytest.raises(ConfigError, match=r"got 5.*has 1 records in 'fr'"):
        drawn_shots(pool, **{**draw, "language": "fr"}, seed=1)


def test_prompt_hash_sees_order_and_boundaries():
    hashes = {prompt_hash(texts) for texts in (["ab", "c"], ["a", "bc"], ["c", "ab"], ["ab", "c", ""])}
    assert len(hashes) == 4
    assert prompt_hash(["ab", "c"]) == prompt_hash(iter(["ab", "c"]))


def test_prompts_need_no_torch():
    code = "import sys, athlos.text.prompts as p; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


ROME = [Passage(title="Rome", text="Rome is old.", is_supporting=True), Passage(title="", text="Line\nend.")]


def test_documents_are_numbered_titled_and_asked_to_be_cited():
    record = LongAnswerRecord(identifier="r", question="What of Rome?", answer="It is old. It is\nbig.", passages=ROME)
    prompt = build_prompt(record, shots=(), style="default")
    assert prompt.endswith(
        "\n\nQuestion: What of Rome?\n\nDocument [1](Title: Rome): Rome is old.\nDocument [2]: Line\\nend.\nAnswer:"
    )
    assert prompt == build_prompt(record, shots=(), style="cited")
    assert completion(record, "cited") == " It is old [1]. It is big [1]."
    assert completion(record, "passages") == " It is old. It is big."
    assert completion(record, "bare") == " It is old. It is big."


@pytest.mark.parametrize(
    ("answer", "supporting", "expected"),
    [
        ("It is old [2]. And big.", [True, False], " It is old [2]. And big."),  # as it was written
        ("It is old.", [True, True], " It is old."),  # which of the two is not known
        ("It is old.", [False, False], " It is old."),
        ("It is old.", [False, True], " It is old [2]."),
        ("", [True, False], " noanswer"),
    ],
)
def test_an_answer_cites_the_only_document_that_supports_it(answer, supporting, expected):
    passages = [Passage(title="", text="x", is_supporting=value) for value in supporting]
    assert (
        completion(LongAnswerRecord(identifier="r", question="?", answer=answer, passages=passages), "cited")
        == expected
    )


def test_a_short_answer_cites_up_to_three_documents_that_support_it():
    passages = [Passage(title="", text="x", is_supporting=number != 2) for number in range(1, 6)]
    record = QuestionRecord(identifier="r", question="?", answers=["Rome"], passages=passages)
    assert completion(record, "cited") == " Rome [1][3][4]"
