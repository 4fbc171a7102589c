"""A process of its own that writes one run with trackio; started by `sinks.TrackioSink`, reads JSON lines.

Everything trackio prints (its write token among it) goes nowhere. On an error the reason is the only output and the
exit code is 1. Imports nothing of Athlos: it runs as a plain file.
"""

import json
import os
import sys
import warnings
from typing import Any


def serve() -> None:
    import trackio

    failures: list[str] = []

    def note(message: Warning | str, *_: Any, **__: Any) -> None:
        # trackio tells a failed write as a warning and drops the data; other libraries' warnings are not failures.
        if str(message).startswith("trackio"):
            failures.append(str(message))

    warnings.simplefilter("always")
    warnings.showwarning = note
    for line in sys.stdin:
        order = json.loads(line)
        operation = order.pop("operation")
        if operation == "init":
            trackio.init(**order, resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False)
        elif operation == "log":
            trackio.log(order["metrics"], step=order["step"])
        elif operation == "table":
            table = trackio.Table(columns=order["columns"], data=order["data"])
            trackio.log({order["name"]: table}, step=order["step"])
        elif operation == "figure":
            trackio.log({order["name"]: trackio.Image(order["path"])}, step=order["step"])
        elif operation == "close":
            break
        if failures:
            raise RuntimeError(failures[0])
    trackio.finish()
    if failures:
        raise RuntimeError(failures[0])


def main() -> int:
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    try:
        serve()
    except Exception as error:
        answer.write(f"{type(error).__name__}: {error}")
        answer.flush()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
