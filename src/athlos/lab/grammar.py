"""Sentences as meaning, and the two ways between meaning and text: render and parse.

A `Clause` says who does what to whom, in no language. A `Grammar` puts its parts in the order of a language; parsing is
exact, since every word has one meaning and one part of speech: parse(render(clause)) == clause for every clause.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Optional

from athlos.errors import DataError
from athlos.lab.lexicon import AND, GENITIVE, NOT, YES_NO, Category, Lexicon, category


class NounPhrase(NamedTuple):
    """`3 big red apples of the farmer and ...`; `head` is a noun, a name or a question word."""

    head: str
    adjectives: tuple[str, ...] = ()
    count: int | None = None  # type: ignore[assignment]  # no one counts items of a phrase
    owner: Optional["NounPhrase"] = None
    and_also: Optional["NounPhrase"] = None
    """A second phrase joined by `and`; neither of the two may itself be joined or owned by a joined one."""


class Clause(NamedTuple):
    """One sentence. `adjuncts` are phrases with an adposition: ("in", city)."""

    verb: str
    subject: NounPhrase
    object: NounPhrase | None = None
    adjuncts: tuple[tuple[str, NounPhrase], ...] = ()
    is_question: bool = False
    is_negated: bool = False


@dataclass(frozen=True, kw_only=True)
class Typology:
    """Word order of a language."""

    order: str
    """Order of subject, verb and object: `svo`, `sov`, `vso`, `vos`, `osv` or `ovs`."""
    adjective_first: bool
    """red apple; else apple red."""
    numeral_first: bool
    """3 apples; else apples 3."""
    genitive_first: bool
    """X's capital; else capital of X."""
    preposition: bool
    """in the city; else the city in."""
    adjunct_first: bool
    """In the city X sees Y; else X sees Y in the city."""

    FEATURES = ("order", "adjective_first", "numeral_first", "genitive_first", "preposition", "adjunct_first")

    def distance(self, other: "Typology") -> float:
        """Share of the six features that differ, in [0, 1]."""
        return sum(bool(getattr(self, name) != getattr(other, name)) for name in self.FEATURES) / len(self.FEATURES)


MAX_OWNERS = 8
"""Longest chain `X of Y of ...` that is read; text of a model may hold thousands, which no stack would bear."""
MAX_DIGITS = 9
"""Longest number that is read."""
MAX_CACHED_PHRASES = 100_000
_SUM_SIGN = re.compile(r"[0-9]+|[-+=]")
_UNIT = re.compile(r"[0-9]+|[-+=,]|[^\W\d_](?:[^\W\d_]|\w|[\u0e34-\u0e39])*|\S")


