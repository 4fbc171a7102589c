"""The construction that makes nothing."""

from athlos.config.parts import PartContext
from athlos.data.config import NoConstructConfig


class NoConstruct:
    def __init__(self, config: NoConstructConfig) -> None:
        self.config = config

    def build(self, *, context: PartContext) -> None:
        return None
