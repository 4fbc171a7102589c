"""The lab world as a data source: pre-training text of a world, and probes of what a model made of it.

No files: everything is generated from the config, the same on every machine. `train` is the pre-training mixture,
`val` unseen documents and sums, `test` the probes, by kind and setting in `meta`. Licence: generated, none needed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from athlos.config.fields import any_of
from athlos.config.schema import DataConfig, RunConfig
from athlos.data.records import Passage, QuestionRecord, Record, TextRecord
from athlos.data.source import GeneratedSource, data_part
from athlos.errors import ConfigError, choices
from athlos.lab import pretraining
from athlos.lab.chains import MAX_HOPS, MIN_HOPS, Split
from athlos.lab.sums import Sums
from athlos.lab.world import World, WorldConfig, config_errors

KINDS = ("fact", "statement", "document", "recital", "sum", "chain")


@dataclass(kw_only=True)
class LabConfig(DataConfig):
    world: WorldConfig = field(default_factory=WorldConfig)
    mixture: pretraining.MixtureConfig = field(default_factory=pretraining.MixtureConfig)
    kinds: list[str] = any_of(*KINDS)
    """What is kept in every split; empty = all."""
    train_languages: list[str] = field(default_factory=list)
    """Which languages of the world are kept in `train` and `val`; empty = all. Probes are always in all of them."""


class LabSource(GeneratedSource[LabConfig]):
    """Records are `QuestionRecord`s with `meta.kind` and `meta.dial`; statements are `TextRecord`s."""

    record_type = Record
    version = 2

    @cached_property
    def world(self) -> World:
        return World(self.config.world)

    def words(self) -> Iterator[str]:
        return pretraining.words(self.world, self.config.mixture)

    def decides(self, split: str) -> dict[str, Any]:
        config = self.config
        made_of = {"world": asdict(config.world), "mixture": asdict(config.mixture)}
        return {**made_of, "kinds": config.kinds, "languages": self.languages_of(split)}

    def read(self, split: str) -> Iterator[Record]:
        self.files(split)
        make = {
            "train": pretraining.training_examples,
            "val": pretraining.validation_examples,
            "test": pretraining.probes,
        }[split]
        for example in make(self.world, self.config.mixture):
            if self.config.kinds and example.kind not in self.config.kinds:
                continue
            if example.language in self.languages_of(split):
                yield _record(example)

    def languages_of(self, split: str) -> list[str]:
        return (self.config.train_languages if split != "test" else []) or self.config.world.languages


def _record(example: pretraining.Example) -> Record:
    meta = {"kind": example.kind, "dial": example.dial}
    if not example.question and not example.context:
        return TextRecord(identifier=example.identifier, language=example.language, text=example.answer, meta=meta)
    return QuestionRecord(
        identifier=example.identifier,
        language=example.language,
        question=example.question,
        answers=[example.answer],
        passages=[Passage(title="", text=example.context, is_supporting=True)] if example.context else [],
        meta=meta,
    )


def _errors(data: LabConfig, config: RunConfig) -> Iterable[str]:
    yield from config_errors(data.world, key="data.world")
    for code in data.train_languages:
        if code not in data.world.languages:
            yield f"data.train_languages: got '{code}'{choices(code, data.world.languages)}"
    mixture = data.mixture
    if mixture.max_document_facts > data.world.num_fictional:
        yield (
            f"data.mixture.max_document_facts: got {mixture.max_document_facts}, expected at most "
            f"data.world.num_fictional = {data.world.num_fictional}"
        )
    try:
        Sums(mixture.sums)
    except ConfigError as error:
        yield str(error).replace("lab.sums", "data.mixture.sums", 1)
    for split in Split:
        if len(mixture.chains.num_linear(split)) != MAX_HOPS - MIN_HOPS + 1:
            yield f"data.mixture.chains.num_{split}: got {mixture.chains.num_linear(split)}, expected 3 numbers"
    if config.prompt_style != "bare":
        yield f"prompt_style: got '{config.prompt_style}', data=lab needs bare (its languages have no words for labels)"


PARTS = [
    data_part(
        "lab",
        LabConfig,
        LabSource,
        "the lab world: facts, documents, sums and chains in five invented languages",
        check=_errors,
    )
]
