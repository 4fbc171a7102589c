"""What tables are counted from: the training rows in shards, and domain documents checked against the test split.

N tokens, R rows.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from hydra.utils import get_class

from athlos.config.compose import plain
from athlos.config.schema import Batching, DataConfig
from athlos.data.encoding import Rows, encode_split
from athlos.data.records import Record
from athlos.data.source import Source
from athlos.methods.ndp.building import Corpus
from athlos.methods.ndp.hashing import segment_totals, whole_segments
from athlos.methods.ndp.positions import predicted
from athlos.methods.ndp.tables import release_pages
from athlos.parts import PartContext
from athlos.stages import content_hash

if TYPE_CHECKING:
    from athlos.data.datamodule import DataModule

log = logging.getLogger(__name__)

MONO_LENGTH = 1 << 31
"""Longest domain document, in tokens: none is too long, since only its first prefixes are counted."""


@dataclass(kw_only=True)
class ShardedRows:
    """Rows of a split that are read shard by shard, so that a corpus need not fit into memory."""

    rows: Rows
    kept_R: np.ndarray
    """Which rows are counted, bool."""
    shard_tokens: int
    joins_first: bool
    only_targets: bool = False
    """Leave out what no row is trained on (a begin-of-sequence token) and predict every token: documents."""
    _spans: list[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        lengths_R = self.rows.ends_R - self.rows.starts_R
        self._spans = [(rows.start, rows.stop) for _, rows in whole_segments(lengths_R, size=self.shard_tokens)]

    def __len__(self) -> int:
        return len(self._spans)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return int((self.rows.ends_R - self.rows.starts_R).max())

    @property
    def num_tokens(self) -> int:
        """Tokens of the counted rows."""
        return int((self.rows.ends_R - self.rows.starts_R)[self.kept_R].sum())

    def shard(self, index: int) -> Corpus:
        """The counted rows of a shard, in memory."""
        first, last = self._spans[index]
        tokens_N, is_target_N, lengths_R = rows_end_to_end(self.rows, first + np.flatnonzero(self.kept_R[first:last]))
        if self.only_targets:
            lengths_R = np.add.reduceat(is_target_N, np.cumsum(lengths_R) - lengths_R, dtype=np.int64)
            tokens_N = tokens_N[is_target_N]
            is_predicted_N = np.ones(len(tokens_N), dtype=bool)
        else:
            is_predicted_N = predicted(is_target_N, lengths_R)
        return Corpus(
            tokens_N=tokens_N, is_predicted_N=is_predicted_N, lengths_R=lengths_R, joins_first=self.joins_first
        )

    def release(self) -> None:
        """Let go of the pages that were read."""
        release_pages(self.rows.tokens_T)
        release_pages(self.rows.is_target_T)

    @cached_property
    def fingerprint(self) -> str:
        """Content hash of the counted rows, the same however they are cut into shards."""
        return self.fingerprint_of(range(len(self)))

    def fingerprint_of(self, shards: Sequence[int]) -> str:
        digests = [hashlib.sha256() for _ in range(3)]
        for index in shards:
            corpus = self.shard(index)
            arrays = (corpus.tokens_N.astype("<i4"), corpus.is_predicted_N, corpus.lengths_R.astype("<i8"))
            for digest, array in zip(digests, arrays, strict=True):
                digest.update(np.ascontiguousarray(array).data)
            self.release()
        return content_hash({"rows": [digest.hexdigest() for digest in digests], "joins_first": self.joins_first})


def rows_end_to_end(rows: Rows, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens and targets of the chosen rows (ascending), and the rows' lengths."""
    if not len(chosen):
        return np.empty(0, dtype=np.int32), np.empty(0, dtype=bool), np.empty(0, dtype=np.int64)
    starts_R, lengths_R = rows.starts_R[chosen], (rows.ends_R - rows.starts_R)[chosen]
    begin, end = int(starts_R[0]), int(rows.ends_R[chosen[-1]])
    tokens_N, is_target_N = np.asarray(rows.tokens_T[begin:end]), np.asarray(rows.is_target_T[begin:end])
    if lengths_R.sum() < end - begin:
        within = np.arange(lengths_R.sum()) - np.repeat(np.cumsum(lengths_R) - lengths_R, lengths_R)
        places = np.repeat(starts_R - begin, lengths_R) + within
        tokens_N, is_target_N = tokens_N[places], is_target_N[places]
    return tokens_N, is_target_N, lengths_R


