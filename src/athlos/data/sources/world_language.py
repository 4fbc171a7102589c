"""The six languages of `data=world_chains`: wordings of its relations, and the exact reading of what they make.

A phrase comes in two forms, by itself and behind `of`. `{of}` in a wording is the second form of what the relation is
of, `{name}` a name as it stands. A question for one fact parses back to the relation and the name; others do not.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from athlos.errors import DataError

REFERENCE = re.compile(r"#\d+")
INVERTED = {"capital_country": "capital", "domain_country": "domain"}
"""Relations whose answer is the subject of another: the country with the capital X."""


class Asked(NamedTuple):
    """A question for one fact: its relation, and a country's code, a capital, a domain or a reference."""

    relation: str
    argument: str


@dataclass(frozen=True, kw_only=True)
class Wordings:
    question: str
    statement: str
    of_name: str
    """A name behind `of`."""
    nouns: Mapping[str, str]
    """Relation -> the phrase by itself."""
    of_nouns: Mapping[str, str]
    """Relation -> the phrase behind `of`."""
    elision: tuple[str, str, str] | None = None
    """(letters, long form, short form) of `of` before a name that begins with one of the letters."""

    def of(self, name: str) -> str:
        if self.elision and name[:1] in self.elision[0]:
            return self.of_name.replace(self.elision[1], self.elision[2]).format(name=name)
        return self.of_name.format(name=name)


def _joined(nouns: Mapping[str, str], form: str) -> dict[str, str]:
    """Behind `of` where a phrase does not change there."""
    return {relation: form.replace("{noun}", noun) for relation, noun in nouns.items()}


_EN = {
    "capital": "the capital {of}",
    "domain": "the internet domain {of}",
    "largest_neighbour": "the largest neighbouring country {of}",
    "smallest_neighbour": "the smallest neighbouring country {of}",
    "capital_country": "the country whose capital is {name}",
    "domain_country": "the country whose internet domain is {name}",
}
_JA = {
    "capital": "{of}首都",
    "domain": "{of}インターネットドメイン",
    "largest_neighbour": "{of}面積が最大の隣国",
    "smallest_neighbour": "{of}面積が最小の隣国",
    "capital_country": "首都が{name}である国",
    "domain_country": "インターネットドメインが{name}である国",
}
_ZH = {
    "capital": "{of}首都",
    "domain": "{of}互联网域名",
    "largest_neighbour": "{of}面积最大的邻国",
    "smallest_neighbour": "{of}面积最小的邻国",
    "capital_country": "首都为{name}的国家",
    "domain_country": "互联网域名为{name}的国家",
}

LANGUAGES = {
    "en": Wordings(
        question="What is {noun}?",
        statement="{noun} is {value}.",
        of_name="of {name}",
        nouns=_EN,
        of_nouns=_joined(_EN, "of {noun}"),
    ),
    "de": Wordings(
        question="Wie heißt {noun}?",
        statement="{noun} heißt {value}.",
        of_name="von {name}",
        nouns={
            "capital": "die Hauptstadt {of}",
            "domain": "die Internet-Domain {of}",
            "largest_neighbour": "das größte Nachbarland {of}",
            "smallest_neighbour": "das kleinste Nachbarland {of}",
            "capital_country": "das Land mit der Hauptstadt {name}",
            "domain_country": "das Land mit der Internet-Domain {name}",
        },
        of_nouns={
            "capital": "der Hauptstadt {of}",
            "domain": "der Internet-Domain {of}",
            "largest_neighbour": "des größten Nachbarlandes {of}",
            "smallest_neighbour": "des kleinsten Nachbarlandes {of}",
            "capital_country": "des Landes mit der Hauptstadt {name}",
            "domain_country": "des Landes mit der Internet-Domain {name}",
        },
    ),
    "es": Wordings(
        question="¿Cuál es {noun}?",
        statement="{noun} es {value}.",
        of_name="de {name}",
        nouns={
            "capital": "la capital {of}",
            "domain": "el dominio de internet {of}",
            "largest_neighbour": "el mayor país vecino {of}",
            "smallest_neighbour": "el menor país vecino {of}",
            "capital_country": "el país cuya capital es {name}",
            "domain_country": "el país cuyo dominio de internet es {name}",
        },
        of_nouns={
            "capital": "de la capital {of}",
            "domain": "del dominio de internet {of}",
            "largest_neighbour": "del mayor país vecino {of}",
            "smallest_neighbour": "del menor país vecino {of}",
            "capital_country": "del país cuya capital es {name}",
            "domain_country": "del país cuyo dominio de internet es {name}",
        },
    ),
    "fr": Wordings(
        question="Comment s'appelle {noun} ?",
        statement="{noun} s'appelle {value}.",
        of_name="de {name}",
        elision=("AEIOUYÉÈÊÎÔaeiouéèêîô", "de ", "d'"),
        nouns={
            "capital": "la capitale {of}",
            "domain": "le domaine internet {of}",
            "largest_neighbour": "le plus grand pays voisin {of}",
            "smallest_neighbour": "le plus petit pays voisin {of}",
            "capital_country": "le pays dont la capitale est {name}",
            "domain_country": "le pays dont le domaine internet est {name}",
        },
        of_nouns={
            "capital": "de la capitale {of}",
            "domain": "du domaine internet {of}",
            "largest_neighbour": "du plus grand pays voisin {of}",
            "smallest_neighbour": "du plus petit pays voisin {of}",
            "capital_country": "du pays dont la capitale est {name}",
            "domain_country": "du pays dont le domaine internet est {name}",
        },
    ),
    "ja": Wordings(
        question="{noun}は何ですか。",
        statement="{noun}は{value}です。",
        of_name="{name}の",
        nouns=_JA,
        of_nouns=_joined(_JA, "{noun}の"),
    ),
    "zh": Wordings(
        question="{noun}是什么?",
        statement="{noun}是{value}。",
        of_name="{name}的",
        nouns=_ZH,
        of_nouns=_joined(_ZH, "{noun}的"),
    ),
}


