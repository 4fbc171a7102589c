"""Questions of two and three steps about the countries of `world-countries`, in six languages, with their graphs.

Each relation has exactly one answer, or the table's country is left out of it: countries with two capitals, capitals of
two countries, neighbours of equal area. A chain visits no country twice. Names of countries are in every language;
capitals and internet domains are written alike in all, as in the table. A passage is what the table says of a country,
under one id in all languages; those of a question are what its steps rest on and some others. The table is ODbL 1.0.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

from athlos.config.fields import at_least
from athlos.config.schema import DataConfig, RunConfig
from athlos.data.records import NAMED_PASSAGES, PARALLEL, FactRecord, Passage, QuestionRecord, Record, Step
from athlos.data.source import Source, data_part, files_hash
from athlos.data.sources.world_facts import WorldFactsConfig, WorldFactsSource
from athlos.data.sources.world_language import LANGUAGES, Asked, Speech
from athlos.errors import DataError, choices
from athlos.stages import content_hash

GENERATOR_VERSION = 1
"""Raised when the same files give other questions."""
SPLITS = ("dev", "test")
PIVOT = "en"
HOPS = (2, 3)
FORWARD = ("capital", "domain", "largest_neighbour", "smallest_neighbour")
"""Relations of a country."""
INVERSE = {"capital_country": "capital", "domain_country": "domain"}
"""Relations of a capital or a domain to its country, and what they turn round."""
BETWEEN_COUNTRIES = ("largest_neighbour", "smallest_neighbour")

Fact = tuple[str, str]
"""(country, relation): the table has one value for it."""


@dataclass(kw_only=True)
class WorldChainsConfig(DataConfig):
    file: str = "countries.json"
    """File name below `data.dir`."""
    languages: list[str] = field(default_factory=lambda: ["en", "de", "es", "fr", "ja", "zh"])
    """Codes of the languages of the questions, English first; passages are in the same."""
    num_dev: int = at_least(0, default=50)
    """Questions for choosing settings, half of them of two steps, each in every language."""
    num_test: int = at_least(1, default=300)
    """Questions for testing, half of them of two steps, each in every language."""
    num_distractors: int = at_least(0, default=6)
    """Passages of a question beside those that its steps rest on."""
    chain_seed: int = at_least(0, default=0)
    """Seed of the choice of questions."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A question: where it begins, and the relations that are followed."""

    start: str
    """A code of a country, a capital or a domain."""
    relations: tuple[str, ...]
    answers: tuple[str, ...]
    """Of each step: a code of a country, a capital or a domain."""
    countries: tuple[str, ...]
    """Whose passage answers each step."""

    @property
    def identifier(self) -> str:
        return "-".join([self.start, *self.relations]).replace(" ", "_")


class WorldTable:
    """The facts that have one answer each. Values are codes of countries, or texts that all languages share."""

    def __init__(self, records: Sequence[FactRecord]) -> None:
        self.records = {record.identifier: record for record in records}
        self.facts: dict[Fact, str] = dict(self._facts())
        self.country_of: dict[Fact, str] = {
            (value, inverse): country
            for inverse, relation in INVERSE.items()
            for (country, of), value in self.facts.items()
            if of == relation
        }

    def _facts(self) -> Iterator[tuple[Fact, str]]:
        for relation, key in (("capital", "capital"), ("domain", "internet_domain")):
            counts = Counter(value for record in self.records.values() for value in record.relations[key])
            for code, record in self.records.items():
                values = record.relations[key]
                if len(values) == 1 and counts[values[0]] == 1 and values[0].isascii():
                    yield (code, relation), values[0]
        for code, record in self.records.items():
            areas = {near: float(self.records[near].relations["area_km2"][0]) for near in record.relations["borders"]}
            for relation, extreme in (("largest_neighbour", max), ("smallest_neighbour", min)):
                if areas:
                    area = extreme(areas.values())
                    named = [near for near, other in areas.items() if other == area]
                    if len(named) == 1:
                        yield (code, relation), named[0]

    def follow(self, start: str, relation: str) -> str | None:
        return self.country_of.get((start, relation)) or self.facts.get((start, relation))

    def chains(self, num_hops: int) -> Iterator[Chain]:
        """All chains of so many steps that visit no country twice."""
        starts = [*self.country_of, *((code, relation) for code in self.records for relation in BETWEEN_COUNTRIES)]
        for start, first in sorted(starts):
            value = self.follow(start, first)
            if value is not None:
                visited = (value,) if first in INVERSE else (start, value)
                passage = value if first in INVERSE else start
                yield from self._longer(
                    Chain(start=start, relations=(first,), answers=(value,), countries=(passage,)), visited, num_hops
                )

    def _longer(self, chain: Chain, visited: tuple[str, ...], num_hops: int) -> Iterator[Chain]:
        if len(chain.relations) == num_hops:
            yield chain
            return
        at, is_last = chain.answers[-1], len(chain.relations) + 1 == num_hops
        for relation in FORWARD if is_last else BETWEEN_COUNTRIES:
            value = self.facts.get((at, relation))
            # The capital of the country whose capital is X would be X.
            if value is None or value in visited or value == chain.start:
                continue
            yield from self._longer(
                Chain(
                    start=chain.start,
                    relations=(*chain.relations, relation),
                    answers=(*chain.answers, value),
                    countries=(*chain.countries, at),
                ),
                (*visited, value),
                num_hops,
            )


