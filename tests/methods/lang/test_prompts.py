"""Hints: where they end, where they stand, and which prompts a step has.

Sabotages that were tried and that these tests catch: a hint behind a space too many, an answer left in the hint,
prompts drawn without regard to languages.
"""

import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from num2words import CONVERTER_CLASSES, num2words

from athlos.config.compose import run_config
from athlos.data.records import MathRecord
from athlos.data.source import build_source
from athlos.errors import DataError
from athlos.methods.lang.config import HintConfig, LangConfig
from athlos.methods.lang.prompts import (
    PromptPlan,
    check_records,
    hint_units,
    hinted_prompt,
    shown_units,
    token_pieces,
    without_answer,
)
from athlos.models.tokenizers import bpe_tokenizer, byte_tokenizer, word_tokenizer
from athlos.stages import StageStore
from athlos.text.language import detector
from athlos.text.prompts import build_prompt, built_in_shots, completion
from athlos.text.sentences import Units

LAMP = "Sie kauft 3 Lampen zu je 4 Euro. Das sind 3 x 4 = 12 Euro. Also zahlt sie 12 Euro."


def config_of(*overrides: str) -> LangConfig:
    config = run_config(["method=lang", "objective=policy", "train.max_steps=0", *overrides]).method
    assert isinstance(config, LangConfig)
    return config


BYTES = byte_tokenizer()


def units_of(record: MathRecord, config: HintConfig) -> Units:
    return hint_units(record, config, tokenizer=BYTES, style="bare")


def record_of(**changes: Any) -> MathRecord:
    values = {"identifier": "1", "language": "de", "question": "Wie viel zahlt sie?", "answer": "12", "solution": LAMP}
    return MathRecord(**{**values, **changes})


@pytest.mark.parametrize(
    ("pieces", "answer", "expected"),
    [
        (
            ["7 + 5 = 12 apples. ", "12 - 2 = 10 apples. ", "Yeka has 10 apples."],
            "10",
            ["7 + 5 = 12 apples. ", "12 - 2 = "],
        ),
        (["Also ", "$x = 10$ gilt."], "10", ["Also "]),
        (["Erst 110. ", "Dann \\boxed{10}."], "10", ["Erst 110. ", "Dann "]),
        (["Es sind 10.5 m."], "10", ["Es sind 10.5 m."]),
        (["10 ist der Anfang. ", "Das Ende fehlt."], "10", []),
        (["ดังนั้นคำตอบคือ12ใบ"], "12", ["ดังนั้นคำตอบคือ"]),
        (["মোট ১২টি আপেল।"], "12", ["মোট "]),
        (["先算。", "所以x的值是12。", "因此答案是 \\boxed{12}。"], "12", ["先算。", "所以x的值是"]),
        (["那么 1,200 元。", "对。"], "1200", ["那么 "]),
        (["Also \\boxed{\\frac{24}{2}}. ", "Fertig."], "12", ["Also "]),
        (["So $x = \\frac{1}{2}$. ", "Done."], "\\frac{1}{2}", ["So "]),
        (["\u200fالجواب \u200f١٢ تفاحة"], "12", ["\u200fالجواب \u200f"]),
        (["3 - 15 = -12."], "-12", ["3 - 15 = -"]),
        (["คำตอบคือ ๑๐ บาท"], "10", ["คำตอบคือ "]),
        (["10"], "10", []),
    ],
)
def test_a_hint_ends_before_the_answer(pieces: list[str], answer: str, expected: list[str]) -> None:
    assert without_answer(pieces, answer, question="?", language="de") == expected


@pytest.mark.parametrize(
    ("text", "answer", "language", "kept"),
    [
        ("So there are twelve apples.", "12", "en", "So there are "),
        ("Elle a donc douze pommes.", "12", "fr", "Elle a donc "),
        ("Zostaje trzynaście jabłek.", "13", "pl", "Zostaje "),
        ("Also sind es zwölf.", "12", "de", "Also sind es "),
        ("Значит, двадцать один.", "21", "ru", "Значит, "),
        ("ดังนั้นคำตอบคือสิบสองใบ", "12", "th", "ดังนั้นคำตอบคือ"),
        ("মোট বারো টি আপেল।", "12", "bn", "মোট "),
        ("所以一共有十二个。", "12", "zh", "所以一共有"),
        ("所以有两百个。", "200", "zh", "所以有"),
        ("合計は二十一です。", "21", "ja", "合計は"),
        ("Twenty one of them, twenty-one!", "21", "en", ""),
        ("That is one thousand two hundred.", "1,200", "en", "That is "),
        ("In total two.", "2.0", "en", "In total "),
        # What is no statement of the answer.
        ("Sie zwölftelt es.", "12", "de", "Sie zwölftelt es."),
        ("Elle a une pomme, un fruit.", "1", "fr", "Elle a une pomme, un fruit."),
        ("There are thirteen.", "3", "en", "There are thirteen."),
        ("Qete zupa twelve.", "12", "latn", "Qete zupa twelve."),
        ("Ana tufaha kumi na mbili.", "12", "sw", "Ana tufaha kumi na mbili."),  # num2words has no Swahili
    ],
)
def test_a_hint_ends_before_the_answer_in_words(text: str, answer: str, language: str, kept: str) -> None:
    assert "".join(without_answer([text], answer, question="?", language=language)) == kept


