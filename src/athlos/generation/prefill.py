"""Reads prompts into caches: equal prompts once, a beginning that several share, or an earlier call had, once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from athlos.generation.kept_prompts import Beginning, KeptPrompts
from athlos.generation.kv_cache import KVCache, Span, padded_ids
from athlos.generation.prefixes import shared_prefixes
from athlos.generation.step import DecoderStep

MIN_SAVED_COLUMNS = 32
"""Rows are read apart from longer ones where this much padding is saved in each: a pass reads all weights once."""
KEPT = -1
"""Number of the group whose beginnings an earlier call has read."""


@dataclass(frozen=True, kw_only=True)
class Prefilled:
    """A prompt that was read: its row in a cache (right-aligned), and the logits [V] of what follows it."""

    cache: KVCache
    row: int
    logits_V: Tensor
    early_LV: Tensor | None = None
    """Logits of the same at the early exits of the step, [L, V]."""


class Prefill:
    """`order` holds the indices of the prompts as they are best read: like beginnings together, the longest first.

    With `reads_as_given` it is the order of the prompts, and equal ones are read each by itself: so the shape of what
    is read, and with it the rounding, depends on number and length of the prompts alone. `earlier` gives what earlier
    calls have read, and takes what this one reads.
    """

    def __init__(
        self,
        step: DecoderStep,
        prompts: Sequence[Sequence[int]],
        *,
        share_prefixes: bool,
        reads_as_given: bool,
        earlier: KeptPrompts | None = None,
    ) -> None:
        self.step = step
        self.texts = texts = [tuple(prompt) for prompt in prompts]
        self.distinct = texts if reads_as_given else list(dict.fromkeys(texts))
        number_of = {text: number for number, text in enumerate(self.distinct)}
        self.number = list(range(len(texts))) if reads_as_given else [number_of[text] for text in texts]
        """Of each prompt: its index among the distinct ones."""
        self.shared = shared_prefixes(self.distinct) if share_prefixes else [None] * len(self.distinct)
        self.earlier = earlier
        self.known = [earlier.longest(text) if earlier else None for text in self.distinct]
        self.order = list(range(len(prompts)))
        if not reads_as_given:
            self.order.sort(key=lambda index: self._place(self.number[index]))
        self._prefixes: dict[int, KVCache] = {}
        self._kept: dict[int, Prefilled] = {}

    def _place(self, number: int) -> tuple[float, int, int]:
        group = self._group(number)
        return (torch.inf if group is None else group, -len(self.distinct[number]), number)

    def _group(self, number: int) -> int | None:
        """The group that a prompt is read with: that of its longest beginning."""
        prefix, known = self.shared[number], self.known[number]
        if known is not None and known.length >= (prefix.length if prefix else 0):
            return KEPT
        return prefix.group if prefix else None

    def read(self, prompts: Sequence[int], *, needed_again: Sequence[int] = ()) -> list[Prefilled]:
        """What was read of each prompt, by its index. `needed_again` names those to keep for the next call."""
        numbers = dict.fromkeys(self.number[prompt] for prompt in prompts)
        read_prompts = {number: self._kept[number] for number in numbers if number in self._kept}
        groups: dict[int | None, list[int]] = {}
        for number in numbers:
            if number not in read_prompts:
                groups.setdefault(self._group(number), []).append(number)
        for group, members in groups.items():
            for together in self._passes(group, members):
                read_prompts |= self._read_group(group, together)
        self._prefixes = {group: cache for group, cache in self._prefixes.items() if group in groups}
        again = {self.number[prompt] for prompt in needed_again}
        self._kept = {number: prefilled for number, prefilled in read_prompts.items() if number in again}
        return [read_prompts[self.number[prompt]] for prompt in prompts]

    def _passes(self, group: int | None, members: Sequence[int]) -> list[list[int]]:
        """The members that are read together, in order: each has at least half to read of what the longest has."""
        passes: list[list[int]] = []
        widest = 0
        for left, number in sorted(((self._left(group, number), number) for number in members), reverse=True):
            if not passes or (left < widest / 2 and left <= widest - MIN_SAVED_COLUMNS):
                passes.append([])
                widest = left
            passes[-1].append(number)
        return [[number for number in members if number in together] for together in passes]

    def _left(self, group: int | None, number: int) -> int:
        """Tokens of a prompt behind the beginning that its group has."""
        begun = self.known[number] if group == KEPT else self.shared[number] if group is not None else None
        return len(self.distinct[number]) - (begun.length if begun else 0)

    def _read_group(self, group: int | None, members: Sequence[int]) -> dict[int, Prefilled]:
        """Reads distinct prompts that share one beginning, that have one each, or none, in one forward pass.

        All rows must leave the same number of columns to compute. A row shorter than the longest one is padded on the
        left *before* its cached prefix, so it takes fewer tokens from the cache and computes the last few of its prefix
        again. This keeps padding out of the middle, where it would shift the window of local attention.
        """
        prompts = [self.distinct[number] for number in members]
        lengths = [len(prompt) for prompt in prompts]
        width = max(lengths)
        computed = width
        cache = self.step.new_cache(capacity=width)
        if group is not None:
            beginnings = [self._beginning(number, group) for number in members]
            computed = max(self._left(group, number) for number in members)
            spans = [
                Span(
                    cache=begun.cache,
                    rows=torch.tensor([begun.row], device=self.step.device),
                    end=begun.pad + max(0, length - computed),
                )
                for length, begun in zip(lengths, beginnings, strict=True)
            ]
            cache = KVCache.gathered(spans, length=width - computed, capacity=width)
        pads = [width - length for length in lengths]
        logits_BV = self.step(
            padded_ids(prompts, width=computed, fill=0, device=self.step.device),
            cache,
            pad_B=torch.tensor(pads, device=self.step.device),
            most_padding=max(pads),
        )
        if self.earlier is not None:
            self.earlier.keep(cache, {self.distinct[number]: row for row, number in enumerate(members)})
        early_LBV = self.step.early_LBV
        return {
            number: Prefilled(
                cache=cache,
                row=row,
                logits_V=logits_BV[row],
                early_LV=None if early_LBV is None else early_LBV[:, row],
            )
            for row, number in enumerate(members)
        }

    def _beginning(self, number: int, group: int) -> Beginning:
        if group == KEPT:
            known = self.known[number]
            assert known is not None
            return known
        prefix = self.shared[number]
        assert prefix is not None
        return Beginning(cache=self._prefix(group), row=0, pad=0, length=prefix.length)

    def _prefix(self, group: int) -> KVCache:
        """Keys and values of a group's beginning, computed when a prompt of the group is first read."""
        if group not in self._prefixes:
            length, text = max(
                (prefix.length, self.distinct[number])
                for number, prefix in enumerate(self.shared)
                if prefix is not None and prefix.group == group
            )
            cache = self.step.new_cache(capacity=length)
            ids = torch.tensor([text[:length]], device=self.step.device)
            self.step(ids, cache, pad_B=torch.zeros(1, dtype=torch.int64, device=self.step.device), most_padding=0)
            self._prefixes[group] = cache
        return self._prefixes[group]
