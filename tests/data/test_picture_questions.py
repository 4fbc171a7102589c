"""Questions about pictures: parallel languages, splits that keep variants together, pictures in batches."""

import json
from pathlib import Path

import numpy as np
import pytest

from athlos.config.compose import run_config
from athlos.config.schema import Batching
from athlos.data.batches import collate
from athlos.data.encoding import encode_split
from athlos.data.records import ChoiceRecord, InstructionRecord
from athlos.data.source import build_source
from athlos.data.sources.emoji_questions import label_stem
from athlos.errors import ConfigError, DataError
from athlos.models.tokenizers import byte_tokenizer
from athlos.stages import StageStore

LAB = ["data=lab_pictures", "data.num_train=40", "data.num_test=5", "train.batching=bucket"]
ANIMALS = ["cat", "dog", "cow", "pig", "hen", "fox", "owl", "bat", "bee", "ant", "elk", "emu"]


def lab(*overrides: str):
    return build_source(run_config([*LAB, *overrides]))


@pytest.fixture
def emoji(tmp_path: Path):
    """Twelve animals twice, as man and as woman, with captions in two languages; one is the same word in both."""
    rows, pictures = [], []
    for number, animal in enumerate(ANIMALS):
        for kind in ("man", "woman"):
            german = animal if animal == "elk" else f"{animal}-{kind}-de"
            rows.append(
                {
                    "i": len(rows),
                    "hexcode": f"{len(rows):04X}",
                    "emoji": "x",
                    "group": "animals",
                    "subgroup": "all",
                    "label": {"en": animal if animal == "elk" else f"{kind} {animal}", "de": german},
                    "tags": {"en": [], "de": []},
                }
            )
            pictures.append(np.full((4, 4, 3), 2 * number + (kind == "man"), dtype=np.uint8))
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    np.savez(tmp_path / "images_32x32.npz", images=np.stack(pictures))

    def make(*overrides: str):
        return build_source(
            run_config(
                [
                    "data=emoji_questions",
                    f"data.dir={tmp_path}",
                    "data.languages=[en,de]",
                    "train.batching=bucket",
                    "data.split_shares={train: 0.5, val: 0.0, test: 0.5}",
                    "data.num_options=2",
                    "data.val_split=null",
                    *overrides,
                ]
            )
        )

    return make


def test_one_item_is_the_same_question_in_every_language():
    source = lab()
    records = list(source.read("test"))
    assert len(records) == 5 * 5
    by_item: dict[str, list[ChoiceRecord]] = {}
    for record in records:
        by_item.setdefault(record.item, []).append(record)
    for same in by_item.values():
        assert [record.language for record in same] == source.config.languages
        assert len({record.answer_index for record in same}) == 1
        assert len({record.question for record in same}) == 5
        assert all(np.array_equal(record.pixels, same[0].pixels) for record in same)


def test_the_split_that_a_run_is_tested_on_holds_questions_in_every_language():
    """Settings are chosen with `data.test_split=val`; where another split is tested, `val` is there to train on."""
    tested = list(lab("data.test_split=val", "data.val_split=null", "data.num_val=3").read("val"))
    assert all(isinstance(record, ChoiceRecord) for record in tested)
    assert len(tested) == 3 * 5
    assert all(isinstance(record, InstructionRecord) for record in lab("data.num_val=3").read("val"))


def test_training_questions_keep_their_shares_and_forms():
    records = list(lab("data.num_train=400").read("train"))
    assert all(isinstance(record, InstructionRecord) for record in records)
    share = sum(record.language == "latn" for record in records) / len(records)
    assert 0.75 < share < 0.85
    letters = [record for record in records if record.meta["form"] == "letter"]
    assert 0.4 < len(letters) / len(records) < 0.6
    assert all(record.completion in "ABCD" and "\nA: " in record.prompt for record in letters)
    assert all("\nA: " not in record.prompt for record in records if record.meta["form"] == "words")
    assert [record.prompt for record in records] == [
        record.prompt for record in lab("data.num_train=400").read("train")
    ]


def test_variants_of_one_picture_share_a_split_and_equal_words_are_left_out(emoji):
    source = emoji()
    items = {split: list(source.items(split)) for split in ("train", "test")}
    stems = {
        split: {label_stem(item.options["en"][item.answer_index]) for item in found} for split, found in items.items()
    }
    assert stems["train"]
    assert stems["test"]
    assert not stems["train"] & stems["test"]
    assert "elk" not in stems["train"] | stems["test"]  # its German caption is the English word
    for found in items.values():
        for item in found:
            assert len(set(item.options["en"])) == len(set(item.options["de"])) == 2
            right = item.options["en"][item.answer_index].split()
            assert item.options["de"][item.answer_index] == f"{right[1]}-{right[0]}-de"


