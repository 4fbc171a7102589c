"""The five languages of the lab world: rendering, parsing, exact identification, and the oracle translator."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from athlos.errors import ConfigError, DataError, choices
from athlos.lab.grammar import Clause, Grammar, NounPhrase, Typology
from athlos.lab.lexicon import Lexicon
from athlos.lab.scripts import SCRIPTS, Script

CODES = ("latn", "cyrl", "grek", "thai", "hani")
"""Languages, named by their script (ISO 15924): the words are invented, so no real language's code fits."""

TYPOLOGIES = {
    "latn": Typology(
        order="svo",
        adjective_first=True,
        numeral_first=True,
        genitive_first=False,
        preposition=True,
        adjunct_first=False,
    ),
    "cyrl": Typology(
        order="svo",
        adjective_first=False,
        numeral_first=True,
        genitive_first=False,
        preposition=True,
        adjunct_first=True,
    ),
    "grek": Typology(
        order="vso",
        adjective_first=False,
        numeral_first=False,
        genitive_first=False,
        preposition=True,
        adjunct_first=False,
    ),
    "thai": Typology(
        order="sov",
        adjective_first=True,
        numeral_first=True,
        genitive_first=True,
        preposition=False,
        adjunct_first=True,
    ),
    "hani": Typology(
        order="ovs",
        adjective_first=False,
        numeral_first=False,
        genitive_first=True,
        preposition=False,
        adjunct_first=True,
    ),
}
"""Word order, further from `latn` down the list: 0, 2, 3, 4 and 6 of the six features differ."""


@dataclass(frozen=True, kw_only=True)
class Language:
    """One language: script, lexicon and grammar. Same seed and settings, same language."""

    code: str
    script: Script
    typology: Typology
    grammar: Grammar = field(repr=False)

    def render(self, clause: Clause) -> str:
        return self.grammar.render(clause)

    def parse(self, sentence: str) -> Clause:
        return self.grammar.parse(sentence)

    def phrase(self, phrase: NounPhrase) -> str:
        return self.grammar.phrase(phrase)

    def parse_phrase(self, text: str) -> NounPhrase:
        return self.grammar.parse_phrase(text)

    def sentences(self, text: str) -> list[str]:
        return self.grammar.sentences(text)

    def join(self, sentences: Iterable[str]) -> str:
        """Sentences as running text; in Han without spaces between them, as it is written."""
        return ("" if self.code == "hani" else " ").join(sentences)

    @cached_property
    def characters(self) -> frozenset[str]:
        """Letters of this language, in both cases; vowel signs included."""
        text = "".join(self.script.syllables)
        return frozenset(text + text.upper())


class Languages(Mapping[str, Language]):
    """The languages of a world, by code."""

    def __init__(
        self,
        *,
        seed: int,
        codes: Iterable[str] = CODES,
        num_spare: int = 0,
        shared_word_order: bool = False,
    ) -> None:
        """`shared_word_order` gives all languages the order of the first, so that only words differ."""
        self._languages: dict[str, Language] = {}
        for code in codes:
            if code not in CODES:
                raise ConfigError(f"lab.languages: got '{code}'{choices(code, CODES)}")
            typology = TYPOLOGIES[CODES[0] if shared_word_order else code]
            lexicon = Lexicon(SCRIPTS[code], num_spare=num_spare, rng=random.Random(f"language:{seed}:{code}"))
            self._languages[code] = Language(
                code=code, script=SCRIPTS[code], typology=typology, grammar=Grammar(typology, lexicon)
            )
        self._of_character = {
            character: code for code, language in self._languages.items() for character in language.characters
        }

    def __getitem__(self, code: str) -> Language:
        """Raises `DataError` for a language that the world does not have, such as a pivot of another data set."""
        if code not in self._languages:
            raise DataError(f"lab: it has no language '{code}'{choices(code, list(self._languages))}")
        return self._languages[code]

    def __contains__(self, code: object) -> bool:
        return code in self._languages

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._languages)

    def __len__(self) -> int:
        return len(self._languages)

    def identify(self, text: str) -> str | None:
        """The code of the language of a text: exact, as no two share a letter. None for no letters or a mixture."""
        codes = {self._of_character.get(character) for character in text if not _is_neutral(character)}
        return codes.pop() if len(codes) == 1 else None

    def translate(self, text: str, *, source: str, target: str) -> str:
        """The oracle translation, sentence by sentence; a text without end mark is read as a noun phrase.

        Raises `DataError` for text that the source language cannot parse.
        """
        origin, goal = self[source], self[target]
        sentences = origin.sentences(text)
        if not sentences:
            raise DataError("lab translation: got an empty text")
        marks = (origin.script.full_stop, origin.script.question_mark)
        if not sentences[-1].endswith(marks):
            if len(sentences) > 1:
                raise DataError("lab translation: the last sentence has no end mark")
            return goal.phrase(origin.parse_phrase(text))
        return goal.join(goal.render(origin.parse(sentence)) for sentence in sentences)


def _is_neutral(character: str) -> bool:
    """Digits, signs, punctuation and spaces belong to all languages. Thai vowel signs are letters here."""
    if "\u0e30" <= character <= "\u0e3a":
        return False
    return not character.isalpha() or character == SCRIPTS["thai"].full_stop
