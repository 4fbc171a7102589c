"""MMBench and MMMB: invented TSV files in the official format."""

import base64
import csv
import importlib
from pathlib import Path
from typing import Any

import pytest

from athlos.config.compose import run_config
from athlos.data.sources import mmbench
from athlos.data.sources.mmbench import MmBenchSource
from athlos.errors import DataError

COLUMNS = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "l2-category", "image"]
PICTURE = bytes(range(256)) * 2
OTHER_PICTURE = b"\x89PNG" + bytes(100)


def source(folder: Path, *overrides: str, name: str = "mmbench") -> MmBenchSource:
    """The source as a run would build it, from the shipped YAML."""
    config = run_config([f"data={name}", f"data.dir={folder}", "train.max_steps=0", *overrides]).data
    module, _, cls = config._target_.rpartition(".")
    return getattr(importlib.import_module(module), cls)(config)


def encoded(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def row(index: int, **other: Any) -> dict[str, Any]:
    values = {
        "index": index,
        "question": f"What is picture {index}?",
        "hint": "",
        "A": "a cat",
        "B": "a dog",
        "C": "a bird",
        "D": "a fish",
        "answer": "B",
        "category": "object",
        "l2-category": "coarse",
        "image": encoded(PICTURE),
    }
    return values | other


def write_tsv(path: Path, *rows: dict[str, Any], columns: list[str] = COLUMNS) -> Path:
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, columns, delimiter="\t", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def only_english(folder: Path, *rows: dict[str, Any], columns: list[str] = COLUMNS) -> list[str]:
    """Write the English file alone; the overrides that read just that."""
    write_tsv(folder / "MMBench_DEV_EN.tsv", *rows, columns=columns)
    return ["data.languages=[en]"]


def test_a_row_becomes_a_record(tmp_path: Path) -> None:
    overrides = only_english(tmp_path, row(7, hint="Look — twice.\nThen answer.", answer="D"))
    [record] = source(tmp_path, *overrides).records("dev")
    assert record.identifier == "en-7"
    assert record.language == "en"
    assert record.question == "What is picture 7?"
    assert record.choices == ["a cat", "a dog", "a bird", "a fish"]
    assert record.answer_index == 3
    assert record.hint == "Look — twice.\nThen answer."
    assert record.category == "object"
    assert record.image == PICTURE
    assert record.meta == {"l2-category": "coarse"}


def test_missing_choices_are_dropped_and_the_answer_follows(tmp_path: Path) -> None:
    rows = [
        row(1, C="", D="nan", answer="B"),
        row(2, A="", B="NaN", answer="D"),
        row(3, hint="nan", D="None", answer="D"),
    ]
    first, second, third = source(tmp_path, *only_english(tmp_path, *rows)).records("dev")
    assert (first.choices, first.answer_index) == (["a cat", "a dog"], 1)
    assert (second.choices, second.answer_index) == (["a bird", "a fish"], 1)
    # "None" is an answer somebody may give; only an empty cell and `nan` are missing.
    assert (third.choices[third.answer_index], third.hint) == ("None", "")


def test_a_picture_may_stand_in_another_row_before_or_after(tmp_path: Path) -> None:
    rows = [row(1000002, image="2"), row(2, image=encoded(OTHER_PICTURE)), row(3), row(2000002, image="2")]
    records = list(source(tmp_path, *only_english(tmp_path, *rows)).records("dev"))
    assert [record.image for record in records] == [OTHER_PICTURE, OTHER_PICTURE, PICTURE, OTHER_PICTURE]


def test_only_pictures_that_are_referred_to_are_kept(tmp_path: Path) -> None:
    path = write_tsv(tmp_path / "some.tsv", row(1), row(2, image="3"), row(3), row(4))
    assert mmbench._shared_pictures(path) == {"3": encoded(PICTURE)}


def test_a_picture_beyond_the_usual_field_limit(tmp_path: Path) -> None:
    large = bytes(300_000)
    usual = 131_072
    previous = csv.field_size_limit(usual)
    try:
        [record] = source(tmp_path, *only_english(tmp_path, row(1, image=encoded(large)))).records("dev")
        assert record.image == large
        # A larger limit that somebody else has set stays.
        csv.field_size_limit(mmbench.MAX_FIELD + 1)
        list(source(tmp_path, "data.languages=[en]").records("dev"))
        assert csv.field_size_limit() == mmbench.MAX_FIELD + 1
    finally:
        csv.field_size_limit(previous)


@pytest.mark.parametrize(
    ("broken", "field", "reason"),
    [
        ({"image": "!" * 100}, "image", "not base64"),
        ({"image": encoded(PICTURE)[:-1]}, "image", "not base64"),
        ({"image": "404"}, "image", "no row '404'"),
        ({"image": ""}, "image", "empty"),
        ({"answer": "E"}, "answer", "got 'E', expected one of A, B, C, D"),
        ({"answer": "C", "C": "nan"}, "answer", "got 'C', expected one of A, B, D"),
        ({"answer": ""}, "answer", "got ''"),
        ({"B": "", "C": "", "D": ""}, "A", "expected two choices or more, got 1"),
        ({"question": "nan"}, "question", "empty"),
    ],
)
def test_a_broken_row_names_its_place(tmp_path: Path, broken: dict[str, str], field: str, reason: str) -> None:
    # The second row covers lines 3 and 4, so the broken one starts on line 5.
    overrides = only_english(tmp_path, row(1), row(2, hint="two\nlines"), row(3, **broken), row(4))
    with pytest.raises(DataError, match=rf"MMBench_DEV_EN.tsv:5 field '{field}': .*{reason}"):
        list(source(tmp_path, *overrides).records("dev"))
    skipping = source(tmp_path, *overrides, "data.on_bad=skip")
    assert [record.identifier for record in skipping.records("dev")] == ["en-1", "en-2", "en-4"]
    assert skipping.num_bad == 1


@pytest.mark.parametrize("line", ["3\ttoo\tfew", "3" + "\tx" * 20])
def test_a_row_with_a_wrong_number_of_columns(tmp_path: Path, line: str) -> None:
    overrides = only_english(tmp_path, row(1))
    path = tmp_path / "MMBench_DEV_EN.tsv"
    good = path.read_text(encoding="utf-8")
    path.write_text(f"{good}{line}\n{good.splitlines()[1]}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"EN.tsv:3: \d+ columns, the header has 11"):
        list(source(tmp_path, *overrides).records("dev"))
    skipping = source(tmp_path, *overrides, "data.on_bad=skip")
    assert len(list(skipping.records("dev"))) == 2
    assert skipping.num_bad == 1


def test_a_field_beyond_all_bounds_is_one_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmbench, "MAX_FIELD", 1000)
    previous = csv.field_size_limit(1000)
    try:
        overrides = only_english(tmp_path, row(1), row(2, question="x" * 2000), row(3))
        with pytest.raises(DataError, match=r"EN.tsv:3: field larger than field limit"):
            list(source(tmp_path, *overrides).records("dev"))
        skipping = source(tmp_path, *overrides, "data.on_bad=skip")
        assert [record.identifier for record in skipping.records("dev")] == ["en-1", "en-3"]
        assert skipping.num_bad == 1
    finally:
        csv.field_size_limit(previous)


def test_a_file_that_hides_its_answers_is_refused(tmp_path: Path) -> None:
    columns = [name for name in COLUMNS if name != "answer"]
    overrides = only_english(tmp_path, row(1), columns=columns)
    with pytest.raises(DataError, match=r"EN.tsv:1 field 'answer': missing column; the file has index, question"):
        list(source(tmp_path, *overrides, "data.on_bad=skip").records("dev"))


def test_a_file_without_pictures(tmp_path: Path) -> None:
    columns = [name for name in COLUMNS if name != "image"]
    [record] = source(tmp_path, *only_english(tmp_path, row(1), columns=columns)).records("dev")
    assert record.image is None


@pytest.fixture
def mmmb_folder(tmp_path: Path) -> Path:
    for code in ("en", "cn", "pt", "ar", "tr", "ru"):
        write_tsv(tmp_path / f"mmmb_{code}.tsv", *(row(index, question=f"{code} {index}") for index in range(3)))
    return tmp_path


def test_mmmb_reads_a_file_a_language(mmmb_folder: Path) -> None:
    records = list(source(mmmb_folder, name="mmmb").records("test"))
    assert len({record.identifier for record in records}) == 18
    assert {(record.language, record.question.split()[0]) for record in records} == {
        ("en", "en"),
        ("zh", "cn"),
        ("pt", "pt"),
        ("ar", "ar"),
        ("tr", "tr"),
        ("ru", "ru"),
    }


def test_a_limit_counts_by_language(mmmb_folder: Path) -> None:
    reader = source(mmmb_folder, "data.languages=[zh,en]", name="mmmb")
    assert [path.name for path in reader.files("test")] == ["mmmb_cn.tsv", "mmmb_en.tsv"]
    names = [record.identifier for record in reader.records("test", limit=2)]
    assert names == ["zh-0", "zh-1", "en-0", "en-1"]


def test_unknown_splits_languages_and_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"split 'tset' is unknown.* accepted: test$"):
        list(source(tmp_path, name="mmmb").records("tset"))
    with pytest.raises(DataError, match=r"data.languages: got 'cn', accepted: en, zh, pt, ar, tr, ru"):
        list(source(tmp_path, "data.languages=[cn]", name="mmmb").records("test"))
    with pytest.raises(DataError, match="no such file"):
        list(source(tmp_path).records("dev"))
