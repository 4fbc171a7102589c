"""Small scenes of coloured shapes on a grid, drawn as pictures, with questions in every language and exact answers.

A scene is a set of items, at most one a cell, so that nothing overlaps. A cell is named "cell 2 of the top": its
column, from 1, and its row. Relations are between cells: an item is left-of another if its column is further left, in
whatever row, and above it if its row is higher. A question with relations has one right item; in a question with two,
neither relation alone singles it out. The picture determines the scene: `read` gets it back from the pixels.

Splits go by composition. Each (shape, colour, row, column) belongs to one split, whatever the seed, and each coloured
shape has cells in all three: train scenes hold train compositions alone; a val or test scene holds at least one of its
own, which is what its question is about, beside train ones.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations, product
from typing import NamedTuple

import numpy as np

from athlos.config.fields import at_least, bounded, wrong_values
from athlos.errors import ConfigError, ConfigErrors, DataError
from athlos.lab.grammar import Clause, NounPhrase, gloss
from athlos.lab.languages import Language, Languages
from athlos.lab.lexicon import COLOURS, PLACE_NOUNS

SPLITS = ("train", "val", "test")
SHAPES = ("circle", "square", "triangle", "cross")
ROWS = PLACE_NOUNS
RGB = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 215, 50),
    "white": (245, 245, 245),
    "violet": (170, 60, 200),
}
BACKGROUND = (0, 0, 0)
MAX_NOISE = 30
"""Largest change of a pixel's channel; colours and background lie so far apart that reading stays exact."""
RELATIONS = ("left-of", "right-of", "above", "under")
KINDS = ("colour", "shape", "where", "count", "one_relation", "two_relations")
"""Colour or shape at a cell, row of an item, number of items, item by one relation or by two."""
MAX_DRAWS = 5_000
"""Scenes drawn until one of the split has a question of the kind."""
_GLYPHS = {"circle": "o", "square": "#", "triangle": "^", "cross": "+"}


@dataclass(kw_only=True)
class PicturesConfig:
    """What scenes are drawn, and what is asked."""

    seed: int = 0
    """Seed of the draws; splits do not depend on it."""
    num_columns: int = bounded("[2, 9]", default=3)
    """Columns of the grid; there are three rows."""
    cell_size: int = bounded("[8, 64]", default=10)
    """Height and width of a cell in pixels. A shape is two pixels smaller and lies anywhere in its cell."""
    margin: int = bounded("[0, 64]", default=1)
    """Empty pixels around the grid. Three columns of 10 and this give 32 x 32."""
    min_items: int = at_least(1, default=3)
    """Fewest items of a scene, at most `max_items`."""
    max_items: int = at_least(1, default=5)
    """Most items of a scene, at most one a cell."""
    noise: int = bounded(f"[0, {MAX_NOISE}]", default=0)
    """Largest random change of each channel of each pixel, of 255."""
    kinds: list[str] = field(default_factory=lambda: list(KINDS))
    """Kinds of questions, drawn evenly: any of `colour shape where count one_relation two_relations`."""
    num_options: int = bounded("[2, 4]", default=4)
    """Options of a multiple-choice question; a question for a row has three at most."""
    val_share: float = bounded("[0.01, 0.3]", default=0.1)
    """Share of the compositions kept for validation."""
    test_share: float = bounded("[0.01, 0.3]", default=0.1)
    """Share of the compositions kept for test."""

    @property
    def height(self) -> int:
        """Pixels."""
        return 2 * self.margin + len(ROWS) * self.cell_size

    @property
    def width(self) -> int:
        """Pixels."""
        return 2 * self.margin + self.num_columns * self.cell_size


class Item(NamedTuple):
    """A shape in a cell; `row` from the top, `column` from the left, both from 0."""

    row: int
    column: int
    shape: str
    colour: str


Scene = tuple[Item, ...]
"""Items in reading order, each in a cell of its own."""


