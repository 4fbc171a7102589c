"""What START asks, and which weights answer: queries that the test does not ask, records that fit into a row."""

import random

from athlos.data.encoding import encode_pair
from athlos.data.records import LongAnswerRecord, Record
from athlos.errors import DataError
from athlos.generation.config import NativeConfig, SelfGeneratorConfig
from athlos.generation.interface import Engine
from athlos.generation.native import NativeEngine
from athlos.parts import PartContext


def queries(context: PartContext, *, most: int) -> list[LongAnswerRecord]:
    """The first questions of the training split, less those that the test split asks too.

    Raises `DataError` for records of another kind, and where none is left.
    """
    assert context.data is not None
    run = context.config
    split, test = run.data.train_split, run.data.test_split
    if split is None:
        raise DataError(f"method=start: data={run.data.name} names no training split to take queries from")
    asked = {_normal(record) for record in context.data.source.records(test)} if test else set()
    records: list[LongAnswerRecord] = []
    for record in context.data.records(split):
        if not isinstance(record, LongAnswerRecord):
            raise DataError(f"method=start: data={run.data.name} holds records that are no questions for long answers")
        if len(records) == most:
            break
        if _normal(record) not in asked:
            records.append(record)
    if not records:
        raise DataError(f"method=start: split '{split}' of data={run.data.name} has no query that its test lacks")
    return records


def _normal(record: Record) -> str:
    return " ".join(record.question.casefold().split()) if isinstance(record, LongAnswerRecord) else ""


def rng_of(context: PartContext, purpose: str, record: LongAnswerRecord) -> random.Random:
    return random.Random(f"{context.config.seed}/{purpose}/{record.identifier}")


def tokens_of(record: LongAnswerRecord, *, context: PartContext) -> int:
    """Tokens of a record as it is trained on."""
    assert context.data is not None
    return sum(map(len, encode_pair(context.tokenizer, *context.data.text_of(record))))


def checked(record: LongAnswerRecord, *, context: PartContext) -> LongAnswerRecord:
    """The record. Raises `DataError` where it does not fit into a row: documents that it cites would be cut away."""
    wanted, room = tokens_of(record, context=context), context.config.train.max_length
    if wanted > room:
        raise DataError(
            f"train.max_length: got {room}, expected at least {wanted}: documents of question '{record.identifier}' "
            "would be cut, and its answer cites them"
        )
    return record


def own_engine(context: PartContext) -> Engine:
    """What samples: the weights that the context has, whoever writes the warm-up."""
    assert context.start is not None
    if isinstance(context.config.generator, SelfGeneratorConfig) and context.generator is not None:
        return context.generator
    config = NativeConfig(_target_="", batch_size=context.config.eval.batch_size)
    return NativeEngine(config, model=context.start.model, tokenizer=context.start.tokenizer)
