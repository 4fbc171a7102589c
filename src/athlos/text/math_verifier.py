"""Symbolic comparison of LaTeX answers by math-verify, in a process of its own with a hard time limit.

math-verify limits its time by signals, which only the main thread may use, and sympy can compute for ever on a short
answer such as `9^{9^{9}}`. So one child process, started at first need, compares with no limit of its own; when an
answer takes too long it is killed and started anew. Run as a module, this file is that child.
"""

import atexit
import json
import os
import queue
import re
import subprocess
import sys
import threading
from functools import lru_cache
from typing import IO, Any

TIME_LIMIT = 5.0
"""Seconds a comparison may take before it counts as unequal."""
START_LIMIT = 120.0
"""Seconds the child may take to import sympy; long, because a loaded machine must not change a score."""
NUM_DIGITS = 60
"""Decimals to which numbers that are not rational are compared; what differs less counts as equal."""
_READY = "ready"
_DELIMITER = re.compile(r"\\?\$|\\[()\[\]]|\\(?:boxed|fbox)\b|\n")
_ROMAN_LETTER = re.compile(r"\\(?:mathrm|text|operatorname)\s*\{\s*([A-Za-z])\s*\}")
_NO_EXPRESSION = re.compile(r"\d\s*_|(?<![_\d.])\d+\s+\.?\d")
"""A number in another base, which would be read without its base, and numbers side by side, which would be added."""


class MathVerifier:
    """One child process; `verify` may be called from any thread, one comparison runs at a time."""

    def __init__(self, *, time_limit: float = TIME_LIMIT) -> None:
        self.time_limit = time_limit
        self.num_timeouts = 0
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()

    def verify(self, prediction: str, gold: str) -> bool:
        """Whether two LaTeX expressions are equal; False when they cannot be parsed or take longer than the limit."""
        with self._lock:
            child = self._started()
            assert child.stdin is not None
            child.stdin.write(json.dumps([prediction, gold]) + "\n")
            child.stdin.flush()
            try:
                answer = self._lines.get(timeout=self.time_limit)
            except queue.Empty:
                self.num_timeouts += 1
                self._stop()
                return False
            if answer is None:
                # Out of memory or a deep recursion ended the child; the next call starts another.
                self._stop()
                return False
            return answer == "1"

    def close(self) -> None:
        """End the child; the next `verify` starts another."""
        with self._lock:
            self._stop()

    def forget(self) -> None:
        """In a forked process: leave the child to the parent, whose pipes must not be read twice."""
        self._lock = threading.Lock()
        self._child = None

    def _started(self) -> subprocess.Popen[str]:
        if self._child is None or self._child.poll() is not None:
            self._stop()
            self._lines = queue.Queue()
            self._child = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
            )
            threading.Thread(target=_forward, args=(self._child.stdout, self._lines), daemon=True).start()
            if self._lines.get(timeout=START_LIMIT) != _READY:
                raise RuntimeError("math-verify cannot be imported: reinstall athlos")
        return self._child

    def _stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None


def _forward(stream: IO[str], lines: "queue.Queue[str | None]") -> None:
    """Pass lines on as they come; None stands for the end of the stream."""
    for line in stream:
        lines.put(line.rstrip("\n"))
    lines.put(None)


_shared = MathVerifier()
atexit.register(_shared.close)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_shared.forget)


@lru_cache(maxsize=16384)
def verify_latex(prediction: str, gold: str) -> bool:
    """`MathVerifier.verify` of a child shared by the whole process; answers are remembered."""
    return _shared.verify(prediction, gold)


def _serve() -> None:
    """The child: one JSON pair a line in, `1` or `0` a line out."""
    import logging

    from math_verify import verify

    logging.disable(logging.CRITICAL)
    sys.stdout.write(_READY + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        prediction, gold = map(_expression, json.loads(line))
        is_equal = (
            prediction is not None
            and gold is not None
            and verify(gold, prediction, numeric_precision=NUM_DIGITS, timeout_seconds=None)
        )
        sys.stdout.write("1\n" if is_equal else "0\n")
        sys.stdout.flush()


def _expression(text: str) -> Any:
    """The sympy expression that a whole text is, decimals as exact fractions; None for a text that is none.

    Not by `math_verify.parse`: where a text is no expression, that takes the last piece of it which is one.
    """
    from math_verify.parser import LatexExtractionConfig, normalize_latex, parse_latex_cached
    from sympy import Float, Rational

    text = _ROMAN_LETTER.sub(r"{\1}", _DELIMITER.sub(" ", text))
    if _NO_EXPRESSION.search(text):
        return None
    try:
        expression = parse_latex_cached(normalize_latex(text, config=LatexExtractionConfig().normalization_config))
        expression = expression.xreplace({number: Rational(str(number)) for number in expression.atoms(Float)})
        # Exact numbers are compared as such, everything else by its first NUM_DIGITS digits and symbolically.
        value = expression.doit()
        return value if isinstance(value, Rational) else expression
    except Exception:  # the parser and sympy raise whatever their innermost call does
        return None


if __name__ == "__main__":
    _serve()
