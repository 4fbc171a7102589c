"""Questions of the lab world that take a long answer with citations: several sentences over several documents.

Every sentence of an answer is supported by one document, or by two together and by none alone; the documents that
support nothing are distractors. `claims` are the sentences of the answer, `meta["facts"]` the sentences of documents
from which each of them follows. The splits are numbered apart. `lessons`, which a base model is trained on, cites by a
habit: a share of its sentences names the first document, whatever supports them. Nothing is read; licence: generated.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from athlos.config.fields import at_least, bounded
from athlos.config.schema import DataConfig, RunConfig
from athlos.data.records import Claim, LongAnswerRecord, Passage, Record
from athlos.data.source import GeneratedSource, data_part
from athlos.lab import pretraining
from athlos.lab.documents import CitedAnswer, CitedConfig, cited_config_errors, make_cited
from athlos.lab.entailment import Judge
from athlos.lab.facts import claims_of
from athlos.lab.grammar import NounPhrase
from athlos.lab.world import World, WorldConfig, config_errors

SPLITS = ("lessons", "train", "val", "test")
FIRST_NUMBER = 1_000_000
"""Answers of the splits have numbers of their own: split n begins at n times this."""
FACTS = "facts"
"""Key of `meta`: of each sentence of the answer, the sentences of documents that it follows from."""


@dataclass(kw_only=True)
class LabCitedConfig(DataConfig):
    world: WorldConfig = field(default_factory=WorldConfig)
    cited: CitedConfig = field(default_factory=CitedConfig)
    habit: float = bounded("[0, 1]", default=0.0)
    """Share of the sentences of `lessons` that cite the first document, whatever supports them."""
    num_lessons: int = at_least(1, default=8000)
    num_train: int = at_least(1, default=400)
    num_val: int = at_least(1, default=100)
    num_test: int = at_least(1, default=100)


class LabCitedSource(GeneratedSource[LabCitedConfig]):
    record_type = LongAnswerRecord
    splits = SPLITS

    @cached_property
    def world(self) -> World:
        return World(self.config.world)

    @cached_property
    def truth(self) -> Judge:
        return Judge(self.world.languages)

    def words(self) -> Iterator[str]:
        most = 2 * self.config.cited.num_sentences + self.config.cited.num_distractors
        yield from (f"{gap}[{number}]" for number in range(1, most + 1) for gap in ("", " "))
        yield from pretraining.words(self.world, pretraining.MixtureConfig())

    def decides(self, split: str) -> dict[str, Any]:
        config = self.config
        return {
            "world": asdict(config.world),
            "cited": asdict(config.cited),
            "habit": config.habit,
            "records": self._size(split),
        }

    def read(self, split: str) -> Iterator[Record]:
        self.files(split)
        for number in range(self._size(split)):
            index = SPLITS.index(split) * FIRST_NUMBER + number
            made = make_cited(self.world, self.config.cited, index=index, language=self.config.world.languages[0])
            yield self._record(made, number=f"{split}-{number}", is_asked=split != "lessons")

    def _record(self, made: CitedAnswer, *, number: str, is_asked: bool) -> LongAnswerRecord:
        spoken = self.world.languages[made.language]
        sentences = [spoken.render(clause) for clause in made.answer]
        rng = self.world.rng("habit", made.identifier)
        habit = 0.0 if is_asked else self.config.habit
        cited = [(0,) if rng.random() < habit else places for places in made.citations]
        supporting = {place for places in made.citations for place in places}
        return LongAnswerRecord(
            identifier=number,
            language=made.language,
            question=spoken.join(spoken.render(clause) for clause in made.questions),
            answer=spoken.join(
                f"{sentence[:-1]} {''.join(f'[{place + 1}]' for place in places)}{sentence[-1]}"
                for sentence, places in zip(sentences, cited, strict=True)
            ),
            passages=[
                Passage(
                    title="",
                    text=document.text,
                    sentences=list(document.sentences),
                    is_supporting=place in supporting,
                    identifier=document.identifier,
                )
                for place, document in enumerate(made.documents)
            ],
            claims=[Claim(text=sentence) for sentence in sentences],
            short_answers=[
                [spoken.phrase(NounPhrase(claim.object))] for clause in made.answer for claim in claims_of(clause)
            ],
            meta={FACTS: [self._facts(made, at) for at in range(len(sentences))]} if is_asked else {},
        )

    def _facts(self, made: CitedAnswer, at: int) -> list[str]:
        """The fewest sentences of the cited documents that a sentence follows from, in the order of documents."""
        told = [sentence for place in made.citations[at] for sentence in made.documents[place].sentences]
        needed = self.truth.supporting_subset(told, made.answer[at])
        assert needed is not None
        return [told[place] for place in needed]

    def _size(self, split: str) -> int:
        config = self.config
        sizes = (config.num_lessons, config.num_train, config.num_val, config.num_test)
        return dict(zip(SPLITS, sizes, strict=True))[split]


def _errors(data: LabCitedConfig, config: RunConfig) -> Iterable[str]:
    yield from config_errors(data.world, key="data.world")
    yield from cited_config_errors(data.cited, key="data.cited")


PARTS = [
    data_part(
        "lab_cited",
        LabCitedConfig,
        LabCitedSource,
        "questions of the lab world with long answers that cite documents",
        check=_errors,
    )
]
