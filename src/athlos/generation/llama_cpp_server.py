"""llama.cpp's own server inside this process, on a free port of the loopback device; one for each set of settings.

Engines that want the same weights in the same way share a server. It goes when `stop_servers` is called, at the latest
at the end of the process.
"""

import atexit
import ctypes
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from athlos.errors import ModelError

log = logging.getLogger(__name__)

SILENT = 0
"""llama.cpp's level of its log on stderr; what it refuses stands in its answers."""
KEPT_PROMPTS_MIB = 1024
"""Most memory for prompts that the server has read before, beside those of its slots. Its own limit is 8 GiB."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    path: Path
    """The GGUF file."""
    context_length: int
    """Tokens of a slot: of one prompt with its answer."""
    num_slots: int
    """Questions answered side by side."""
    num_threads: int
    """0 = one a core."""


_running: dict[ServerSettings, Any] = {}
_lock = threading.Lock()


def server_url(settings: ServerSettings) -> str:
    """`http://127.0.0.1:<port>/v1` of the server, which is started (seconds) unless it runs.

    Raises `ModelError` for a file that llama.cpp cannot read.
    """
    with _lock:
        if settings not in _running:
            log.info("llama.cpp: loading %s", settings.path)
            _running[settings] = _started(settings)
        return f"{_running[settings].listening_address}/v1"


def stop_servers() -> None:
    """Stops every server of this process and frees its memory.

    Whoever is asking must have hung up before, as an engine does that is left by an error: a server waits for that, and
    Python with it.
    """
    with _lock:
        _running.clear()


atexit.register(stop_servers)


def _started(settings: ServerSettings) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(settings.path)
    params.n_ctx = settings.context_length * settings.num_slots  # the slots share it
    params.n_parallel = settings.num_slots
    params.fit_params = False  # it would lower n_ctx to what it deems the machine's memory
    params.cache_ram_mib = KEPT_PROMPTS_MIB
    # Else the layers of a sliding window still see a slot's last prompt where the next one shares its beginning.
    params.swa_full = True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings.num_threads or _num_cores()
    params.verbosity = SILENT
    params.ui = False
    params.endpoint_slots = False
    with _python_signals():
        try:
            return xllamacpp.Server(params)
        except RuntimeError as error:
            raise ModelError(f"engine.source: llama.cpp cannot load {settings.path} ({error})") from error


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@contextmanager
def _python_signals() -> Iterator[None]:
    """Gives ctrl-C and SIGTERM back to Python: the server takes them for itself, and then nobody else hears of them.

    In any thread, where `signal.signal` works in the main one alone.
    """
    handler_of, set_handler = ctypes.pythonapi.PyOS_getsig, ctypes.pythonapi.PyOS_setsig
    handler_of.argtypes, handler_of.restype = [ctypes.c_int], ctypes.c_void_p
    set_handler.argtypes, set_handler.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    handlers = {number: handler_of(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            set_handler(number, handler)
