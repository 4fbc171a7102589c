"""What PLAST's probe reads: questions about pictures as batches, with masks that say which tokens are words.

B questions, T positions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from athlos.data.encoding import continued_ids, prefix_token
from athlos.data.picture_prompts import IMAGE_TOKEN, LETTERS
from athlos.data.picture_questions import PictureQuestionSource
from athlos.data.records import ChoiceRecord
from athlos.errors import DataError, SurgeryError
from athlos.methods.plast.config import PlastSelectionConfig, ProbeTokens
from athlos.models.forward import causal_model
from athlos.models.neuron_counts import NeuronCounts
from athlos.models.probed_selection import count_blocks, probe_product
from athlos.models.vision_language import FEATURES, decoder_inputs, encode_pictures, num_image_tokens
from athlos.parts import PartContext
from athlos.stages import Product

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A batch as the decoder takes it, right-padded, and the kind of every token."""

    batch: dict[str, Tensor]
    """input_ids, attention_mask, position_ids [B, T], picture features [B, K, V]; labels where there are answers."""
    is_text_BT: Tensor
    """bool: tokens of the question or of an option; no template, no letter, no begin-of-sequence, no picture."""
    is_image_BT: Tensor

    def mask(self, tokens: ProbeTokens) -> Tensor:
        if tokens is ProbeTokens.text:
            return self.is_text_BT
        return self.is_image_BT if tokens is ProbeTokens.image else self.batch["attention_mask"].bool()

    def inputs(self, model: "PreTrainedModel") -> dict[str, Tensor]:
        """Keyword arguments of the decoder, the picture's features in their places."""
        return {
            "inputs_embeds": decoder_inputs(causal_model(model), self.batch),
            "attention_mask": self.batch["attention_mask"],
            "position_ids": self.batch["position_ids"],
        }


def probe(config: PlastSelectionConfig, model: "PreTrainedModel", *, context: PartContext) -> Product:
    """Counts of firing neurons on the same questions in every language, as a stage product."""
    source, wanted = source_of(context), config.probe
    languages = wanted.languages or list(source.config.languages)

    def count() -> list[NeuronCounts]:
        questions = parallel_questions(context, split=wanted.split, languages=languages, items=wanted.items)
        block = {
            language: (
                (reading.inputs(model), reading.mask(config.tokens))
                for reading in readings(model, context.tokenizer, records, batch_size=wanted.batch_size)
            )
            for language, records in questions.items()
        }
        return count_blocks(model, [block], languages=languages, with_sums=False)

    kept = {"items": wanted.items, "split": wanted.split, "tokens": config.tokens.value, "languages": languages}
    return probe_product(context, count, data=source.fingerprint(wanted.split), config=kept)


def source_of(context: PartContext) -> PictureQuestionSource[Any]:
    assert context.data is not None
    source = context.data.source
    if not isinstance(source, PictureQuestionSource):
        raise DataError(f"data={context.config.data.name} has no questions about pictures in several languages")
    return source


def parallel_questions(
    context: PartContext, *, split: str, languages: Sequence[str], items: int
) -> dict[str, list[ChoiceRecord]]:
    """Language -> its first `items` questions of a split, the same pictures in each.

    Raises `DataError` for a language without questions or with others than the first language has.
    """
    by_language: dict[str, list[ChoiceRecord]] = {language: [] for language in languages}
    for record in source_of(context).questions(split):
        kept = by_language.get(record.language)
        if kept is not None and len(kept) < items:
            kept.append(record)
    order = [record.item for record in by_language[languages[0]]]
    for language, records in by_language.items():
        if not records or [record.item for record in records] != order:
            raise DataError(f"language '{language}' has no question for each of {len(order)} pictures of '{split}'")
    return by_language


def spans(question: str, options: Sequence[str], *, image_tokens: int) -> tuple[str, list[tuple[int, int]]]:
    """A prompt with its options, the image token repeated, and where the words of the language stand in it."""
    text = f"{IMAGE_TOKEN * image_tokens} "
    places = [(len(text), len(text) + len(question))]
    text += question
    for letter, option in zip(LETTERS, options, strict=False):
        text += f"\n{letter}: "
        places.append((len(text), len(text) + len(option)))
        text += option
    return f"{text}\n", places


def readings(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    records: Sequence[ChoiceRecord],
    *,
    batch_size: int,
    with_answers: bool = False,
) -> Iterator[Reading]:
    """Batches of questions: with their options; or, `with_answers`, without, and the right words as labels behind."""
    inner = causal_model(model)
    for start in range(0, len(records), batch_size):
        chunk = records[start : start + batch_size]
        features_BKV = encode_pictures(inner, [np.asarray(record.pixels) for record in chunk])
        rows = [_row(inner, tokenizer, record, with_answers=with_answers) for record in chunk]
        yield _padded(rows, features_BKV, image_token=int(inner.config.image_token_index))


def _row(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", record: ChoiceRecord, *, with_answers: bool
) -> tuple[list[int], list[bool], list[int]]:
    """(ids, whether words of the language, labels) of one question."""
    options = () if with_answers else record.choices
    text, places = spans(record.question, options, image_tokens=num_image_tokens(model))
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    is_text = [any(first < end and last > start for start, end in places) for first, last in encoded["offset_mapping"]]
    bos = prefix_token(tokenizer)
    head = [] if bos is None else [bos]
    answer = continued_ids(tokenizer, text, record.choices[record.answer_index]) if with_answers else []
    ids = [*head, *encoded["input_ids"], *answer]
    labels = [-100] * (len(ids) - len(answer)) + answer
    return ids, [False] * len(head) + is_text + [False] * len(answer), labels


def _padded(rows: Sequence[tuple[list[int], list[bool], list[int]]], features: Tensor, *, image_token: int) -> Reading:
    longest = max(len(ids) for ids, _, _ in rows)
    ids_BT = torch.zeros(len(rows), longest, dtype=torch.long)
    labels_BT = torch.full((len(rows), longest), -100)
    mask_BT, is_text_BT = torch.zeros_like(ids_BT), torch.zeros(len(rows), longest, dtype=torch.bool)
    for place, (ids, is_text, labels) in enumerate(rows):
        ids_BT[place, : len(ids)] = torch.tensor(ids)
        labels_BT[place, : len(ids)] = torch.tensor(labels)
        is_text_BT[place, : len(ids)] = torch.tensor(is_text)
        mask_BT[place, : len(ids)] = 1
    is_image_BT = (ids_BT == image_token) & mask_BT.bool()
    if not bool(is_image_BT.any(1).all()):
        raise SurgeryError("probe: a question has no image tokens; expected those of its picture")
    if not bool(is_text_BT.any(1).all()):
        raise DataError("probe: a question has no words of its own")
    batch = {
        "input_ids": ids_BT,
        "labels": labels_BT,
        "attention_mask": mask_BT,
        FEATURES: features,
        "position_ids": torch.arange(longest).expand(len(rows), -1).contiguous(),
    }
    return Reading(batch=batch, is_text_BT=is_text_BT & ~is_image_BT, is_image_BT=is_image_BT)
