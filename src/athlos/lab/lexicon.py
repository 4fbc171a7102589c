"""The meanings of the lab world and the words for them: one word a meaning and language, one meaning a word.

A meaning ("concept") is named by its English gloss, a person or place by `@<number>`, its name's number.
"""

import random
import re
from enum import StrEnum

from athlos.errors import ConfigError
from athlos.lab.scripts import NUM_NAME_SYLLABLES, Script, Syllabary, deal

NUM_NAMES = NUM_NAME_SYLLABLES**2
NAME_MARK = "@"


class Category(StrEnum):
    """Part of speech: what the parser may do with a word."""

    noun = "noun"
    adjective = "adjective"
    verb = "verb"
    adposition = "adposition"
    question_word = "question_word"
    particle = "particle"


COPULA = "is"
WHO_WHAT = "what"
GENITIVE, AND, NOT, YES_NO = "of", "and", "not", "whether"
PARTICLES = (GENITIVE, AND, NOT, YES_NO)
ADPOSITIONS = ("in", "from", "to", "with", "under", "above", "left-of", "right-of", "near")
QUESTION_WORDS = (WHO_WHAT, "how-many", "which-colour", "which-shape", "where")

RELATION_NOUNS = (
    "birthplace",
    "employer",
    "spouse",
    "teacher",
    "country",
    "mayor",
    "river",
    "capital",
    "leader",
    "currency",
    "seat",
    "founder",
    "product",
    "nationality",
    "workplace",
)
"""One a relation of `world.py`; statements are made of it ("the capital of X is Y") or of its verb."""
KIND_NOUNS = ("person", "city", "state", "company", "stream", "coin", "ware")
THING_NOUNS = (
    "apple",
    "book",
    "stone",
    "lamp",
    "coat",
    "bowl",
    "key",
    "rope",
    "seed",
    "shell",
    "drum",
    "nail",
    "house",
    "field",
    "garden",
    "market",
    "harbour",
    "bridge",
    "tower",
    "mill",
    "well",
    "road",
    "forest",
    "hill",
    "farmer",
    "smith",
    "child",
    "sailor",
    "baker",
    "guard",
    "singer",
    "doctor",
    "dog",
    "horse",
    "goat",
    "bird",
)
SHAPE_NOUNS = ("circle", "square", "triangle", "cross", "picture", "cell")
PLACE_NOUNS = ("top", "middle", "bottom")
ANSWER_NOUNS = ("yes", "no", "unknown")
COLOURS = ("red", "green", "blue", "yellow", "white", "violet")
ADJECTIVES = (*COLOURS, "big", "small", "old", "new", "heavy", "light", "clean", "round", "long", "same", "other")
RELATION_VERBS = tuple(f"has-{noun}" for noun in RELATION_NOUNS) + tuple(f"serves-as-{noun}" for noun in RELATION_NOUNS)
"""`has-capital`: X has Y as its capital. `serves-as-capital`: Y is the capital of X, with Y as the subject."""
ACTION_VERBS = (
    "has",
    "finds",
    "buys",
    "loses",
    "gives-away",
    "sells",
    "carries",
    "sees",
    "makes",
    "keeps",
    "breaks",
    "paints",
    "follows",
    "helps",
    "calls",
    "equals",
)

CONCEPTS: dict[str, Category] = {
    **dict.fromkeys(PARTICLES, Category.particle),
    **dict.fromkeys(ADPOSITIONS, Category.adposition),
    **dict.fromkeys(QUESTION_WORDS, Category.question_word),
    **dict.fromkeys(
        (*RELATION_NOUNS, *KIND_NOUNS, *THING_NOUNS, *SHAPE_NOUNS, *PLACE_NOUNS, *ANSWER_NOUNS), Category.noun
    ),
    **dict.fromkeys(ADJECTIVES, Category.adjective),
    **dict.fromkeys((COPULA, *RELATION_VERBS, *ACTION_VERBS), Category.verb),
}
"""Every meaning but names and spare words."""
SPARE_MARK = "spare-"
"""Nouns without an English gloss, `spare-0`, `spare-1` ...: words that a study keeps out of training."""


def name(number: int) -> str:
    """The concept of a name."""
    return f"{NAME_MARK}{number}"


def is_name(concept: str) -> bool:
    return concept.startswith(NAME_MARK)


def category(concept: str) -> Category:
    """Part of speech of a concept; names and spare words are nouns."""
    if concept.startswith((NAME_MARK, SPARE_MARK)):
        return Category.noun
    return CONCEPTS[concept]


class Lexicon:
    """The words of one language. `words` maps concept to word, `meanings` back; names are in neither."""

    def __init__(self, script: Script, *, num_spare: int, rng: random.Random) -> None:
        self.script = script
        self.syllabary: Syllabary = deal(script, rng=rng)
        concepts = [*CONCEPTS, *(f"{SPARE_MARK}{index}" for index in range(num_spare))]
        short = [concept for concept in concepts if category(concept) in (Category.particle, Category.adposition)]
        long = [concept for concept in concepts if concept not in set(short)]
        syllables = self.syllabary.words
        num_words = len(syllables) ** 2
        if len(long) > num_words:
            raise ConfigError(
                f"lab.num_spare: got {num_spare}, expected at most {num_words - len(long) + num_spare} "
                f"(this script makes {num_words} words)"
            )
        pairs = rng.sample(range(num_words), len(long))
        made = [syllables[pair // len(syllables)] + syllables[pair % len(syllables)] for pair in pairs]
        self.words = {
            **dict(zip(short, self.syllabary.particles, strict=False)),
            **dict(zip(long, made, strict=True)),
        }
        self.meanings = {word: concept for concept, word in self.words.items()}
        names = [first + second for first in self.syllabary.names for second in self.syllabary.names]
        self.names = [text.capitalize() if script.has_case else text for text in names]
        self._name_numbers = {text: number for number, text in enumerate(self.names)}
        self._unit = self._unit_pattern()

    def _unit_pattern(self) -> re.Pattern[str]:
        """A particle, or any other syllable and as much again, or one character of neither: how running text is cut."""
        syllabary, size = self.syllabary, self.script.syllable_size
        others = {*syllabary.words, *(text[:size] for text in self.names)}
        return re.compile(f"{'|'.join(syllabary.particles)}|(?:{'|'.join(sorted(others))}).{{0,{size}}}|.", re.DOTALL)

    def word(self, concept: str) -> str:
        """The word for a concept; raises `KeyError` for an unknown one."""
        return self.names[int(concept[1:])] if concept[0] == NAME_MARK else self.words[concept]

    def meaning(self, word: str) -> str | None:
        """The concept of a word, or nothing for a word of no meaning here."""
        concept = self.meanings.get(word)
        if concept is None and word in self._name_numbers:
            return name(self._name_numbers[word])
        return concept

    def cut(self, run: str) -> list[str]:
        """A run of text without spaces as words; what begins with no syllable comes out character by character."""
        return self._unit.findall(run)
