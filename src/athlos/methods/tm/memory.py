"""The memory: pairs of a data set, split against the test before anything is indexed, and what controls do to them."""

import dataclasses
import json
import random
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.utils import get_class

from athlos.config.compose import plain, run_config
from athlos.data.json_lines import read_rows, write_rows
from athlos.data.parallel import ParallelConfig
from athlos.data.records import ParallelRecord, Record
from athlos.data.source import Source
from athlos.data.sources.lab_memory import LabMemoryConfig
from athlos.data.splits import fraction_of
from athlos.errors import ConfigError, DataError
from athlos.methods.tm.config import Corrupt, TmConfig
from athlos.methods.tm.scores import glossary
from athlos.parts import PartContext
from athlos.stages import Stage

VERSION = 2
"""Raised when the same data give another memory."""
PAIRS, TERMS, SPLIT = "pairs.jsonl", "terms.json", "split.json"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A sentence and its human translation."""

    identifier: str
    source: str
    target: str
    domain: str = ""
    foreign: str = ""
    """Its translation into `method.wrong_language`, where that control is run."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The pairs by id, and the key of the product that holds them."""

    pairs: Mapping[str, Pair]
    key: str
    counts: Mapping[str, int]
    """How many pairs were read and how many each rule left out."""
    terms: Mapping[str, str] = field(default_factory=dict)
    """Translations of terms, from pairs of any length."""


def normalised(source: str) -> str:
    """A source as leaks and repeats are decided by: case, white space and marks at its end do not count."""
    text = " ".join(unicodedata.normalize("NFKC", source).casefold().split())
    end = len(text)
    while end and unicodedata.category(text[end - 1])[0] in "PZ":
        end -= 1
    return text[:end] or text


def domain_of(record: ParallelRecord) -> str:
    return record.domain.partition(":")[0]


def natural(identifier: str) -> tuple[int, str]:
    """The order of ids that end in a line number; it does not depend on the order of a file."""
    return len(identifier), identifier


def is_counted(source: str, *, method: TmConfig) -> bool:
    """Whether a sentence has as many words as the study looks at."""
    return method.pairs.min_words <= len(source.split()) <= method.pairs.max_words


def kept_pairs(
    records: Iterable[ParallelRecord],
    *,
    tested: Collection[str],
    method: TmConfig,
    foreign: Mapping[str, str] | None = None,
) -> tuple[list[Pair], dict[str, int]]:
    """The pairs of a memory in the order of their ids, and how many records each rule left out.

    `tested` holds the normalised sources of the test. Of pairs with one source and one target one is kept, and with
    `unique_src` of those with one normalised source: that with the first id. `foreign` gives translations into another
    language by source; pairs without one are left out then.
    """
    counts = dict.fromkeys(("read", "length", "tested", "repeated", "same_source", "size", "no_foreign", "kept"), 0)
    seen_pairs, seen_sources, pairs = set[tuple[str, str]](), set[str](), list[Pair]()
    for record in sorted(records, key=lambda record: natural(record.identifier)):
        source, both = normalised(record.source), (record.source, record.target)
        counts["read"] += 1
        if not is_counted(record.source, method=method):
            reason = "length"
        elif source in tested:
            reason = "tested"
        elif both in seen_pairs:
            reason = "repeated"
        elif method.unique_src and source in seen_sources:
            reason = "same_source"
        elif fraction_of(f"memory:{record.identifier}") >= method.tm_size:
            reason = "size"
        elif foreign is not None and record.source not in foreign:
            reason = "no_foreign"
        else:
            reason = "kept"
            pairs.append(
                Pair(
                    identifier=record.identifier,
                    source=record.source,
                    target=record.target,
                    domain=domain_of(record),
                    foreign="" if foreign is None else foreign[record.source],
                )
            )
        counts[reason] += 1
        seen_pairs.add(both)
        seen_sources.add(source)
    return pairs, counts


