"""Questions about single facts of the lab world, whose exposure tells what a model should know: KMKC's lab study.

A fact that was never told is missing, a rare one confused, a frequent one mastered (`meta.region`). The facts of a
split are its own, each asked in the wordings of the split. Background facts are in none. Nothing is read; licence:
generated.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from athlos.config.registry import Part
from athlos.config.schema import DataConfig, RunConfig
from athlos.data.fact_variants import BACKGROUND, DENIAL, EXPANSIONS, FACT, REGION, STATEMENTS
from athlos.data.records import QuestionRecord, Record
from athlos.data.regions import Region
from athlos.data.source import Source
from athlos.errors import DataError, choices
from athlos.lab import pretraining
from athlos.lab.facts import Claim, Fact, QuestionWording, StatementWording, question, statement
from athlos.lab.grammar import NounPhrase
from athlos.lab.world import Exposure, World, WorldConfig, apportion, config_errors
from athlos.stages import content_hash

GENERATOR_VERSION = 1
"""Raised when the same config gives other text."""
SPLITS = ("train", "val", "test")
TRUE_REGIONS = {
    Exposure.frequent: Region.mastered,
    Exposure.rare: Region.confused,
    Exposure.none: Region.missing,
}


@dataclass(kw_only=True)
class LabFactsConfig(DataConfig):
    world: WorldConfig = field(default_factory=WorldConfig)
    shares: list[float] = field(default_factory=list)
    """Shares of the facts of each exposure in train, val and test, summing to 1."""
    train_wordings: list[QuestionWording] = field(default_factory=list)
    """How the facts of `train` are asked."""
    test_wordings: list[QuestionWording] = field(default_factory=list)
    """How those of `val` and `test` are asked."""


class LabFactsSource(Source[LabFactsConfig]):
    """Records are in the first language of the world."""

    record_type = QuestionRecord

    @cached_property
    def world(self) -> World:
        return World(self.config.world)

    def words(self) -> Iterator[str]:
        return pretraining.words(self.world, pretraining.MixtureConfig())

    def files(self, split: str) -> list[Path]:
        """None: only checks the name of the split."""
        if split not in SPLITS:
            raise DataError(f"data=lab_facts has no split '{split}'{choices(split, SPLITS)}")
        return []

    def fingerprint(self, split: str) -> str:
        """Hash of the generator's version and of everything that decides the text."""
        self.files(split)
        config = self.config
        dials = {"shares": config.shares, "train": config.train_wordings, "test": config.test_wordings}
        return content_hash(
            {"generator": GENERATOR_VERSION, "split": split, "world": asdict(config.world), "dials": dials}
        )

    @cached_property
    def facts(self) -> dict[str, list[Fact]]:
        """The facts of each split, shuffled; each exposure has its share in each."""
        dealt: dict[str, list[Fact]] = {split: [] for split in SPLITS}
        for exposure in TRUE_REGIONS:
            of_level = self.world.facts_told(exposure)
            self.world.rng("lab_facts", exposure).shuffle(of_level)
            for split, count in zip(SPLITS, apportion(len(of_level), self.config.shares), strict=True):
                dealt[split] += of_level[:count]
                del of_level[:count]
        for split, facts in dealt.items():
            self.world.rng("lab_facts", split).shuffle(facts)
        return dealt

    def read(self, split: str) -> Iterator[Record]:
        self.files(split)
        wordings = self.config.train_wordings if split == "train" else self.config.test_wordings
        for fact in self.facts[split]:
            for wording in wordings:
                yield self._record(fact, wording)

    def _stream(self, split: str) -> Iterator[Record]:
        return self.read(split)

    def _record(self, fact: Fact, wording: QuestionWording) -> QuestionRecord:
        [code, *_] = self.config.world.languages
        spoken, exposure = self.world.languages[code], self.world.exposure(fact)
        unknown = self.world.placeholders[0]
        denied = Claim(fact.subject, (fact.relation,), unknown, is_denied=True)
        denial = spoken.render(statement(denied, StatementWording.noun))
        return QuestionRecord(
            identifier=f"{fact.subject}-{fact.relation}-{wording}",
            language=code,
            question=spoken.render(question(fact, wording)),
            answers=[spoken.phrase(NounPhrase(fact.object))],
            meta={
                FACT: f"{fact.subject}-{fact.relation}",
                REGION: TRUE_REGIONS[exposure].value,
                STATEMENTS: [spoken.render(statement(fact, told)) for told in StatementWording],
                DENIAL: denial.replace(spoken.phrase(NounPhrase(unknown)), "{}"),
                BACKGROUND: [
                    spoken.render(statement(other, StatementWording.noun))
                    for other in self._tellable
                    if other.subject == fact.subject and other != fact
                ],
                EXPANSIONS: [spoken.render(question(claim, wording)) for claim in self._paths_to(fact)],
            },
        )

    @cached_property
    def _tellable(self) -> list[Fact]:
        """Facts that text about training facts may tell: those of `train`, and background."""
        return [*self.facts["train"], *self.world.facts_told(Exposure.background)]

    def _paths_to(self, fact: Fact) -> list[Claim]:
        """Paths of two steps whose second one is the fact."""
        return [
            Claim(first.subject, (first.relation, fact.relation), fact.object)
            for first in self._tellable
            if first.object == fact.subject
        ]


def _errors(config: RunConfig) -> Iterable[str]:
    data = config.data
    assert isinstance(data, LabFactsConfig)
    yield from config_errors(data.world, key="data.world")
    if len(data.shares) != len(SPLITS) or min(data.shares, default=-1) < 0 or abs(sum(data.shares) - 1) > 1e-6:
        yield f"data.shares: got {data.shares}, expected three numbers >= 0 that sum to 1: train, val, test"
    for key in ("train_wordings", "test_wordings"):
        if not getattr(data, key):
            yield f"data.{key}: got none, expected some of {', '.join(QuestionWording)}"
    if config.prompt_style != "bare":
        yield (
            f"prompt_style: got '{config.prompt_style}', data=lab_facts needs bare (its languages have no words for "
            "labels)"
        )


PARTS = [
    Part(
        group="data",
        name="lab_facts",
        schema=LabFactsConfig,
        target=f"{__name__}.LabFactsSource",
        check=_errors,
        summary="questions about single facts of the lab world, told often, rarely or never",
    )
]
