"""Splits for data that comes as one piece: the same record is in the same split in every run, on every machine.

`hash` sends a record by the sha256 of its key (for parallel text: the source segment), so that repeated segments never
stand on both sides of a split. `order` cuts the file into contiguous pieces: for corpora in document order, where
neighbours belong together; a segment that repeats elsewhere in the file may then be in two splits.
"""

import dataclasses
import hashlib
import json
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from athlos.config.fields import bounded, wrong_values
from athlos.config.schema import DataConfig, RunConfig
from athlos.data.records import Record
from athlos.data.rows import check_split
from athlos.data.source import Source
from athlos.errors import ConfigErrors, DataError

WHOLE = "all"
"""Name of the split that holds every record; always accepted."""
SHARE_TOLERANCE = 1e-6
"""How far the shares may be from 1 in sum: thirds are written with few digits."""


class SplitBy(StrEnum):
    """What decides the split of a record: the hash of its key, or its place in the file."""

    hash = "hash"
    order = "order"


@dataclass(kw_only=True)
class SplitConfig(DataConfig):
    """Config of a source whose files hold one split."""

    split_shares: dict[str, float] = bounded("[0, 1]", default=dict)
    """Share of each split, 1 in sum; 0 leaves a split out; empty = the one split `all`."""
    split_by: SplitBy = SplitBy.hash


SplitConfigT = TypeVar("SplitConfigT", bound=SplitConfig)


def fraction_of(key: str) -> float:
    """A number in [0, 1] from sha256 of the key, evenly spread; case and runs of white space do not count.

    `Save` and `save ` get one number, so that near copies of a segment do not leak from one split into another.
    """
    digest = hashlib.sha256(" ".join(key.split()).casefold().encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_at(fraction: float, shares: Mapping[str, float]) -> str:
    """The split that holds this point when the shares lie end to end on [0, 1], in their given order."""
    edge = 0.0
    used = [(name, share) for name, share in shares.items() if share > 0]
    for name, share in used:
        edge += share
        if fraction < edge:
            return name
    return used[-1][0]  # the sum of the shares may end a rounding error below 1


def accepted_splits(config: SplitConfig) -> list[str]:
    return [*(name for name, share in config.split_shares.items() if share > 0), WHOLE]


def share_errors(config: SplitConfig) -> Iterator[str]:
    """One line for each reason why `data.split_shares` cannot be used."""
    shares = config.split_shares
    yield from wrong_values(config, path="data")
    if WHOLE in shares:
        yield f"data.split_shares.{WHOLE}: this name is the whole file; expected another"
    total = math.fsum(shares.values())
    if shares and abs(total - 1) > SHARE_TOLERANCE:
        parts = ", ".join(f"{name} {share}" for name, share in shares.items())
        yield f"data.split_shares: got {parts}, in sum {total:g}, expected 1 in sum"


def split_errors(data: SplitConfig, config: RunConfig) -> Iterator[str]:
    """Check of a part: wrong shares, and splits of the run that the shares do not make."""
    yield from share_errors(data)
    accepted = accepted_splits(data)
    for key in ("train_split", "val_split", "test_split"):
        name = getattr(data, key)
        if name is not None and name not in accepted:
            yield f"data.{key}: got '{name}', expected one of {', '.join(accepted)}, or null"


class SplitSource(Source[SplitConfigT]):
    """Base of the sources whose files hold one split. Subclasses give `all_files`, `read_all` and `split_key`.

    An unreadable record has no key, so it belongs to every split: reading any of them reports it, and it is counted
    once a source.
    """

    def __init__(self, config: SplitConfigT) -> None:
        super().__init__(config)
        if errors := list(share_errors(config)):
            raise ConfigErrors(errors)
        self._reported: set[str] = set()

    @abstractmethod
    def all_files(self) -> list[Path]:
        """The files of the data set; raises `DataError` for a missing one."""

    @abstractmethod
    def read_all(self) -> Iterator[Record | DataError]:
        """Stream every record in file order, and in place of an unreadable one its error."""

    @abstractmethod
    def split_key(self, record: Record) -> str:
        """Records with equal keys share a split."""

    def files(self, split: str) -> list[Path]:
        check_split(split, accepted_splits(self.config))
        return self.all_files()

    def read(self, split: str) -> Iterator[Record]:
        self.files(split)
        by_order = self.config.split_by is SplitBy.order and split != WHOLE
        # A first pass counts: the borders of contiguous pieces depend on the length of the whole.
        total = sum(1 for _ in self.read_all()) if by_order else 0
        for position, item in enumerate(self.read_all()):
            if isinstance(item, DataError):
                self._bad_once(item)
                continue
            if split == WHOLE:
                yield item
                continue
            fraction = (position + 0.5) / total if by_order else fraction_of(self.split_key(item))
            if split_at(fraction, self.config.split_shares) == split:
                yield item

    def _bad_once(self, error: DataError) -> None:
        if str(error) not in self._reported:
            self.bad(error)
            self._reported.add(str(error))

    def fingerprint(self, split: str) -> str:
        """sha256 over the files, the split and the source's own settings: all splits are cut from the same files."""
        own = {item.name for item in dataclasses.fields(self.config)}
        own -= {item.name for item in dataclasses.fields(DataConfig)}
        settings = {name: getattr(self.config, name) for name in sorted(own)}
        identity = json.dumps([super().fingerprint(split), split, settings], sort_keys=False, default=str)
        return hashlib.sha256(identity.encode()).hexdigest()