class Picture(NamedTuple):
    """A scene, its pixels, and a question with its answer, in no language."""

    id: str
    """`<split>-<index>`."""
    scene: Scene
    pixels: np.ndarray
    """uint8 array [height, width, 3]."""
    kind: str
    question: Clause
    answer: str
    """A colour, shape or row as a concept, or a number in digits."""
    options: tuple[str, ...]
    """Answers to choose from, the right one among them, without repeats."""

    @property
    def num_relations(self) -> int:
        return len(self.question.adjuncts)


class Pictures:
    """All pictures of a config: `item(split, index)` is the same in every process and order of calls."""

    def __init__(self, config: PicturesConfig) -> None:
        """Raises `ConfigError` for values out of range."""
        _check(config)
        self.config = config
        self._splits = compositions(config.num_columns, val_share=config.val_share, test_share=config.test_share)
        self._cells = [(row, column) for row in range(len(ROWS)) for column in range(config.num_columns)]

    def item(self, split: str, index: int) -> Picture:
        config = self.config
        rng = random.Random(f"pictures:{config.seed}:{split}:{index}")
        kind = config.kinds[int(rng.random() * len(config.kinds))]
        for _ in range(MAX_DRAWS):
            scene = self._scene(split, rng)
            asked = self._question(scene, kind, split, rng)
            if asked is not None:
                question = asked
                break
        else:
            raise ConfigError(
                f"lab.pictures.max_items: got {config.max_items}; no scene of split '{split}' has a question of kind "
                f"'{kind}', expected more items"
            )
        right = answer(scene, question)
        pixels = draw(scene, config, seed=f"{config.seed}:{split}:{index}")
        return Picture(f"{split}-{index}", scene, pixels, kind, question, right, self._options(right, rng))

    def items(self, split: str, count: int, *, start: int = 0) -> Iterator[Picture]:
        """`count` pictures of a split, from number `start` on."""
        return (self.item(split, index) for index in range(start, start + count))

    def split(self, scene: Scene) -> str | None:
        """The split a scene belongs to; nothing for one that mixes val and test compositions."""
        held_out = {self._split_of(item) for item in scene} - {"train"}
        if len(held_out) > 1:
            return None
        return held_out.pop() if held_out else "train"

    def _split_of(self, item: Item) -> str:
        return self._splits[item]

    def _scene(self, split: str, rng: random.Random) -> Scene:
        """Items in distinct cells, the first of the split, the others of the split or of train."""
        count = self.config.min_items + int(rng.random() * (self.config.max_items - self.config.min_items + 1))
        items: dict[tuple[int, int], Item] = {}
        while len(items) < count:
            cell = self._cells[int(rng.random() * len(self._cells))]
            item = Item(*cell, _one(SHAPES, rng), _one(COLOURS, rng))
            if cell not in items and self._split_of(item) in ((split, "train") if items else (split,)):
                items[cell] = item
        return tuple(sorted(items.values()))

    def _question(self, scene: Scene, kind: str, split: str, rng: random.Random) -> Clause | None:
        """A question of the kind about an item of the split, or nothing if the scene has none."""
        targets = [item for item in scene if self._split_of(item) == split]
        target = targets[int(rng.random() * len(targets))]
        if kind in ("colour", "shape"):
            return _ask_at(target, f"which-{kind}")
        if kind == "count":
            return _ask_count(scene, target, rng)
        if kind == "where":
            same = [item for item in scene if (item.shape, item.colour) == (target.shape, target.colour)]
            return _ask_where(target) if len(same) == 1 else None
        wanted = "which-colour" if rng.random() < 0.5 else "which-shape"
        relations = _relations(scene, target, count=1 if kind == "one_relation" else 2)
        return _ask_related(wanted, relations[int(rng.random() * len(relations))]) if relations else None

    def _options(self, right: str, rng: random.Random) -> tuple[str, ...]:
        others = [other for other in _possible_answers(right) if other != right]
        options = [right, *rng.sample(others, min(self.config.num_options - 1, len(others)))]
        rng.shuffle(options)
        return tuple(options)