def test_items_without_enough_captions_in_their_group_are_left_out(emoji, caplog: pytest.LogCaptureFixture):
    found = list(emoji("data.num_options=8", "data.split_shares={train: 0.9, val: 0.0, test: 0.1}").items("test"))
    assert not found
    assert "its group has no 8 captions in split test" in caplog.text


@pytest.mark.parametrize(
    ("label", "stem"),
    [
        ("man: red hair", "person"),
        ("woman: bald", "person"),
        ("cat with wry smile", "cat wry smile"),
        ("three o’clock", "clock"),
        ("three-thirty", "clock"),
        ("woman running facing right", "running"),
        ("man running", "running"),
    ],
)
def test_label_stems(label: str, stem: str):
    assert label_stem(label) == stem


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.reference=klng", "data.reference: got 'klng', expected one of data.languages"),
        ("data.shares={latn: 0.5}", "data.shares: got 0.7 in sum"),
        ("data.letter_share=2", "data.letter_share: got 2.0"),
        ("train.batching=pack", "expected bucket: a row holds one picture"),
        ("data.languages=[latn,latn]", "expected each language once"),
        ("data.languages=[latn,engl]", "data.languages: got 'engl'"),
        ("data.num_test=0", "data.num_test: got 0"),
        ("data.scene.kinds=[colours]", "data.scene.kinds: got 'colours', expected any of colour, shape"),
        ("data.test_split=dev", "data.test_split: got 'dev'"),
        ("data.instruction='<image>'", "data.instruction: got '<image>'"),
    ],
)
def test_bad_values_are_one_line(override: str, message: str):
    with pytest.raises(ConfigError) as caught:
        run_config([*LAB, override])
    assert message in str(caught.value)


def encoded(tmp_path: Path, records: list[InstructionRecord], *, batching: Batching = Batching.bucket):
    return encode_split(
        lambda: iter(records),
        text_of=lambda record: (record.prompt, record.completion),
        tokenizer=byte_tokenizer(),
        max_length=20,
        batching=batching,
        inputs={},
        config={},
        stages=StageStore(tmp_path),
    )


def instruction(number: int, *, size: int = 2) -> InstructionRecord:
    pixels = np.full((size, size, 3), number % 2, dtype=np.uint8)
    return InstructionRecord(identifier=str(number), prompt="ab", completion="c" * (1 + number), pixels=pixels)


def test_rows_find_their_picture_and_each_is_kept_once(tmp_path: Path):
    rows = encoded(tmp_path, [instruction(number) for number in range(4)])
    assert rows.pixels is not None
    assert rows.pixels.shape == (2, 2, 2, 3)
    rows.picture_key, rows.picture_values = "picture_features", np.array([[1.0], [2.0]], dtype=np.float32)
    batch = collate(rows, np.array([3, 0]), pad_id=0, step_targets=9)
    assert batch["picture_features"].tolist() == [[2.0], [1.0]]
    assert batch["labels"][0, :2].tolist() == [-100, -100]  # the prompt
    assert batch["labels"][1, -1] == -100  # padding
    assert "picture_features" not in collate(
        encoded(tmp_path / "text", [InstructionRecord(identifier="t", prompt="a", completion="b")]),
        np.array([0]),
        pad_id=0,
        step_targets=1,
    )


def test_pictures_of_two_sizes_packed_rows_and_missing_ones_raise(tmp_path: Path):
    with pytest.raises(DataError, match="its picture is 3x3x3, the first one is 2x2x3"):
        encoded(tmp_path / "sizes", [instruction(0), instruction(1, size=3)])
    with pytest.raises(DataError, match="pictures need bucket"):
        encoded(tmp_path / "packed", [instruction(0)], batching=Batching.pack)
    bare = InstructionRecord(identifier="bare", prompt="a", completion="b")
    with pytest.raises(DataError, match="1 of 2 rows have a picture"):
        encoded(tmp_path / "missing", [instruction(0), bare])


@pytest.mark.shared
def test_real_emoji_have_enough_items_in_every_split(shared_data: Path):
    source = build_source(
        run_config(["data=emoji_questions", f"data.dir={shared_data / 'emoji_captions'}", "train.batching=bucket"])
    )
    counts = {split: len(list(source.items(split))) for split in ("train", "val", "test")}
    assert counts["train"] > 900
    assert counts["test"] > 100
