"""Questions over documents of the lab world: how the answer is held, what the documents are true of, and distractors.

Evidence is direct, implicit, scattered or buried. The documents are true of the world, say one thing otherwise than it,
or are about names of nothing. Each question has documents that bear on it and behind them as many distractors, so that
a share of either can be read. A question stands in one of the splits `train`, `val` and `test` alone, by a hash of its
text; `lessons`, which a base model is trained on, holds questions of all three over documents of its own. Nothing is
read; licence: generated.
"""

import itertools
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from athlos.config.fields import at_least, bounded
from athlos.config.registry import Part
from athlos.config.schema import DataConfig, RunConfig
from athlos.data.records import Passage, QuestionRecord, Record
from athlos.data.source import Source
from athlos.errors import DataError, choices
from athlos.lab import pretraining
from athlos.lab.documents import Case, DocumentConfig, Evidence, Truth, make_case
from athlos.lab.facts import Claim, StatementWording, statement
from athlos.lab.grammar import NounPhrase
from athlos.lab.world import World, WorldConfig, config_errors, spread
from athlos.stages import content_hash

GENERATOR_VERSION = 1
"""Raised when the same config gives other text."""
SPLITS = ("lessons", "train", "val", "test")
SHARES = {"train": (0.0, 0.6), "val": (0.6, 0.7), "test": (0.7, 1.0)}
"""Split -> the part of [0, 1) that the hash of a question's text must lie in."""
MARKS = ("think", "answer", "clue")
"""Parts of a reply that have a tag around them, which the word list holds."""
FIRST_INDEX = 1_000_000
"""Cases of the splits have numbers of their own: split n begins at n times this."""


@dataclass(kw_only=True)
class LabCasesConfig(DataConfig):
    world: WorldConfig = field(default_factory=WorldConfig)
    num_passages: int = at_least(2, default=4)
    """Documents of a question that bear on it, and distractors beside them."""
    facts_per_document: int = at_least(2, default=2)
    """Sentences of a document."""
    buried_sentences: int = at_least(2, default=6)
    """Sentences of a document that buries its evidence."""
    depth: float = bounded("[0, 1]", default=0.8)
    """Place of the buried sentence, from 0 (first) to 1 (last)."""
    truth_shares: list[float] = field(default_factory=lambda: [0.4, 0.3, 0.3])
    """Shares of questions whose documents are true of the world, contradict it, and are about names of nothing."""
    num_lessons: int = at_least(1, default=8000)
    num_train: int = at_least(1, default=400)
    num_val: int = at_least(1, default=100)
    num_test: int = at_least(1, default=200)


class LabCasesSource(Source[LabCasesConfig]):
    """`meta` tells `evidence` and `truth`; of a question about the world `stored` and `stored_statement` too: what
    pre-training says."""

    record_type = QuestionRecord

    @cached_property
    def world(self) -> World:
        return World(self.config.world)

    def words(self) -> Iterator[str]:
        yield from (f" <{slash}{mark}>" for mark in MARKS for slash in ("", "/"))
        yield from pretraining.words(self.world, pretraining.MixtureConfig())

    def files(self, split: str) -> list[Path]:
        """None: only checks the name of the split."""
        if split not in SPLITS:
            raise DataError(f"data=lab_cases has no split '{split}'{choices(split, SPLITS)}")
        return []

    def fingerprint(self, split: str) -> str:
        """Hash of the generator's version and of everything that decides the text."""
        self.files(split)
        config = self.config
        dials = [config.num_passages, config.facts_per_document, config.buried_sentences, config.depth]
        decides = {"world": asdict(config.world), "truth_shares": config.truth_shares, "dials": dials}
        return content_hash({"generator": GENERATOR_VERSION, "split": split, "records": self._size(split), **decides})

    def read(self, split: str) -> Iterator[Record]:
        first = SPLITS.index(split) * FIRST_INDEX if split in SPLITS else 0
        places = itertools.count(first)
        truths = spread([round(100 * share) for share in self.config.truth_shares])
        for number, truth in zip(range(self._size(split)), itertools.cycle(truths), strict=False):
            evidence = tuple(Evidence)[number % len(Evidence)]
            cases = (self._case(place, evidence, tuple(Truth)[truth]) for place in places)
            record = next(candidate for candidate in map(self._record, cases) if _is_of(candidate, split))
            record.identifier = f"{split}-{number}"
            yield record

    def _case(self, place: int, evidence: Evidence, truth: Truth) -> Case:
        config = self.config
        shape = DocumentConfig(
            evidence=evidence,
            truth=truth,
            num_documents=2 * config.num_passages,
            distractor_share=0.5,
            facts_per_document=config.facts_per_document,
            buried_sentences=config.buried_sentences,
            depth=config.depth,
        )
        world = config.world
        wordings = self.world.config.training_wordings
        return make_case(
            self.world, shape, index=place, language=world.languages[0], wording=wordings[place % len(wordings)]
        )

    def _record(self, case: Case) -> QuestionRecord:
        spoken = self.world.languages[case.language]
        meta: dict[str, object] = {"evidence": case.config.evidence.value, "truth": case.config.truth.value}
        if case.stored_answer is not None:
            stored = Claim(case.asked.subject, case.asked.relations, case.stored_answer)
            told = spoken.render(statement(stored, StatementWording.noun))
            meta |= {"stored": spoken.phrase(NounPhrase(case.stored_answer)), "stored_statement": told}
        order = sorted(range(len(case.documents)), key=lambda place: place not in case.gold)
        return QuestionRecord(
            identifier=case.identifier,
            language=case.language,
            question=spoken.render(case.question),
            answers=[spoken.phrase(NounPhrase(case.asked.object))] if case.support else [],
            passages=[
                Passage(
                    title=case.documents[place].identifier,
                    text=case.documents[place].text,
                    sentences=list(case.documents[place].sentences),
                    is_supporting=place in case.gold,
                    identifier=case.documents[place].identifier,
                )
                for place in order
            ],
            supporting_facts=[(case.documents[document].identifier, sentence) for document, sentence in case.support],
            meta=meta,
        )

    def _size(self, split: str) -> int:
        self.files(split)
        config = self.config
        sizes = (config.num_lessons, config.num_train, config.num_val, config.num_test)
        return dict(zip(SPLITS, sizes, strict=True))[split]

    def _stream(self, split: str) -> Iterator[Record]:
        return self.read(split)


def _is_of(record: QuestionRecord, split: str) -> bool:
    low, high = SHARES.get(split, (0.0, 1.0))
    return low <= zlib.crc32(record.question.encode()) / 2**32 < high


def _errors(config: RunConfig) -> Iterable[str]:
    data = config.data
    assert isinstance(data, LabCasesConfig)
    yield from config_errors(data.world, key="data.world")
    if len(data.truth_shares) != len(Truth) or min(data.truth_shares) < 0 or not any(data.truth_shares):
        yield f"data.truth_shares: got {data.truth_shares}, expected {len(Truth)} numbers >= 0, one of them above 0"


PARTS = [
    Part(
        group="data",
        name="lab_cases",
        schema=LabCasesConfig,
        target=f"{__name__}.LabCasesSource",
        check=_errors,
        summary="questions over documents of the lab world: direct, implicit, scattered and buried evidence",
    )
]