class WorldChainsSource(Source[WorldChainsConfig]):
    """`meta.hops` is the number of steps. A question is in one split in all languages."""

    record_type = QuestionRecord

    @cached_property
    def table(self) -> WorldTable:
        facts = WorldFactsSource(
            WorldFactsConfig(_target_="", name="world_facts", dir=self.config.dir, file=self.config.file)
        )
        records = [record for record in facts.records("all") if isinstance(record, FactRecord)]
        missing = [code for code in self.config.languages if code not in LANGUAGES]
        if missing:
            raise DataError(f"data.languages: '{missing[0]}' has no wordings{choices(missing[0], list(LANGUAGES))}")
        return WorldTable(records)

    @cached_property
    def exact(self) -> Speech:
        names = {code: record.names for code, record in self.table.records.items()}
        return Speech(
            self.config.languages, names, texts={value for value in self.table.facts.values() if value not in names}
        )

    def files(self, split: str) -> list[Path]:
        if split not in SPLITS:
            raise DataError(f"data=world_chains has no split '{split}'{choices(split, SPLITS)}")
        return [self.file(self.config.file)]

    def fingerprint(self, split: str) -> str:
        config = {key: value for key, value in asdict(self.config).items() if key not in ("dir", "name")}
        return content_hash([GENERATOR_VERSION, split, config, files_hash(self.files(split))])

    def _passages(self, code: str) -> dict[str, Passage]:
        """Country -> what the table says of it, for countries that it says something of."""
        passages = {}
        for country in self.table.records:
            told = [
                self.exact.statement(Asked(relation, country), self.table.facts[country, relation], language=code)
                for relation in FORWARD
                if (country, relation) in self.table.facts
            ]
            if told:
                title = self.exact.name(country, code)
                text = "\n".join(told)
                passages[country] = Passage(title=title, text=text, sentences=told, identifier=country)
        return passages

    @cached_property
    def chains(self) -> dict[str, list[Chain]]:
        """The questions of each split: shuffled once, those for testing first."""
        rng = random.Random(f"world_chains:{self.config.chain_seed}")
        chosen: dict[str, list[Chain]] = {split: [] for split in SPLITS}
        for hops in HOPS:
            candidates = [chain for chain in self.table.chains(hops) if self._is_unambiguous(chain)]
            rng.shuffle(candidates)
            for split, number in (("test", self.config.num_test), ("dev", self.config.num_dev)):
                wanted = number - number // 2 if hops == HOPS[0] else number // 2
                if len(candidates) < wanted:
                    raise DataError(f"data.num_{split}: the table has too few chains of {hops} steps for {number}")
                chosen[split] += candidates[:wanted]
                del candidates[:wanted]
        return chosen

    def _is_unambiguous(self, chain: Chain) -> bool:
        return not any(map(self.exact.is_ambiguous, (chain.start, *chain.answers)))

    def read(self, split: str) -> Iterator[Record]:
        for group in self._limited_groups(split):
            yield from group

    def languages_of(self, split: str) -> list[str]:
        self.files(split)
        return self.config.languages

    def _of_language(self, split: str, code: str) -> Iterator[Record]:
        passages = self._passages(code)
        for chain in self.chains[split]:
            steps = self._steps(chain, code)
            english = self._steps(chain, PIVOT)
            yield QuestionRecord(
                identifier=f"{code}-{chain.identifier}",
                language=code,
                question=self.exact.question(chain.start, chain.relations, language=code),
                answers=[steps[-1].answer],
                steps=steps,
                passages=self._passages_of(chain, passages),
                meta={
                    NAMED_PASSAGES: True,
                    "hops": len(steps),
                    PARALLEL: {
                        "question": self.exact.question(chain.start, chain.relations, language=PIVOT),
                        "answers": [english[-1].answer],
                        "steps": [[step.question, step.answer] for step in english],
                    },
                },
            )

    def _passages_of(self, chain: Chain, passages: Mapping[str, Passage]) -> list[Passage]:
        """Those that the steps rest on and others, the same ones in every language, in the order of the table."""
        needed = set(chain.countries)
        rng = random.Random(f"world_chains:distractors:{chain.identifier}")
        others = [country for country in passages if country not in needed]
        kept = needed | set(rng.sample(others, min(self.config.num_distractors, len(others))))
        return [
            replace(passage, is_supporting=country in needed)
            for country, passage in passages.items()
            if country in kept
        ]

    def _steps(self, chain: Chain, code: str) -> list[Step]:
        arguments = [chain.start, *(f"#{number}" for number in range(1, len(chain.relations)))]
        return [
            Step(
                question=self.exact.question(argument, (relation,), language=code),
                answer=self.exact.name(answer, code),
                supporting=country,
            )
            for argument, relation, answer, country in zip(
                arguments, chain.relations, chain.answers, chain.countries, strict=True
            )
        ]


def _errors(data: WorldChainsConfig, config: RunConfig) -> Iterable[str]:
    for code in data.languages:
        if code not in LANGUAGES:
            yield f"data.languages: got '{code}'{choices(code, list(LANGUAGES))}"
    if data.languages[:1] != ["en"]:
        yield f"data.languages: got {data.languages}, expected en first: every question has its parallel in English"


PARTS = [
    data_part(
        "world_chains",
        WorldChainsConfig,
        WorldChainsSource,
        "questions of two and three steps about countries, in six languages",
        check=_errors,
    )
]
