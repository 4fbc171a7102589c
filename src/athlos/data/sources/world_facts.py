"""Facts about countries from the `world-countries` table: an exact ground for multilingual and multi-hop questions."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from athlos.data.records import FactRecord, Record
from athlos.data.source import data_part, read_json, require
from athlos.data.splits import SplitConfig, SplitSource, split_errors
from athlos.errors import DataError


@dataclass(kw_only=True)
class WorldFactsConfig(SplitConfig):
    file: str = "countries.json"
    """File name below `data.dir`."""


class WorldFactsSource(SplitSource[WorldFactsConfig]):
    """One record a country, keyed by its three-letter code. Values are in English, names in every language.

    Relations: capital, region, subregion, languages, currencies, currency_codes, borders (three-letter codes),
    demonym, internet_domain, area_km2. A country without a value has an empty list.
    """

    record_type = FactRecord

    def all_files(self) -> list[Path]:
        return [self.file(self.config.file)]

    def split_key(self, record: Record) -> str:
        return record.identifier

    def read_all(self) -> Iterator[FactRecord | DataError]:
        [path] = self.all_files()
        rows = read_json(path)
        if not isinstance(rows, list):
            raise DataError(f"expected a list of countries, got {type(rows).__name__}", file=path)
        codes = {row["cca3"] for row in rows if isinstance(row, dict) and isinstance(row.get("cca3"), str)}
        for place, row in enumerate(rows):
            try:
                yield parse_country(row, codes=codes, file=path)
            except DataError as error:
                # The table may be one long line, so a country is named by its place in the list, as in JSON.
                yield DataError(
                    error.reason, file=path, field=f"[{place}].{error.field}" if error.field else f"[{place}]"
                )


def parse_country(row: Any, *, codes: set[str], file: Path) -> FactRecord:
    """The record of one country; `codes` are the countries of the table, which borders must name."""
    from langcodes import standardize_tag

    if not isinstance(row, dict):
        raise DataError(f"expected an object, got {type(row).__name__}", file=file)
    code = text_at(row, "cca3", file=file)
    names = {"en": text_at(row, "name", "common", file=file)}
    for language in require(row, "translations", dict, file=file):
        names[standardize_tag(language)] = text_at(row, "translations", language, "common", file=file)
    return FactRecord(
        identifier=code,
        subject=code,
        names=names,
        relations=relations_of(row, codes=codes, file=file),
        meta={
            "cca2": text_at(row, "cca2", file=file),
            "un_member": require(row, "unMember", bool, file=file),
        },
    )


def relations_of(row: dict[str, Any], *, codes: set[str], file: Path) -> dict[str, list[str]]:
    """Relation -> values of one country, in the order of the table."""
    currencies = require(row, "currencies", dict, file=file)
    has_demonym = "eng" in require(row, "demonyms", dict, file=file)
    borders = texts(row, "borders", file=file)
    if unknown := [code for code in borders if code not in codes]:
        raise DataError(f"no such country: {', '.join(unknown)}", file=file, field="borders")
    return {
        "capital": texts(row, "capital", file=file),
        "region": present(text_at(row, "region", file=file, may_be_empty=True)),
        "subregion": present(text_at(row, "subregion", file=file, may_be_empty=True)),
        "languages": texts(row, "languages", file=file),
        "currencies": [text_at(row, "currencies", code, "name", file=file) for code in currencies],
        "currency_codes": list(currencies),
        "borders": borders,
        "demonym": present(text_at(row, "demonyms", "eng", "m", file=file, may_be_empty=True)) if has_demonym else [],
        "internet_domain": texts(row, "tld", file=file),
        # 15 digits: what a float holds; without them large areas turn into powers of ten.
        "area_km2": [f"{require(row, 'area', (int, float), file=file):.15g}"],
    }


def present(text: str) -> list[str]:
    """One value, or none where the table has an empty string."""
    return [text] if text else []


def texts(row: dict[str, Any], key: str, *, file: Path) -> list[str]:
    """The strings of a list, or the values of an object; empty ones are left out."""
    value = require(row, key, (list, dict), file=file)
    items = list(value.values()) if isinstance(value, dict) else value
    for item in items:
        if not isinstance(item, str):
            raise DataError(f"expected strings, got {type(item).__name__}", file=file, field=key)
    return [item for item in items if item]


def text_at(row: dict[str, Any], *keys: str, file: Path, may_be_empty: bool = False) -> str:
    """The string at a path of keys; an error names the path as far as it went wrong."""
    value: Any = row
    for depth, key in enumerate(keys, start=1):
        try:
            value = require(value, key, str if depth == len(keys) else dict, file=file)
        except DataError as error:
            raise DataError(error.reason, file=file, field=".".join(keys[:depth])) from error
    if not value and not may_be_empty:
        raise DataError("empty", file=file, field=".".join(keys))
    return str(value)


PARTS = [
    data_part(
        "world_facts",
        WorldFactsConfig,
        WorldFactsSource,
        "facts about 250 countries, with names in 24 languages",
        check=split_errors,
    )
]
