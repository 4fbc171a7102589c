"""Questions with answers of known distribution, and lines after lines: what records hold, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from athlos.config.compose import run_config
from athlos.data.source import build_source
from athlos.data.sources.lab_streams import text_of
from athlos.errors import ConfigErrors, DataError
from athlos.lab.streams import Answers
from athlos.text.prompts import build_prompt, completion


def test_lab_answers_are_those_of_the_source_with_their_truth() -> None:
    config = run_config(["data=lab_answers", "data.num_val=3"])
    source = build_source(config)
    records = list(source.records("val"))
    truth = Answers(config.data.answers)  # type: ignore[attr-defined]
    samples = truth.samples(3, split="val")
    assert len(records) == 12
    for index, record in enumerate(records):
        question, answers = samples[index // 4]
        answer = answers[index % 4]
        assert build_prompt(record, shots=(), style="default") == text_of(question)
        assert completion(record, "default") == text_of(answer[:-1])
        assert len(record.meta["symbols"]) == config.data.answers.vocab_size  # type: ignore[attr-defined]
        for at, row in enumerate(record.meta["next_probs"]):
            np.testing.assert_array_equal(row, truth.next_probs(question, answer[:at]))
    mono = list(source.records("mono", limit=5))
    assert [build_prompt(record, shots=(), style="default") for record in mono] == [""] * 5
    assert source.fingerprint("mono") != source.fingerprint("mono_other")
    with pytest.raises(DataError, match="no split 'dev'"):
        source.files("dev")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.answers.num_symbols=93", "expected at most 90"),
        ("data.answers.num_topics=0", "data.answers.num_topics"),
        ("data.num_mono=0", "data.num_mono"),
        ("data.answers.answers_per_question=9", "data.answers.answers_per_question: got 9"),
    ],
)
def test_lab_answers_that_make_no_sense(override: str, message: str) -> None:
    with pytest.raises(ConfigErrors, match=message):
        run_config(["data=lab_answers", override])


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "input.txt").write_text("One two\n\n = Heading =\nüber Größe 言葉 four five\nsix\n", encoding="utf-8")
    return tmp_path


def test_lines_after_lines(text: Path) -> None:
    source = build_source(run_config(["data=next_line", f"data.dir={text}", "data.max_words=3"]))
    found = [(record.context, record.text) for record in source.records("all")]  # type: ignore[attr-defined]
    assert found == [("One two\n", "über Größe 言葉"), ("über Größe 言葉\n", "four five"), ("four five\n", "six")]


def test_lines_without_context(text: Path) -> None:
    source = build_source(run_config(["data=next_line", f"data.dir={text}", "data.context_lines=0"]))
    found = [(record.context, record.text) for record in source.records("all")]  # type: ignore[attr-defined]
    assert found == [("", "One two"), ("", "über Größe 言葉 four five"), ("", "six")]


def test_lines_that_make_no_sense() -> None:
    with pytest.raises(ConfigErrors, match=r"data.max_words: got 0"):
        run_config(["data=next_line", "data.max_words=0"])
    with pytest.raises(ConfigErrors, match=r"data.files"):
        run_config(["data=next_line", "data.files=[]"])


def test_a_line_that_is_not_utf8_is_left_out_and_is_no_context(text: Path) -> None:
    with (text / "input.txt").open("ab") as handle:
        handle.write(b"\xff\nseven\neight\n")
    source = build_source(run_config(["data=next_line", f"data.dir={text}", "data.on_bad=skip"]))
    pairs = [(record.context, record.text) for record in source.records("all")]  # type: ignore[attr-defined]
    assert pairs[-2:] == [("über Größe 言葉 four five\n", "six"), ("seven\n", "eight")]
    assert source.num_bad == 1


def test_traces_without_a_usable_name_or_answer_are_skipped_and_counted(tmp_path: Path) -> None:
    rows = ['"id": 7, "answer": 1', '"id": null, "answer": 2', '"answer": 3.5', '"answer": NaN', '"answer": true']
    text = "\n".join(f'{{"question": "q", "solution": "s", {row}}}' for row in rows)
    (tmp_path / "train.jsonl").write_text(text, encoding="utf-8")
    overrides = ["data=traces", f"data.dir={tmp_path}", "data.files.train=train.jsonl", "data.on_bad=skip"]
    source = build_source(run_config(overrides))
    records = list(source.records("train"))
    assert [(record.identifier, record.answer) for record in records] == [  # type: ignore[attr-defined]
        ("7", "1"),
        ("train-3", "3.5"),
    ]
    assert source.num_bad == 3
