"""Translation into English for training, and real tests of what it does, from the official files of five data sets.

Training pairs are NTREX sentences and MSVAMP questions, x -> English. The probe split holds NTREX lines that are used
for nothing else. The test split holds the last NTREX lines, MGSM, XQuAD and WikiText-2, each in its own type of record,
so that one run is tested by the suites translation, math, qa and perplexity. MGSM is part of GSM8K's test set, of which
nothing is trained on; the split `reason` is GSM8K's training set, for the two-stage recipe.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from athlos.config.fields import at_least
from athlos.config.schema import MISSING, DataConfig, RunConfig
from athlos.data.records import MathRecord, ParallelRecord, Record
from athlos.data.rows import check_split
from athlos.data.source import Source, data_part
from athlos.data.sources.gsm8k import Gsm8kConfig, Gsm8kSource
from athlos.data.sources.mgsm import MgsmConfig, MgsmSource
from athlos.data.sources.msvamp import MsvampConfig, MsvampSource
from athlos.data.sources.parallel_files import ParallelFilesConfig, ParallelFilesSource
from athlos.data.sources.squad import XquadConfig, XquadSource
from athlos.data.sources.wikitext import WikitextConfig, WikitextSource
from athlos.errors import DataError

ENGLISH = "en"
SPLITS = ("train", "reason", "probe", "test")
WHOLE, PROBLEMS = "all", "test"
"""Splits of the sources below that hold everything they have."""
SourceSplit = tuple[Source[Any], str]
"""A source and the name of one of its splits."""


class Pairs(StrEnum):
    """What is translated: news sentences, word problems, or both in turn."""

    sentences = "sentences"
    questions = "questions"
    both = "both"


@dataclass(kw_only=True)
class FoldersConfig:
    """Folders below `data.dir`."""

    ntrex: str = "ntrex"
    msvamp: str = "msvamp"
    gsm8k: str = "gsm8k"
    mgsm: str = "mgsm"
    xquad: str = "xquad"
    wikitext2: str = "wikitext2"


@dataclass(kw_only=True)
class AlignmentConfig(DataConfig):
    languages: list[str] = MISSING
    """Two-letter codes of the languages translated from."""
    codes: dict[str, str] = field(default_factory=dict)
    """What NTREX's files call a language."""
    pairs: Pairs = MISSING
    max_characters: int = at_least(1)
    """Segments to translate are at most this long on the English side, solutions to learn from as well."""
    num_train_lines: int = at_least(1)
    """First lines of NTREX, which are trained on."""
    num_probe_lines: int = at_least(1)
    """Lines after those, which are probed."""
    num_test_lines: int = at_least(1)
    """Last lines of NTREX, which are tested on."""
    tests: dict[str, int] = at_least(1)
    """Test -> items a language (articles of text); any of translation, math, qa, text. The test split holds these."""
    folders: FoldersConfig = field(default_factory=FoldersConfig)


TESTS = ("translation", "math", "qa", "text")


