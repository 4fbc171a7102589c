"""The variants of `method=rag`, each a pipeline of one question that reads like its algorithm.

    closed      answer
    naive       search, read
    translate   translate, search in English, read
    sequential  split; for each sub-question: fill in earlier answers, search, read          (the last answer)
    self_ask    ask what to ask next; search and read it; until the model says the answer    (Press et al. 2022)
    ircot       search; think one sentence, search with it; until the model says the answer  (Trivedi et al. 2022)
    graph       search, walk over passages and names from what the question names, read      (HippoRAG 2)

No variant reads more than `k` different passages in all: one search may have `k`, each of several rounds its share.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from athlos.data import records
from athlos.data.records import QuestionRecord
from athlos.errors import DataError
from athlos.generation.pipeline import Ask, Call, Search, Solver
from athlos.methods.rag import prompts
from athlos.methods.rag.config import RagConfig, Retrieval, Variant
from athlos.methods.rag.graph import NameGraph
from athlos.retrieval.hybrid import reciprocal_rank_fusion
from athlos.retrieval.interface import Passage
from athlos.text.language import base_language
from athlos.text.prompts import build_prompt
from athlos.text.replies import (
    UNKNOWN,
    filled,
    final_answer,
    next_question,
    read_numbered,
    references,
    short_answer,
)

ResultT = TypeVar("ResultT")
Steps = Generator[Sequence[Call], list[Any], ResultT]
"""A part of a pipeline: yields calls, is sent their results, returns what it found out."""

UNFILLED = "search_unfilled"
"""Purpose of a search whose sub-question takes an answer that is unknown: it asks with the earlier question instead."""
WHOLE = "search_whole"
"""Purpose of a search with the whole question where the model's plan could not be used."""