def training_rows(rows: Rows, *, shard_tokens: int, dedup: bool) -> ShardedRows:
    """The rows of a split; with `dedup` those with the tokens and targets of an earlier row are left out."""
    is_target_first = np.asarray(rows.is_target_T)[rows.starts_R]
    sharded = ShardedRows(
        rows=rows,
        kept_R=np.ones(len(rows), dtype=bool),
        shard_tokens=shard_tokens,
        joins_first=bool(is_target_first.any()),
    )
    if sharded.joins_first and not is_target_first.all():
        log.warning(
            "construct=ndp: some rows have no prompt and some do; a prompt of one token counts as part of its answer"
        )
    if dedup:
        sharded.kept_R = first_occurrences(sharded)
    return sharded


def first_occurrences(rows: ShardedRows) -> np.ndarray:
    """Whether no earlier row has the same tokens and targets, bool [R]. All rows are counted ones."""
    corpora = (rows.shard(index) for index in range(len(rows)))
    keys = (
        segment_totals(corpus.tokens_N.astype(np.int64) * 2 + corpus.is_predicted_N, corpus.lengths_R)
        for corpus in corpora
    )
    return first_of_each(np.concatenate(list(keys)))


def first_of_each(keys_R2: np.ndarray) -> np.ndarray:
    """Whether no earlier row has the same key, bool [R]."""
    order = np.lexsort((np.arange(len(keys_R2)), keys_R2[:, 1], keys_R2[:, 0]))
    is_first = np.ones(len(keys_R2), dtype=bool)
    is_first[order[1:]] = (keys_R2[order[1:]] != keys_R2[order[:-1]]).any(axis=1)
    return is_first


@dataclass(kw_only=True)
class Documents:
    """Domain text for the answer-only table."""

    rows: ShardedRows
    num_left_out: int
    """Documents that hold a text of the test split."""


def domain_documents(config: DataConfig, *, context: PartContext, shard_tokens: int) -> Documents:
    """Documents of a data source, encoded as answers without a prompt; those with test items are left out.

    A document is left out where its whole text or one of its lines is the text of a test item.
    """
    assert context.data is not None
    assert config.train_split is not None
    source = get_class(config._target_)(config)
    assert isinstance(source, Source)
    split, held_out = config.train_split, held_out_texts(context.data)

    def text_of(record: Record) -> str:
        assert context.data is not None
        return context.data.text_of(record)[1]

    def records(*, are_clean: bool) -> Iterator[Record]:
        for record in source.records(split, limit=config.limit_train):
            if is_clean(text_of(record), held_out) is are_clean:
                yield record

    rows = encode_split(
        lambda: records(are_clean=True),
        text_of=lambda record: ("", text_of(record)),
        tokenizer=context.tokenizer,
        max_length=MONO_LENGTH,
        batching=Batching.bucket,
        inputs={"data": source.fingerprint(split), "held_out": content_hash(sorted(held_out))},
        config={"split": split, "source": {name: value for name, value in plain(config).items() if name != "dir"}},
        stages=context.stages,
    )
    left_out = sum(1 for _ in records(are_clean=False))
    if left_out:
        log.warning("construct.mono: left out %d documents that hold texts of the test split", left_out)
    sharded = ShardedRows(
        rows=rows,
        kept_R=np.ones(len(rows), dtype=bool),
        shard_tokens=shard_tokens,
        joins_first=True,
        only_targets=True,
    )
    return Documents(rows=sharded, num_left_out=left_out)


def held_out_texts(data: "DataModule") -> set[str]:
    """Hashes of the texts of the run's test split."""
    split = data.config.data.test_split
    if split is None:
        return set()
    return {text_hash(data.text_of(record)[1]) for record in data.source.records(split)}


def is_clean(text: str, held_out: set[str]) -> bool:
    """Whether neither a text nor one of its lines has a held-out hash."""
    return not any(text_hash(part) in held_out for part in {text, *text.splitlines()} if part.strip())


def text_hash(text: str) -> str:
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()
