"""Multiple-choice questions about pictures in parallel languages: the base of the sources that have them.

`train` and `val` are instructions ready to train on, each picture asked in one language drawn by share, with or
without options; `test`, and whatever split a run is tested on, holds every question in every language.
`questions(split)` gives that form of any split.
"""

import random
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

from athlos.config.fields import bounded
from athlos.config.schema import Batching, DataConfig, RunConfig
from athlos.data.picture_prompts import IMAGE_TOKEN, LETTERS, asked, to_translate
from athlos.data.records import ChoiceRecord, InstructionRecord, Record
from athlos.data.source import Source
from athlos.errors import choices

SPLITS = ("train", "val", "test")


class PictureInput(StrEnum):
    """What batches carry: features of a tower that does not train, encoded once; or pixels, for one that trains."""

    features = "features"
    pixels = "pixels"


@dataclass(kw_only=True)
class PictureQuestionsConfig(DataConfig):
    languages: list[str] = field(default_factory=list)
    """Languages of the test questions, in this order."""
    reference: str = "en"
    """The language that others are translated into and compared with; one of `languages`."""
    shares: dict[str, float] = bounded("[0, 1]", default=dict)
    """Share of the training questions by language, 1 in sum."""
    letter_share: float = bounded("[0, 1]", default=0.5)
    """Share of the training questions with options, whose answer is a letter; the others want the words."""
    instruction: str = ""
    """What asks for a translation into the reference language."""
    picture_input: PictureInput = PictureInput.features


ConfigT = TypeVar("ConfigT", bound=PictureQuestionsConfig)


@dataclass(frozen=True, kw_only=True)
class PictureItem:
    """One picture with one question in every language."""

    identifier: str
    pixels: Any
    """uint8 array [height, width, 3]."""
    questions: dict[str, str]
    options: dict[str, list[str]]
    answer_index: int
    kind: str = ""


class PictureQuestionSource(Source[ConfigT], Generic[ConfigT]):
    """Subclasses give `items`, which are made once and kept: every language and every reader asks for the same."""

    record_type = ChoiceRecord

    def __init__(self, config: ConfigT) -> None:
        super().__init__(config)
        self._kept: dict[str, list[PictureItem]] = {}

    def _all(self, split: str) -> list[PictureItem]:
        if split not in self._kept:
            self._kept[split] = list(self.items(split))
        return self._kept[split]

    @abstractmethod
    def items(self, split: str) -> Iterator[PictureItem]:
        """The items of a split, in a fixed order."""

    def questions(self, split: str) -> Iterator[ChoiceRecord]:
        """Every item in every language, language by language, the items of each in the same order."""
        for language in self.config.languages:
            yield from self._of_language(split, language)

    def read(self, split: str) -> Iterator[Record]:
        self.files(split)
        yield from self.questions(split) if self._is_tested(split) else self._instructions(split)

    def _stream(self, split: str) -> Iterator[Record]:
        return self.read(split)

    def languages_of(self, split: str) -> list[str]:
        return self.config.languages if self._is_tested(split) else []

    def _is_tested(self, split: str) -> bool:
        return split in ("test", self.config.test_split)

    def _of_language(self, split: str, language: str) -> Iterator[ChoiceRecord]:
        for item in self._all(split):
            yield ChoiceRecord(
                identifier=f"{language}-{item.identifier}",
                language=language,
                question=item.questions[language],
                choices=list(item.options[language]),
                answer_index=item.answer_index,
                category=item.kind,
                pixels=item.pixels,
                item=item.identifier,
            )

    def _instructions(self, split: str) -> Iterator[InstructionRecord]:
        """Language and form depend on the item alone, so that equal data give equal questions."""
        shares = {language: share for language, share in self.config.shares.items() if share > 0}
        for item in self._all(split):
            rng = random.Random(f"instruction:{item.identifier}")
            language = rng.choices(list(shares), list(shares.values()))[0]
            wants_letter = rng.random() < self.config.letter_share
            options = item.options[language]
            yield InstructionRecord(
                identifier=f"{language}-{item.identifier}",
                language=language,
                prompt=asked(item.questions[language], options if wants_letter else ()),
                completion=LETTERS[item.answer_index] if wants_letter else options[item.answer_index],
                pixels=item.pixels,
                meta={"form": "letter" if wants_letter else "words"},
            )

    def prompts(self) -> Iterator[str]:
        """Every text that training, evaluation and translation may write, for a vocabulary of them.

        A prompt for a translation holds all others of its item, and their answers.
        """
        for split in SPLITS:
            for item in self._all(split):
                for language in dict.fromkeys((*self.config.languages, *self.config.shares)):
                    yield to_translate(
                        item.questions[language],
                        item.options[language],
                        instruction=self.config.instruction,
                        has_picture=True,
                    )
        yield from LETTERS


def picture_data_errors(data: PictureQuestionsConfig, config: RunConfig) -> Iterable[str]:
    """One line for each reason why a run cannot use such data."""
    if data.reference not in data.languages:
        yield f"data.reference: got '{data.reference}', expected one of data.languages: {', '.join(data.languages)}"
    if len(set(data.languages)) < len(data.languages):
        yield f"data.languages: got {data.languages}, expected each language once"
    if abs(sum(data.shares.values()) - 1) > 1e-6:
        yield f"data.shares: got {sum(data.shares.values()):g} in sum, expected 1"
    if config.train.max_steps and config.train.batching is not Batching.bucket:
        yield f"train.batching: got '{config.train.batching}', expected bucket: a row holds one picture"
    for name in ("train_split", "val_split", "test_split"):
        split = getattr(data, name)
        if split is not None and split not in SPLITS:
            yield f"data.{name}: got '{split}'{choices(split, SPLITS)}"
    if IMAGE_TOKEN in data.instruction:
        yield f"data.instruction: got '{data.instruction}', expected a text without {IMAGE_TOKEN}"