def traces() -> Iterator[MathRecord]:
    """Records with traces of every source and style that makes some, in 16 languages."""
    for name, overrides in (("lab_sums", ["prompt_style=bare", "eval=none"]), ("templated_sums", [])):
        source = build_source(run_config([f"data={name}", *overrides]))
        for record in source.records("train", limit=15):
            assert isinstance(record, MathRecord)
            yield record
    for language in ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh"):
        for shot in built_in_shots(MathRecord, "native_cot", language=language, num_shots=3):
            assert isinstance(shot, MathRecord)
            yield shot


def leak(text: str, answer: int, language: str) -> bool:
    """Whether a text holds a number, told by another route than the code's: digits one by one, words whole."""
    digits = "".join(str(unicodedata.decimal(character, character)) for character in text)
    spoken = "ja" if language == "zh" else language
    words = num2words(answer, lang=spoken) if spoken in CONVERTER_CLASSES and answer != 1 else "\0"
    return str(answer) in re.findall("[0-9]+", digits) or words in text.lower() or "boxed" in text


def test_no_trace_of_any_source_leaks_its_answer() -> None:
    config, num_checked = config_of().hint, Counter[str]()
    for record in traces():
        answer = int(record.answer)
        if leak(record.question, answer, record.language):
            continue  # a number that the question gives may come back
        num_checked[record.language] += 1
        hint = "".join(units_of(record, config).pieces)
        assert not leak(hint, answer, record.language), (record.language, hint)
        assert leak(record.solution, answer, record.language)
    assert len(num_checked) >= 16
    assert num_checked.total() >= 100


def test_a_number_of_the_question_is_no_result_before_the_end() -> None:
    pieces = ["Er hat 12. ", "Er gibt 5 und nimmt 5. ", "Es sind 12. ", "Also \\boxed{12}."]
    assert without_answer(pieces, "12", question="Er hat 12.", language="de") == [*pieces[:2], "Es sind "]
    assert without_answer(pieces, "12", question="Er hat zwei.", language="de") == ["Er hat "]


def test_a_whole_hint_does_not_hold_the_answer_unless_asked_for() -> None:
    assert "".join(units_of(record_of(), config_of().hint).pieces) == LAMP[: LAMP.index("12")]
    kept = units_of(record_of(), config_of("method.hint.strip_answer=false").hint)
    assert "".join(kept.pieces) == LAMP
    assert (len(kept.pieces), kept.kind) == (3, "sentences")


def test_tokens_end_before_the_answer_too() -> None:
    """Words stand behind the answer, so cutting by tokens alone would find no last unit that states it."""
    config = config_of("method.hint.unit=token").hint
    assert "".join(units_of(record_of(), config).pieces) == LAMP[: LAMP.index("12")]
    lab = MathRecord(
        identifier="1", language="latn", question="?", answer="17", solution="10 + 7 = 17 qete. Zupa teke 17 qete."
    )
    assert "".join(units_of(lab, config).pieces) == "10 + 7 = "


@pytest.mark.parametrize("kind", ["words", "bytes", "bpe"])
def test_a_prompt_with_a_hint_of_tokens_begins_as_the_joint_text(kind: str, tmp_path: Path) -> None:
    """The same ids, so that no word of the lab is cut into pieces that it never has, and no letter into bytes."""
    config = config_of("method.hint.unit=token").hint
    source = build_source(run_config(["data=lab_sums", "prompt_style=bare", "eval=none"]))
    records = [record for record in source.records("train", limit=6) if isinstance(record, MathRecord)]
    texts = [f"{record.question} {record.solution}" for record in records]
    tokenizer = {
        "words": lambda: word_tokenizer(source.words()),
        "bytes": byte_tokenizer,
        "bpe": lambda: bpe_tokenizer(lambda: iter(texts), vocab_size=400, stages=StageStore(tmp_path)),
    }[kind]()
    num_hints: Counter[str] = Counter()
    for record in records:
        joint = tokenizer.encode(hinted_prompt(record, record.solution, style="bare"), add_special_tokens=False)
        pieces = hint_units(record, config, tokenizer=tokenizer, style="bare").pieces
        for number in range(1, len(pieces) + 1):
            hint = "".join(pieces[:number])
            ids = tokenizer.encode(hinted_prompt(record, hint, style="bare"), add_special_tokens=False)
            assert joint[: len(ids)] == ids, (record.language, hint)
            num_hints[record.language] += 1
    assert min(num_hints[language] for language in ("latn", "cyrl", "grek", "thai", "hani")) > 20


