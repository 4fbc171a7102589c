"""Slow calls side by side, a bounded number at a time, results as they arrive.

A thread pool of the standard library is joined when the interpreter ends, so that a pressed ctrl-C would wait for the
slowest answer of a server. These threads are daemons: whoever stops reading sets them to stop and goes on at once.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Arrival = TypeVar("Arrival")

POLL_SECONDS = 0.5
"""How often the reader wakes; a wait without end cannot be interrupted on every system."""


class Stopped(Exception):
    """Raised by a call that gave up because nobody waits for it any more."""


def side_by_side(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    max_in_flight: int,
    stop: threading.Event,
    at_end: Callable[[], None],
) -> Iterator[tuple[Item, Result]]:
    """(item, result) of each call, in order of arrival; the first error of a call is raised here.

    When the reader stops early - by an error, by ctrl-C, by leaving the loop - `stop` is set: no further call starts,
    and `work` should look at it where it waits. `at_end` runs once, in the thread that ends last.
    """
    if not items:
        at_end()
        return
    waiting: queue.SimpleQueue[Item] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)
    arrived: queue.SimpleQueue[Callable[[], tuple[Item, Result]]] = queue.SimpleQueue()
    lock = threading.Lock()
    num_running = min(max_in_flight, len(items))

    def run() -> None:
        nonlocal num_running
        while not stop.is_set():
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                break
            arrived.put(_outcome(work, item))
        with lock:
            num_running -= 1
            is_last = num_running == 0
        if is_last:
            at_end()

    threads = [
        threading.Thread(target=run, name=f"athlos-in-flight-{index}", daemon=True) for index in range(num_running)
    ]
    try:
        for thread in threads:
            thread.start()
        for _ in items:
            yield _next(arrived)()
        for thread in threads:
            thread.join()
    finally:
        stop.set()


def _outcome(work: Callable[[Item], Result], item: Item) -> Callable[[], tuple[Item, Result]]:
    """A call that was made: returns (item, result), or raises what it raised."""
    try:
        result = work(item)
    except BaseException as error:
        raised = error

        def again() -> tuple[Item, Result]:
            raise raised

        return again
    return lambda: (item, result)


def _next(arrived: "queue.SimpleQueue[Arrival]") -> "Arrival":
    while True:
        try:
            return arrived.get(timeout=POLL_SECONDS)
        except queue.Empty:
            continue
