"""The two likelihoods of Robust: of an answer behind all documents, and behind those that it cites alone.

B rows, T positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from athlos.data.encoding import encode_pair
from athlos.data.records import LongAnswerRecord
from athlos.methods.start.config import Normalise
from athlos.methods.start.rewards import Sampled, robustness
from athlos.models.forward import evaluating
from athlos.objectives.preference import answer_log_probs
from athlos.text.citations import renumbered

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TextOf = Callable[[LongAnswerRecord], tuple[str, str]]
"""Prompt and completion of a record, in the run's prompt style."""
CHUNK_TOKENS = 1024
"""Positions whose logits exist at one time."""


def with_cited_alone(record: LongAnswerRecord, sample: Sampled) -> LongAnswerRecord:
    """The record with the sample for its answer and the documents that it cites alone, its citations renumbered."""
    numbers = {old: new for new, old in enumerate(sample.cited, start=1)}
    passages = [record.passages[old - 1] for old in numbers]
    return replace(record, passages=passages, answer=renumbered(sample.text, numbers))


@torch.no_grad()
def set_robust(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    record: LongAnswerRecord,
    samples: Sequence[Sampled],
    *,
    text_of: TextOf,
    normalise: Normalise,
) -> None:
    """Sets Robust of all samples to one question; an answer without a citation, or with one of no document, has 0.

    A batch has the answers behind all documents, another those behind the cited ones; a prompt that several answers of
    a batch share is read once. In one batch the short prompts of the second would be padded to the length of the first.
    """
    scored = [
        sample
        for sample in samples
        if sample.cited and sample.cited[0] >= 1 and sample.cited[-1] <= len(record.passages)
    ]
    if not scored:
        return
    scored.sort(key=lambda sample: sample.cited)  # equal prompts side by side

    def log_probs(records: Sequence[LongAnswerRecord]) -> list[float]:
        batch = batch_of(tokenizer, [text_of(record) for record in records])
        sums_B, lengths_B = answer_log_probs(model, batch, chunk_tokens=CHUNK_TOKENS)
        values: list[float] = (sums_B if normalise is Normalise.per_sequence else sums_B / lengths_B).tolist()
        return values

    with evaluating(model):
        whole = log_probs([replace(record, answer=sample.text) for sample in scored])
        cited = log_probs([with_cited_alone(record, sample) for sample in scored])
    for sample, *pair in zip(scored, cited, whole, strict=True):
        sample.robust = robustness(*pair)


def batch_of(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Prompts with completions as rows [B, T] padded on the right; labels are those of the completions."""
    parts = [encode_pair(tokenizer, prompt, completion) for prompt, completion in texts]
    ids = [torch.tensor(prompt + completion) for prompt, completion in parts]
    labels = [torch.tensor([-100] * len(prompt) + completion) for prompt, completion in parts]
    mask_BT = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
        "attention_mask": mask_BT,
        "position_ids": torch.arange(mask_BT.shape[1]).expand(mask_BT.shape).contiguous(),
    }