@cache
def compositions(num_columns: int, *, val_share: float, test_share: float) -> dict[Item, str]:
    """The split of every composition. Of the cells of each coloured shape a rounded share, at least one, is held out.

    Which cells goes round from one coloured shape to the next, so that each cell is held out about equally often.
    """
    cells = [(row, column) for row in range(len(ROWS)) for column in range(num_columns)]
    random.Random("compositions").shuffle(cells)
    num_test, num_val = (max(1, round(share * len(cells))) for share in (test_share, val_share))
    splits = ["test"] * num_test + ["val"] * num_val + ["train"] * (len(cells) - num_test - num_val)
    dealt = {}
    for number, (shape, colour) in enumerate(product(SHAPES, COLOURS)):
        for place, split in enumerate(splits):
            dealt[Item(*cells[(place + number) % len(cells)], shape, colour)] = split
    return dealt


# -- questions and answers ----------------------------------------------------------------------------------------


def place(item: Item) -> NounPhrase:
    """The cell of an item: "cell 2 of the top"."""
    return NounPhrase("cell", count=item.column + 1, owner=NounPhrase(ROWS[item.row]))


def _named(item: Item) -> NounPhrase:
    return NounPhrase(item.shape, (item.colour,))


def _ask_at(item: Item, wanted: str) -> Clause:
    return Clause("has", place(item), NounPhrase(wanted), is_question=True)


def _ask_where(item: Item) -> Clause:
    return Clause("is", _named(item), NounPhrase("where"), is_question=True)


def _ask_count(scene: Scene, target: Item, rng: random.Random) -> Clause:
    """How many items of its colour, of its shape, or of both; different numbers are asked for equally often."""
    phrases = (NounPhrase("cell", (target.colour,)), NounPhrase(target.shape), _named(target))
    by_count = {len(_described(scene, phrase)): phrase for phrase in rng.sample(phrases, len(phrases))}
    counts = sorted(by_count)
    counted = by_count[counts[int(rng.random() * len(counts))]]
    return Clause("has", NounPhrase("picture"), NounPhrase("how-many", owner=counted), is_question=True)


def _ask_related(wanted: str, relations: Sequence[tuple[str, Item]]) -> Clause:
    adjuncts = tuple((relation, _named(anchor)) for relation, anchor in relations)
    return Clause("is", NounPhrase(wanted), adjuncts=adjuncts, is_question=True)


def _holds(item: Item, relation: str, anchor: Item) -> bool:
    if relation in ("left-of", "right-of"):
        return item.column < anchor.column if relation == "left-of" else item.column > anchor.column
    return item.row < anchor.row if relation == "above" else item.row > anchor.row


def _relations(scene: Scene, target: Item, *, count: int) -> list[tuple[tuple[str, Item], ...]]:
    """All sets of so many relations to items with a unique name that hold for the target alone, and need every one."""
    names = [(item.shape, item.colour) for item in scene]
    anchors = [item for item, name in zip(scene, names, strict=True) if item != target and names.count(name) == 1]
    held = [(relation, anchor) for anchor in anchors for relation in RELATIONS if _holds(target, relation, anchor)]
    others = [item for item in scene if item != target]
    fits = {relation: frozenset(other for other in others if _holds(other, *relation)) for relation in held}
    if count == 1:
        # With one other item beside the anchor at least, so that the relation matters.
        return [(relation,) for relation in held if not fits[relation] and len(others) > 1]
    return [
        (first, second)
        for first, second in combinations(held, 2)
        if fits[first] and fits[second] and not fits[first] & fits[second]
    ]


