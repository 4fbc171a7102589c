"""Which prompts begin alike: the worked examples of a task, the passages of a document."""

from collections.abc import Sequence
from dataclasses import dataclass

MIN_SHARED_TOKENS = 32
"""Shorter common beginnings are computed anew: copying would cost as much."""
SAME_PREFIX_SHARE = 0.5
"""A prompt joins its neighbour's group if that keeps at least this share of the beginning common to the group."""


@dataclass(frozen=True, kw_only=True)
class SharedPrefix:
    """The beginning of a prompt that others have too: its group's number and its length in tokens."""

    group: int
    length: int


def shared_prefixes(prompts: Sequence[Sequence[int]]) -> list[SharedPrefix | None]:
    """For each prompt the beginning it shares with its group, or nothing.

    Prompts in lexicographic order fall into groups at the places where the common beginning breaks off. A prompt keeps
    at least its last token for itself, since the model must read something.
    """
    order = sorted(range(len(prompts)), key=lambda index: list(prompts[index]))
    shared: list[SharedPrefix | None] = [None] * len(prompts)
    members: list[int] = []
    common = 0

    def close(number: int) -> None:
        if len(members) > 1:
            for member in members:
                length = min(common, len(prompts[member]) - 1)
                if length >= MIN_SHARED_TOKENS:
                    shared[member] = SharedPrefix(group=number, length=length)

    for position, index in enumerate(order):
        overlap = common_length(prompts[members[-1]], prompts[index]) if members else 0
        joined = min(common, overlap) if len(members) > 1 else overlap
        if members and joined >= max(MIN_SHARED_TOKENS, SAME_PREFIX_SHARE * (common if len(members) > 1 else 0)):
            members.append(index)
            common = joined
        else:
            close(position)
            members, common = [index], 0
    close(len(order))
    return shared


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    for position, (token, other) in enumerate(zip(first, second, strict=False)):
        if token != other:
            return position
    return min(len(first), len(second))
