"""How fast the machine under the tests is just now, so that bounds in seconds hold on any processor."""

import time

ADDITIONS_PER_SECOND = 20_000_000
"""Of the machine that bounds in seconds are meant for: it squares and adds so many numbers in a plain Python loop."""
NUM_ADDITIONS = 500_000


def slowness() -> float:
    """How many times slower this machine is than that one, at least 1: bounds in seconds are multiplied by it.

    Processor time, the best of three; other work on the machine slows the loop as it slows what is timed.
    """
    seconds = []
    for _ in range(3):
        start, total = time.process_time(), 0
        for number in range(NUM_ADDITIONS):
            total += number * number
        seconds.append(time.process_time() - start)
    return max(1.0, min(seconds) * ADDITIONS_PER_SECOND / NUM_ADDITIONS)
