"""A reader of the lab world that makes no mistake and knows nothing: what it says stands in the texts it is given.

It reads one fact for one question. A question of several steps is beyond it until someone splits it, so that what a
pipeline adds is all that a score shows.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from athlos.errors import DataError
from athlos.lab.chains import NO, YES, Node, node_text
from athlos.lab.facts import Fact, StatementWording, asked_of, compared_of, facts_of, statement
from athlos.lab.grammar import Clause, NounPhrase
from athlos.lab.languages import Language
from athlos.lab.world import World

REFERENCE = re.compile(r"#\d+")


class Told(NamedTuple):
    """The sentence with a step of a question, and the answer where all steps are told."""

    sentence: str
    answer: str


class LabReader:
    """Reads questions and passages of a world in any of its languages, and answers in the language asked for."""

    def __init__(self, world: World) -> None:
        self.world = world

    def answer(self, question: str, passages: Sequence[str], *, language: str) -> str | None:
        """The answer to a question about one fact; None where no passage states it, or it takes more than one fact."""
        nodes = self._nodes(question)
        if len(nodes) > 1:
            return None
        value = self._value(nodes[0], nodes[0].arguments, self._facts(passages))
        return None if value is None else self._phrase(value, language)

    def sub_questions(self, question: str) -> list[str]:
        """The questions about one fact each that a question consists of, with `#1` for the answer to the first."""
        language = self._language(question)
        return [node_text(self.world, node, language.code) for node in self._nodes(question)]

    def next_step(self, question: str, passages: Sequence[str], told: Sequence[str]) -> Told | None:
        """What a chain of thought says next after the sentences in `told`; None where no passage states it.

        Each fact of a question is told in a sentence; when all are, the answer is.
        """
        language, facts = self._language(question), self._facts([*passages, *told])
        values: dict[int, str] = {}
        for node in self._nodes(question):
            arguments = [values[argument] if isinstance(argument, int) else argument for argument in node.arguments]
            if (value := self._value(node, arguments, facts)) is None:
                return None
            values[node.number] = value
            if node.relation and (str(arguments[0]), node.relation) not in self._facts(told):
                fact = Fact(str(arguments[0]), node.relation, value)
                return Told(language.render(statement(fact, next(iter(StatementWording)))), "")
        return Told("", self._phrase(values[max(values)], language.code))

    def translation(self, text: str, *, language: str) -> str:
        """A text in another language; references such as `#1` stay. Raises `DataError` for one that cannot be read."""
        source = self._language(text)
        references = list(dict.fromkeys(REFERENCE.findall(text)))
        for reference, placeholder in zip(references, self.world.placeholders, strict=False):
            text = text.replace(reference, self._phrase(placeholder, source.code))
        translated = self.world.languages.translate(text, source=source.code, target=language)
        for reference, placeholder in zip(references, self.world.placeholders, strict=False):
            translated = translated.replace(self._phrase(placeholder, language), reference)
        return translated

    def _language(self, text: str) -> Language:
        code = self.world.languages.identify(text)
        if code is None:
            raise DataError(f"lab reader: expected a text in one of the lab's languages, got '{text}'")
        return self.world.languages[code]

    def _phrase(self, concept: str, language: str) -> str:
        return self.world.languages[language].phrase(NounPhrase(concept))

    def _nodes(self, question: str) -> list[Node]:
        """The facts that a question asks for, in the order in which they can be found."""
        clause = self._language(question).parse(question)
        try:
            return _chain(*asked_of(clause), first=1)
        except DataError:
            left, right = compared_of(clause)
        nodes = _chain(*left, first=1)
        ends: list[str | int] = [len(nodes) or left[0]]
        nodes += _chain(*right, first=len(nodes) + 1)
        ends.append(len(nodes) if right[1] else right[0])
        return [*nodes, Node(len(nodes) + 1, "", tuple(ends), "", None)]

    @staticmethod
    def _value(node: Node, arguments: Sequence[str | int], facts: dict[tuple[str, str], str]) -> str | None:
        """The answer of a node whose arguments are names."""
        if not node.relation:
            return YES if arguments[0] == arguments[1] else NO
        return facts.get((str(arguments[0]), node.relation))

    def _facts(self, texts: Sequence[str]) -> dict[tuple[str, str], str]:
        """(subject, relation) -> object of what texts state; of two that differ the first counts."""
        facts: dict[tuple[str, str], str] = {}
        for clause in self._clauses(texts):
            for fact in facts_of(clause):
                facts.setdefault((fact.subject, fact.relation), fact.object)
        return facts

    def _clauses(self, texts: Sequence[str]) -> Iterator[Clause]:
        for text in texts:
            language = self._language(text)
            yield from map(language.parse, language.sentences(text))


def _chain(subject: str, relations: Sequence[str], *, first: int) -> list[Node]:
    """The nodes of a path, numbered from `first`; an inner one takes the answer of the one before it."""
    return [
        Node(first + step, relation, (first + step - 1 if step else subject,), "", None)
        for step, relation in enumerate(relations)
    ]
