"""Streams of a known Markov source as text: one character a symbol, so that the byte tokenizer gives one token each.

No files: everything is generated from the config. `meta.log_prob` of a record is the true log-probability of its
symbols after the first, in nats, so the floor of a loss on it is exact (suite `streams`). Licence: generated.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from athlos.config.fields import at_least
from athlos.config.schema import DataConfig, RunConfig
from athlos.data.records import TextRecord
from athlos.data.source import GeneratedSource, data_part
from athlos.errors import ConfigError
from athlos.lab.stream_config import StreamsConfig, check

FIRST = 0x21
"""Character of symbol 0: the first printable one after the space."""
MAX_CHARACTERS = 94


@dataclass(kw_only=True)
class LabStreamsConfig(DataConfig):
    stream: StreamsConfig = field(default_factory=StreamsConfig)
    num_train: int = at_least(1, default=4096)
    """Records of the training split."""
    num_val: int = at_least(1, default=64)
    num_test: int = at_least(1, default=256)
    length: int = at_least(2, default=128)
    """Symbols a record."""


class LabStreamsSource(GeneratedSource[LabStreamsConfig]):
    """One `TextRecord` a row of the source, without spaces or line ends."""

    record_type = TextRecord

    def decides(self, split: str) -> dict[str, Any]:
        config = self.config
        return {"stream": asdict(config.stream), "length": config.length, "records": self._num_records(split)}

    def read(self, split: str) -> Iterator[TextRecord]:
        from athlos.lab.streams import Streams  # loads numpy, which a check of a config does without

        sample = Streams(self.config.stream).sample(self._num_records(split), self.config.length, split=split)
        for index, (tokens, log_probs) in enumerate(zip(sample.tokens, sample.log_probs, strict=True)):
            yield TextRecord(
                identifier=f"{split}-{index}",
                language="lab",
                text=text_of(tokens.tolist()),
                meta={"log_prob": float(log_probs[1:].sum())},
            )

    def _num_records(self, split: str) -> int:
        self.files(split)
        return {"train": self.config.num_train, "val": self.config.num_val, "test": self.config.num_test}[split]


def text_of(symbols: Iterable[int]) -> str:
    return "".join(chr(FIRST + symbol) for symbol in symbols)


def _errors(data: LabStreamsConfig, config: RunConfig) -> Iterable[str]:
    try:
        check(data.stream)
    except ConfigError as error:
        yield str(error).replace("lab.streams", "data.stream", 1)
        return
    if data.stream.vocab_size > MAX_CHARACTERS:
        yield (
            f"data.stream.num_symbols: got {data.stream.num_symbols}, expected at most "
            f"{MAX_CHARACTERS - 2 * data.stream.has_spans} (one printable character each)"
        )


PARTS = [
    data_part(
        "lab_streams",
        LabStreamsConfig,
        LabStreamsSource,
        "streams of a Markov source with a known entropy floor",
        check=_errors,
    )
]
