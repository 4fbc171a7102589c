"""Streams as text: one character a symbol, the same again from the same config, and an exact floor."""

import pytest

from athlos.config.compose import run_config
from athlos.data.source import build_source
from athlos.data.sources.lab_streams import text_of
from athlos.errors import ConfigErrors, DataError
from athlos.lab.streams import Streams


def test_text_and_symbols() -> None:
    symbols = list(range(94))
    assert text_of(symbols).isprintable()
    assert " " not in text_of(symbols)
    assert len(set(text_of(symbols))) == 94


def test_records_are_the_samples_of_the_source() -> None:
    config = run_config(["data=lab_streams", "data.num_val=5", "data.length=40"])
    source = build_source(config)
    records = list(source.records("val"))
    sample = Streams(config.data.stream).sample(5, 40, split="val")  # type: ignore[attr-defined]
    assert [record.text for record in records] == [text_of(row) for row in sample.tokens.tolist()]
    assert [record.meta["log_prob"] for record in records] == pytest.approx(sample.log_probs[:, 1:].sum(1).tolist())
    assert source.fingerprint("val") != source.fingerprint("test")
    with pytest.raises(DataError, match="no split 'dev'"):
        source.files("dev")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.stream.num_symbols=93", "expected at most 92"),
        ("data.stream.num_symbols=1", "data.stream.num_symbols"),
        ("data.length=1", "data.length"),
        ("data.num_test=0", "data.num_test"),
    ],
)
def test_configs_that_make_no_sense(override: str, message: str) -> None:
    with pytest.raises(ConfigErrors, match=message):
        run_config(["data=lab_streams", override])
