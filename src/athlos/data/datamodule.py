"""The data of a run: the source, its splits as rows for training, and its records for evaluation."""

import itertools
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pytorch_lightning as pl
from hydra.utils import get_class
from torch.utils.data import DataLoader

from athlos.config.compose import plain
from athlos.config.schema import RunConfig
from athlos.data.batches import Batch, BatchPlan, EvalRows, OwnStream, TrainStream
from athlos.data.encoding import Rows, encode_split
from athlos.data.picture_prompts import IMAGE_TOKEN
from athlos.data.records import Record
from athlos.data.source import Source
from athlos.errors import DataError
from athlos.stages import StageStore

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

TextOf = Callable[[Record], tuple[str, str]]
"""Prompt and completion of a record, in the run's prompt style."""

log = logging.getLogger(__name__)


class PictureReader(Protocol):
    """How the run's model reads pictures: `models.vision_language.PictureInputs`."""

    num_tokens: int
    """Image tokens that one picture fills."""
    key: str
    """Name of the pictures in a batch."""

    def values(self, pixels: "np.ndarray") -> "np.ndarray":
        """Pictures [N, height, width, 3] as the model wants them, float32 [N, ...]."""
        ...


@dataclass(frozen=True, kw_only=True)
class Constructed:
    """Records that take the place of the training split, and what identifies them."""

    records: "Sequence[Record]"
    fingerprint: str


FEW_SHOT_POOL, FEW_SHOT_FRONT = 64, 10_000
"""Worked examples come from a random 64 of the first 10,000 records of the training split: the very first ones are
often alike (a language's name after the other), and a large file need not be read to its end."""


def build_source(config: RunConfig) -> Source:
    """The data source of a run, from its `_target_` (the allow-list was checked at compose time)."""
    source = get_class(config.data._target_)(config.data)
    assert isinstance(source, Source)
    return source


