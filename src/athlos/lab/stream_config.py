"""The dials of a Markov source, apart from the source itself: a check of a config loads no numpy."""

from dataclasses import dataclass

from athlos.errors import ConfigError

SPLITS = ("train", "val", "test")
MAX_TABLE = 2**23
"""Entries of a transition table; 64 MB."""


@dataclass(kw_only=True)
class StreamsConfig:
    """A Markov source, and the spans that interrupt it."""

    seed: int = 0
    """Seed of the source and of the samples, >= 0."""
    num_symbols: int = 64
    """Symbols of the chain, in 2..4096; the two marks come on top."""
    order: int = 1
    """Symbols that the next one depends on, >= 1; num_symbols ** (order + 1) is at most 2 ** 23."""
    lag: int = 1
    """Distance between the symbols that depend on each other, >= 1."""
    concentration: float = 0.1
    """Dirichlet parameter of each transition, in (0, 1e6]: near 0 the next symbol is certain, above 10 any will do."""
    copy_rate: float = 0.0
    """Chance of a copy span where one may begin, in [0, 1); with `recall_rate` below 1."""
    recall_rate: float = 0.0
    """Chance of a recall span where one may begin, in [0, 1)."""
    span: int = 8
    """Symbols of a span, without its mark, in order..256. `span` symbols of the chain lie between two spans."""

    @property
    def has_spans(self) -> bool:
        return self.copy_rate > 0 or self.recall_rate > 0

    @property
    def vocab_size(self) -> int:
        """Symbols, and the two marks where there are spans."""
        return self.num_symbols + 2 * self.has_spans


def check(config: StreamsConfig) -> None:
    """Raises `ConfigError` for values out of range."""
    ranges = {
        "num_symbols": (2, 4096), "order": (1, 16), "lag": (1, 10**6), "concentration": (1e-6, 1e6),
        "copy_rate": (0, 0.99), "recall_rate": (0, 0.99 - config.copy_rate), "span": (config.order, 256),
    }  # fmt: skip
    for key, (low, high) in ranges.items():
        if not low <= getattr(config, key) <= high:
            raise ConfigError(f"lab.streams.{key}: got {getattr(config, key)}, expected {low} .. {high}")
    if config.num_symbols ** (config.order + 1) > MAX_TABLE:
        raise ConfigError(
            f"lab.streams.order: got {config.order} with num_symbols {config.num_symbols}, expected num_symbols ** "
            f"(order + 1) <= {MAX_TABLE}"
        )