def answer(scene: Scene, question: Clause) -> str:
    """The answer to any question of this module's kinds, from the scene alone.

    A colour, shape or row as a concept, or a number in digits. Raises `DataError` for a question of another form, and
    for one that has no answer in this scene or more than one.
    """
    subject, thing = question.subject, question.object
    if not question.is_question or question.is_negated:
        raise _unanswerable(question, "not a plain question")
    if question.verb == "has" and thing is not None and thing.head in ("which-colour", "which-shape"):
        return _aspect(_single([item for item in scene if place(item) == subject], question), thing.head)
    if question.verb == "has" and subject.head == "picture" and thing is not None and thing.head == "how-many":
        if thing.owner is None:
            raise _unanswerable(question, "nothing to count")
        return str(len(_described(scene, thing.owner)))
    if question.verb == "is" and thing is not None and thing.head == "where":
        return ROWS[_single(_described(scene, subject), question).row]
    if question.verb == "is" and thing is None and subject.head in ("which-colour", "which-shape"):
        items = list(scene)
        for relation, phrase in question.adjuncts:
            if relation not in RELATIONS:
                raise _unanswerable(question, f"'{relation}' is no relation of pictures")
            anchor = _single(_described(scene, phrase), question)
            items = [item for item in items if _holds(item, relation, anchor)]
        return _aspect(_single(items, question), subject.head)
    raise _unanswerable(question, "no question about a picture")


def _described(scene: Scene, phrase: NounPhrase) -> list[Item]:
    """The items that a phrase such as "red circle" describes; "cell" is any shape."""
    return [
        item
        for item in scene
        if phrase.head in (item.shape, "cell") and all(adjective == item.colour for adjective in phrase.adjectives)
    ]


def _single(items: Sequence[Item], question: Clause) -> Item:
    if len(items) != 1:
        raise _unanswerable(question, f"{len(items)} items fit, expected 1")
    return items[0]


def _aspect(item: Item, wanted: str) -> str:
    return item.colour if wanted == "which-colour" else item.shape


def _unanswerable(question: Clause, reason: str) -> DataError:
    return DataError(f"lab picture question '{gloss(question)}': {reason}")


def _possible_answers(right: str) -> Sequence[str]:
    """Answers of the same sort as the right one; numbers from those around it."""
    if right.isdigit():
        return [str(number) for number in range(max(0, int(right) - 2), int(right) + 4)]
    return next(answers for answers in (COLOURS, SHAPES, ROWS) if right in answers)


def render(picture: Picture, language: Language) -> tuple[str, str]:
    """Question and answer in a language; the answer is one word or number."""
    return language.render(picture.question), render_answer(picture.answer, language)


def render_answer(answer: str, language: Language) -> str:
    """An answer or option in a language."""
    return answer if answer.isdigit() else language.grammar.lexicon.word(answer)


# -- pixels -------------------------------------------------------------------------------------------------------


