"""Warm-up data written backwards: an answer, its claims, documents that state the claims; so the citations are known.

1. `Draft`: sentences of an answer and the claims of each, from the generator, the data's sentences or the lab's truth
2. `grouped`: claims in random sets, each of which a document states
3. documents: written by the generator, or built of the claims and neighbours of theirs
4. `cited_item`: near documents that state none, all of them shuffled, the cover of each sentence, the judge's look

Every answer that does not come through is counted under the reason in `DROPS`.
"""

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from athlos.data.near_passages import OtherPassages
from athlos.data.records import LongAnswerRecord, Passage
from athlos.data.sources.lab_cited import FACTS
from athlos.errors import DataError
from athlos.generation.pipeline import Ask, Steps
from athlos.judging.answers import passage_text
from athlos.judging.interface import Pair
from athlos.methods.start.config import CiteConfig, Claims, WarmupDataConfig
from athlos.methods.start.cover import cover
from athlos.methods.start.prompts import answer_prompt, claims_prompt, document_prompt
from athlos.methods.start.rewards import StartReward, sentences_of
from athlos.text.citations import with_citations, without_citations
from athlos.text.replies import read_numbered
from athlos.text.sentences import sentences

SELECTED = "selected_sentences"
"""Key of `meta` in CLAP-NQ: the sentences of the passage that the answer joins."""
NUM_NEAR = 20
"""Near passages that are looked at for one that states none of the claims."""
DROPS = ("no_answer", "no_claim", "too_many_claims", "no_irrelevant", "too_many_documents", "not_supported", "too_long")


class DropError(Exception):
    """An answer that does not come through; its text is one of `DROPS`."""


@dataclass(kw_only=True)
class Tally:
    """What a synthesis met."""

    kept: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    documents: int = 0
    """Documents that were to state claims, those of dropped answers among them."""
    failed_documents: int = 0
    """Those of them that do not support a claim of theirs, by the judge."""
    sentences: int = 0
    failed_sentences: int = 0
    """Sentences that the documents which they cite do not support."""
    multi_cited: int = 0
    """Sentences that cite two documents or more."""

    def report(self) -> dict[str, Any]:
        """`synth_report.json`."""
        return {**asdict(self), "drops": {reason: self.drops[reason] for reason in DROPS}}


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An answer with the sets of its claims that documents are to state."""

    sentences: list[str]
    claims: list[str]
    claims_of: list[list[int]]
    """Of each sentence, places in `claims`."""
    sets: list[list[int]]
    """Of each document, places in `claims`."""
    documents: list[Passage] = field(default_factory=list)
    """One a set."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A warm-up example, as `warmup.jsonl` has it."""

    id: str
    question: str
    language: str
    claims: list[str]
    documents: list[dict[str, str]]
    claim_documents: list[list[int]]
    """Of each claim, the places of the documents that were made to state it."""
    cited: list[list[int]]
    """Of each sentence, the numbers of its documents."""
    target: str

    def record(self) -> LongAnswerRecord:
        return LongAnswerRecord(
            identifier=self.id,
            language=self.language,
            question=self.question,
            answer=self.target,
            passages=[Passage(title=document["title"], text=document["text"]) for document in self.documents],
        )


