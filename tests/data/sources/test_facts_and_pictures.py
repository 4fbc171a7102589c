"""Facts about countries, and pictures of emoji with captions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from athlos.config.compose import run_config
from athlos.config.schema import OnBad
from athlos.data.sources.emoji_captions import EmojiCaptionsConfig, EmojiCaptionsSource
from athlos.data.sources.world_facts import WorldFactsConfig, WorldFactsSource
from athlos.errors import DataError

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def country(code: str = "NOW", **changes: Any) -> dict[str, Any]:
    """An invented country in the official format."""
    row = {
        "name": {"common": "Nowhere", "official": "Republic of Nowhere"},
        "cca2": "NW",
        "unMember": True,
        "cca3": code,
        "tld": [".nw"],
        "capital": ["Noplace"],
        "region": "Middle",
        "subregion": "",
        "languages": {"now": "Nowish", "eng": "English"},
        "currencies": {"NWD": {"name": "Nowhere dollar", "symbol": "$"}},
        "borders": [],
        "area": 12.5,
        "demonyms": {"eng": {"m": "Nowhereman", "f": "Nowherewoman"}},
        "translations": {"deu": {"common": "Nirgendwo"}, "zho": {"common": "乌有"}, "xyz": {"common": "Nnn"}},
    }
    return {**row, **changes}


def facts(folder: Path, rows: Any = None, **values: Any) -> WorldFactsSource:
    if rows is not None:
        (folder / "countries.json").write_text(json.dumps(rows), encoding="utf-8")
    return WorldFactsSource(WorldFactsConfig(_target_="", name="world_facts", dir=str(folder), **values))


def test_country_becomes_names_and_relations(tmp_path: Path) -> None:
    [first, second] = facts(tmp_path, [country(borders=["ELS"]), country("ELS", capital=[], currencies={})]).read("all")
    assert first.subject == first.identifier == "NOW"
    assert first.names == {"en": "Nowhere", "de": "Nirgendwo", "zh": "乌有", "xyz": "Nnn"}
    assert first.relations == {
        "capital": ["Noplace"],
        "region": ["Middle"],
        "subregion": [],
        "languages": ["Nowish", "English"],
        "currencies": ["Nowhere dollar"],
        "currency_codes": ["NWD"],
        "borders": ["ELS"],
        "demonym": ["Nowhereman"],
        "internet_domain": [".nw"],
        "area_km2": ["12.5"],
    }
    assert second.relations["capital"] == second.relations["currencies"] == []


def test_areas_are_written_in_full(tmp_path: Path) -> None:
    rows = [country(area=17098242), country("ELS", area=2.02)]
    assert [record.relations["area_km2"] for record in facts(tmp_path, rows).read("all")] == [["17098242"], ["2.02"]]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"cca3": ""}, "cca3"),
        ({"name": {"common": 3}}, "name.common"),
        ({"translations": {"deu": {}}}, "translations.deu.common"),
        ({"capital": "Noplace"}, "capital"),
        ({"languages": {"now": 1}}, "languages"),
        ({"currencies": {"NWD": {}}}, "currencies.NWD.name"),
        ({"demonyms": {"eng": {"f": "x"}}}, "demonyms.eng.m"),
        ({"borders": ["ZZZ"]}, "borders"),
        ({"area": "large"}, "area"),
    ],
)
def test_a_bad_country_is_named_by_place_and_field(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    rows = [country("AAA"), {**country("BBB"), **changes}, country("CCC")]
    with pytest.raises(DataError) as caught:
        list(facts(tmp_path, rows).read("all"))
    assert caught.value.field == f"[1].{field}"
    assert str(tmp_path / "countries.json") in str(caught.value)
    skipping = facts(tmp_path, on_bad=OnBad.skip)
    assert [record.subject for record in skipping.read("all")] == ["AAA", "CCC"]
    assert skipping.num_bad == 1


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a list of countries, got dict"):
        list(facts(tmp_path, {"a": 1}).read("all"))
    with pytest.raises(DataError, match="expected an object, got int") as caught:
        list(facts(tmp_path, [1]).read("all"))
    assert caught.value.field == "[0]"
    (tmp_path / "countries.json").write_text('[\n{"a": }', encoding="utf-8")
    with pytest.raises(DataError, match=r"countries\.json:2: not JSON"):
        list(facts(tmp_path).read("all"))


def test_facts_split_by_country(tmp_path: Path) -> None:
    rows = [country(f"C{number:02}") for number in range(60)]
    source = facts(tmp_path, rows, split_shares=SHARES)
    parts = {split: {record.subject for record in source.read(split)} for split in SHARES}
    assert sum(map(len, parts.values())) == len(set().union(*parts.values())) == 60
    assert len(parts["train"]) > len(parts["test"]) > 0
    with pytest.raises(DataError, match="split 'dev' is unknown; accepted: train, val, test, all"):
        list(source.read("dev"))


@pytest.mark.shared
def test_real_facts(shared_data: Path) -> None:
    records = {record.subject: record for record in facts(shared_data / "world_facts").read("all")}
    assert len(records) == 250
    germany = records["DEU"]
    assert (germany.names["ja"], germany.names["fa"], germany.names["en"]) == ("ドイツ", "آلمان", "Germany")
    assert germany.relations["capital"] == ["Berlin"]
    assert germany.relations["area_km2"] == ["357114"]
    assert sorted(germany.relations["borders"]) == ["AUT", "BEL", "CHE", "CZE", "DNK", "FRA", "LUX", "NLD", "POL"]
    assert all(len(record.names) == 24 for record in records.values())
    assert all("DEU" in records[code].relations["borders"] for code in germany.relations["borders"])
    assert records["ATA"].relations["capital"] == []


def caption(place: int, **changes: Any) -> dict[str, Any]:
    row = {
        "i": place,
        "hexcode": f"F{place:04X}",
        "emoji": "☕",
        "group": "food",
        "subgroup": "drink",
        "label": {"en": f"cup {place}", "de": f"Tasse {place}", "th": "ถ้วย"},
        "tags": {"en": ["tea", "hot"], "de": []},
    }
    return {**row, **changes}


def pictures(number: int) -> np.ndarray:
    """Pictures 4x4 that differ, [number, 4, 4, 3]."""
    images = np.zeros((number, 4, 4, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(number)
    return images


def emoji(folder: Path, rows: list[Any] | None = None, images: Any = None, **values: Any) -> EmojiCaptionsSource:
    if rows is not None:
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        (folder / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        np.savez(folder / "images_32x32.npz", images=pictures(len(rows)) if images is None else images)
    return EmojiCaptionsSource(EmojiCaptionsConfig(_target_="", name="emoji_captions", dir=str(folder), **values))


def test_picture_and_captions_belong_together(tmp_path: Path) -> None:
    records = list(emoji(tmp_path, [caption(2), caption(0), caption(1)], language="th").read("all"))
    assert [int(record.pixels[0, 0, 0]) for record in records] == [2, 0, 1]
    first = records[0]
    assert (first.identifier, first.language, first.group, first.subgroup) == ("F0002", "th", "food", "drink")
    assert first.captions == {"en": "cup 2", "de": "Tasse 2", "th": "ถ้วย"}
    assert first.tags == {"en": ["tea", "hot"], "de": []}
    assert (first.pixels.shape, first.pixels.dtype) == ((4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (caption(16, i=99), "i"),
        (caption(16, i=-1), "i"),
        (caption(16, i="3"), "i"),
        (caption(16, label={"de": "Tasse"}), "en"),
        (caption(16, label={"en": " "}), "label.en"),
        (caption(16, tags={"en": "tea"}), "tags.en"),
        (caption(16, group=None), "group"),
        ("{broken", None),
    ],
)
def test_a_broken_line_17_is_named(tmp_path: Path, row: Any, field: str | None) -> None:
    rows = [*(caption(place) for place in range(16)), row, caption(17)]
    with pytest.raises(DataError, match=r"captions\.jsonl:17") as caught:
        list(emoji(tmp_path, rows).read("all"))
    assert (caught.value.line, caught.value.field) == (17, field)
    skipping = emoji(tmp_path, on_bad=OnBad.skip)
    assert len(list(skipping.read("all"))) == 17
    assert skipping.num_bad == 1


def test_equal_pictures_share_a_split(tmp_path: Path) -> None:
    images = np.repeat(pictures(40), 3, axis=0)
    source = emoji(tmp_path, [caption(place) for place in range(120)], images, split_shares=SHARES)
    parts = {split: [record.pixels.tobytes() for record in source.read(split)] for split in SHARES}
    assert sum(map(len, parts.values())) == 120
    assert all(parts.values())
    assert not set(parts["train"]) & set(parts["test"])
    assert not set(parts["train"]) & set(parts["val"])


def test_bad_archives_are_refused(tmp_path: Path) -> None:
    emoji(tmp_path, [caption(0)], np.zeros((1, 4, 4), dtype=np.uint8))
    with pytest.raises(DataError, match=r"expected uint8 \[number, height, width, 3\], got uint8 \[1, 4, 4\]"):
        list(emoji(tmp_path).read("all"))
    emoji(tmp_path, [caption(0)], np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match=r"images_32x32\.npz: not a NumPy archive.*allow_pickle=False"):
        list(emoji(tmp_path).read("all"))
    np.savez(tmp_path / "images_32x32.npz", pictures=pictures(1))
    with pytest.raises(DataError, match="field 'images': missing; the archive holds: pictures"):
        list(emoji(tmp_path).read("all"))
    for content in (b"", b"not a zip", b"PK\x03\x04 cut short"):
        (tmp_path / "images_32x32.npz").write_bytes(content)
        with pytest.raises(DataError, match="not a NumPy archive"):
            list(emoji(tmp_path).read("all"))
    with (tmp_path / "images_32x32.npz").open("wb") as handle:
        np.save(handle, pictures(1))
    with pytest.raises(DataError, match="not a NumPy archive"):
        list(emoji(tmp_path).read("all"))


@pytest.mark.shared
def test_real_pictures(shared_data: Path) -> None:
    source = emoji(shared_data / "emoji_captions", split_shares=SHARES)
    records = list(source.read("all"))
    assert len(records) == len({record.identifier for record in records}) == 1879
    assert records[0].captions["de"] == "grinsendes Gesicht"
    assert all(record.pixels.shape == (32, 32, 3) and len(record.captions) == 14 for record in records)
    parts = {split: {record.identifier for record in source.read(split)} for split in SHARES}
    assert {split: len(part) for split, part in parts.items()} == {"train": 1514, "val": 173, "test": 192}
    flags = [record.identifier for record in records if record.captions["en"] in ("flag: France", "flag: St. Martin")]
    assert any(part >= set(flags) for part in parts.values())


@pytest.mark.parametrize("choice", ["world_facts", "emoji_captions"])
def test_config_composes(choice: str) -> None:
    data = run_config([f"data={choice}", "train.max_steps=0"]).data
    assert (data.name, data.test_split is not None) == (choice, True)