@dataclass(frozen=True)
class Grammar:
    """Renders and parses the clauses of one language."""

    typology: Typology
    lexicon: Lexicon
    _phrases: dict[NounPhrase, str] = field(default_factory=dict, repr=False, compare=False)

    # -- meaning to text ------------------------------------------------------------------------------------------

    def render(self, clause: Clause) -> str:
        """The sentence, with its full stop or question mark."""
        typology, script = self.typology, self.lexicon.script
        words = self.lexicon.words
        verb = words[clause.verb]
        if clause.is_negated:
            verb = self.join((words[NOT], verb))
        subject = self.phrase(clause.subject)
        parts = {"s": subject, "v": verb}
        if clause.object is not None:
            parts["o"] = self.phrase(clause.object)
        core = [parts[role] for role in typology.order if role in parts]
        if clause.adjuncts:
            adjuncts = [self._adjunct(adposition, phrase) for adposition, phrase in clause.adjuncts]
            core = [*adjuncts, *core] if typology.adjunct_first else [*core, *adjuncts]
        if clause.is_question:
            if not _asks(clause):
                core = [words[YES_NO], *core]
            return self.join(core) + script.question_mark
        return self.join(core) + script.full_stop

    def phrase(self, phrase: NounPhrase) -> str:
        """A noun phrase alone, as in a short answer."""
        text = self._phrases.get(phrase)
        if text is None:
            text = self._render_phrase(phrase)
            if len(self._phrases) < MAX_CACHED_PHRASES:
                self._phrases[phrase] = text
        return text

    def _render_phrase(self, phrase: NounPhrase) -> str:
        typology, words = self.typology, self.lexicon.words
        head = self.lexicon.word(phrase.head)
        adjectives = [words[adjective] for adjective in phrase.adjectives]
        parts = [*adjectives, head] if typology.adjective_first else [head, *adjectives]
        if phrase.count is not None:
            parts = [str(phrase.count), *parts] if typology.numeral_first else [*parts, str(phrase.count)]
        if phrase.owner is not None:
            owner = self.phrase(phrase.owner)
            parts = [owner, words[GENITIVE], *parts] if typology.genitive_first else [*parts, words[GENITIVE], owner]
        if phrase.and_also is not None:
            parts = [*parts, words[AND], self.phrase(phrase.and_also)]
        return self.join(parts)

    def _adjunct(self, adposition: str, phrase: NounPhrase) -> str:
        word, text = self.lexicon.words[adposition], self.phrase(phrase)
        return self.join((word, text) if self.typology.preposition else (text, word))

    def join(self, parts: Sequence[str]) -> str:
        """Words as running text. Numbers and signs stand between spaces in every script."""
        if self.lexicon.script.has_spaces:
            return " ".join(parts)
        text = parts[0]
        for part in parts[1:]:
            apart = _is_sign(text[-1]) or _is_sign(part[0])
            text = f"{text} {part}" if apart else text + part
        return text

    # -- text to meaning ------------------------------------------------------------------------------------------

    def words_of(self, text: str) -> list[str]:
        """Running text as words, numbers and signs, punctuation left out."""
        script = self.lexicon.script
        marks = (script.full_stop, script.question_mark, script.comma)
        return [word for word in self.units(text) if word not in marks]

    def units(self, text: str) -> Iterator[str]:
        """Words, numbers, signs and marks in order; between two of them stands nothing but white space."""
        for chunk in text.split():
            for unit in _UNIT.findall(chunk):
                if self.lexicon.script.has_spaces or _SUM_SIGN.fullmatch(unit):
                    yield unit
                else:
                    yield from self.lexicon.cut(unit)

    def sentences(self, text: str) -> list[str]:
        """Running text cut after each full stop and question mark; the marks stay."""
        script = self.lexicon.script
        marks = re.escape(script.full_stop + script.question_mark)
        pattern = rf"[^{marks}]*[{marks}]?"
        return [sentence.strip() for sentence in re.findall(pattern, text) if sentence.strip()]

    def parse(self, sentence: str) -> Clause:
        """The meaning of one sentence; raises `DataError` naming the word or place it cannot make sense of."""
        text = sentence.strip()
        script = self.lexicon.script
        if not text.endswith((script.full_stop, script.question_mark)):
            raise DataError(f"lab sentence '{_short(text)}': no full stop or question mark at its end")
        is_question = text.endswith(script.question_mark)
        return _Parser(self, text[:-1]).clause(is_question=is_question)

    def parse_phrase(self, text: str) -> NounPhrase:
        """The meaning of a noun phrase alone; raises `DataError`."""
        parser = _Parser(self, text)
        phrase = parser.phrase()
        parser.expect_end()
        return phrase


def gloss(clause: Clause) -> str:
    """The sentence in English words, subject first, for a reader of samples."""
    parts = [*(["not"] if clause.is_negated else []), clause.verb]
    text = " ".join([gloss_phrase(clause.subject), *parts, *([gloss_phrase(clause.object)] if clause.object else [])])
    adjuncts = "".join(f" {adposition} {gloss_phrase(phrase)}" for adposition, phrase in clause.adjuncts)
    return f"{text}{adjuncts}{'?' if clause.is_question else '.'}"


def gloss_phrase(phrase: NounPhrase) -> str:
    """A noun phrase in English words."""
    words = [*([str(phrase.count)] if phrase.count is not None else []), *phrase.adjectives, phrase.head]
    owner = f" of {gloss_phrase(phrase.owner)}" if phrase.owner else ""
    return " ".join(words) + owner + (f" and {gloss_phrase(phrase.and_also)}" if phrase.and_also else "")


def _is_sign(character: str) -> bool:
    return character in "0123456789+-="


def _asks(clause: Clause) -> bool:
    """Whether a question word stands in it."""
    phrases = [clause.subject, clause.object, *(phrase for _, phrase in clause.adjuncts)]
    return any(_has_question_word(phrase) for phrase in phrases if phrase is not None)


def _has_question_word(phrase: NounPhrase) -> bool:
    inner = (phrase.owner, phrase.and_also)
    return category(phrase.head) is Category.question_word or any(
        _has_question_word(phrase_inside) for phrase_inside in inner if phrase_inside
    )


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