@dataclass(frozen=True, kw_only=True)
class Rag:
    """What all variants share: how a question is searched for and read."""

    config: RagConfig
    answer_tokens: int
    """Longest answer, in tokens."""
    stop: tuple[str, ...] = ()
    """Strings that end an answer, beside the end of the line."""
    is_bare: bool = False
    """Whether prompts have no words but those of passages and question, as the lab's models read them."""
    graph: Callable[[str], NameGraph] | None = None
    """The graph of the passages in a language; for `variant=graph`."""

    def solver(self, record: QuestionRecord) -> Solver:
        variants: dict[Variant, Callable[[QuestionRecord], Solver]] = {
            Variant.closed: self.closed,
            Variant.naive: self.naive,
            Variant.translate: self.translate,
            Variant.sequential: self.sequential,
            Variant.self_ask: self.self_ask,
            Variant.ircot: self.ircot,
            Variant.graph: self.over_graph,
        }
        return variants[self.config.variant](record)

    # -- variants ------------------------------------------------------------------------------------------------------

    def closed(self, record: QuestionRecord) -> Solver:
        return (yield from self.answered(record.question, (), record=record))

    def naive(self, record: QuestionRecord) -> Solver:
        passages = yield from self.found(record.question, record=record, k=self.config.k)
        return (yield from self.answered(record.question, passages, record=record))

    def translate(self, record: QuestionRecord) -> Solver:
        pivot = self.config.pivot
        english = yield from self.translated(record.question, record=record)
        (passages,) = yield [Search(purpose="search", query=english, k=self.config.k, language=pivot)]
        return (yield from self.answered(english, passages, record=record, asked_in=pivot))

    def sequential(self, record: QuestionRecord) -> Solver:
        questions = yield from self.decomposed(record)
        purpose = "search" if questions else WHOLE
        questions = questions or [record.question]
        asked, answers = list[str](), list[str]()
        for question, k in zip(questions, shares(self.config.k, len(questions)), strict=True):
            # A branch that ended in nothing is asked for by its question: `unknown` would be searched for as a word.
            known = [text if answer == UNKNOWN else answer for text, answer in zip(asked, answers, strict=True)]
            is_unfilled = any(answers[number - 1] == UNKNOWN for number in references(question))
            asked.append(filled(question, known))
            passages = yield from self.found(
                asked[-1], record=record, k=k, purpose=UNFILLED if is_unfilled else purpose
            )
            answers.append((yield from self.answered(asked[-1], passages, record=record)))
        return answers[-1]

    def self_ask(self, record: QuestionRecord) -> Solver:
        solved: list[tuple[str, str]] = []
        for k in shares(self.config.k, self.config.max_rounds):
            reply = yield from self.followed_up(record, solved)
            question, answer = next_question(reply), final_answer(reply)
            if question is None:
                return short_answer(reply) if answer is None else answer
            passages = yield from self.found(question, record=record, k=k)
            solved.append((question, (yield from self.answered(question, passages, record=record))))
        reply = yield from self.followed_up(record, solved)
        return final_answer(reply) or solved[-1][1]

    def ircot(self, record: QuestionRecord) -> Solver:
        passages, thoughts, query = list[Passage](), list[str](), record.question
        for k in shares(self.config.k, self.config.max_rounds):
            passages = joined(passages, (yield from self.found(query, record=record, k=len(passages) + k)), most=k)
            reply = yield from self.thought(record, passages, thoughts)
            if (answer := final_answer(reply)) is not None:
                return answer
            query = reply
            thoughts.append(reply)
        return (yield from self.answered(record.question, passages, record=record, said=thoughts))

    def over_graph(self, record: QuestionRecord) -> Solver:
        assert self.graph is not None
        queries = yield from self.queries(record.question, record=record)
        lists = yield [
            Search(purpose="search", query=query, k=self.config.graph.index_top_k, language=language)
            for language, query in queries
        ]
        walked = [
            self.graph(language).ranked(query, scored) for (language, query), scored in zip(queries, lists, strict=True)
        ]
        passages = fused(walked, k=self.config.k)
        return (yield from self.answered(record.question, passages, record=record))

    # -- steps ---------------------------------------------------------------------------------------------------------

    def queries(self, question: str, *, record: QuestionRecord) -> Steps[list[tuple[str, str]]]:
        """(language, query) for each language that `retrieval` names."""
        queries = {}
        if self.config.retrieval is not Retrieval.en:
            queries[record.language] = question
        if self.config.retrieval is not Retrieval.src:
            queries[self.config.pivot] = yield from self.translated(question, record=record)
        return list(queries.items())

    def found(self, question: str, *, record: QuestionRecord, k: int, purpose: str = "search") -> Steps[list[Passage]]:
        """The k best passages for a question in the record's language."""
        queries = yield from self.queries(question, record=record)
        lists = yield [Search(purpose=purpose, query=query, k=k, language=language) for language, query in queries]
        return fused(lists, k=k)

    def answered(
        self,
        question: str,
        passages: Sequence[Passage],
        *,
        record: QuestionRecord,
        asked_in: str | None = None,
        said: Sequence[str] = (),
    ) -> Steps[str]:
        """The answer to a question, in the language of the record; `unknown` where nothing tells."""
        language = record.language
        asked_in = asked_in or language
        if self.is_bare:
            prompt = bare_prompt(question, passages, language=asked_in)
        else:
            prompt = prompts.read(question, passages, asked_in=asked_in, language=language, said=said)
        (reply,) = yield [
            Ask(
                purpose="read" if passages else "closed",
                prompt=prompt,
                max_new_tokens=self.answer_tokens,
                stop=("\n", *self.stop),
                question=question,
                language=language,
                prompt_language="" if self.is_bare else prompts.words_of(asked_in),
                passages=tuple(passages),
                said=tuple(said),
            )
        ]
        return short_answer(reply)

    def translated(self, question: str, *, record: QuestionRecord) -> Steps[str]:
        """A question in the pivot language."""
        source, target = record.language, self.config.pivot
        if base_language(source) == base_language(target):
            return question
        prompt = prompts.translate(question, source=source, target=target)
        reply = yield from self._written("translate", prompt, question=question, language=target, stop=("\n",))
        return reply or question

    def decomposed(self, record: QuestionRecord) -> Steps[list[str]]:
        """The sub-questions of a question; none where the model's reply takes an answer that is not there yet."""
        if self.config.decomposer == "gold":
            if not 1 <= len(record.steps) <= self.config.k:
                raise DataError(
                    f"question '{record.identifier}': it has {len(record.steps)} gold steps, expected 1 to method.k = "
                    f"{self.config.k}; method.decomposer=model"
                )
            questions = [step.question for step in record.steps]
            if not _is_ordered(questions):
                raise DataError(
                    f"question '{record.identifier}': a gold step takes an answer that is not there yet; "
                    "order the steps, or use method.decomposer=model"
                )
            return questions
        prompt = prompts.decompose(record.question, language=record.language, most=self.config.max_rounds)
        reply = yield from self._written("decompose", prompt, question=record.question, language=record.language)
        questions = read_numbered(reply)[: self.config.max_rounds]
        return questions if _is_ordered(questions) else []

    def followed_up(self, record: QuestionRecord, solved: Sequence[tuple[str, str]]) -> Steps[str]:
        prompt = prompts.follow_up(record.question, solved, language=record.language)
        answers = [answer for _, answer in solved]
        return (
            yield from self._written(
                "follow_up", prompt, question=record.question, language=record.language, said=answers, stop=("\n",)
            )
        )

    def thought(self, record: QuestionRecord, passages: Sequence[Passage], thoughts: Sequence[str]) -> Steps[str]:
        prompt = prompts.think(record.question, passages, thoughts, language=record.language)
        ask = self._ask(
            "think", prompt, question=record.question, language=record.language, said=thoughts, stop=("\n",)
        )
        (reply,) = yield [replace(ask, passages=tuple(passages))]
        return str(reply)

    def _written(self, purpose: str, prompt: str, **rest: Any) -> Steps[str]:
        (reply,) = yield [self._ask(purpose, prompt, **rest)]
        return str(reply)

    def _ask(
        self,
        purpose: str,
        prompt: str,
        *,
        question: str,
        language: str,
        said: Sequence[str] = (),
        stop: tuple[str, ...] = (),
    ) -> Ask:
        """A call whose instructions are in English, whatever the language of the reply."""
        return Ask(
            purpose=purpose,
            prompt=prompt,
            max_new_tokens=self.config.max_new_tokens,
            stop=stop,
            question=question,
            language=language,
            prompt_language=prompts.ENGLISH,
            said=tuple(said),
        )


