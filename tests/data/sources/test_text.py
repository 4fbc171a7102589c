"""Running text: WikiText in files and on the hub, and the text that ships with Athlos."""

import sys
import types
from pathlib import Path

import pytest

from athlos.config.compose import run_config
from athlos.data.source import shipped_dir
from athlos.data.sources.plain_text import PlainTextSource
from athlos.data.sources.wikitext import Unit, WikitextConfig, WikitextSource, blocks
from athlos.errors import DataError

ARTICLES = (
    " \n = Copper kettle = \n \n A kettle holds 2 @.@ 5 litres of well @-@ known tea . \n \n = = Use = = \n \n"
    " = 1 <unk> and k = \n It cost 1 @,@ 200 crowns . \n \n"
    " = Žluťoučký kůň = \n \n A horse \u2028 of \x85 <unk> . \n \n"
)
"""Two invented articles; the formula line between text is shaped like a heading."""


def source(folder: Path, **values: object) -> WikitextSource:
    files = {"valid": "valid.txt", "test": "wiki.test.tokens"}
    return WikitextSource(WikitextConfig(_target_="", name="wikitext", dir=str(folder), files=files, **values))


def write(folder: Path, text: str, name: str = "valid.txt") -> None:
    (folder / name).write_bytes(text.encode())


def test_one_record_an_article_with_its_title(tmp_path: Path) -> None:
    write(tmp_path, ARTICLES)
    records = list(source(tmp_path).read("valid"))
    assert [record.meta["title"] for record in records] == ["Copper kettle", "Žluťoučký kůň"]
    assert [record.identifier for record in records] == ["valid-1", "valid-11"]
    assert records[1].text.startswith(" = Žluťoučký kůň = \n")


@pytest.mark.parametrize("unit", list(Unit))
@pytest.mark.parametrize(
    "text", [ARTICLES, ARTICLES.rstrip("\n"), ARTICLES.replace("\n", "\r\n"), "\n\n", "no heading", ""]
)
def test_records_joined_are_the_file(tmp_path: Path, unit: Unit, text: str) -> None:
    write(tmp_path, text)
    assert "".join(record.text for record in source(tmp_path, unit=unit).read("valid")) == text


def test_one_record_a_line_has_no_empty_records(tmp_path: Path) -> None:
    write(tmp_path, ARTICLES)
    records = list(source(tmp_path, unit=Unit.line).read("valid"))
    assert len(records) == 7
    assert all(record.text.strip() for record in records)
    assert [record.meta["title"] for record in records] == ["Copper kettle"] * 5 + ["Žluťoučký kůň"] * 2


def test_detokenize_joins_words_and_numbers(tmp_path: Path) -> None:
    write(tmp_path, ARTICLES)
    first = next(source(tmp_path, detokenize=True).read("valid")).text
    assert "holds 2.5 litres of well-known tea ." in first
    assert "1,200 crowns" in first


def test_blocks_begin_at_headings_only() -> None:
    lines = ["before\n", " \n", " = One = \n", " \n", "text\n"]
    assert list(blocks(lines, unit=Unit.article)) == [(1, "", "before\n \n"), (3, "One", " = One = \n \ntext\n")]


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    write(tmp_path, "")
    assert list(source(tmp_path).read("valid")) == []


def test_bad_bytes_are_named_by_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "valid.txt").write_bytes(b"fine\n" * 16 + b"caf\xe9\n")
    with pytest.raises(DataError, match=r"valid\.txt:17: not UTF-8") as caught:
        list(source(tmp_path).read("valid"))
    assert caught.value.line == 17


def test_unknown_split_and_missing_file_say_what_there_is(tmp_path: Path) -> None:
    write(tmp_path, ARTICLES)
    with pytest.raises(DataError, match=r"split 'vaild' is unknown; did you mean 'valid'.*accepted: valid, test"):
        list(source(tmp_path).read("vaild"))
    with pytest.raises(DataError, match=r"wiki\.test\.tokens: no such file.*valid\.txt"):
        source(tmp_path).files("test")


