"""The work of an evaluation, shared out among the processes of a run.

Where torch.distributed has a group of several processes, each works on its share of the items, and all of them get the
results of all items, in the order of the items: so every process computes the same metrics. Elsewhere this process
does all the work. Suites share items that are scored one by one (requests, problems, pictures), and whole batches where
a batch is one forward pass, so that sums are the same to the last digit with any number of processes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch.distributed as dist

from athlos.errors import TrainingError

Item = TypeVar("Item")
Result = TypeVar("Result")

LONGEST_WAIT = timedelta(hours=2)
"""For the process with the longest answers. One that died closes its connections, which is noticed at once."""

_is_alone = ContextVar("_is_alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process does all the work: for a stage product, on whose lock the other processes wait."""
    token = _is_alone.set(True)
    try:
        yield
    finally:
        _is_alone.reset(token)


def in_shares(items: Sequence[Item], work: Callable[[Sequence[Item]], list[Result]]) -> list[Result]:
    """The results of all items, in their order; `work` gives those of a share, one an item.

    Every process calls this with equal items. Item i belongs to process i modulo their number: neighbours are alike in
    language and length, so shares cost alike. `work` is not called for an empty share. Results travel to the other
    processes, so tensors among them belong on the CPU.

    Raises what `work` raised in this process; `TrainingError` where another process failed, died or took longer than
    `LONGEST_WAIT`.
    """
    if _is_alone.get() or not dist.is_initialized() or dist.get_world_size() == 1:
        return work(items) if items else []
    rank, size = dist.get_rank(), dist.get_world_size()
    own, failure = items[rank::size], None
    results: list[Result] = []
    try:
        results = work(own) if own else []
    except Exception as error:  # whatever it is, the other processes must hear of it, or they would wait in vain
        failure = error
    said = _exchanged((results, None if failure is None else _in_a_line(failure)))
    if failure is not None:
        raise failure
    for process, (_, error_text) in enumerate(said):
        if error_text is not None:
            raise TrainingError(f"process {process} of {size} failed in its share of the evaluation: {error_text}")
    joined: list[Any] = [None] * len(items)
    for process, (share, _) in enumerate(said):
        joined[process::size] = share  # raises on a share of another length
    return joined


def one_by_one(
    items: Sequence[Item],
    score: Callable[[Item], Result],
    *,
    progress: Any = None,
    num_tokens: Callable[[Result], int] = lambda _: 0,
) -> list[Result]:
    """`in_shares` for work on one item, or one batch, at a time.

    `progress` is told of (items done, items of this process, `num_tokens` of the results so far).
    """

    def work(share: Sequence[Item]) -> list[Result]:
        results = []
        tokens = 0
        for item in share:
            results.append(score(item))
            tokens += num_tokens(results[-1])
            if progress:
                progress(len(results), len(share), tokens)
        return results

    return in_shares(items, work)


def _exchanged(words: Any) -> list[Any]:
    """What each process says, by rank."""
    said: list[Any] = [None] * dist.get_world_size()
    try:
        dist.all_gather_object(said, words, group=_cpu_group(dist.group.WORLD))
    except RuntimeError as error:
        raise TrainingError(
            f"evaluation: another process died or took longer than {LONGEST_WAIT}: {_in_a_line(error)}"
        ) from error
    return said


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


@cache
def _cpu_group(world: Any) -> Any:
    """A group of all processes of `world` that waits long enough; NCCL's own would end the process after minutes."""
    return dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
