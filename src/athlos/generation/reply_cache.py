"""Replies of a server on disk, one JSON file each, found by the content of their request.

A file holds its request and a hash of its reply, so a reader can check both: a damaged or foreign file counts as not
there. Files are written beside their place and renamed into it, so several processes may share a folder.
"""

import json
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from athlos.errors import ConfigError, TrainingError
from athlos.stages import content_hash

log = logging.getLogger(__name__)

REPLY_VERSION = 1
"""Raised when the stored form of a reply changes meaning."""


@dataclass(frozen=True, kw_only=True)
class CacheSize:
    num_replies: int
    num_bytes: int


def request_key(request: Mapping[str, Any]) -> str:
    """sha256 of a request: where it goes, its body, and which sample of the prompt it asks for."""
    return content_hash({"version": REPLY_VERSION, "request": request})


class ReplyCache:
    """Replies below `folder`, as `<first two digits of the key>/<key>.json`. Safe to use from several threads.

    `setting` is the key of the config that errors name.
    """

    def __init__(self, folder: Path, *, setting: str = "engine.cache") -> None:
        self.folder, self.setting = folder, setting
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.setting}: cannot write below {folder}: {error.strerror or error}") from error

    def get(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """The reply to a request, or nothing when there is none or its file is damaged."""
        path = self._path(request)
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            entry = None
        reply = entry.get("reply") if isinstance(entry, dict) and entry.get("request") == request else None
        if isinstance(reply, dict) and entry.get("reply_hash") == content_hash(reply):
            return reply
        log.warning("%s: %s is damaged; asking again", self.setting, path)
        return None

    def put(self, request: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
        path = self._path(request)
        entry = {"request": request, "reply": reply, "reply_hash": content_hash(reply)}
        scratch = path.with_name(f"{path.stem}.{os.getpid()}-{threading.get_ident()}.writing")
        try:
            path.parent.mkdir(exist_ok=True)
            scratch.write_text(json.dumps(entry, ensure_ascii=True, indent=1), encoding="utf-8")
            scratch.replace(path)
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise TrainingError(f"{self.setting}: cannot write {path}: {error.strerror or error}") from error

    def size(self) -> CacheSize:
        sizes = [path.stat().st_size for path in self.folder.glob("*/*.json")]
        return CacheSize(num_replies=len(sizes), num_bytes=sum(sizes))

    def _path(self, request: Mapping[str, Any]) -> Path:
        key = request_key(request)
        return self.folder / key[:2] / f"{key}.json"