def fake_hub(monkeypatch: pytest.MonkeyPatch, load: object) -> None:
    module = types.ModuleType("datasets")
    module.load_dataset = load
    monkeypatch.setitem(sys.modules, "datasets", module)


def hub_source() -> WikitextSource:
    return WikitextSource(WikitextConfig(_target_="", name="wikitext", files={"valid": "valid.txt"}))


def test_hub_lines_give_the_records_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub has the file line by line, with an empty string for a line that holds a space only."""
    asked = []

    def load(*args: object, **kwargs: object) -> list[dict[str, str]]:
        asked.append((args, kwargs["split"]))
        lines = ARTICLES.split("\n")[:-1]
        return [{"text": f"{line}\n" if line.strip() else ""} for line in lines]

    fake_hub(monkeypatch, load)
    write(tmp_path, ARTICLES)
    assert list(hub_source().records("valid")) == list(source(tmp_path).records("valid"))
    assert asked == [(("Salesforce/wikitext", "wikitext-2-v1"), "validation")]


def test_a_hub_out_of_reach_is_a_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise ConnectionError("out of reach")

    fake_hub(monkeypatch, refuse)
    with pytest.raises(DataError, match=r"Salesforce/wikitext.*out of reach"):
        list(hub_source().records("valid"))


def test_hub_fingerprint_names_the_configuration() -> None:
    large = WikitextConfig(_target_="", name="wikitext", files={"valid": ""}, hub_config="wikitext-103-v1")
    assert WikitextSource(large).fingerprint("valid") != hub_source().fingerprint("valid")


@pytest.mark.shared
@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("unit", list(Unit))
def test_real_files_are_kept_exactly(shared_data: Path, split: str, unit: Unit) -> None:
    folder = shared_data / "wikitext2"
    files = {"valid": "valid.txt", "test": "test.txt"}
    real = WikitextSource(WikitextConfig(_target_="", name="wikitext", dir=str(folder), files=files, unit=unit))
    records = list(real.read(split))
    assert "".join(record.text for record in records) == (folder / files[split]).read_bytes().decode()
    if unit is Unit.article:
        assert len(records) == 60  # the published number of articles


def test_shipped_text_is_small_and_its_pieces_share_nothing() -> None:
    folder = shipped_dir() / "shakespeare"
    texts = {name: (folder / f"{name}.txt").read_text(encoding="utf-8") for name in ("train", "val", "test")}
    assert sum(len(text.encode()) for text in texts.values()) < 600_000
    assert all(text.endswith("\n\n") for text in texts.values())
    speeches = {name: {speech for speech in text.split("\n\n") if len(speech) > 200} for name, text in texts.items()}
    assert len(speeches["train"]) > 500
    assert not speeches["train"] & speeches["val"]
    assert not speeches["train"] & speeches["test"]
    assert not speeches["val"] & speeches["test"]
    assert "public domain" in (folder / "SOURCE.txt").read_text(encoding="utf-8")


def test_shipped_text_reads_with_its_config() -> None:
    config = run_config(["data=shakespeare", "train.max_steps=0"]).data
    records = list(PlainTextSource(config).records(config.val_split))
    assert len(records) == 293
    assert records[0].text == "Servant:\nWhat, think you then the king shall be deposed?\n"


@pytest.mark.shared
def test_shipped_text_is_the_front_of_the_original(shared_data: Path) -> None:
    folder = shipped_dir() / "shakespeare"
    joined = b"".join((folder / f"{name}.txt").read_bytes() for name in ("train", "val", "test"))
    assert (shared_data / "tinyshakespeare" / "input.txt").read_bytes().startswith(joined)


@pytest.mark.parametrize("choice", ["plain_text", "wikitext2", "shakespeare"])
def test_config_composes(choice: str) -> None:
    data = run_config([f"data={choice}", "train.max_steps=0"]).data
    assert data.name == choice
    assert {data.train_split, data.val_split, data.test_split} <= set(data.files)
