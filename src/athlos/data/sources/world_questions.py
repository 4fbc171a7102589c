"""Questions about single facts of countries, from the `world-countries` table: capital, currency, language, and so on.

How well known a country is stands in `meta.popularity`: members of the United Nations by area, then all others, cut
into thirds. A country is in one split with all its facts. Questions are shuffled, so that the first ones of a split
are a sample.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

from athlos.config.registry import Part
from athlos.config.schema import DataConfig, RunConfig
from athlos.data.fact_variants import BACKGROUND, DENIAL, EXPANSIONS, FACT, STATEMENTS
from athlos.data.records import FactRecord, QuestionRecord, Record
from athlos.data.source import Source, files_hash
from athlos.data.sources.world_facts import WorldFactsConfig, WorldFactsSource
from athlos.data.splits import fraction_of, split_at
from athlos.errors import DataError, choices
from athlos.stages import content_hash

GENERATOR_VERSION = 1
"""Raised when the same table gives other text."""
SPLITS = ("train", "dev", "test")
THIRDS = ("high", "middle", "low")
BORDER = "border"


@dataclass(frozen=True, kw_only=True)
class Wording:
    """How a relation is asked, asked otherwise, and stated; `{}` is the country, `{value}` the answer."""

    key: str
    question: str
    other: str
    statement: str
    inverted: str


WORDINGS = {
    "capital": Wording(
        key="capital",
        question="What is the capital of {}?",
        other="Which city is the capital of {}?",
        statement="The capital of {} is {value}.",
        inverted="{value} is the capital of {}.",
    ),
    "currency": Wording(
        key="currencies",
        question="What is the currency of {}?",
        other="Which currency does one pay with in {}?",
        statement="The currency of {} is the {value}.",
        inverted="The {value} is the currency of {}.",
    ),
    "language": Wording(
        key="languages",
        question="What is an official language of {}?",
        other="Which language is official in {}?",
        statement="An official language of {} is {value}.",
        inverted="{value} is an official language of {}.",
    ),
    "subregion": Wording(
        key="subregion",
        question="In which part of the world is {}?",
        other="Which part of the world does {} lie in?",
        statement="{} lies in {value}.",
        inverted="{value} is the part of the world where {} lies.",
    ),
    "demonym": Wording(
        key="demonym",
        question="What is a person from {} called?",
        other="What does one call the people of {}?",
        statement="A person from {} is called {value}.",
        inverted="{value} is the word for a person from {}.",
    ),
}


@dataclass(kw_only=True)
class WorldQuestionsConfig(DataConfig):
    file: str = "countries.json"
    """File name below `data.dir`."""
    split_shares: dict[str, float] = field(default_factory=dict)
    """Share of the countries in train, dev and test, 1 in sum."""


class WorldQuestionsSource(Source[WorldQuestionsConfig]):
    """Answers are in English; each value that the table has for a relation is right."""

    record_type = QuestionRecord

    @cached_property
    def countries(self) -> list[FactRecord]:
        config = WorldFactsConfig(_target_="", name="world_facts", dir=self.config.dir, file=self.config.file)
        return [record for record in WorldFactsSource(config).records("all") if isinstance(record, FactRecord)]

    @cached_property
    def popularity(self) -> dict[str, str]:
        """Country -> its third, from members of the United Nations by area down to the smallest of the others."""
        ranked = sorted(
            self.countries,
            key=lambda country: (not country.meta["un_member"], -float(country.relations["area_km2"][0])),
        )
        return {country.identifier: THIRDS[3 * rank // len(ranked)] for rank, country in enumerate(ranked)}

    def files(self, split: str) -> list[Path]:
        if split not in SPLITS:
            raise DataError(f"data=world_questions has no split '{split}'{choices(split, SPLITS)}")
        return [self.file(self.config.file)]

    def fingerprint(self, split: str) -> str:
        config = {key: value for key, value in asdict(self.config).items() if key == "split_shares"}
        return content_hash([GENERATOR_VERSION, split, config, files_hash(self.files(split))])

    def read(self, split: str) -> Iterator[Record]:
        self.files(split)
        records = [
            record
            for country in self.countries
            if split_at(fraction_of(country.identifier), self.config.split_shares) == split
            for record in self._questions(country)
        ]
        random.Random(f"world_questions:{split}").shuffle(records)
        yield from records

    def _questions(self, country: FactRecord) -> Iterator[QuestionRecord]:
        name = country.names["en"]
        told = {
            relation: wording.statement.format(name, value=country.relations[wording.key][0])
            for relation, wording in WORDINGS.items()
            if country.relations[wording.key]
        }
        for relation in told:
            wording = WORDINGS[relation]
            yield self._record(
                country,
                relation,
                question=wording.question.format(name),
                other=wording.other.format(name),
                answers=country.relations[wording.key],
                statements=[
                    told[relation],
                    wording.inverted.format(name, value=country.relations[wording.key][0]),
                ],
                denial="It is not {}.",
                background=[told[key] for key in told if key != relation],
            )
        yield self._border(country, told)

    def _border(self, country: FactRecord, told: dict[str, str]) -> QuestionRecord:
        """Whether two countries are neighbours: with even chances one that is, where there is one."""
        rng = random.Random(f"world_questions:{BORDER}:{country.identifier}")
        near = country.relations["borders"]
        others = [other.identifier for other in self.countries if other.identifier not in (country.identifier, *near)]
        is_near = bool(near) and rng.random() < 0.5
        names = {other.identifier: other.names["en"] for other in self.countries}
        name, other = names[country.identifier], names[rng.choice(near if is_near else others)]
        borders = "borders" if is_near else "does not border"
        return self._record(
            country,
            BORDER,
            question=f"Does {name} border {other}? Answer yes or no.",
            other=f"Is {other} a neighbour of {name}? Answer yes or no.",
            answers=["yes" if is_near else "no"],
            statements=[f"{'Yes' if is_near else 'No'}, {name} {borders} {other}."],
            denial="It is not {}.",
            background=list(told.values()),
        )

    def _record(
        self,
        country: FactRecord,
        relation: str,
        *,
        question: str,
        other: str,
        answers: list[str],
        statements: list[str],
        denial: str,
        background: list[str],
    ) -> QuestionRecord:
        return QuestionRecord(
            identifier=f"{country.identifier}-{relation}",
            question=question,
            answers=answers,
            meta={
                FACT: f"{country.identifier}-{relation}",
                "relation": relation,
                "popularity": self.popularity[country.identifier],
                STATEMENTS: statements,
                DENIAL: denial,
                BACKGROUND: background,
                EXPANSIONS: [other],
            },
        )


def _errors(config: RunConfig) -> Iterable[str]:
    data = config.data
    assert isinstance(data, WorldQuestionsConfig)
    shares = data.split_shares
    if sorted(shares) != sorted(SPLITS) or min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
        yield f"data.split_shares: got {shares}, expected shares of train, dev and test that sum to 1"


PARTS = [
    Part(
        group="data",
        name="world_questions",
        schema=WorldQuestionsConfig,
        target=f"{__name__}.WorldQuestionsSource",
        check=_errors,
        summary="questions about single facts of 250 countries, with how well known each is",
    )
]
