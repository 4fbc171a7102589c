"""What the student says beside the untouched model on one text: the same choices, the last word of each line.

N tokens of a text, B windows of T tokens, D width.
"""

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from athlos.models.forward import evaluating, hidden_states, project

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WORD = re.compile(r"[^\W_]+")
NO_WORD = "unk"
"""WikiText's mark of a rare word: no word that a model could know."""
FEWEST_WORDS = 8
"""Lines with fewer words are titles, or say too little about their last one."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a model says to a text cut into windows; the first token of a window is neither predicted nor counted."""

    choices_N: np.ndarray
    """int64: the most probable token where this one stands; -1 for the first of a window."""
    nll_N: np.ndarray
    """float64: nats of the token that stands there; NaN for the first of a window."""

    @property
    def ppl(self) -> float:
        return math.exp(np.nanmean(self.nll_N))


@torch.inference_mode()
def read(model: "PreTrainedModel", tokens_N: Tensor, *, length: int, batch_size: int) -> Reading:
    """One model over disjoint windows; the rest after the last whole window is left out (a shorter text is one)."""
    length = min(length, len(tokens_N))
    rows_BT = tokens_N[: len(tokens_N) // length * length].view(-1, length)
    choices = torch.full(rows_BT.shape, -1)
    nll = torch.full(rows_BT.shape, torch.nan, dtype=torch.float64)
    device = next(model.parameters()).device
    for start in range(0, len(rows_BT), batch_size):
        ids_BT = rows_BT[start : start + batch_size].to(device)
        batch = {
            "input_ids": ids_BT,
            "attention_mask": torch.ones_like(ids_BT),
            "position_ids": torch.arange(length, device=device).expand_as(ids_BT),
        }
        with evaluating(model):
            hidden_BTD = hidden_states(model, batch)
        for row, hidden_TD in enumerate(hidden_BTD):  # logits of one window at a time
            log_probs_TV = project(model, hidden_TD[:-1]).log_softmax(-1)
            choices[start + row, 1:] = log_probs_TV.argmax(-1).cpu()
            nll[start + row, 1:] = -log_probs_TV.gather(1, ids_BT[row, 1:, None])[:, 0].double().cpu()
    return Reading(choices_N=choices.flatten().numpy(), nll_N=nll.flatten().numpy())


def encoded(tokenizer: Any, text: str, *, limit: int) -> tuple[Tensor, list[list[int]]]:
    """The first `limit` (0 = all) tokens of a text, and the indices of the tokens of each line's last word."""
    encoding = tokenizer(text, add_special_tokens=False, verbose=False, return_offsets_mapping=True)
    ids, spans = (encoding[name][: limit or None] for name in ("input_ids", "offset_mapping"))
    starts, ends = np.array(spans).reshape(-1, 2).T
    words = []
    for first, last in last_words(text):
        inside = np.flatnonzero((ends > first) & (starts < last)).tolist()
        if inside and ends[-1] >= last:
            words.append(inside)
    return torch.tensor(ids, dtype=torch.int64), words


def last_words(text: str) -> list[tuple[int, int]]:
    """Character spans of the last word of each line of eight words or more."""
    spans, start = [], 0
    for line in text.splitlines(keepends=True):
        words = [match for match in WORD.finditer(line) if match[0] != NO_WORD]
        if len(words) >= FEWEST_WORDS:
            spans.append((start + words[-1].start(), start + words[-1].end()))
        start += len(line)
    return spans


def same_choices(first: Reading, other: Reading) -> float:
    """Share of predicted tokens where both models have the same most probable token."""
    predicted = first.choices_N >= 0
    return float((first.choices_N == other.choices_N)[predicted].mean())


def right_words(reading: Reading, tokens_N: Tensor, words: list[list[int]]) -> tuple[float, int]:
    """Share of words all of whose tokens are the most probable ones, each given those before it; and their number.

    Left out are words of which a token opens a window, or stands behind the last whole one. NaN for no word.
    """
    tokens, choices = tokens_N.numpy(), reading.choices_N
    whole = [word for word in words if word[-1] < len(choices) and (choices[word] >= 0).all()]
    right = [bool((choices[word] == tokens[word]).all()) for word in whole]
    return (float(np.mean(right)) if right else math.nan), len(right)