def _is_ordered(questions: Sequence[str]) -> bool:
    """Whether each sub-question takes the answers of earlier ones alone."""
    return all(1 <= number <= place for place, question in enumerate(questions) for number in references(question))


def shares(k: int, num_rounds: int) -> list[int]:
    """`k` passages dealt to rounds, the first ones getting what is left over; 0 for rounds beyond `k`."""
    least, more = divmod(k, num_rounds)
    return [least + (number < more) for number in range(num_rounds)]


def fused(lists: Sequence[Sequence[Passage]], *, k: int) -> list[Passage]:
    """The k best of the lists of several languages, by reciprocal rank; a passage in both has one id, counted once."""
    return list(lists[0][:k]) if len(lists) == 1 else reciprocal_rank_fusion([hits[:k] for hits in lists], k=k)


def joined(passages: Sequence[Passage], added: Sequence[Passage], *, most: int) -> list[Passage]:
    """The passages and at most so many found ones that are not among them."""
    known = {passage.identifier for passage in passages}
    return [*passages, *[passage for passage in added if passage.identifier not in known][:most]]


def bare_prompt(question: str, passages: Sequence[Passage], *, language: str) -> str:
    """Passages and question as running text, as models of the lab world were trained to read them."""
    shown = [records.Passage(title=passage.title, text=passage.text) for passage in passages]
    record = QuestionRecord(identifier="", language=language, question=question, answers=[], passages=shown)
    return build_prompt(record, shots=(), style="bare")