class DataModule(pl.LightningDataModule):
    """Training and validation loaders, and the records of any split.

    `text_of` gives what a record is trained on. Encoded splits are stage products; `first_step` of the training
    stream is the trainer's step at the time the loader starts, so a resumed run goes on with the rows that come next.
    """

    def __init__(
        self, config: RunConfig, *, tokenizer: "PreTrainedTokenizerBase", stages: StageStore, text_of: TextOf
    ) -> None:
        super().__init__()
        self.config, self.tokenizer, self.stages, self.text_of = config, tokenizer, stages, text_of
        self.source = build_source(config)
        self._rows: dict[str, Rows] = {}
        self.pictures: PictureReader | None = None
        """None for a model of text."""
        self._constructed: Constructed | None = None
        self.kept_rows: np.ndarray | None = None
        """Indices of the training rows that are trained on, set before training; None = all."""
        self.own_stream: Callable[[int], Iterator[Batch]] | None = None
        """Micro batches from optimizer step n on, of a method that makes its own in place of the encoded rows."""

    def train_on(self, records: "Sequence[Record]", *, fingerprint: str) -> None:
        """Train on these records in place of the training split; `fingerprint` is the key of what made them."""
        assert self.config.data.train_split is not None
        self._constructed = Constructed(records=records, fingerprint=fingerprint)
        self._rows.pop(self.config.data.train_split, None)

    def _expanded_text(self, record: Record) -> tuple[str, str]:
        """Prompt and completion with the image token once for each of a picture's tokens, before anything is encoded.

        So no mask is made of a text that changes its length later.
        """
        prompt, completion = self.text_of(record)
        if self.pictures is not None:
            prompt = prompt.replace(IMAGE_TOKEN, IMAGE_TOKEN * self.pictures.num_tokens)
        return prompt, completion

    @property
    def pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return self.tokenizer.eos_token_id if pad is None else pad

    @property
    def test_split(self) -> str:
        split = self.config.data.test_split
        if split is None:
            raise DataError(f"data.test_split: data={self.config.data.name} names no test split; set one")
        return split

    def limit(self, split: str) -> int | None:
        """At most this many records of a split, the cap of a smoke test included."""
        data, cap = self.config.data, self.config.hardware.limit_items_cap
        if split == data.train_split:
            return data.limit_train
        limit = data.limit_val if split == data.val_split else data.limit_test
        if not cap:
            return limit
        return cap if limit is None else min(limit, cap)

    def records(self, split: str) -> Iterator[Record]:
        """Stream the records of a split, limited as the config says."""
        return self.source.records(split, limit=self.limit(split))

    def eval_records(self, split: str) -> list[Record]:
        """All records of an evaluation split; raises `DataError` when there is none."""
        found = list(self.records(split))
        if not found:
            raise DataError(f"split '{split}' of data={self.config.data.name} holds no records")
        return found

    def shots_pool(self) -> list[Record]:
        """Records that worked examples may come from, by the run's seed: never those of the test split."""
        split = self.config.data.train_split
        if split is None or self.config.eval.shots == 0:
            return []
        front = list(itertools.islice(self.source.records(split), FEW_SHOT_FRONT))
        return random.Random(self.config.seed).sample(front, min(FEW_SHOT_POOL, len(front)))

    def rows(self, split: str) -> Rows:
        """Encoded rows of a split, built once."""
        if split not in self._rows:
            train, data, style = self.config.train, plain(self.config)["data"], self.config.eval.prompt
            identity = {
                key: value
                for key, value in data.items()
                if key not in ("dir", "limit_train", "limit_val", "limit_test")
            }
            inputs, source = {"data": self.source.fingerprint(split)}, self.records
            if self._constructed is not None and split == self.config.data.train_split:
                made = self._constructed
                inputs, source = {"constructed": made.fingerprint}, lambda _: iter(made.records)
            if self.pictures is not None:
                identity = {**identity, "image_tokens": self.pictures.num_tokens}
            try:
                rows = encode_split(
                    lambda: source(split),
                    text_of=self._expanded_text,
                    tokenizer=self.tokenizer,
                    max_length=train.max_length,
                    batching=train.batching,
                    inputs=inputs,
                    config={"split": split, "limit": self.limit(split), "style": style, "source": identity},
                    stages=self.stages,
                )
            except DataError as error:
                if error.file is None:
                    raise DataError(f"split '{split}' of data={self.config.data.name}: {error}") from error
                raise
            self._rows[split] = self._with_pictures(rows)
        return self._rows[split]

    def _with_pictures(self, rows: Rows) -> Rows:
        if rows.pixels is None:
            return rows
        if self.pictures is None:
            raise DataError(
                f"data={self.config.data.name} shows pictures, and the model {self.config.model.name} sees none"
            )
        rows.picture_key, rows.picture_values = self.pictures.key, self.pictures.values(rows.pixels)
        return rows

    def train_dataloader(self) -> DataLoader[Batch]:
        assert self.trainer is not None
        assert self.config.data.train_split is not None
        if self.own_stream is not None:
            return DataLoader(OwnStream(self.own_stream, first_step=self.trainer.global_step), batch_size=None)
        train = self.config.train
        rows = self.rows(self.config.data.train_split)
        if self.kept_rows is not None:
            rows = rows.subset(self.kept_rows)
        plan = BatchPlan(
            lengths_R=rows.ends_R - rows.starts_R,
            batch_size=train.batch_size,
            batching=train.batching,
            seed=self.config.seed,
        )
        stream = TrainStream(
            rows,
            plan,
            micro_batch_size=train.micro_batch_size,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            pad_id=self.pad_id,
            first_step=self.trainer.global_step,
            last_step=self.config.num_steps,
        )
        return DataLoader(stream, batch_size=None)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        if self.config.data.val_split is None:
            return []
        assert self.trainer is not None
        rows = EvalRows(
            self.rows(self.config.data.val_split),
            batch_size=self.config.train.micro_batch_size,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            pad_id=self.pad_id,
            max_batches=self.config.train.val_batches,
        )
        return DataLoader(rows, batch_size=None)
