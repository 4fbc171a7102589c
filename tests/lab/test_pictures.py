"""Pictures: drawn apart, read back from the pixels, asked and answered exactly."""

from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from tests.lab.fresh_process import printed

from athlos.errors import ConfigError, DataError
from athlos.lab.grammar import Clause, NounPhrase
from athlos.lab.languages import CODES, Languages
from athlos.lab.lexicon import COLOURS
from athlos.lab.pictures import (
    BACKGROUND,
    KINDS,
    MAX_NOISE,
    RGB,
    ROWS,
    SHAPES,
    SPLITS,
    Item,
    Picture,
    Pictures,
    PicturesConfig,
    _mask,
    answer,
    as_text,
    compositions,
    draw,
    place,
    read,
    render,
    render_answer,
    sample_lines,
)

LANGUAGES = Languages(seed=5)
SCENE = (
    Item(0, 0, "circle", "red"),
    Item(0, 2, "circle", "blue"),
    Item(1, 1, "cross", "red"),
    Item(2, 0, "square", "blue"),
)


@cache
def pictures(split: str) -> tuple[Picture, ...]:
    return tuple(Pictures(PicturesConfig(noise=MAX_NOISE)).items(split, 150))


def ask(verb: str, subject: NounPhrase, thing: NounPhrase | None = None, **relations: NounPhrase) -> Clause:
    adjuncts = tuple((relation.replace("_", "-"), phrase) for relation, phrase in relations.items())
    return Clause(verb, subject, thing, adjuncts, is_question=True)


def red(shape: str) -> NounPhrase:
    return NounPhrase(shape, ("red",))


