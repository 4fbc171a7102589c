"""The data of a run: the source, its splits as rows for training, and its records for evaluation."""

import copy
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch.utils.data import DataLoader

from athlos.config.compose import plain
from athlos.config.schema import RunConfig
from athlos.data.batches import Batch, BatchPlan, EvalRows, TrainStream, Unit
from athlos.data.encoding import Rows, encode_split
from athlos.data.picture_prompts import IMAGE_TOKEN
from athlos.data.records import Record
from athlos.data.source import build_source, test_split
from athlos.errors import DataError
from athlos.stages import StageStore, content_hash

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

TextOf = Callable[[Record], tuple[str, str]]
"""Prompt and completion of a record, in the run's prompt style."""


class PictureReader(Protocol):
    """How the run's model reads pictures: `models.vision_language.PictureInputs`."""

    num_tokens: int
    """Image tokens that one picture fills."""
    key: str
    """Name of the pictures in a batch."""

    def values(self, pixels: "np.ndarray") -> "np.ndarray":
        """Pictures [N, height, width, 3] as the model wants them, float32 [N, ...]."""
        ...


FEW_SHOT_POOL, FEW_SHOT_FRONT = 64, 10_000
"""Worked examples come from a random 64 of the first 10,000 records of the training split: the very first ones are
often alike (a language's name after the other), and a large file need not be read to its end."""


@dataclass(kw_only=True)
class MadeData:
    """What a construction made to train on, where it made records or rows."""

    key: str
    """Content hash of what was made: an input of every stage that reads it."""
    records: Sequence[Record] | None = None
    rows: Rows | None = None
    """The same encoded, for constructions that work on token ids."""


class DataModule:
    """The records of any split, and the same as rows to train on. `text_of` gives what a record is trained on.

    Encoded splits are stage products. Training data is the training split, or what the run's construction made.
    """

    def __init__(
        self, config: RunConfig, *, tokenizer: "PreTrainedTokenizerBase", stages: StageStore, text_of: TextOf
    ) -> None:
        self.config, self.tokenizer, self.stages, self.text_of = config, tokenizer, stages, text_of
        self.source = build_source(config)
        self._rows: dict[str, Rows] = {}
        self.pictures: PictureReader | None = None
        """None for a model of text."""
        self._made: MadeData | None = None

    def with_made(self, made: MadeData | None) -> "DataModule":
        """The same data, whose training split is what a construction made; itself where that is nothing."""
        if made is None or (made.records is None and made.rows is None):
            return self
        data = copy.copy(self)
        data._made, data._rows = made, {}
        return data

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
        pad, end = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        token_id: int = end if pad is None else pad
        return token_id

    @property
    def test_split(self) -> str:
        return test_split(self.config.data)

    def limit(self, split: str) -> int | None:
        """At most this many records of a split."""
        data = self.config.data
        if split == data.train_split:
            return data.limit_train
        return data.limit_val if split == data.val_split else data.limit_test

    def records(self, split: str) -> Iterator[Record]:
        """Stream the records of a split, limited as the config says."""
        return self.source.records(split, limit=self.limit(split))

    def eval_records(self, split: str) -> list[Record]:
        """All records of an evaluation split; raises `DataError` when there is none."""
        records = list(self.records(split))
        if not records:
            raise DataError(f"split '{split}' of data={self.config.data.name} holds no records")
        return records

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
            train, data, style = self.config.train, plain(self.config)["data"], self.config.prompt_style
            identity = {
                key: value
                for key, value in data.items()
                if key not in ("dir", "path", "limit_train", "limit_val", "limit_test")
            }
            made = self._made if split == self.config.data.train_split else None
            if made is not None and made.rows is not None:
                self._rows[split] = self._with_pictures(made.rows)
                return self._rows[split]
            made_records = None if made is None else made.records
            inputs = {"data": self.source.fingerprint(split)} if made is None else {"made": made.key}
            if self.source.holds_conversations:
                inputs = {**inputs, "chat_template": content_hash(self.tokenizer.chat_template)}
            if self.pictures is not None:
                identity = {**identity, "image_tokens": self.pictures.num_tokens}
            try:
                rows = encode_split(
                    lambda: self.records(split) if made_records is None else iter(made_records),
                    text_of=self._expanded_text,
                    tokenizer=self.tokenizer,
                    max_length=train.max_length,
                    batching=train.batching,
                    inputs=inputs,
                    config={"split": split, "limit": self.limit(split), "style": style, "source": identity},
                    stages=self.stages,
                    takes_pairs=self.config.objective.takes_pairs,
                    on_error=self.source.bad,
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

    def train_batches(
        self, *, first_step: int, rank: int, world_size: int, unit: Unit = Unit.tokens
    ) -> DataLoader[Batch]:
        """Micro batches of one process from optimizer step `first_step` to the last, so that a resumed run goes on
        with the rows that come next. `unit` is what the objective counts."""
        drawn = self.config.train.rows_start
        train = self.config.train
        assert self.config.data.train_split is not None
        rows = self.rows(self.config.data.train_split)
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
            rank=rank,
            world_size=world_size,
            pad_id=self.pad_id,
            first_step=drawn + first_step,
            last_step=drawn + self.config.num_steps,
            unit=unit,
        )
        return DataLoader(stream, batch_size=None)

    def val_batches(self, *, rank: int, world_size: int) -> DataLoader[Batch]:
        """The validation split in order, each process its share."""
        assert self.config.data.val_split is not None
        rows = EvalRows(
            self.rows(self.config.data.val_split),
            batch_size=self.config.train.micro_batch_size,
            rank=rank,
            world_size=world_size,
            pad_id=self.pad_id,
            max_batches=self.config.train.val_batches,
        )
        return DataLoader(rows, batch_size=None)
