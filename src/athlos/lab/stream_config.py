"""The dials of a Markov source, apart from the source itself: a check of a config loads no numpy."""

from dataclasses import dataclass

from athlos.config.fields import bounded, wrong_values
from athlos.errors import ConfigError, ConfigErrors

SPLITS = ("train", "val", "test")
MAX_TABLE = 2**23
"""Entries of a transition table; 64 MB."""


@dataclass(kw_only=True)
class StreamsConfig:
    """A Markov source, and the spans that interrupt it."""

    seed: int = 0
    """Seed of the source and of the samples."""
    num_symbols: int = bounded("[2, 4096]", default=64)
    """Symbols of the chain; the two marks come on top."""
    order: int = bounded("[1, 16]", default=1)
    """Symbols that the next one depends on; num_symbols ** (order + 1) is at most 2 ** 23."""
    lag: int = bounded("[1, 1000000]", default=1)
    """Distance between the symbols that depend on each other."""
    concentration: float = bounded("[1e-6, 1e6]", default=0.1)
    """Dirichlet parameter of each transition: near 0 the next symbol is certain, above 10 any will do."""
    copy_rate: float = bounded("[0, 0.99]", default=0.0)
    """Chance of a copy span where one may begin."""
    recall_rate: float = bounded("[0, 0.99]", default=0.0)
    """Chance of a recall span where one may begin; with `copy_rate` at most 0.99."""
    span: int = bounded("[1, 256]", default=8)
    """Symbols of a span, without its mark, at least `order`. `span` symbols of the chain lie between two spans."""

    @property
    def has_spans(self) -> bool:
        return self.copy_rate > 0 or self.recall_rate > 0

    @property
    def vocab_size(self) -> int:
        """Symbols, and the two marks where there are spans."""
        return self.num_symbols + 2 * self.has_spans


def check(config: StreamsConfig) -> None:
    """Raises `ConfigError` for values out of range."""
    if errors := list(wrong_values(config, path="lab.streams")):
        raise ConfigErrors(errors)
    if config.recall_rate > 0.99 - config.copy_rate:
        raise ConfigError(f"lab.streams.recall_rate: got {config.recall_rate}, expected at most 0.99 with copy_rate")
    if config.span < config.order:
        raise ConfigError(f"lab.streams.span: got {config.span}, expected at least order = {config.order}")
    if config.num_symbols ** (config.order + 1) > MAX_TABLE:
        raise ConfigError(
            f"lab.streams.order: got {config.order} with num_symbols {config.num_symbols}, expected num_symbols ** "
            f"(order + 1) <= {MAX_TABLE}"
        )
