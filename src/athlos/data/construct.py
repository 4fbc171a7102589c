"""The construction that makes nothing."""

from athlos.data.config import NoConstructConfig


class NoConstruct:
    def __init__(self, config: NoConstructConfig) -> None:
        self.config = config

    def build(self, *, context: object) -> None:
        return None