def shown_targets(pairs: Mapping[str, Pair], *, kind: Corrupt, noise: float, seed: int) -> dict[str, str]:
    """What stands as the target of each pair in a prompt, by id: the true one, or what the control puts there.

    Shuffled targets go round a circle through all pairs in random order, so that none stays where it was.
    """
    if kind is Corrupt.shuffled_targets:
        order = sorted(pairs)
        random.Random(f"shuffled:{seed}").shuffle(order)
        return {here: pairs[there].target for here, there in zip(order, [*order[1:], *order[:1]], strict=True)}
    if kind is Corrupt.wrong_language:
        return {identifier: pair.foreign for identifier, pair in pairs.items()}
    if kind is Corrupt.noisy:
        words = sorted({word for pair in pairs.values() for word in pair.target.split()})
        return {
            identifier: _noisy(pair.target, words, noise=noise, rng=random.Random(f"noisy:{seed}:{identifier}"))
            for identifier, pair in pairs.items()
        }
    return {identifier: pair.target for identifier, pair in pairs.items()}


def _noisy(target: str, words: Sequence[str], *, noise: float, rng: random.Random) -> str:
    return " ".join(rng.choice(words) if rng.random() < noise else word for word in target.split())


def read_memory(method: TmConfig, *, context: PartContext) -> Memory:
    """The memory of a run, a stage product: built once for all k, orders, templates and rankings."""
    assert context.data is not None
    source = pairs_source(method, context=context)
    tested_split = context.data.test_split
    foreign = None
    if method.tm_corrupt is Corrupt.wrong_language:
        foreign = _in_language(source, method.wrong_language)

    def build(folder: Path) -> None:
        assert context.data is not None
        tested = {normalised(record.source) for record in _parallel(context.data.source.records(tested_split))}
        translations = None
        if foreign is not None:
            translations = {record.source: record.target for record in _parallel(foreign.records(method.pairs.split))}
        records = list(_parallel(source.records(method.pairs.split)))
        pairs, counts = kept_pairs(records, tested=tested, method=method, foreign=translations)
        if not pairs:
            raise DataError(
                f"method.pairs: the memory is empty; of {counts['read']} pairs read none was kept: {counts}"
            )
        write_rows(folder / PAIRS, map(dataclasses.asdict, pairs))
        untested = (record for record in records if normalised(record.source) not in tested)
        terms = glossary((record.source, record.target) for record in untested)
        (folder / TERMS).write_text(json.dumps(terms, ensure_ascii=False), encoding="utf-8")
        (folder / SPLIT).write_text(json.dumps(counts), encoding="utf-8")

    values = plain(method)
    inputs = {
        "pairs": source.fingerprint(method.pairs.split),
        "test": context.data.source.fingerprint(tested_split),
        "foreign": "" if foreign is None else foreign.fingerprint(method.pairs.split),
    }
    stage = Stage(
        name="tm_memory",
        version=VERSION,
        inputs=inputs,
        config={
            "pairs": {key: value for key, value in values["pairs"].items() if key != "data"},
            "unique_src": method.unique_src,
            "tm_size": method.tm_size,
        },
        build=build,
    )
    product = context.stages.get(stage)
    pairs = [Pair(**row) for row in read_rows(product.path / PAIRS)]
    return Memory(
        pairs={pair.identifier: pair for pair in pairs},
        key=product.key,
        counts=json.loads((product.path / SPLIT).read_text(encoding="utf-8")),
        terms=json.loads((product.path / TERMS).read_text(encoding="utf-8")),
    )


def pairs_source(method: TmConfig, *, context: PartContext) -> Source[Any]:
    """The data of the memory: that of the run, or what `method.pairs.data` names. Raises `ConfigError` for no pairs."""
    assert context.data is not None
    if not method.pairs.data:
        return context.data.source
    other = run_config([*method.pairs.data, "train.max_steps=0"]).data
    if not isinstance(other, ParallelConfig | LabMemoryConfig):
        raise ConfigError(f"method.pairs.data: got data={other.name}, expected parallel text")
    source: Source[Any] = get_class(other._target_)(other)
    return source


def _in_language(source: Source[Any], language: str | None) -> Source[Any]:
    config = dataclasses.replace(source.config, target_language=language)
    other: Source[Any] = type(source)(config)
    return other


def _parallel(records: Iterable[Record]) -> Iterable[ParallelRecord]:
    for record in records:
        if not isinstance(record, ParallelRecord):
            raise DataError(f"method.pairs.split: record '{record.identifier}' is no pair of sentences")
        yield record
