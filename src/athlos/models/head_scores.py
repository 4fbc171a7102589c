"""How often each attention head points at the context token that is said right now: the score of a retrieval head.

A needle is hidden in a haystack, asked for, and decoded greedily; at each step a head scores where the key it attends
to most is a needle token and that token is the one generated (arXiv 2404.15574). The prompt is built of token pieces,
so that the needle's place is known exactly. Attention weights are computed in decode steps only, by the eager kernel;
the prompt is read by the kernel that the model has. Heads are (layer, query head), counted from 0.

S decode steps, L layers, H query heads, T keys.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from athlos.data.encoding import prefix_token
from athlos.errors import DataError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Head = tuple[int, int]
SENTENCE_ENDS = (".", "!", "?")
GATE = 50.0
"""A generated answer counts where its ROUGE-1 recall of the needle, in percent, is above this. Source: the code."""
FORCED_TOKENS = 64
"""Most tokens of a random sequence whose repetition is forced in the induction test."""


@dataclass(frozen=True, kw_only=True)
class Needle:
    text: str
    question: str


@dataclass(frozen=True, kw_only=True)
class NeedlePrompt:
    """Ids of a prompt, and where the needle stands in it: `ids[start:end]`."""

    ids: list[int]
    start: int
    end: int
    length: int
    depth: float
    needle: int
    """Its number among the needles."""

    @property
    def needle_ids(self) -> list[int]:
        return self.ids[self.start : self.end]


@dataclass(frozen=True, kw_only=True)
class HeadRun:
    """One needle at one depth of one length."""

    length: int
    depth: float
    needle: int
    recall: float
    """ROUGE-1 recall of the answer in percent; 100 where the needle was forced."""
    scores_LH: list[list[float]]


@dataclass(frozen=True, kw_only=True)
class HeadScores:
    """All runs; those that passed the gate are kept."""

    kept: list[HeadRun]
    dropped: list[HeadRun]

    @property
    def mean_LH(self) -> Tensor:
        """Mean over the kept runs alone, float64."""
        return _mean(self.kept)

    def ranked(self) -> list[Head]:
        """All heads, the best first; of equal ones the lower layer, then the lower head."""
        return ranked(self.mean_LH)

    def split_overlap(self, count: int) -> float:
        """Share of the `count` best heads that both halves of the kept runs agree on; nan for a single run."""
        halves = [self.kept[::2], self.kept[1::2]]
        if not all(halves):
            return math.nan
        first, second = (set(ranked(_mean(half))[:count]) for half in halves)
        return len(first & second) / count if count else math.nan

    def top_share(self, count: int) -> float:
        """Share of all score that the `count` best heads have; 0 where no head has any."""
        values = self.mean_LH.flatten().sort(descending=True).values
        total = float(values.sum())
        return float(values[:count].sum()) / total if total else 0.0

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "mean": self.mean_LH.tolist(),
            "kept": [asdict(run) for run in self.kept],
            "dropped": [asdict(run) for run in self.dropped],
        }

    @classmethod
    def read(cls, values: dict[str, Any]) -> "HeadScores":
        """Of what `plain` wrote."""
        return cls(**{name: [HeadRun(**run) for run in values[name]] for name in ("kept", "dropped")})


def _mean(runs: Sequence[HeadRun]) -> Tensor:
    return torch.tensor([run.scores_LH for run in runs], dtype=torch.float64).mean(0)


def ranked(scores_LH: Tensor) -> list[Head]:
    """Heads by score, the best first; ties by (layer, head)."""
    heads = [(layer, head) for layer in range(scores_LH.shape[0]) for head in range(scores_LH.shape[1])]
    return sorted(heads, key=lambda head: (-float(scores_LH[head]), head))


def random_heads(heads: Sequence[Head], *, num_heads: int, rng: random.Random) -> list[Head]:
    """As many heads in each layer, drawn from its others; where it has too few, some of the given ones as well."""
    drawn: list[Head] = []
    for layer in sorted({layer for layer, _ in heads}):
        own = {head for at, head in heads if at == layer}
        others = [head for head in range(num_heads) if head not in own]
        chosen = rng.sample(others, min(len(own), len(others)))
        chosen += rng.sample(sorted(own), len(own) - len(chosen))
        drawn += [(layer, head) for head in sorted(chosen)]
    return drawn


# -- prompts -----------------------------------------------------------------------------------------------------------


def needle_prompt(
    tokenizer: "PreTrainedTokenizerBase",
    hay_ids: Sequence[int],
    needle: Needle,
    *,
    number: int,
    length: int,
    depth: float,
    ask: str,
) -> NeedlePrompt:
    """A prompt of `length` tokens: the needle at `depth` in [0, 1] of the haystack, then `ask` with its `{question}`.

    The needle stands behind the last sentence that ends before its depth. Raises `DataError` for a haystack that is too
    short, and where the tokens at the needle's place do not decode to it.
    """

    def ids(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    prefix = prefix_token(tokenizer)
    front = [] if prefix is None else [prefix]
    needle_ids, asked_ids = ids(f" {needle.text}"), ids(ask.format(question=needle.question))
    room = length - len(front) - len(needle_ids) - len(asked_ids)
    if not 0 <= room <= len(hay_ids):
        raise DataError(
            f"detect.lengths: got {length}, of which needle and question leave {room} tokens to the haystack, expected "
            f"0 .. {len(hay_ids)}, the tokens of the haystack"
        )
    place = at_sentence(tokenizer, hay_ids, round(depth * room))
    start = len(front) + place
    whole = [*front, *hay_ids[:place], *needle_ids, *hay_ids[place:room], *asked_ids]
    return checked(
        tokenizer,
        NeedlePrompt(ids=whole, start=start, end=start + len(needle_ids), length=length, depth=depth, needle=number),
        text=needle.text,
    )


def at_sentence(tokenizer: "PreTrainedTokenizerBase", hay_ids: Sequence[int], place: int) -> int:
    """The place behind the last sentence that ends at or before `place`; `place` itself where none does."""
    for end in range(place, 0, -1):
        if str(tokenizer.decode([hay_ids[end - 1]])).rstrip().endswith(SENTENCE_ENDS):
            return end
    return place


def checked(tokenizer: "PreTrainedTokenizerBase", prompt: NeedlePrompt, *, text: str) -> NeedlePrompt:
    """The prompt itself; raises `DataError` where the tokens at its needle's place are not the needle's."""
    decoded = str(tokenizer.decode(prompt.needle_ids))
    if decoded.removeprefix(" ") != text:
        raise DataError(
            f"needle {prompt.needle}: tokens {prompt.start} .. {prompt.end - 1} decode to '{decoded}', expected "
            f"'{text}'; a tokenizer that changes text cannot say where a needle is"
        )
    return prompt


def induction_prompt(
    vocabulary: Sequence[int], *, length: int, depth: float, number: int, prefix: int | None, seed: int
) -> NeedlePrompt:
    """Different random tokens, and of them once more the one before the needle: what follows it comes next again.

    The needle is at most `FORCED_TOKENS` of them, at a depth. Raises `DataError` for fewer tokens than `length`.
    """
    front = [] if prefix is None else [prefix]
    room = length - len(front) - 1
    if not 2 <= room <= len(vocabulary):
        raise DataError(f"detect.lengths: got {length}, expected 3 .. {len(vocabulary) + 1}, the tokens there are")
    ids = random.Random(f"{seed}/{length}/{depth}/{number}").sample(list(vocabulary), room)
    size = min(FORCED_TOKENS, room - 1)
    first = 1 + round(depth * (room - 1 - size))
    start = len(front) + first
    whole = [*front, *ids, ids[first - 1]]
    return NeedlePrompt(ids=whole, start=start, end=start + size, length=length, depth=depth, needle=number)


# -- the score ---------------------------------------------------------------------------------------------------------


def copy_scores(
    pointed_SLH: Tensor, generated_S: Sequence[int], prompt: NeedlePrompt, *, distinct: bool
) -> list[list[float]]:
    """Score of each head in one run, [L, H]; `pointed_SLH` holds the key with the most attention in each step.

    A step counts where that key is in the needle and its token is the one generated: over the tokens of the needle
    (the code; repeats count, so that it may exceed 1), or, `distinct`, the different tokens copied over the different
    tokens of the needle (the paper).
    """
    ids = torch.tensor(prompt.ids)
    generated = torch.tensor(list(generated_S))[:, None, None]
    inside_SLH = (pointed_SLH >= prompt.start) & (pointed_SLH < prompt.end)
    hits_SLH = inside_SLH & (ids[pointed_SLH.clamp(max=len(ids) - 1)] == generated)
    if not distinct:
        scores_LH = hits_SLH.sum(0).double() / len(prompt.needle_ids)
    else:
        different = sorted(set(prompt.needle_ids))
        copied = [(hits_SLH & (generated == token)).any(0) for token in different]
        scores_LH = torch.stack(copied).sum(0).double() / len(different)
    table: list[list[float]] = scores_LH.tolist()
    return table


# -- the model ---------------------------------------------------------------------------------------------------------


@contextmanager
def eager_attention(model: "PreTrainedModel") -> Iterator[None]:
    """Inside, attention by the kernel that returns its weights."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


