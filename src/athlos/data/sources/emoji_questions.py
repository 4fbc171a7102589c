"""What is in the picture? Emoji with four captions to choose from, the same in every language.

Distractors are captions of the same group and split. Variants of one picture (by gender, hair, hour) share a label
stem, and stem and subgroup decide the split, so that near-duplicates never stand on both sides. Left out: the groups
of `exclude_groups`, and pictures whose caption in some language is the reference's own word.
"""

import logging
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from athlos.config.fields import bounded
from athlos.config.schema import RunConfig
from athlos.data.picture_prompts import templates, what_is_in_it
from athlos.data.picture_questions import (
    PictureItem,
    PictureQuestionsConfig,
    PictureQuestionSource,
    picture_data_errors,
)
from athlos.data.records import CaptionRecord
from athlos.data.source import data_part
from athlos.data.sources.emoji_captions import EmojiCaptionsConfig, EmojiCaptionsSource
from athlos.data.splits import fraction_of, split_at
from athlos.errors import DataError, choices
from athlos.stages import content_hash

log = logging.getLogger(__name__)

QUESTIONS_VERSION = 1
VARIANTS = frozenset(
    word
    for words in (
        "man woman men women person people boy girl male female older facing left right up down light dark medium skin",
        "tone hair red curly white bald blond beard button symbol and with in on of the a holding hands",
    )
    for word in words.split()
)
"""Words that tell variants of one picture apart, or nothing."""
CLOCK = re.compile(r"\b\w+(?:-thirty| o’clock| o'clock)\b")


@dataclass(kw_only=True)
class EmojiQuestionsConfig(PictureQuestionsConfig):
    captions_file: str = "captions.jsonl"
    images_file: str = "images_32x32.npz"
    split_shares: dict[str, float] = field(default_factory=dict)
    """Share of the label stems in each split, in [0, 1] and 1 in sum."""
    exclude_groups: list[str] = field(default_factory=list)
    """Groups of the captions file that are left out."""
    num_options: int = bounded("[2, 8]", default=4)
    """Captions to choose from."""
    seed: int = 0
    """Of the distractors and their order."""


class EmojiQuestionsSource(PictureQuestionSource[EmojiQuestionsConfig]):
    @cached_property
    def _captions(self) -> EmojiCaptionsSource:
        own = self.config
        return EmojiCaptionsSource(
            EmojiCaptionsConfig(
                name=own.name,
                dir=own.dir,
                on_bad=own.on_bad,
                captions_file=own.captions_file,
                images_file=own.images_file,
                language=own.reference,
            )
        )

    def files(self, split: str) -> list[Path]:
        if split not in self.config.split_shares:
            raise DataError(f"split '{split}' is unknown{choices(split, list(self.config.split_shares))}")
        return self._captions.all_files()

    def fingerprint(self, split: str) -> str:
        own = self.config
        return content_hash(
            {
                "files": super().fingerprint(split),
                "split": split,
                "version": QUESTIONS_VERSION,
                "shares": own.split_shares,
                "exclude": own.exclude_groups,
                "options": own.num_options,
                "seed": own.seed,
                "languages": own.languages,
                "training": own.shares,
                "letters": own.letter_share,
            }
        )

    def items(self, split: str) -> Iterator[PictureItem]:
        self.files(split)
        own, languages = self.config, dict.fromkeys((*self.config.languages, *self.config.shares))
        questions = {language: what_is_in_it(language) for language in languages}
        records = [record for record in self._usable if self._split_of(record) == split]
        for record in records:
            rng = random.Random(f"emoji:{own.seed}:{record.identifier}")
            near = [other for other in records if other.group == record.group and other is not record]
            chosen = [record]
            for other in rng.sample(near, len(near)):
                if len(chosen) == own.num_options:
                    break
                if all(
                    other.captions[x].casefold() not in {record.captions[x].casefold() for record in chosen}
                    for x in languages
                ):
                    chosen.append(other)
            if len(chosen) < own.num_options:
                log.warning("%s: its group has no %d captions in split %s", record.identifier, own.num_options, split)
                continue
            rng.shuffle(chosen)
            yield PictureItem(
                identifier=record.identifier,
                pixels=record.pixels,
                questions=questions,
                options={language: [option.captions[language] for option in chosen] for language in languages},
                answer_index=chosen.index(record),
                kind=record.group,
            )

    def words(self) -> Iterator[str]:
        return self.prompts()

    @cached_property
    def _usable(self) -> list[CaptionRecord]:
        """Pictures with a caption in every language that is not the reference's own, excluded groups left out."""
        own = self.config
        languages = dict.fromkeys((*own.languages, *own.shares))
        usable, seen = [], set()
        for record in self._captions.read_all():
            if isinstance(record, DataError):
                self.bad(record)
                continue
            key = record.pixels.tobytes()
            if record.group in own.exclude_groups or key in seen:
                continue
            if any(language not in record.captions for language in languages):
                continue
            reference = record.captions[own.reference].casefold()
            if any(record.captions[x].casefold() == reference for x in languages if x != own.reference):
                continue
            seen.add(key)
            usable.append(record)
        return usable

    def _split_of(self, record: CaptionRecord) -> str:
        stem = label_stem(record.captions[self.config.reference])
        return split_at(fraction_of(f"{record.subgroup}|{stem}"), self.config.split_shares)


def label_stem(label: str) -> str:
    """What is left of an English caption without what tells variants apart: "woman: red hair" and "man: bald" agree."""
    plain = CLOCK.sub("clock", label.casefold())
    head = plain.partition(":")[0]
    words = [word for word in re.findall(r"\w+", head) if word not in VARIANTS]
    return " ".join(words) or "person"


def _errors(data: EmojiQuestionsConfig, config: RunConfig) -> Iterable[str]:
    yield from picture_data_errors(data, config)
    known = list(templates()["question"])
    for language in dict.fromkeys((*data.languages, *data.shares)):
        if language not in known:
            yield f"data.languages: got '{language}'{choices(language, known)}"
    if abs(sum(data.split_shares.values()) - 1) > 1e-6:
        yield f"data.split_shares: got {sum(data.split_shares.values()):g} in sum, expected 1"


PARTS = [
    data_part(
        "emoji_questions",
        EmojiQuestionsConfig,
        EmojiQuestionsSource,
        "emoji with four captions to choose from, in up to 14 languages",
        check=_errors,
    )
]
