"""Lab pictures with questions in five invented languages; everything is generated. Licence: generated, none needed."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from athlos.config.fields import any_of, at_least, bounded
from athlos.config.schema import RunConfig
from athlos.data.picture_prompts import IMAGE_TOKEN, LETTERS
from athlos.data.picture_questions import (
    PictureItem,
    PictureQuestionsConfig,
    PictureQuestionSource,
    picture_data_errors,
)
from athlos.data.source import GeneratedSource, data_part
from athlos.errors import choices

CODES = ("latn", "cyrl", "grek", "thai", "hani")


@dataclass(kw_only=True)
class SceneConfig:
    """What is drawn and asked; see `lab/pictures.py`."""

    seed: int = 0
    num_columns: int = bounded("[2, 9]", default=3)
    min_items: int = at_least(1, default=3)
    """Fewest shapes, at most `max_items`."""
    max_items: int = at_least(1, default=5)
    """Most shapes."""
    noise: int = bounded("[0, 30]", default=0)
    """Largest change of a channel."""
    kinds: list[str] = any_of("colour", "shape", "where", "count", "one_relation", "two_relations")
    """What is asked; empty = all."""


@dataclass(kw_only=True)
class LabPicturesConfig(PictureQuestionsConfig):
    scene: SceneConfig = field(default_factory=SceneConfig)
    num_train: int = at_least(1, default=4000)
    """Pictures of the training split."""
    num_val: int = at_least(1, default=100)
    num_test: int = at_least(1, default=100)
    shared_word_order: bool = False
    """Whether all languages have the word order of the first, so that only their words differ."""


class LabPicturesSource(GeneratedSource[LabPicturesConfig], PictureQuestionSource[LabPicturesConfig]):
    def decides(self, split: str) -> dict[str, Any]:
        config = asdict(self.config)
        own = ("scene", "num_train", "num_val", "num_test", "shared_word_order", "languages", "shares", "letter_share")
        return {key: config[key] for key in own}

    def items(self, split: str) -> Iterator[PictureItem]:
        from athlos.lab.languages import Languages
        from athlos.lab.pictures import KINDS, Pictures, PicturesConfig, render, render_answer

        scene = self.config.scene
        pictures = Pictures(PicturesConfig(**{**asdict(scene), "kinds": scene.kinds or list(KINDS)}))
        languages = Languages(seed=scene.seed, shared_word_order=self.config.shared_word_order)
        number = {"train": self.config.num_train, "val": self.config.num_val, "test": self.config.num_test}[split]
        for picture in pictures.items(split, number):
            yield PictureItem(
                identifier=picture.id,
                pixels=picture.pixels,
                questions={code: render(picture, language)[0] for code, language in languages.items()},
                options={
                    code: [render_answer(option, language) for option in picture.options]
                    for code, language in languages.items()
                },
                answer_index=picture.options.index(picture.answer),
                kind=picture.kind,
            )

    def words(self) -> Iterator[str]:
        """The image token first, so that its id does not depend on the languages; then marks, numbers and words."""
        from athlos.lab.languages import Languages

        yield IMAGE_TOKEN
        yield from ("\n", ":", ">", " >")
        yield from (gap + letter for letter in LETTERS for gap in ("", " "))
        languages = Languages(seed=self.config.scene.seed, shared_word_order=self.config.shared_word_order)
        for language in languages.values():
            lexicon, script = language.grammar.lexicon, language.script
            yield from (" " + lexicon.word(concept) for concept in lexicon.words)
            if not script.has_spaces:
                yield from (lexicon.word(concept) for concept in lexicon.words)
            yield from (script.full_stop, script.question_mark, script.comma)
        yield from (f" {number}" for number in range(20))


def _errors(data: LabPicturesConfig, config: RunConfig) -> Iterable[str]:
    yield from picture_data_errors(data, config)
    for language in dict.fromkeys((*data.languages, *data.shares)):
        if language not in CODES:
            yield f"data.languages: got '{language}'{choices(language, CODES)}"


PARTS = [
    data_part(
        "lab_pictures",
        LabPicturesConfig,
        LabPicturesSource,
        "lab pictures with multiple-choice questions in five invented languages",
        check=_errors,
    )
]