def grouped(num_claims: int, *, num_documents: int, most: int, rng: random.Random) -> list[list[int]]:
    """Sets of 1 to `most` claims, at most one a document but for one, every claim in one set or two.

    The number of sets is drawn, then where the claims go. Raises `DropError` where they do not fit.
    """
    room = num_documents - 1
    fewest = -(-num_claims // most)
    if fewest > room:
        raise DropError("too_many_claims")
    num_sets = rng.randint(fewest, min(num_claims, room))
    order = rng.sample(range(num_claims), num_claims)
    sets = [[claim] for claim in order[:num_sets]]
    for claim in order[num_sets:]:
        rng.choice([claims_of_set for claims_of_set in sets if len(claims_of_set) < most]).append(claim)
    if num_sets < room and num_claims > 1 and rng.random() < 0.5:
        sets.append(rng.sample(range(num_claims), rng.randint(1, min(most, num_claims - 1))))
    return [sorted(claims_of_set) for claims_of_set in sets]


def drafted(record: LongAnswerRecord, config: WarmupDataConfig, *, rng: random.Random) -> Draft:
    """The draft of a record whose answer the data know, with built documents. Raises `DropError`."""
    if config.claims is Claims.oracle:
        if FACTS not in record.meta:
            raise DataError(f"question '{record.identifier}': no facts; construct.warmup.claims=oracle needs lab data")
        told = [claim.text for claim in record.claims]
        facts: list[list[str]] = record.meta[FACTS]
    else:
        told = [text.strip() for text in record.meta.get(SELECTED) or _answer_sentences(record.answer, record.language)]
        facts = [[text] for text in told]
        if len(told) > 1 and rng.random() < config.join_share:
            told = [*told[:-2], joined(*told[-2:])]
            facts = [*facts[:-2], [*facts[-2], *facts[-1]]]
    claims = list(dict.fromkeys(fact for of_sentence in facts for fact in of_sentence))
    claims_of = [[claims.index(fact) for fact in of_sentence] for of_sentence in facts]
    check(told, claims_of)
    sets = grouped(len(claims), num_documents=config.num_documents, most=config.claims_per_document, rng=rng)
    draft = Draft(sentences=told, claims=claims, claims_of=claims_of, sets=sets)
    return replace(draft, documents=built(draft, record, config, rng=rng))


def joined(first: str, second: str) -> str:
    """Two sentences as one."""
    return f"{first.rstrip('. ')}; {second}"


def check(told: Sequence[str], claims_of: Sequence[Sequence[int]]) -> None:
    """Raises `DropError` for an answer without a sentence and for a sentence without a claim, such as `Here it is.`"""
    if not told:
        raise DropError("no_answer")
    if not all(claims_of):
        raise DropError("no_claim")


def _answer_sentences(text: str, language: str) -> list[str]:
    return [piece.strip() for piece in sentences(without_citations(text).strip(), language).pieces if piece.strip()]


def built(draft: Draft, record: LongAnswerRecord, config: WarmupDataConfig, *, rng: random.Random) -> list[Passage]:
    """A document of each set: its claims, less one of a share of them (`noise`), and other sentences of the record's
    passages, in random order."""
    known = {claim.strip() for claim in draft.claims}
    neighbours = [text for passage in record.passages for text in sentences_of(passage, record.language)]
    neighbours = [text for text in dict.fromkeys(neighbours) if text not in known]
    title = next((passage.title for passage in record.passages if passage.is_supporting), "")
    documents = []
    for claims in draft.sets:
        stated = [draft.claims[claim] for claim in claims]
        if rng.random() < config.noise:
            stated.remove(rng.choice(stated))
        wanted = max(1, config.sentences_per_document) - len(stated)
        stated += rng.sample(neighbours, min(wanted, len(neighbours)))
        rng.shuffle(stated)
        documents.append(Passage(title=title, text=" ".join(stated), sentences=stated))
    return documents


def written(record: LongAnswerRecord, config: WarmupDataConfig, *, rng: random.Random) -> Steps[Draft]:
    """The draft that the generator writes: the answer, the claims of each sentence, a document of each set.

    Raises `DropError` inside, once the replies are there.
    """

    def ask(purpose: str, prompt: str) -> Ask:
        return Ask(
            purpose=purpose,
            prompt=prompt,
            max_new_tokens=config.max_new_tokens,
            language=record.language,
            question=record.question,
        )

    [answer] = yield [ask("answer", answer_prompt(record.question))]
    told = _answer_sentences(answer, record.language)
    check(told, [[0]] * len(told))
    lists = yield [ask("claims", claims_prompt(record.question, sentence)) for sentence in told]
    facts = [read_numbered(reply) for reply in lists]
    claims = list(dict.fromkeys(fact for of_sentence in facts for fact in of_sentence))
    claims_of = [[claims.index(fact) for fact in of_sentence] for of_sentence in facts]
    check(told, claims_of)
    sets = grouped(len(claims), num_documents=config.num_documents, most=config.claims_per_document, rng=rng)
    replies = yield [
        ask("document", document_prompt(record.question, [claims[place] for place in of_document]))
        for of_document in sets
    ]
    documents = [titled(reply) for reply in replies]
    return Draft(sentences=told, claims=claims, claims_of=claims_of, sets=sets, documents=documents)


def titled(reply: str) -> Passage:
    """A document whose first line is the title; one of a single line has none."""
    title, _, text = reply.strip().partition("\n")
    if not text.strip():
        title, text = "", title
    return Passage(title=title.strip("#* ").removeprefix("Title:").strip(), text=" ".join(text.split()))


def cited_item(
    record: LongAnswerRecord,
    draft: Draft,
    *,
    config: WarmupDataConfig,
    cite: CiteConfig,
    others: OtherPassages,
    reward: StartReward,
    tally: Tally,
    rng: random.Random,
) -> Item:
    """The example that a draft becomes. Raises `DropError`, and `DataError` for a claim that no document states."""
    stating = list(draft.documents)
    claim_pairs = [
        [Pair(passage_text(document), draft.claims[claim]) for claim in claims]
        for document, claims in zip(stating, draft.sets, strict=True)
    ]
    states = reward.supports(pair for of_document in claim_pairs for pair in of_document)
    tally.documents += len(stating)
    tally.failed_documents += sum(not all(states[pair] for pair in of_document) for of_document in claim_pairs)
    near = irrelevant(record, draft, others=others, reward=reward, number=config.num_documents - len(stating))
    order = list(range(len(stating) + len(near)))
    rng.shuffle(order)
    documents = [[*stating, *near][place] for place in order]
    claim_sets = [set(draft.sets[place]) if place < len(stating) else set() for place in order]
    cited = [citations(set(claims), claim_sets, most=cite.max_per_sentence) for claims in draft.claims_of]
    pairs = [
        Pair("\n".join(passage_text(documents[number - 1]) for number in numbers), sentence)
        for numbers, sentence in zip(cited, draft.sentences, strict=True)
    ]
    supported = reward.supports(pairs)
    tally.sentences += len(pairs)
    tally.failed_sentences += sum(not supported[pair] for pair in pairs)
    tally.multi_cited += sum(len(numbers) > 1 for numbers in cited)
    if config.verify and not all(supported.values()):
        raise DropError("not_supported")
    return Item(
        id=record.identifier,
        question=record.question,
        language=record.language,
        claims=draft.claims,
        documents=[{"title": document.title, "text": document.text} for document in documents],
        claim_documents=[
            [place for place, claims in enumerate(claim_sets) if claim in claims] for claim in range(len(draft.claims))
        ],
        cited=cited,
        target=" ".join(map(with_citations, draft.sentences, cited)),
    )


def citations(claims: set[int], documents: Sequence[set[int]], *, most: int) -> list[int]:
    """Numbers of the documents that a sentence cites, ascending, counted from 1.

    Raises `DropError` for more than `most`, and `DataError` for a claim that is in no document.
    """
    places = cover(claims, documents)
    if places is None:
        missing = sorted(claims.difference(*documents))
        raise DataError(f"claim {missing[0]} is in none of {len(documents)} documents")
    if len(places) > most:
        raise DropError("too_many_documents")
    return [place + 1 for place in places]


def irrelevant(
    record: LongAnswerRecord, draft: Draft, *, others: OtherPassages, reward: StartReward, number: int
) -> list[Passage]:
    """Lexically close documents of other queries that support no claim by the judge. Raises `DropError` for too few."""
    near = others.near(record, text=" ".join([record.question, *draft.sentences]))
    looked_at = list(itertools.islice(near, NUM_NEAR))
    pairs = [[Pair(passage_text(passage), claim) for claim in draft.claims] for passage in looked_at]
    supported = reward.supports(pair for of_passage in pairs for pair in of_passage)
    unrelated = [
        passage
        for passage, of_passage in zip(looked_at, pairs, strict=True)
        if not any(supported[pair] for pair in of_passage)
    ]
    if len(unrelated) < number:
        raise DropError("no_irrelevant")
    return unrelated[:number]
