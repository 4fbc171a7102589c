"""Questions of several steps about the lab world, in every language, with their passages and sub-questions.

Passages tell the background facts of the world, one passage a subject; those of a question are the ones that its steps
rest on and some others. A passage has one id in all languages. `first_share` and `own_share` say how many stand in one
language only, so that who searches in another finds less. Nothing is read; licence: generated, none needed.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from athlos.config.fields import at_least, bounded
from athlos.config.schema import DataConfig, RunConfig
from athlos.data.records import NAMED_PASSAGES, PARALLEL, Passage, QuestionRecord, Record, Step
from athlos.data.source import GeneratedSource, data_part
from athlos.lab import pretraining
from athlos.lab.chains import MAX_HOPS, MIN_HOPS, ChainConfig, ChainQuestion, Split, chain_questions, node_text
from athlos.lab.documents import Document, Placement, passage_identifier, passages
from athlos.lab.grammar import NounPhrase
from athlos.lab.world import Exposure, World, WorldConfig, apportion, config_errors


@dataclass(kw_only=True)
class LabChainsConfig(DataConfig):
    world: WorldConfig = field(default_factory=WorldConfig)
    chains: ChainConfig = field(default_factory=ChainConfig)
    num_distractors: int = at_least(0, default=6)
    """Passages of a question beside those that its steps rest on."""
    own_share: float = bounded("[0, 1]", default=0.0)
    """Share of the passages that stand in every language but the first."""
    first_share: float = bounded("[0, 1]", default=0.0)
    """Share of the passages that stand in the first language only; those left over stand in all."""


class LabChainsSource(GeneratedSource[LabChainsConfig]):
    """`meta.hops` is the number of facts of the longest branch, `meta.form` linear or comparison."""

    record_type = QuestionRecord
    splits = tuple(Split)

    @cached_property
    def world(self) -> World:
        return World(self.config.world)

    @cached_property
    def questions(self) -> dict[Split, list[ChainQuestion]]:
        return chain_questions(self.world, self.config.chains)

    def words(self) -> Iterator[str]:
        return pretraining.words(self.world, pretraining.MixtureConfig())

    def decides(self, split: str) -> dict[str, Any]:
        config = self.config
        dials = [config.num_distractors, config.own_share, config.first_share]
        return {"world": asdict(config.world), "chains": asdict(config.chains), "dials": dials}

    def read(self, split: str) -> Iterator[Record]:
        self.files(split)
        documents = {
            code: passages(self.world, self.world.facts_told(Exposure.background), language=code)
            for code in self.config.world.languages
        }
        for chain in self.questions[Split(split)]:
            for code in documents:
                yield self._record(chain, documents[code])

    def _record(self, chain: ChainQuestion, documents: list[Document]) -> QuestionRecord:
        first, code = self.config.world.languages[0], documents[0].language
        here = self._placed(is_first=code == first)
        record = chain_record(self.world, chain, language=code, documents=self._documents_of(chain, documents))
        record.passages = [passage for passage in record.passages if passage.identifier in here]
        record.meta = {
            NAMED_PASSAGES: True,
            PARALLEL: _parallel(chain_record(self.world, chain, language=first)),
            "hops": chain.num_hops,
            "form": chain.form.value,
        }
        return record

    def _documents_of(self, chain: ChainQuestion, documents: list[Document]) -> list[Document]:
        """What the steps rest on and distractors, the same ones in every language, in the order of the corpus."""
        needed = {passage_identifier(fact.subject) for fact in chain.facts}
        others = [document.identifier for document in documents if document.identifier not in needed]
        rng = self.world.rng("distractors", chain.identifier)
        needed |= set(rng.sample(others, min(self.config.num_distractors, len(others))))
        return [document for document in documents if document.identifier in needed]

    def _placed(self, *, is_first: bool) -> set[str]:
        """Identifiers of the passages that stand in the first language, or in the others."""
        never = Placement.own if is_first else Placement.first
        return {identifier for identifier, placement in self._placements.items() if placement is not never}

    @cached_property
    def _placements(self) -> dict[str, Placement]:
        """Where each passage stands; shares are exact, by largest remainder."""
        subjects = list(dict.fromkeys(fact.subject for fact in self.world.facts_told(Exposure.background)))
        own, first = self.config.own_share, self.config.first_share
        counts = apportion(len(subjects), [own, first, 1 - own - first])
        dealt = [place for place, count in zip(Placement, counts, strict=True) for _ in range(count)]
        self.world.rng("placements").shuffle(dealt)
        return {passage_identifier(subject): place for subject, place in zip(subjects, dealt, strict=True)}

    def languages_of(self, split: str) -> list[str]:
        return self.config.world.languages


def chain_record(
    world: World, chain: ChainQuestion, *, language: str, documents: Sequence[Document] = ()
) -> QuestionRecord:
    """A question with its sub-questions, and as passages the documents, which tell all of its facts, or are none."""
    spoken = world.languages[language]
    place = {fact: document.identifier for document in documents for facts in document.facts for fact in facts}
    used = {place[fact] for fact in chain.facts} if documents else set()
    return QuestionRecord(
        identifier=f"{chain.identifier}-{language}",
        language=language,
        question=spoken.render(chain.clause()),
        answers=[spoken.phrase(chain.answer_phrase)],
        passages=[
            Passage(
                title=spoken.phrase(NounPhrase(document.facts[0][0].subject)),
                text=document.text,
                sentences=list(document.sentences),
                is_supporting=document.identifier in used,
                identifier=document.identifier,
            )
            for document in documents
        ],
        steps=[
            Step(
                question=node_text(world, node, language),
                answer=spoken.phrase(NounPhrase(node.answer)),
                supporting=place[node.fact] if node.fact and documents else "",
            )
            for node in chain.nodes()
        ],
    )


def _parallel(record: QuestionRecord) -> dict[str, object]:
    steps = [[step.question, step.answer] for step in record.steps]
    return {"question": record.question, "answers": record.answers, "steps": steps}


def _errors(data: LabChainsConfig, config: RunConfig) -> Iterable[str]:
    yield from config_errors(data.world, key="data.world")
    for split in Split:
        if len(data.chains.num_linear(split)) != MAX_HOPS - MIN_HOPS + 1:
            yield f"data.chains.num_{split}: got {data.chains.num_linear(split)}, expected 3 numbers"
    if data.own_share + data.first_share > 1:
        yield f"data.own_share + data.first_share: got {data.own_share + data.first_share}, expected at most 1"


PARTS = [
    data_part(
        "lab_chains",
        LabChainsConfig,
        LabChainsSource,
        "questions of two to four steps about the lab world, with passages, in five invented languages",
        check=_errors,
    )
]