def blue(shape: str) -> NounPhrase:
    return NounPhrase(shape, ("blue",))


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (ask("has", place(SCENE[2]), NounPhrase("which-colour")), "red"),
        (ask("has", place(SCENE[3]), NounPhrase("which-shape")), "square"),
        (ask("is", blue("square"), NounPhrase("where")), "bottom"),
        (ask("has", NounPhrase("picture"), NounPhrase("how-many", owner=blue("cell"))), "2"),
        (ask("has", NounPhrase("picture"), NounPhrase("how-many", owner=NounPhrase("circle"))), "2"),
        (ask("has", NounPhrase("picture"), NounPhrase("how-many", owner=red("square"))), "0"),
        (ask("is", NounPhrase("which-shape"), right_of=red("cross")), "circle"),
        (ask("is", NounPhrase("which-colour"), under=red("cross")), "blue"),
        (ask("is", NounPhrase("which-shape"), under=red("circle"), right_of=red("circle")), "cross"),
        (ask("is", NounPhrase("which-colour"), left_of=red("cross"), above=blue("square")), "red"),
    ],
)
def test_known_answers(question: Clause, expected: str) -> None:
    assert answer(SCENE, question) == expected


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (ask("has", NounPhrase("cell", count=9, owner=NounPhrase("top")), NounPhrase("which-colour")), "0 items fit"),
        (ask("is", NounPhrase("circle"), NounPhrase("where")), "2 items fit"),
        (ask("is", NounPhrase("which-shape"), left_of=red("cross")), "2 items fit"),
        (ask("is", NounPhrase("which-shape"), left_of=red("square")), "0 items fit"),
        (ask("is", NounPhrase("which-shape"), near=red("cross")), "'near' is no relation"),
        (ask("has", NounPhrase("picture"), NounPhrase("how-many")), "nothing to count"),
        (ask("sees", NounPhrase("dog")), "no question about a picture"),
        (ask("sees", NounPhrase("dog"))._replace(is_question=False), "not a plain question"),
    ],
)
def test_what_has_no_answer_says_why(question: Clause, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        answer(SCENE, question)


@pytest.mark.parametrize("split", SPLITS)
def test_the_pixels_determine_scene_and_answer(split: str) -> None:
    config = PicturesConfig(noise=MAX_NOISE)
    for picture in pictures(split):
        assert picture.pixels.dtype == np.uint8
        assert picture.pixels.shape == (32, 32, 3)
        assert read(picture.pixels, config) == picture.scene
        assert answer(read(picture.pixels, config), picture.question) == picture.answer


@pytest.mark.parametrize("cell_size", [8, 9, 13, 32])
def test_every_item_is_read_at_every_size_and_place(cell_size: int) -> None:
    config = PicturesConfig(cell_size=cell_size, margin=0, num_columns=2, noise=MAX_NOISE)
    for shape in SHAPES:
        for number, colour in enumerate(COLOURS):
            scene = (Item(number % 3, number % 2, shape, colour),)
            for seed in range(6):
                assert read(draw(scene, config, seed=f"{shape}{colour}{seed}"), config) == scene


def test_masks_differ_and_touch_all_sides() -> None:
    for size in range(6, 63):
        masks = [_mask(shape, size) for shape in SHAPES]
        assert all(mask[[0, -1]].any(1).all() and mask[:, [0, -1]].any(0).all() for mask in masks)
        assert all((first != second).any() for first, second in combinations(masks, 2))


def test_noise_cannot_turn_a_colour_into_another() -> None:
    """The largest change of a pixel is shorter than half the way between any two colours."""
    colours = [np.array(colour) for colour in (BACKGROUND, *RGB.values())]
    nearest = min(float(np.linalg.norm(first - second)) for first, second in combinations(colours, 2))
    assert nearest / 2 > MAX_NOISE * 3**0.5


def test_drawn_items_keep_to_their_cells() -> None:
    config = PicturesConfig()
    for seed in range(30):
        pixels = draw(SCENE, config, seed=str(seed))
        alone = [draw((item,), config, seed="x") for item in SCENE]
        sizes = [int((one > 0).any(-1).sum()) for one in alone]
        assert int((pixels > 0).any(-1).sum()) == sum(sizes)
        for item in SCENE:
            top, left = 1 + 10 * item.row, 1 + 10 * item.column
            colours = {tuple(pixel) for row in pixels[top : top + 10, left : left + 10].tolist() for pixel in row}
            assert colours == {BACKGROUND, RGB[item.colour]}


def test_a_broken_picture_is_refused() -> None:
    config = PicturesConfig()
    pixels = draw(SCENE, config, seed="0")
    with pytest.raises(DataError, match=r"got shape \(31, 32, 3\)"):
        read(pixels[1:], config)
    pixels[1, 1] = 255 - pixels[1, 1]
    pixels[5, 5] = RGB["green"]
    with pytest.raises(DataError, match="no shape of one colour in row 1, column 1"):
        read(pixels, config)


@pytest.mark.parametrize("split", SPLITS)
def test_scenes_are_of_their_split_and_questions_about_it(split: str) -> None:
    made = Pictures(PicturesConfig(noise=MAX_NOISE))
    for picture in pictures(split):
        splits = {compositions(3, val_share=0.1, test_share=0.1)[item] for item in picture.scene}
        assert made.split(picture.scene) == split
        assert splits <= {split, "train"}
        assert split in splits
        cells = [(item.row, item.column) for item in picture.scene]
        assert len(set(cells)) == len(cells) in (3, 4, 5)
    assert {picture.kind for picture in pictures(split)} == set(KINDS)


def test_a_mixture_of_held_out_scenes_is_of_no_split() -> None:
    dealt = compositions(3, val_share=0.1, test_share=0.1)
    both = tuple(next(item for item, split in dealt.items() if split == wanted) for wanted in ("val", "test"))
    assert Pictures(PicturesConfig()).split(both) is None


def test_every_coloured_shape_is_held_out_equally_often() -> None:
    dealt = compositions(3, val_share=0.1, test_share=0.2)
    assert len(dealt) == 3 * 3 * len(SHAPES) * len(COLOURS)
    for wanted, expected in (("val", 1), ("test", 2), ("train", 6)):
        held = [item for item, split in dealt.items() if split == wanted]
        assert set(Counter((item.shape, item.colour) for item in held).values()) == {expected}
        by_cell = Counter((item.row, item.column) for item in held)
        assert max(by_cell.values()) - min(by_cell.values()) <= expected
        assert len(by_cell) == 9


def test_two_relations_need_both() -> None:
    for picture in pictures("train"):
        if picture.kind != "two_relations":
            continue
        assert picture.num_relations == 2
        for one in picture.question.adjuncts:
            with pytest.raises(DataError, match="items fit"):
                answer(picture.scene, picture.question._replace(adjuncts=(one,)))


def test_the_number_of_relations_follows_the_kind() -> None:
    expected = {"one_relation": 1, "two_relations": 2}
    assert all(picture.num_relations == expected.get(picture.kind, 0) for picture in pictures("train"))
    only = Pictures(PicturesConfig(kinds=["count"])).items("train", 50)
    assert {picture.kind for picture in only} == {"count"}


@pytest.mark.parametrize("code", CODES)
def test_questions_round_trip_and_translate(code: str) -> None:
    language = LANGUAGES[code]
    for picture in pictures("test"):
        question, right = render(picture, language)
        assert language.parse(question) == picture.question
        assert answer(picture.scene, language.parse(question)) == picture.answer
        other, other_right = render(picture, LANGUAGES["latn"])
        assert LANGUAGES.translate(question, source=code, target="latn") == other
        assert right == other_right if picture.answer.isdigit() else language.grammar.words_of(right) == [right]
        options = [render_answer(option, language) for option in picture.options]
        assert options.count(right) == 1


def test_options_hold_the_answer_once() -> None:
    for picture in pictures("test"):
        assert len(picture.options) == (3 if picture.kind == "where" else 4)
        assert len(set(picture.options)) == len(picture.options)
        assert picture.answer in picture.options


def test_no_answer_leads_far() -> None:
    """A guess without the picture stays near chance: the commonest answer of a kind has at most this share."""
    answers = {kind: Counter[str]() for kind in KINDS}
    for split in SPLITS:
        for picture in pictures(split):
            answers[picture.kind][picture.answer] += 1
    for kind, counts in answers.items():
        bound = {"colour": 0.35, "count": 0.7}.get(kind, 0.5)
        assert counts.most_common(1)[0][1] / counts.total() < bound


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_columns", 1),
        ("cell_size", 7),
        ("margin", -1),
        ("min_items", 6),
        ("min_items", 0),
        ("max_items", 10),
        ("noise", MAX_NOISE + 1),
        ("num_options", 5),
        ("val_share", 0.0),
        ("test_share", 0.5),
        ("kinds", []),
        ("kinds", ["colours"]),
    ],
)
def test_values_out_of_range_are_refused(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key):
        Pictures(replace(PicturesConfig(), **{key: value}))


def test_a_kind_without_a_question_is_refused() -> None:
    with pytest.raises(ConfigError, match="kind 'one_relation', expected more items"):
        Pictures(PicturesConfig(min_items=1, max_items=1, kinds=["one_relation"])).item("train", 0)


def test_the_same_in_every_process() -> None:
    code = (
        "from athlos.lab.pictures import *; made = Pictures(PicturesConfig(noise=5)).items('val', 3);"
        "print([(p.scene, p.question, p.options, p.pixels.tolist()) for p in made])"
    )
    made = Pictures(PicturesConfig(noise=5)).items("val", 3)
    here = f"{[(p.scene, p.question, p.options, p.pixels.tolist()) for p in made]}\n"
    assert printed(code) == [here, here]


def test_a_scene_in_letters() -> None:
    assert as_text(SCENE, PicturesConfig()) == "ro .. bo\n.. r+ ..\nb# .. .."
    assert len(ROWS) == 3
    lines = sample_lines(LANGUAGES, PicturesConfig(), count=1)
    assert [kind.split()[-1] for kind, _, _ in lines] == list(CODES)
    assert all(text.count("\n") == 3 and "->" in meaning for _, text, meaning in lines)