class _Parser:
    """Reads words from the left; each method takes what it can and leaves the rest."""

    def __init__(self, grammar: Grammar, text: str) -> None:
        self.grammar, self.text, self.at = grammar, text, 0
        self.words = list(grammar.units(text))
        self.concepts = [self._concept(word) for word in self.words]

    def _concept(self, word: str) -> str | int:
        """A number for digits, else the concept."""
        if word.isascii() and word.isdigit():
            if len(word) > MAX_DIGITS:
                raise DataError(
                    f"lab sentence '{_short(self.text)}': a number of {len(word)} digits, expected at most {MAX_DIGITS}"
                )
            return int(word)
        concept = self.grammar.lexicon.meaning(word)
        if concept is None:
            raise DataError(f"lab sentence '{_short(self.text)}': no word '{_short(word)}' in this language")
        return concept

    def clause(self, *, is_question: bool) -> Clause:
        verb, is_negated, says_whether = "", False, False
        bare: list[NounPhrase] = []
        adjuncts: list[tuple[str, NounPhrase]] = []
        while self.at < len(self.words):
            concept = self.concepts[self.at]
            if concept == YES_NO:
                says_whether = True
                self.at += 1
            elif concept == NOT:
                is_negated = True
                self.at += 1
            elif self._is(Category.verb):
                if verb:
                    raise self._error("a second verb")
                verb = str(concept)
                self.at += 1
            elif self._is(Category.adposition):
                self.at += 1
                adjuncts.append((str(concept), self.phrase()))
            else:
                phrase = self.phrase()
                if not self.grammar.typology.preposition and self._is(Category.adposition):
                    adjuncts.append((str(self.concepts[self.at]), phrase))
                    self.at += 1
                else:
                    bare.append(phrase)
        if not verb or len(bare) not in (1, 2):
            raise DataError(
                f"lab sentence '{_short(self.text)}': found {'a' if verb else 'no'} verb and {len(bare)} phrases, "
                "expected a verb with a subject and at most one object"
            )
        order = self.grammar.typology.order
        if len(bare) == 2 and order.index("o") < order.index("s"):
            bare.reverse()
        clause = Clause(verb, bare[0], bare[1] if len(bare) == 2 else None, tuple(adjuncts), is_question, is_negated)
        if says_whether != (is_question and not _asks(clause)):
            raise DataError(f"lab sentence '{_short(self.text)}': question mark and question words do not agree")
        return clause

    def phrase(self) -> NounPhrase:
        """A phrase, with a second one after `and`."""
        first = self._owned()
        if self._take(AND):
            return first._replace(and_also=self._owned())
        return first

    def _owned(self) -> NounPhrase:
        chain = [self._simple()]
        while self._take(GENITIVE):
            if len(chain) > MAX_OWNERS:
                raise self._error(f"more than {MAX_OWNERS} owners in a row")
            chain.append(self._simple())
        if not self.grammar.typology.genitive_first:
            chain.reverse()
        phrase = chain[0]
        for owned in chain[1:]:
            phrase = owned._replace(owner=phrase)
        return phrase

    def _simple(self) -> NounPhrase:
        typology = self.grammar.typology
        count = self._count() if typology.numeral_first else None
        adjectives = self._adjectives() if typology.adjective_first else ()
        if not (self._is(Category.noun) or self._is(Category.question_word)):
            raise self._error("expected a noun")
        head = str(self.concepts[self.at])
        self.at += 1
        if not typology.adjective_first:
            adjectives = self._adjectives()
        if not typology.numeral_first:
            count = self._count()
        return NounPhrase(head, adjectives, count)

    def _count(self) -> int | None:
        if self.at < len(self.concepts) and isinstance(self.concepts[self.at], int):
            self.at += 1
            return int(self.concepts[self.at - 1])
        return None

    def _adjectives(self) -> tuple[str, ...]:
        first = self.at
        while self._is(Category.adjective):
            self.at += 1
        return tuple(str(concept) for concept in self.concepts[first : self.at])

    def _is(self, wanted: Category) -> bool:
        if self.at >= len(self.concepts):
            return False
        concept = self.concepts[self.at]
        return isinstance(concept, str) and category(concept) is wanted

    def _take(self, particle: str) -> bool:
        if self.at < len(self.concepts) and self.concepts[self.at] == particle:
            self.at += 1
            return True
        return False

    def _error(self, expected: str) -> DataError:
        word = f"'{_short(self.words[self.at])}'" if self.at < len(self.words) else "the end"
        return DataError(f"lab sentence '{_short(self.text)}': {expected} at word {self.at + 1}, found {word}")

    def expect_end(self) -> None:
        if self.at < len(self.words):
            raise self._error("expected the end")
