"""Translation between lab languages for training, and sums in every language as the test of it.

No files. `train` holds questions and traces of sums, x -> the first language of the world; `reason` sums in the first
language with their traces; `probe` other sums' questions in all languages; `test` the probes of data=lab of the kind
sum, and their questions as segments to translate. Licence: generated, none needed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from athlos.config.fields import at_least
from athlos.config.schema import MISSING, DataConfig, RunConfig
from athlos.data.records import ParallelRecord, QuestionRecord, Record
from athlos.data.source import GeneratedSource, data_part
from athlos.errors import ConfigError, choices
from athlos.lab import pretraining
from athlos.lab.sums import Sums, SumsConfig, render
from athlos.lab.world import World, WorldConfig, config_errors


class Translated(StrEnum):
    """What of a sum is translated."""

    question = "question"
    answer = "answer"
    both = "both"


@dataclass(kw_only=True)
class LabAlignmentConfig(DataConfig):
    world: WorldConfig = field(default_factory=WorldConfig)
    sums: SumsConfig = field(default_factory=SumsConfig)
    pairs: Translated = MISSING
    languages: list[str] = field(default_factory=list)
    """Languages translated from; empty = all but the first of the world."""
    num_pairs: int = at_least(1)
    """Sums that are translated from each language."""
    num_probe_items: int = at_least(1)
    """Sums of the probe split."""
    num_probes: int = at_least(1)
    """Test sums of each number of steps, the same in every language."""


class LabAlignmentSource(GeneratedSource[LabAlignmentConfig]):
    record_type = Record
    splits = ("train", "reason", "probe", "test")

    @cached_property
    def world(self) -> World:
        return World(self.config.world)

    @property
    def first(self) -> str:
        """The language translated into."""
        return self.config.world.languages[0]

    @property
    def others(self) -> list[str]:
        return self.config.languages or self.config.world.languages[1:]

    def words(self) -> Iterator[str]:
        return pretraining.words(self.world, pretraining.MixtureConfig(sums=self.config.sums))

    def decides(self, split: str) -> dict[str, Any]:
        return {"config": {name: value for name, value in asdict(self.config).items() if name not in ("dir", "on_bad")}}

    def read(self, split: str) -> Iterator[Record]:
        for group in self._limited_groups(split):
            yield from group

    def _limited_groups(self, split: str) -> Iterable[Iterator[Record]]:
        self.files(split)
        if split == "train":
            return [self._pairs(code) for code in self.others]
        if split == "reason":
            return [self._reasoning()]
        if split == "probe":
            return [self._probe(code) for code in self.config.world.languages]
        sums = [self._test_sums(code) for code in self.config.world.languages]
        return [*sums, *(self._test_segments(code) for code in self.others)]

    def _pairs(self, code: str) -> Iterator[Record]:
        sums = Sums(self.config.sums)
        kinds = [kind for kind in ("question", "answer") if self.config.pairs.value in (kind, "both")]
        for index in range(self.config.num_pairs):
            item = sums.item("train", index)
            own, target = (render(item, self.world.languages[language]) for language in (code, self.first))
            for kind in kinds:
                part = ("question", "answer").index(kind)
                yield self._segment(f"{kind}-{item.id}-{code}", code, own[part], target[part], item=item.id)

    def _segment(self, identifier: str, code: str, source: str, target: str, *, item: str) -> ParallelRecord:
        return ParallelRecord(
            identifier=identifier,
            language=self.first,
            source=source,
            target=target,
            source_language=code,
            meta={"item": item, "kind": "segment"},
        )

    def _reasoning(self) -> Iterator[Record]:
        sums = Sums(self.config.sums)
        for index in range(self.config.num_pairs):
            yield self._sum(sums, "train", index, self.first)

    def _probe(self, code: str) -> Iterator[Record]:
        sums = Sums(self.config.sums)
        return (self._sum(sums, "val", index, code) for index in range(self.config.num_probe_items))

    def _sum(self, sums: Sums, split: str, index: int, code: str) -> QuestionRecord:
        item = sums.item(split, index)
        question, trace = render(item, self.world.languages[code])
        return QuestionRecord(
            identifier=f"sum-{item.difficulty}-{item.id}-{code}",
            language=code,
            question=question,
            answers=[trace],
            meta={"kind": "sum", "dial": str(item.difficulty), "item": f"{item.difficulty}-{item.id}"},
        )

    def _test_sums(self, code: str) -> Iterator[Record]:
        for sums in self._by_steps():
            yield from (self._sum(sums, "test", index, code) for index in range(self.config.num_probes))

    def _test_segments(self, code: str) -> Iterator[Record]:
        for sums in self._by_steps():
            for index in range(self.config.num_probes):
                item = sums.item("test", index)
                own, target = (render(item, self.world.languages[language])[0] for language in (code, self.first))
                identifier = f"segment-{item.difficulty}-{item.id}-{code}"
                yield self._segment(identifier, code, own, target, item=f"{item.difficulty}-{item.id}")

    def _by_steps(self) -> Iterator[Sums]:
        config = self.config.sums
        for steps in range(config.min_steps, config.max_steps + 1):
            yield Sums(SumsConfig(**{**vars(config), "min_steps": steps, "max_steps": steps}))


def _errors(data: LabAlignmentConfig, config: RunConfig) -> Iterable[str]:
    yield from config_errors(data.world, key="data.world")
    for code in data.languages:
        if code not in data.world.languages[1:]:
            yield f"data.languages: got '{code}'{choices(code, data.world.languages[1:])}"
    try:
        Sums(data.sums)
    except ConfigError as error:
        yield str(error).replace("lab.sums", "data.sums", 1)
    if config.prompt_style != "bare":
        yield f"prompt_style: got '{config.prompt_style}', data=lab_alignment needs bare (its languages have no labels)"


PARTS = [
    data_part(
        "lab_alignment",
        LabAlignmentConfig,
        LabAlignmentSource,
        "translation between lab languages for training, sums in every language as test",
        check=_errors,
    )
]
