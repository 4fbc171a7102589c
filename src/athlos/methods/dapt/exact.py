"""Exact components: they read and translate the sentences of worlds whose every sentence is known."""

import re
from collections.abc import Sequence
from typing import Any, Protocol

from athlos.data.source import Source
from athlos.data.sources.lab_chains import LabChainsSource
from athlos.data.sources.world_chains import WorldChainsSource
from athlos.errors import DataError
from athlos.lab.grammar import NounPhrase
from athlos.lab.reader import LabReader
from athlos.lab.world import World

REFERENCE = re.compile(r"#\d+")


class Exact(Protocol):
    """Raises `DataError` for texts that are no sentences of its world."""

    def answer(self, question: str, passages: Sequence[str], *, language: str) -> str | None:
        """The answer to a question about one fact, in a language; None where no passage states it."""
        ...

    def translation(self, text: str, *, language: str) -> str:
        """A sentence in another language; references such as `#1` stay."""
        ...


def exact_of(source: Source[Any]) -> Exact | None:
    """The exact reader of a source; None where its questions are about no known world."""
    if isinstance(source, LabChainsSource):
        return LabExact(source.world)
    return source.exact if isinstance(source, WorldChainsSource) else None


class LabExact:
    """`LabReader`, and translations of sub-questions with references."""

    def __init__(self, world: World) -> None:
        self.world, self.reader = world, LabReader(world)

    def answer(self, question: str, passages: Sequence[str], *, language: str) -> str | None:
        return self.reader.answer(question, passages, language=language)

    def translation(self, text: str, *, language: str) -> str:
        """A placeholder of the world stands for each reference meanwhile; `DataError` for more than there are."""
        marks = list(dict.fromkeys(REFERENCE.findall(text)))
        stand_ins = self.world.placeholders[: len(marks)]
        if len(marks) > len(stand_ins):
            raise DataError(f"lab translation: got {len(marks)} references, expected at most {len(stand_ins)}")
        source = self.world.languages.identify(REFERENCE.sub("", text))
        if source is None:
            raise DataError(f"lab translation: expected a text in one of the lab's languages, got '{text}'")
        names = dict(zip(marks, stand_ins, strict=True))
        spoken, target = self.world.languages[source], self.world.languages[language]
        plain = REFERENCE.sub(lambda match: spoken.phrase(NounPhrase(names[match[0]])), text)
        translation = self.world.languages.translate(plain, source=source, target=language)
        for mark, name in names.items():
            translation = translation.replace(target.phrase(NounPhrase(name)), mark)
        return translation