class Speech:
    """Writes and reads the sentences of a table in several languages.

    `names` are those of countries, by code and language; `texts` are the capitals and domains. A name that two
    countries share in a language is read as neither.
    """

    def __init__(self, languages: Sequence[str], names: Mapping[str, Mapping[str, str]], *, texts: set[str]) -> None:
        self.languages, self._names, self._texts = list(languages), names, texts
        self._codes: dict[str, dict[str, str | None]] = {language: {} for language in languages}
        for code in names:
            for language, known in self._codes.items():
                name = self.name(code, language)
                known[name] = None if name in known else code
        self._patterns = {language: _patterns(LANGUAGES[language]) for language in languages}
        self._statement_of = lru_cache(maxsize=1 << 14)(self._read_statement)

    # -- writing -------------------------------------------------------------------------------------------------------

    def name(self, value: str, language: str) -> str:
        """A country in a language, in English where the table lacks it; other values as they are."""
        of_country = self._names.get(value)
        return value if of_country is None else of_country.get(language, of_country["en"])

    def question(self, start: str, relations: Sequence[str], *, language: str) -> str:
        words = LANGUAGES[language]
        return _sentence(words.question.format(noun=self._noun(start, relations, words, language)))

    def statement(self, asked: Asked, value: str, *, language: str) -> str:
        words = LANGUAGES[language]
        noun = self._noun(asked.argument, (asked.relation,), words, language)
        return _sentence(words.statement.format(noun=noun, value=self.name(value, language)))

    def _noun(self, start: str, relations: Sequence[str], words: Wordings, language: str) -> str:
        name = self.name(start, language)
        inner = words.of(name)
        for relation in relations[:-1]:
            inner = words.of_nouns[relation].format(of=inner, name=name)
        return words.nouns[relations[-1]].format(of=inner, name=name)

    def is_ambiguous(self, value: str) -> bool:
        """Whether it is written like another country, or a capital like a country, in one of the languages."""
        if value in self._names:
            return any(self._codes[language][self.name(value, language)] is None for language in self.languages)
        return any(value in self._codes[language] for language in self.languages)

    # -- reading -------------------------------------------------------------------------------------------------------

    def answer(self, question: str, passages: Sequence[str], *, language: str) -> str | None:
        """The answer to a question for one fact; `DataError` for other texts, also for one about nothing known."""
        asked, _ = self._asked(question)
        for text in passages:
            for line in text.splitlines():
                told = self._statement_of(line)
                if told is None:
                    continue
                fact, value = told
                if fact == asked:
                    return self.name(value, language)
                if INVERTED.get(asked.relation) == fact.relation and value == asked.argument:
                    return self.name(fact.argument, language)
        return None

    def translation(self, text: str, *, language: str) -> str:
        asked, _ = self._asked(text)
        return self.question(asked.argument, (asked.relation,), language=language)

    def _asked(self, question: str) -> tuple[Asked, str]:
        """What a question for one fact asks, and its language."""
        for language in self.languages:
            for relation, pattern, _ in self._patterns[language]:
                match = pattern.fullmatch(question)
                argument = self._value(match["name"], language) if match else None
                if argument is not None:
                    return Asked(relation, argument), language
        raise DataError(f"world question: expected one for a single known fact, got '{question}'")

    def _read_statement(self, line: str) -> tuple[Asked, str] | None:
        for language in self.languages:
            for relation, _, pattern in self._patterns[language]:
                match = pattern.fullmatch(line)
                if match:
                    argument, value = (self._value(match[group], language) for group in ("name", "value"))
                    if argument is not None and value is not None:
                        return Asked(relation, argument), value
        return None

    def _value(self, text: str, language: str) -> str | None:
        """The code of a country's name; a capital, a domain or a reference as it is; None for anything else."""
        code = self._codes[language].get(text)
        if code is not None:
            return code
        return text if text in self._texts or REFERENCE.fullmatch(text) else None


def _sentence(text: str) -> str:
    """With a capital letter at its beginning, `¿` passed over."""
    first = next(index for index, letter in enumerate(text) if letter.isalnum() or letter == "#")
    return text[:first] + text[first].upper() + text[first + 1 :]


def _patterns(words: Wordings) -> list[tuple[str, re.Pattern[str], re.Pattern[str]]]:
    """(relation, question, statement) of single facts, in each form of `of`; the first letter in either case."""
    of_forms = [words.of_name]
    if words.elision:
        of_forms.append(words.of_name.replace(words.elision[1], words.elision[2]))
    return [
        (relation, _pattern(words.question, form), _pattern(words.statement, form))
        for relation, noun in words.nouns.items()
        for form in dict.fromkeys(noun.replace("{of}", of_form) for of_form in of_forms)
    ]


def _pattern(sentence: str, noun: str) -> re.Pattern[str]:
    parts = re.split(r"(\{name\}|\{value\})", sentence.replace("{noun}", noun))
    groups = {"{name}": "(?P<name>.+)", "{value}": "(?P<value>.+)"}
    return re.compile("".join(groups.get(part, re.escape(part)) for part in parts), re.IGNORECASE)