@cache
def _mask(shape: str, size: int) -> np.ndarray:
    """Boolean array [size, size]: the pixels of a shape. No two shapes have the same; each touches all four sides."""
    rows, columns = np.mgrid[0:size, 0:size]
    middle = (size - 1) / 2
    mask: np.ndarray
    if shape == "square":
        mask = np.ones((size, size), dtype=bool)
    elif shape == "circle":
        mask = (rows - middle) ** 2 + (columns - middle) ** 2 <= (middle + 0.3) ** 2
    elif shape == "triangle":
        mask = np.abs(columns - middle) <= np.maximum(0.5, (rows + 1) / size * middle)
    else:
        arm = max(1, size // 6)
        mask = (np.abs(rows - middle) <= arm) | (np.abs(columns - middle) <= arm)
    return mask


def draw(scene: Scene, config: PicturesConfig, *, seed: str) -> np.ndarray:
    """uint8 array [height, width, 3]; the seed decides the place of each shape within its cell, and the noise."""
    rng = _generator(f"pixels:{seed}")
    pixels = np.empty((config.height, config.width, 3), dtype=np.int16)
    pixels[:] = BACKGROUND
    size = config.cell_size - 2
    offsets = rng.integers(0, 3, size=(len(scene), 2))
    for item, (down, right) in zip(scene, offsets, strict=True):
        top = config.margin + item.row * config.cell_size + down
        left = config.margin + item.column * config.cell_size + right
        pixels[top : top + size, left : left + size][_mask(item.shape, size)] = RGB[item.colour]
    if config.noise:
        pixels += rng.integers(-config.noise, config.noise + 1, size=pixels.shape, dtype=np.int16)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def read(pixels: np.ndarray, config: PicturesConfig) -> Scene:
    """The scene of a picture, from uint8 pixels [height, width, 3] alone: nearest colour, then shape by its mask.

    Raises `DataError` for a picture of another size or a cell with anything else in it.
    """
    if pixels.shape != (config.height, config.width, 3):
        raise DataError(f"lab picture: got shape {pixels.shape}, expected ({config.height}, {config.width}, 3)")
    palette = np.array([BACKGROUND, *(RGB[colour] for colour in COLOURS)], dtype=np.int32)
    distances = ((pixels.astype(np.int32)[:, :, None] - palette) ** 2).sum(-1)
    nearest = distances.argmin(-1)
    items = []
    for row in range(len(ROWS)):
        for column in range(config.num_columns):
            top, left = (config.margin + place * config.cell_size for place in (row, column))
            cell = nearest[top : top + config.cell_size, left : left + config.cell_size]
            if cell.any():
                items.append(_read_cell(cell, row=row, column=column))
    return tuple(items)


def _read_cell(cell: np.ndarray, *, row: int, column: int) -> Item:
    inked = cell > 0
    tops, lefts = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
    box = inked[tops[0] : tops[-1] + 1, lefts[0] : lefts[-1] + 1]
    colours = np.unique(cell[inked])
    size = cell.shape[0] - 2
    for shape in SHAPES:
        if len(colours) == 1 and np.array_equal(box, _mask(shape, size)):
            return Item(row, column, shape, COLOURS[colours[0] - 1])
    raise DataError(f"lab picture: no shape of one colour in row {row + 1}, column {column + 1}")


def _generator(text: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big"))


def as_text(scene: Scene, config: PicturesConfig) -> str:
    """The grid in letters, a line a row: `r` `o` is a red circle (o # ^ + for the shapes), `..` an empty cell."""
    cells = {(item.row, item.column): item.colour[0] + _GLYPHS[item.shape] for item in scene}
    lines = (
        " ".join(cells.get((row, column), "..") for column in range(config.num_columns)) for row in range(len(ROWS))
    )
    return "\n".join(lines)


def sample_lines(languages: Languages, config: PicturesConfig, *, count: int = 2) -> list[tuple[str, str, str]]:
    """(kind, text, English gloss) of a few test pictures with their question in every language."""
    lines = []
    for picture in Pictures(config).items("test", count):
        grid = as_text(picture.scene, config)
        for code, language in languages.items():
            question, right = render(picture, language)
            meaning = f"{gloss(picture.question)} -> {picture.answer}"
            lines.append((f"picture, {picture.kind}, {code}", f"{grid}\n{question} -> {right}", meaning))
    return lines


def _one(pool: Sequence[str], rng: random.Random) -> str:
    return pool[int(rng.random() * len(pool))]


def _check(config: PicturesConfig) -> None:
    if errors := list(wrong_values(config, path="lab.pictures")):
        raise ConfigErrors(errors)
    for key, most in {"min_items": config.max_items, "max_items": len(ROWS) * config.num_columns}.items():
        if getattr(config, key) > most:
            raise ConfigError(f"lab.pictures.{key}: got {getattr(config, key)}, expected at most {most}")
    unknown = [kind for kind in config.kinds if kind not in KINDS]
    if unknown or not config.kinds:
        raise ConfigError(f"lab.pictures.kinds: got {list(config.kinds)}, expected any of {', '.join(KINDS)}")