class AlignmentSource(Source[AlignmentConfig]):
    record_type = Record

    def files(self, split: str) -> list[Path]:
        parts = self._parts(split)
        return list(dict.fromkeys(path for source, inner in parts for path in source.files(inner)))

    def read(self, split: str) -> Iterator[Record]:
        for group in self._limited_groups(split):
            yield from group

    def fingerprint(self, split: str) -> str:
        return f"{super().fingerprint(split)}-{split}"

    def _parts(self, split: str) -> list[SourceSplit]:
        """(source, its split) of everything a split is made of."""
        check_split(split, SPLITS)
        if split == "reason":
            return [(self._gsm8k(), "train")]
        sentences: list[SourceSplit] = [(self._ntrex(language), WHOLE) for language in self.config.languages]
        if split == "probe":
            return sentences
        if split == "train":
            questions: list[SourceSplit] = [(self._msvamp(), PROBLEMS)]
            return {
                Pairs.sentences: sentences,
                Pairs.questions: questions,
                Pairs.both: [*sentences, *questions],
            }[self.config.pairs]
        chosen: dict[str, list[SourceSplit]] = {
            "math": [(self._mgsm(), "test")],
            "qa": [(self._xquad(), "test")],
            "text": [(self._text(), "test")],
            "translation": sentences,
        }
        return [part for name in self.config.tests for part in chosen[name]]

    def _limited_groups(self, split: str) -> Iterable[Iterator[Record]]:
        """A limit counts for each language of each data set."""
        self._parts(split)
        if split == "reason":
            return [self._reasoning()]
        if split == "probe":
            return [self._sentences(language, "probe") for language in self.config.languages]
        if split == "train":
            return [self._train(language) for language in self.config.languages]
        groups: list[Iterator[Record]] = []
        firsts: list[int] = []
        for name, count in self.config.tests.items():
            if name == "translation":
                groups += [self._sentences(language, "test") for language in self.config.languages]
            elif name == "math":
                groups += [self._mgsm([language]).records("test") for language in self._known(MgsmSource)]
            elif name == "qa":
                groups += [self._xquad([language]).records("test") for language in self._known(XquadSource)]
            else:
                groups.append(self._text().records("test"))
            firsts += [count] * (len(groups) - len(firsts))
        return [itertools.islice(group, count) for group, count in zip(groups, firsts, strict=True)]

    def _known(self, source: type[Any]) -> list[str]:
        """English and those of the languages that a data set has."""
        return [language for language in (ENGLISH, *self.config.languages) if language in source.accepted]

    def _train(self, language: str) -> Iterator[Record]:
        """Sentences and questions in turn, as far as both go."""
        streams = {
            Pairs.sentences: [self._sentences(language, "train")],
            Pairs.questions: [self._translated_problems(language)],
            Pairs.both: [self._sentences(language, "train"), self._translated_problems(language)],
        }[self.config.pairs]
        return itertools.chain.from_iterable(zip(*streams, strict=False))

    def _sentences(self, language: str, split: str) -> Iterator[ParallelRecord]:
        config = self.config
        lines = list(self._ntrex(language).records(WHOLE))
        first = {"train": 0, "probe": config.num_train_lines, "test": len(lines) - config.num_test_lines}[split]
        count = {"train": config.num_train_lines, "probe": config.num_probe_lines, "test": config.num_test_lines}[split]
        if config.num_train_lines + config.num_probe_lines + config.num_test_lines > len(lines):
            raise DataError(
                f"data.num_train_lines, num_probe_lines and num_test_lines: more than the {len(lines)} lines there are"
            )
        for position in range(first, first + count):
            record = lines[position]
            assert isinstance(record, ParallelRecord)
            # NTREX's source is English; here English is what is translated into.
            if split == "probe" or len(record.source) <= config.max_characters:
                yield ParallelRecord(
                    identifier=f"ntrex-{position}-{language}",
                    language=ENGLISH,
                    source=record.target,
                    target=record.source,
                    source_language=language,
                    meta={"item": position},
                )

    def _translated_problems(self, language: str) -> Iterator[ParallelRecord]:
        if language not in MsvampSource.accepted:
            raise DataError(f"data.pairs: MSVAMP has no '{language}'; accepted: {', '.join(MsvampSource.accepted)}")
        for record in self._msvamp([language]).records(PROBLEMS):
            assert isinstance(record, MathRecord)
            if len(record.english) <= self.config.max_characters:
                yield ParallelRecord(
                    identifier=f"msvamp-{record.identifier}",
                    language=ENGLISH,
                    source=record.question,
                    target=record.english,
                    source_language=language,
                    meta={"item": record.identifier.split("-")[-1]},
                )

    def _reasoning(self) -> Iterator[Record]:
        for record in self._gsm8k().records("train"):
            assert isinstance(record, MathRecord)
            if len(record.solution) <= self.config.max_characters:
                yield record

    def _config(self, schema: type[Any], name: str, folder: str, **values: Any) -> Any:
        return schema(
            _target_="", name=name, dir=f"{self.config.dir or '.'}/{folder}", on_bad=self.config.on_bad, **values
        )

    def _ntrex(self, language: str) -> ParallelFilesSource:
        return ParallelFilesSource(
            self._config(
                ParallelFilesConfig,
                "ntrex",
                self.config.folders.ntrex,
                source_language=ENGLISH,
                target_language=language,
                codes=self.config.codes,
                source_file="newstest2019-src.{source}.txt",
                target_file="newstest2019-ref.{target}.txt",
            )
        )

    def _msvamp(self, languages: list[str] | None = None) -> MsvampSource:
        chosen = languages or [language for language in self.config.languages if language in MsvampSource.accepted]
        return MsvampSource(self._config(MsvampConfig, "msvamp", self.config.folders.msvamp, languages=chosen))

    def _mgsm(self, languages: list[str] | None = None) -> MgsmSource:
        chosen = languages or self._known(MgsmSource)
        return MgsmSource(self._config(MgsmConfig, "mgsm", self.config.folders.mgsm, languages=chosen))

    def _xquad(self, languages: list[str] | None = None) -> XquadSource:
        chosen = languages or self._known(XquadSource)
        return XquadSource(self._config(XquadConfig, "xquad", self.config.folders.xquad, languages=chosen))

    def _gsm8k(self) -> Gsm8kSource:
        files = {"train": "train.jsonl"}
        return Gsm8kSource(self._config(Gsm8kConfig, "gsm8k", self.config.folders.gsm8k, files=files))

    def _text(self) -> WikitextSource:
        files = {"test": "test.txt"}
        return WikitextSource(self._config(WikitextConfig, "wikitext2", self.config.folders.wikitext2, files=files))


def _errors(data: AlignmentConfig, config: RunConfig) -> Iterable[str]:
    for name in data.tests:
        if name not in TESTS:
            yield f"data.tests: got '{name}', expected any of {', '.join(TESTS)}"
    if ENGLISH in data.languages or not data.languages or len(set(data.languages)) < len(data.languages):
        got = ", ".join(data.languages) or "none"
        yield f"data.languages: got {got}, expected languages other than en, each once"
    if data.dir is None and not config.dry_run:
        yield "data.dir: no value; expected the folder that holds ntrex, msvamp, mgsm, xquad, wikitext2"


PARTS = [
    data_part(
        "alignment",
        AlignmentConfig,
        AlignmentSource,
        "translation into English for training; translation, MGSM, XQuAD and WikiText-2 as tests",
        check=_errors,
    )
]