def test_no_piece_of_a_hint_ends_inside_a_formula_or_behind_the_answer() -> None:
    text = "Sie hat $3 + 4$ \N{GREEK SMALL LETTER ALPHA}, also 7."
    pieces = token_pieces(text, tokenizer=BYTES, before="Q", length=len(text) - 2)
    assert "".join(pieces) == text[:-2]
    assert "$3 + 4$" in pieces
    assert "\N{GREEK SMALL LETTER ALPHA}" in pieces  # two bytes, one piece
    assert token_pieces("ab", tokenizer=BYTES, before="", length=0) == []


def test_units_of_tokens_and_hints_in_english() -> None:
    config = config_of("method.hint.unit=token", "method.hint.strip_answer=false").hint
    words = word_tokenizer([" Sie", " kauft", " 3", " Lam", "pen"])
    kept = hint_units(record_of(), config, tokenizer=words, style="bare")
    assert (kept.pieces[:5], kept.kind) == (["Sie", " kauft", " 3", " Lam", "pen"], "tokens")
    config = config_of("method.hint.language=english").hint
    english = record_of(english_solution="She buys 3 lamps. That is 12 euros.")
    assert units_of(english, config).pieces == ["She buys 3 lamps. ", "That is "]


@pytest.mark.parametrize(("language", "gap"), [("de", " "), ("zh", ""), ("th", None)])
def test_a_prompt_without_a_hint_is_that_of_the_evaluation(language: str, gap: str | None) -> None:
    record = record_of(language=language)
    plain = build_prompt(record, shots=(), style="default")
    assert hinted_prompt(record, "", style="default") == plain
    found = hinted_prompt(record, "Sie kauft 3 Lampen. ", style="default")
    assert found.startswith(plain)
    assert found.endswith("Sie kauft 3 Lampen.")
    if gap is not None:
        assert found == plain + gap + "Sie kauft 3 Lampen."
    # A prompt with the hint reads like the beginning of a worked example.
    whole = plain + completion(record, "default")
    assert whole.startswith(hinted_prompt(record, LAMP[:20], style="default"))


def records_of(**sizes: int) -> list[MathRecord]:
    return [
        MathRecord(identifier=f"{language}-{number}", language=language, question="?", answer="1")
        for language, size in sizes.items()
        for number in range(size)
    ]


def test_prompts_are_balanced_over_languages_and_use_every_record_once_an_epoch() -> None:
    plan = PromptPlan(records_of(de=6, th=12, ja=4), prompts_per_step=8, seed=3)
    slots = [plan.slots(step) for step in range(9)]
    for step in slots:
        assert max(Counter(record.language for record, _ in step).values()) == 3
    drawn = [record.identifier for step in slots for record, _ in step]
    thai = [identifier for identifier in drawn if identifier.startswith("th")]
    assert len(set(thai[:12])) == 12
    assert thai[:12] != thai[12:24]
    german = [number for step in slots for record, number in step if record.language == "de"]
    assert german == list(range(24))


def test_a_step_depends_on_seed_and_number_alone() -> None:
    records = records_of(de=20, th=20)
    [first, again, other] = [PromptPlan(records, prompts_per_step=4, seed=seed) for seed in (1, 1, 2)]
    first.slots(0)
    assert [record.identifier for record, _ in first.slots(5)] == [record.identifier for record, _ in again.slots(5)]
    assert [record.identifier for record, _ in first.slots(5)] != [record.identifier for record, _ in other.slots(5)]


def check(
    *records: MathRecord, tests: tuple[MathRecord, ...] = (), overrides: tuple[str, ...] = ()
) -> list[MathRecord]:
    def bad(error: DataError) -> None:
        raise error

    config = config_of(*overrides)
    return check_records(records, tests, config=config, detector=detector("py3langid", ["de", "en"]), bad=bad)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"language": "fi"}, "its language 'fi' is in none of method.groups"),
        ({"solution": " "}, "its trace is empty"),
        ({"solution_language": "en"}, "its trace is in 'en', its question in 'de'"),
        ({"solution": "She buys three lamps and pays for all of them together."}, "its trace is not in 'de'"),
    ],
)
def test_a_record_that_cannot_be_trained_on_is_named(changes: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=f"record '1': {message}"):
        check(record_of(**changes))


def test_a_test_item_among_the_training_prompts_is_refused() -> None:
    with pytest.raises(DataError, match="record '1': its question is a test item"):
        check(record_of(), tests=(record_of(identifier="9", solution=""),))
    assert check(record_of(), tests=(record_of(language="en"),))


def test_without_hints_no_trace_is_needed_and_teachers_are_told_apart() -> None:
    assert check(record_of(solution=""), overrides=("method=lang/grpo",))
    mine, theirs = record_of(meta={"teacher": "r1"}), record_of(identifier="2", meta={"teacher": "other"})
    assert check(mine, theirs, overrides=("method.teacher=r1",)) == [mine]
    with pytest.raises(DataError, match="no training prompts are left"):
        check(theirs, overrides=("method.teacher=r1",))


def test_random_units_depend_on_the_generator_alone() -> None:
    pieces = [str(number) for number in range(20)]
    select = config_of("method.hint.select=random").hint.select
    one, other = (shown_units(pieces, share=0.4, select=select, rng=random.Random(4)) for _ in range(2))
    assert one == other
    assert len(one) == 8