class Reader:
    """Reads a prompt, then decodes step by step and tells which key each head attends to most."""

    def __init__(self, model: "PreTrainedModel", ids: Sequence[int]) -> None:
        self.model, self.last = model, ids[-1]
        self.device = next(model.parameters()).device
        self.cache: Any = None
        if len(ids) > 1:
            front = torch.tensor([ids[:-1]], device=self.device)
            self.cache = model.base_model(input_ids=front, use_cache=True).past_key_values
        self.num_read = len(ids) - 1

    def step(self, tokens: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(keys [S, L, H], logits [V] of the last) for S tokens read at once. Raises `ModelError` without weights."""
        ids = torch.tensor([list(tokens)], device=self.device)
        with eager_attention(self.model):
            output = self.model(
                input_ids=ids, past_key_values=self.cache, use_cache=True, output_attentions=True, logits_to_keep=1
            )
        weights = output.attentions
        num_layers = self.model.config.get_text_config().num_hidden_layers
        if not weights or any(weight is None for weight in weights) or len(weights) != num_layers:
            raise ModelError(
                f"detect: {type(self.model).__name__} gives no attention weights of its {num_layers} layers; heads are "
                "scored in models whose attention is that of transformers"
            )
        self.cache, self.num_read = output.past_key_values, self.num_read + len(tokens)
        # A layer with a sliding window may have dropped the first keys.
        pointed = [weight[0].argmax(-1).T + (self.num_read - weight.shape[-1]) for weight in weights]
        return torch.stack(pointed, dim=1).cpu(), output.logits[0, -1]


@torch.inference_mode()
def forced(model: "PreTrainedModel", prompt: NeedlePrompt) -> tuple[Tensor, list[int]]:
    """Keys [S, L, H] and tokens [S] while the needle itself is put in the model's mouth."""
    reader, said = Reader(model, prompt.ids), prompt.needle_ids
    pointed_SLH, _ = reader.step([reader.last, *said[:-1]])
    return pointed_SLH, said


@torch.inference_mode()
def generated(
    model: "PreTrainedModel",
    prompt: NeedlePrompt,
    *,
    max_new_tokens: int,
    ends: Callable[[int], bool],
) -> tuple[Tensor, list[int]]:
    """Keys [S, L, H] and tokens [S] of a greedy answer, up to and without the token that ends it."""
    reader = Reader(model, prompt.ids)
    token, pointed, said = reader.last, [], []
    for _ in range(max_new_tokens):
        keys_1LH, logits_V = reader.step([token])
        token = int(logits_V.argmax())
        if ends(token):
            break
        pointed.append(keys_1LH)
        said.append(token)
    if not said:
        return keys_1LH[:0], []
    return torch.cat(pointed), said


def run_of(prompt: NeedlePrompt, pointed_SLH: Tensor, said: Sequence[int], *, recall: float, distinct: bool) -> HeadRun:
    return HeadRun(
        length=prompt.length,
        depth=prompt.depth,
        needle=prompt.needle,
        recall=recall,
        scores_LH=copy_scores(pointed_SLH, said, prompt, distinct=distinct),
    )


def gated(runs: Sequence[HeadRun]) -> HeadScores:
    """Sorts runs by the gate. Raises `DataError` with the best recall where none passes."""
    kept = [run for run in runs if run.recall > GATE]
    if not kept:
        best = max((run.recall for run in runs), default=0.0)
        raise DataError(
            f"detect.mode: got generate, but of {len(runs)} runs none recalls more than {GATE:g} % of its needle, the "
            f"best {best:.0f} %; detect.mode=forced scores a model that is too weak to find it"
        )
    return HeadScores(kept=kept, dropped=[run for run in runs if run.recall <= GATE])
