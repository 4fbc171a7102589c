"""Parallel text in tables, aligned files, .po and TMX, and the splits that are cut from them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athlos.config.compose import run_config
from athlos.config.schema import OnBad
from athlos.data.parallel import is_language
from athlos.data.records import ParallelRecord
from athlos.data.sources import tmx
from athlos.data.sources.parallel_files import ParallelFilesConfig, ParallelFilesSource
from athlos.data.sources.parallel_tsv import ParallelTsvConfig, ParallelTsvSource
from athlos.data.sources.po import PoConfig, PoSource, plural_pairs
from athlos.data.sources.tmx import TmxConfig, TmxSource
from athlos.data.splits import SplitBy, fraction_of, split_at
from athlos.errors import ConfigError, ConfigErrors, DataError

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def settings(folder: Path, **values: Any) -> dict[str, Any]:
    base = {"_target_": "", "name": "t", "dir": str(folder), "source_language": "en", "target_language": "de"}
    return {**base, **values}


def pairs(records: Iterator[Any]) -> list[tuple[str, str]]:
    return [(record.source, record.target) for record in records]


# Splits


def test_hash_is_the_same_on_every_machine() -> None:
    """Golden: the first 8 bytes of `printf 'save all' | sha256sum`, 23b7c08533a2e8ff, over 2^64."""
    assert fraction_of("save all") == int("23b7c08533a2e8ff", 16) / 2**64


def test_near_copies_share_a_hash() -> None:
    assert fraction_of("Save  all\n") == fraction_of("save all") != fraction_of("save al")
    assert 0 <= fraction_of("broken \ud800 surrogate") <= 1


@given(st.floats(0, 1), st.lists(st.floats(0.01, 1), min_size=1, max_size=6))
def test_every_point_is_in_exactly_one_split(fraction: float, weights: list[float]) -> None:
    shares = {f"s{place}": weight / sum(weights) for place, weight in enumerate(weights)}
    found = split_at(fraction, shares)
    edge = sum(share for name, share in shares.items() if name < found)
    assert edge - 1e-9 <= fraction <= edge + shares[found] + 1e-9


def test_a_share_of_zero_gets_nothing() -> None:
    assert {split_at(point / 100, {"a": 0.0, "b": 1.0, "c": 0.0}) for point in range(101)} == {"b"}


# Tables


def tsv(folder: Path, rows: list[str] | None = None, **values: Any) -> ParallelTsvSource:
    if rows is not None:
        (folder / "en-de.tsv").write_text("\n".join(["domain\ten\tde\tnote", *rows]) + "\n", encoding="utf-8")
    return ParallelTsvSource(ParallelTsvConfig(**settings(folder, **{"domain_column": "domain", **values})))


def rows_of(number: int) -> list[str]:
    return [f"ui\tOpen item {place}\tElement {place} öffnen\tn{place}" for place in range(number)]


def test_table_row_becomes_a_record(tmp_path: Path) -> None:
    [first, second] = tsv(tmp_path, ['ui\t"Open"\tÖffnen\tx', "", "law\t a\\nb \tc\u2028d\t"]).read("all")
    assert first == ParallelRecord(
        identifier="en-de:2",
        language="de",
        source='"Open"',
        target="Öffnen",
        source_language="en",
        domain="ui",
        meta={"note": "x"},
    )
    assert (second.identifier, second.source, second.target) == ("en-de:4", " a\\nb ", "c\u2028d")


def test_newlines_are_unescaped_where_the_file_escapes_them(tmp_path: Path) -> None:
    source = tsv(tmp_path, ["ui\tone\\ntwo\teins\\nzwei\tx"], unescape_newlines=True)
    assert pairs(source.read("all")) == [("one\ntwo", "eins\nzwei")]


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ("ui\tonly source", "de", "expected 4 columns, got 2"),
        ("ui\ta\tb\tc\td", "note", "expected 4 columns, got 5"),
        ("ui\t \tb\tc", "en", "empty segment"),
        ("ui\ta\t\tc", "de", "empty segment"),
    ],
)
@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_a_broken_line_17_is_named_in_every_split(
    tmp_path: Path, row: str, field: str, reason: str, split: str
) -> None:
    rows = rows_of(40)
    rows[15] = row
    with pytest.raises(DataError, match=reason) as caught:
        list(tsv(tmp_path, rows, split_shares=SHARES).read(split))
    assert (caught.value.file, caught.value.line, caught.value.field) == (tmp_path / "en-de.tsv", 17, field)


def test_skipped_lines_are_counted_once(tmp_path: Path) -> None:
    rows = rows_of(40)
    rows[15] = rows[20] = "broken"
    source = tsv(tmp_path, rows, on_bad=OnBad.skip, split_shares=SHARES)
    assert sum(len(list(source.read(split))) for split in SHARES) == 38
    assert source.num_bad == 2
    by_order = tsv(tmp_path, on_bad=OnBad.skip, split_shares=SHARES, split_by=SplitBy.order)
    assert [len(list(by_order.read(split))) for split in SHARES] == [30, 4, 4]
    assert by_order.num_bad == 2


def test_a_wrong_header_lists_the_columns(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"en-de\.tsv:1 field 'dee': no such column; did you mean 'de'\?; .*domain, en, de"
    ):
        list(tsv(tmp_path, rows_of(1), target_column="dee").read("all"))
    (tmp_path / "en-de.tsv").write_text("domain\ten\ten\tde\n", encoding="utf-8")
    with pytest.raises(DataError, match="field 'en': stands there twice"):
        list(tsv(tmp_path).read("all"))
    (tmp_path / "en-de.tsv").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="the header has: nothing"):
        list(tsv(tmp_path).read("all"))


def test_a_header_alone_has_no_records(tmp_path: Path) -> None:
    for by in SplitBy:
        assert list(tsv(tmp_path, [], split_shares=SHARES, split_by=by).read("train")) == []


def test_splits_cover_the_file_and_do_not_leak(tmp_path: Path) -> None:
    """Each source segment stands there three times, once in another case and spacing."""
    rows = [
        row for row in rows_of(150) for row in (row, row.replace("Element", "Ding"), row.replace("Open ", "OPEN  "))
    ]
    source = tsv(tmp_path, rows, split_shares=SHARES)
    parts = {split: list(source.read(split)) for split in SHARES}
    identifiers = [record.identifier for part in parts.values() for record in part]
    assert len(identifiers) == len(set(identifiers)) == 450
    keys = {split: {" ".join(record.source.lower().split()) for record in part} for split, part in parts.items()}
    assert not keys["train"] & keys["val"]
    assert not keys["train"] & keys["test"]
    assert not keys["val"] & keys["test"]
    assert 0.7 < len(parts["train"]) / 450 < 0.9
    assert [record.identifier for record in tsv(tmp_path, split_shares=SHARES).read("val")] == [
        record.identifier for record in parts["val"]
    ]


def test_a_new_line_moves_no_other_record(tmp_path: Path) -> None:
    before = {record.source for record in tsv(tmp_path, rows_of(100), split_shares=SHARES).read("test")}
    rows = ["ui\tIn front\tVorne\tx", *rows_of(100)]
    after = {record.source for record in tsv(tmp_path, rows, split_shares=SHARES).read("test")}
    assert before == after - {"In front"}


def test_order_cuts_contiguous_pieces(tmp_path: Path) -> None:
    source = tsv(tmp_path, rows_of(20), split_shares=SHARES, split_by=SplitBy.order)
    numbers = {split: [int(record.source.split()[-1]) for record in source.read(split)] for split in SHARES}
    assert numbers == {"train": list(range(16)), "val": [16, 17], "test": [18, 19]}
    assert len(list(source.read("all"))) == 20


@pytest.mark.parametrize("shares", [{}, SHARES, {"a": 0.5, "b": 0.0, "c": 0.5}])
def test_an_unknown_split_lists_the_accepted(tmp_path: Path, shares: dict[str, float]) -> None:
    source = tsv(tmp_path, rows_of(1), split_shares=shares)
    accepted = ", ".join([*(name for name in shares if name != "b"), "all"])
    with pytest.raises(DataError, match=f"split 'b' is unknown.*; accepted: {accepted}$"):
        list(source.read("b"))
    with pytest.raises(DataError, match="accepted"):
        source.files("b")


@pytest.mark.parametrize("shares", [{"a": 0.5}, {"a": 1.5, "b": -0.5}, {"all": 1.0}])
def test_wrong_shares_are_refused(tmp_path: Path, shares: dict[str, float]) -> None:
    with pytest.raises(ConfigErrors, match=r"data\.split_shares"):
        tsv(tmp_path, split_shares=shares)


def test_splits_and_settings_have_their_own_fingerprint(tmp_path: Path) -> None:
    source = tsv(tmp_path, rows_of(9), split_shares=SHARES)
    found = {source.fingerprint(split) for split in (*SHARES, "all")}
    found.add(tsv(tmp_path, split_shares={"train": 0.5, "val": 0.5}).fingerprint("train"))
    found.add(tsv(tmp_path, split_shares=SHARES, split_by=SplitBy.order).fingerprint("train"))
    found.add(tsv(tmp_path, split_shares=SHARES, source_column="note").fingerprint("train"))
    assert len(found) == 7
    assert source.fingerprint("train") == tsv(tmp_path, split_shares=SHARES, limit_train=3).fingerprint("train")


def test_limit_takes_the_front(tmp_path: Path) -> None:
    assert [record.identifier for record in tsv(tmp_path, rows_of(9)).records("all", limit=2)] == ["en-de:2", "en-de:3"]


# Two files


def files(folder: Path, source: str, target: str, **values: Any) -> ParallelFilesSource:
    (folder / "news.eng").write_bytes(source.encode())
    (folder / "news.deu").write_bytes(target.encode())
    names = {"source_file": "news.{source}", "target_file": "news.{target}", "codes": {"en": "eng", "de": "deu"}}
    return ParallelFilesSource(ParallelFilesConfig(**settings(folder, **{**names, **values})))


def test_lines_are_aligned(tmp_path: Path) -> None:
    records = list(files(tmp_path, "one\x85\n\ntwo\u2028three\n", "eins\r\n\r\nzwei").read("all"))
    assert pairs(iter(records)) == [("one\x85", "eins"), ("two\u2028three", "zwei")]
    assert [record.identifier for record in records] == ["news.deu:1", "news.deu:3"]
    assert (records[0].source_language, records[0].language) == ("en", "de")


def test_languages_may_be_given_as_the_files_call_them(tmp_path: Path) -> None:
    [record] = files(tmp_path, "one\n", "eins\n", source_language="eng", target_language="deu").read("all")
    assert (record.source_language, record.language) == ("en", "de")


def test_the_direction_can_be_turned(tmp_path: Path) -> None:
    [record] = files(tmp_path, "one\n", "eins\n", source_language="de", target_language="en").read("all")
    assert (record.source, record.target, record.language) == ("eins", "one", "en")


@pytest.mark.parametrize(("source", "target", "counts"), [("a\nb\nc\n", "a\nb\n", (3, 2)), ("a", "a\n\n", (1, 2))])
def test_different_line_counts_are_refused_before_the_first_record(
    tmp_path: Path, source: str, target: str, counts: tuple[int, int]
) -> None:
    unequal = files(tmp_path, source, target, on_bad=OnBad.skip)
    with pytest.raises(DataError, match=rf"news\.eng has {counts[0]} lines, news\.deu has {counts[1]}"):
        next(unequal.records("all", limit=1))


def test_a_line_that_is_empty_on_one_side_is_bad(tmp_path: Path) -> None:
    lines = [f"line {number}" for number in range(1, 21)]
    blank = [*lines[:16], "", *lines[17:]]
    with pytest.raises(DataError, match=r"news\.deu:17 field 'target': empty segment"):
        list(files(tmp_path, "\n".join(lines), "\n".join(blank)).read("all"))
    with pytest.raises(DataError, match=r"news\.eng:17 field 'source': empty segment"):
        list(files(tmp_path, "\n".join(blank), "\n".join(lines)).read("all"))


def test_a_line_that_is_not_utf8_costs_its_own_pair(tmp_path: Path) -> None:
    reader = files(tmp_path, "one\ntwo\nthree\n", "eins\nzwei\ndrei\n", on_bad=OnBad.skip)
    (tmp_path / "news.deu").write_bytes(b"eins\nzw\xff\ndrei\n")
    assert pairs(reader.read("all")) == [("one", "eins"), ("three", "drei")]
    assert reader.num_bad == 1


def test_two_empty_files_have_no_records(tmp_path: Path) -> None:
    assert list(files(tmp_path, "", "").read("all")) == []


def test_a_language_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "news.x").write_text("secret\n", encoding="utf-8")
    source = files(tmp_path / "inside", "a\n", "b\n", target_file="{target}.x", target_language="../news")
    with pytest.raises(DataError, match=r"'\.\./news\.x' lies outside data\.dir"):
        list(source.read("all"))


# gettext

PO_HEADER = (
    'msgid ""\nmsgstr ""\n"Language: {language}\\n"\n"Content-Type: text/plain; charset={charset}\\n"\n'
    '"Plural-Forms: {plural}\\n"\n\n'
)
PO_ENTRIES = r"""#. Label of a button
#: app/views.py:3
msgctxt "button"
msgid "Open"
msgstr "Öffnen"

msgid "Open"
msgstr "Offen"

msgid ""
"Two\n"
"lines"
msgstr ""
"Zwei\n"
"Zeilen"

#, fuzzy
msgid "Close"
msgstr "Vielleicht"

msgid "Untranslated"
msgstr ""

#, python-format
msgid "%d file"
msgid_plural "%d files"
msgstr[0] "%d Datei"
msgstr[1] "%d Dateien"

#~ msgid "Old"
#~ msgstr "Alt"
"""


def po(folder: Path, entries: str | None = None, *, name: str = "de.po", **values: Any) -> PoSource:
    header = {"language": "de", "charset": "UTF-8", "plural": "nplurals=2; plural=(n != 1);"}
    header |= {key: values.pop(key) for key in list(values) if key in header}
    if entries is not None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((PO_HEADER.format(**header) + entries).encode(header["charset"]))
    return PoSource(PoConfig(**settings(folder, **{"pattern": "**/*.po", **values})))


def test_translations_of_software(tmp_path: Path) -> None:
    records = list(po(tmp_path, PO_ENTRIES, name="app/locale/de/LC_MESSAGES/admin.po").read("all"))
    assert pairs(iter(records)) == [
        ("Open", "Öffnen"),
        ("Open", "Offen"),
        ("Two\nlines", "Zwei\nZeilen"),
        ("%d file", "%d Datei"),
        ("%d files", "%d Dateien"),
    ]
    assert [record.meta for record in records] == [{"context": "button"}, {}, {}, {}, {}]
    assert {record.domain for record in records} == {"admin"}
    assert len({record.identifier for record in records}) == 5
    lines = (tmp_path / "app/locale/de/LC_MESSAGES/admin.po").read_text(encoding="utf-8").splitlines()
    file, line = records[1].identifier.split(":")
    assert file == "app/locale/de/LC_MESSAGES/admin.po"
    assert lines[int(line) - 1] == 'msgid "Open"'


def test_plural_forms_follow_the_header(tmp_path: Path) -> None:
    """Russian has one, few, many; Arabic has zero before one; Japanese has a single form."""
    russian = "nplurals=3; plural=(n%10==1 && n%100!=11 ? 0 : n%10>=2 && n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2);"
    arabic = "nplurals=6; plural=n==0 ? 0 : n==1 ? 1 : n==2 ? 2 : n%100>=3 && n%100<=10 ? 3 : n%100>=11 ? 4 : 5;"
    cases = {
        "ru": (russian, ["one", "few", "many"], [("day", "one"), ("days", "few"), ("days", "many")]),
        "ar": (
            arabic,
            ["zero", "one", "two", "few", "many", "other"],
            [("day", "one"), *(("days", form) for form in ("zero", "two", "few", "many", "other"))],
        ),
        "ja": ("nplurals=1; plural=0;", ["any"], [("day", "any"), ("days", "any")]),
    }
    for language, (plural, forms, expected) in cases.items():
        entry = 'msgid "day"\nmsgid_plural "days"\n' + "".join(
            f'msgstr[{i}] "{form}"\n' for i, form in enumerate(forms)
        )
        folder = tmp_path / language
        folder.mkdir()
        source = po(folder, entry, language=language, plural=plural, target_language=language)
        assert pairs(source.read("all")) == expected


def test_equal_plural_pairs_are_given_once() -> None:
    assert plural_pairs("sheep", "sheep", {0: "Schaf", 1: "Schafe", 2: "Schafe"}, singular_index=0) == [
        ("sheep", "Schaf"),
        ("sheep", "Schafe"),
    ]


def test_a_wrong_plural_rule_is_bad(tmp_path: Path) -> None:
    for rule in ("nplurals=2; plural=EXPRESSION;", "nplurals=2; plural=n/0;", "nplurals=2; plural=__import__('os');"):
        source = po(tmp_path, PO_ENTRIES, plural=rule, on_bad=OnBad.skip)
        assert len(list(source.read("all"))) == 3
        assert source.num_bad == 1
    with pytest.raises(DataError, match=r"de\.po field 'Plural-Forms'"):
        list(po(tmp_path).read("all"))


def test_a_file_in_another_language_is_refused(tmp_path: Path) -> None:
    po(tmp_path, PO_ENTRIES, name="fr.po", language="fr")
    source = po(tmp_path, PO_ENTRIES, language="de_AT", on_bad=OnBad.skip)
    assert len(list(source.read("all"))) == 5
    assert source.num_bad == 1
    with pytest.raises(
        DataError, match=r"fr\.po field 'Language': the header says 'fr', but data.target_language is 'de'"
    ):
        list(po(tmp_path).read("all"))


def test_bad_po_syntax_names_the_line(tmp_path: Path) -> None:
    entries = "\n" * 9 + 'msgid "a"\nmsgstr "b" "\n'
    with pytest.raises(DataError, match=r"de\.po:17: not a \.po file: unescaped double quote") as caught:
        list(po(tmp_path, entries, on_bad=OnBad.skip).read("all"))
    assert caught.value.line == 17
    with pytest.raises(DataError, match=r"de\.po:7: not a \.po file"):
        list(po(tmp_path, "what is this\n").read("all"))


@pytest.mark.parametrize(
    "line", ['msgstr "abc', 'msgstr "', 'msgstr "abc\\"', 'msgstr ""\n"ab', '#~ msgstr "Alt', 'msgstr[0] "abc  ']
)
def test_a_text_without_its_closing_quote_loses_no_letter(tmp_path: Path, line: str) -> None:
    entries = f'msgid "Open"\nmsgstr "Öffnen \\\\"\n\nmsgid "a"\n{line}\n'
    with pytest.raises(DataError, match="no closing quote") as caught:
        list(po(tmp_path, entries).read("all"))
    lines = (tmp_path / "de.po").read_text(encoding="utf-8").splitlines()
    assert caught.value.line == len(lines)


def test_po_encodings(tmp_path: Path) -> None:
    assert pairs(po(tmp_path, PO_ENTRIES, charset="ISO-8859-1").read("all"))[0] == ("Open", "Öffnen")
    (tmp_path / "de.po").write_bytes(
        PO_HEADER.format(language="de", charset="UTF-8", plural="").encode() + b'msgid "\xff"\n'
    )
    with pytest.raises(DataError, match=r"de\.po: not utf-8 at byte"):
        list(po(tmp_path).read("all"))


def test_empty_po_file_has_no_records(tmp_path: Path) -> None:
    (tmp_path / "de.po").write_bytes(b"")
    assert list(po(tmp_path).read("all")) == []


@pytest.mark.parametrize("pattern", ["/etc/*.po", "../*.po", "", "**.po"])
def test_a_pattern_stays_below_the_folder(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(DataError, match=r"expected a glob pattern below data\.dir"):
        list(po(tmp_path, PO_ENTRIES, pattern=pattern).read("all"))


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    po(tmp_path, PO_ENTRIES)
    (tmp_path / "inside" / "de.po").symlink_to(tmp_path / "de.po")
    with pytest.raises(DataError, match=r"lies outside data\.dir"):
        list(po(tmp_path / "inside").read("all"))


def test_no_matching_file_says_what_there_is(tmp_path: Path) -> None:
    po(tmp_path, PO_ENTRIES)
    with pytest.raises(DataError, match=r"no file matches '\*\*/de/x\.po'; data.dir holds: de\.po"):
        list(po(tmp_path, pattern="**/{target}/x.po").read("all"))


# TMX

TMX_HEADER = """<?xml version="1.0" encoding="{encoding}"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header srclang="en" segtype="sentence"><prop type="x-domain">of the file</prop></header>
<body>
"""
TMX_UNITS = """<tu tuid="u1">
<prop type="x-domain">medicine</prop><prop type="project">P7</prop>
<tuv xml:lang="EN-GB">
<seg>Take <bpt i="1">&lt;b&gt;</bpt>two<ept i="1">&lt;/b&gt;</ept> pills &amp; <hi>rest</hi>.</seg></tuv>
<tuv xml:lang="de-DE"><seg>Zwei Tabletten<ph>{0}<sub>note</sub></ph> nehmen, <hi>ruhen</hi> \u2014 \u00fc.</seg></tuv>
</tu>
<tu><tuv xml:lang="en-US"><seg>color</seg></tuv><tuv xml:lang="en"><seg>colour</seg></tuv>
<tuv lang="DE"><seg>Farbe</seg></tuv><tuv xml:lang="fr"><seg>couleur</seg></tuv></tu>
"""
TMX_END = "</body></tmx>\n"


def memory(folder: Path, units: str | None = None, *, encoding: str = "utf-8", **values: Any) -> TmxSource:
    if units is not None:
        text = TMX_HEADER.format(encoding=encoding) + units + TMX_END
        (folder / "memory.tmx").write_bytes(text.encode(encoding))
    return TmxSource(TmxConfig(**settings(folder, **values)))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_units_of_a_memory(tmp_path: Path, encoding: str) -> None:
    source = memory(tmp_path, TMX_UNITS, encoding=encoding.replace("cp", "windows-").removesuffix("-sig"))
    if encoding == "utf-8-sig":
        (tmp_path / "memory.tmx").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "memory.tmx").read_bytes())
    [first, second] = source.read("all")
    assert first == ParallelRecord(
        identifier="memory.tmx:1",
        language="de",
        source_language="en",
        domain="medicine",
        source="Take two pills & rest.",
        target="Zwei Tabletten nehmen, ruhen \u2014 \u00fc.",
        meta={"x-domain": "medicine", "project": "P7", "tuid": "u1"},
    )
    assert (second.source, second.target, second.domain, second.meta) == ("colour", "Farbe", "memory", {})


@pytest.mark.parametrize(
    ("tag", "wanted"),
    [
        ("en-GB", "en"),
        ("PT_br", "pt-BR"),
        ("zh-Hant-TW", "zh_Hant"),
        ("zh_CN", "zh_Hans"),
        ("zh_SG", "zh_Hans"),
        ("zh_TW", "zh_Hant"),
        ("zh_Hans", "zh_CN"),
        ("zh", "zh_Hans"),
        ("zh_HK", "zh"),
        ("iw", "he"),
        ("in", "id"),
        ("nb_NO", "no"),
        ("deu", "de"),
        ("sr@latin", "sr_Latn"),
        ("sr_RS@cyrillic", "sr"),
        ("own code", "own code"),
    ],
)
def test_language_tags_that_are_the_wanted_one(tag: str, wanted: str) -> None:
    assert is_language(tag, wanted)


@pytest.mark.parametrize(
    ("tag", "wanted"),
    [
        ("en", "en-GB"),
        ("fil", "fi"),
        ("", "en"),
        ("zh_TW", "zh_Hans"),
        ("zh_CN", "zh_Hant"),
        ("zh_Hant", "zh_CN"),
        ("pt", "pt_BR"),
        ("pt_PT", "pt_BR"),
        ("sr", "sr_Latn"),
        ("own code", "en"),
    ],
)
def test_language_tags_of_another_language(tag: str, wanted: str) -> None:
    assert not is_language(tag, wanted)


def test_a_unit_without_the_language_is_bad(tmp_path: Path) -> None:
    filler = "<!-- -->\n" * 12
    unit = '<tu><tuv xml:lang="en"><seg>a</seg></tuv>\n<tuv xml:lang="fr"><seg>b</seg></tuv></tu>\n'
    with pytest.raises(DataError, match=r"memory\.tmx:17 field 'xml:lang': no 'de' in this unit, it has: en, fr"):
        list(memory(tmp_path, filler + unit + TMX_UNITS).read("all"))
    skipping = memory(tmp_path, on_bad=OnBad.skip)
    assert [record.identifier for record in skipping.read("all")] == ["memory.tmx:2", "memory.tmx:3"]
    assert skipping.num_bad == 1
    empty = '<tu><tuv xml:lang="en"><seg>a</seg></tuv><tuv xml:lang="de"><seg><ph>x</ph></seg></tuv></tu>'
    with pytest.raises(DataError, match=r"memory\.tmx:17 field 'target': empty segment"):
        list(memory(tmp_path, filler + empty).read("all"))
    with pytest.raises(DataError, match="it has: nothing"):
        list(memory(tmp_path, "<tu/>").read("all"))


@pytest.mark.parametrize(
    "declaration",
    ['<!ENTITY a "ha">', '<!ENTITY % a SYSTEM "other.dtd"> %a;', '<!ENTITY a SYSTEM "secret.txt">'],
)
def test_declared_entities_are_refused(tmp_path: Path, declaration: str) -> None:
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    text = f'<!DOCTYPE tmx [\n{declaration}]>\n<tmx><body><tu><tuv xml:lang="en"><seg>&a;</seg></tuv></tu></body></tmx>'
    (tmp_path / "memory.tmx").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"memory\.tmx:2: the DOCTYPE declares the entity 'a'"):
        list(memory(tmp_path, on_bad=OnBad.skip).read("all"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", r"memory\.tmx:1: not XML: no element found"),
        ("<tmx>\n<body>\n<tu>", r"memory\.tmx:3: not XML: no element found"),
        ("<tmx>\n<body></tmx>", r"memory\.tmx:2: not XML: mismatched tag"),
        ("<xliff/>", r"memory\.tmx:1: not TMX: the outermost element is 'xliff'"),
        ('<!DOCTYPE tmx SYSTEM "tmx14.dtd"><tmx>\n&unknown;</tmx>', r"memory\.tmx:2: undefined entity 'unknown'"),
        ('<?xml version="1.0" encoding="no-such"?><tmx/>', r"memory\.tmx:1: "),
        ('<?xml version="1.0" encoding="shift_jis"?><tmx/>', r"memory\.tmx:1: "),
    ],
)
def test_files_that_are_no_memory_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "memory.tmx").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=reason):
        list(memory(tmp_path).read("all"))


def test_a_memory_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Units come out before the end of the file is read, wherever the chunks cut it; the broken end is seen last."""
    monkeypatch.setattr(tmx, "CHUNK_BYTES", 7)
    units = memory(tmp_path, TMX_UNITS * 50 + "<broken").read("all")
    assert len([next(units) for _ in range(100)]) == 100
    with pytest.raises(DataError, match="not XML"):
        next(units)


def test_the_domain_property_is_a_choice(tmp_path: Path) -> None:
    domains = [record.domain for record in memory(tmp_path, TMX_UNITS, domain_property="project").read("all")]
    assert domains == ["P7", "memory"]


def test_several_memories_are_read_in_order_of_name(tmp_path: Path) -> None:
    memory(tmp_path, TMX_UNITS)
    (tmp_path / "another.tmx").write_bytes((tmp_path / "memory.tmx").read_bytes())
    found = [record.identifier for record in memory(tmp_path).read("all")]
    assert found == ["another.tmx:1", "another.tmx:2", "memory.tmx:1", "memory.tmx:2"]


# Configs and real files


@pytest.mark.parametrize("choice", ["po_tm", "dgt", "ntrex", "tatoeba", "po", "tmx", "parallel_tsv", "parallel_files"])
def test_config_composes(choice: str) -> None:
    data = run_config([f"data={choice}", "train.max_steps=0"]).data
    assert (data.name, data.source_language) == (choice, "en")
    assert data.test_split is not None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=po_tm", "data.split_shares.val=0.3"], "in sum 1.2, expected 1 in sum"),
        (["data=po_tm", "data.test_split=dev"], "data.test_split: got 'dev', expected one of train, val, test, all"),
        (["data=ntrex", "data.test_split=test"], "data.test_split: got 'test', expected one of all"),
        (["data=tmx", "data.target_language=en"], "the same as data.source_language"),
    ],
)
def test_wrong_settings_are_found_before_a_run(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_config([*overrides, "train.max_steps=0"])


def real(shared_data: Path, choice: str, folder: str, *overrides: str) -> ParallelTsvSource | ParallelFilesSource:
    data = run_config([f"data={choice}", f"data.dir={shared_data / folder}", "train.max_steps=0", *overrides]).data
    return ParallelTsvSource(data) if isinstance(data, ParallelTsvConfig) else ParallelFilesSource(data)


def in_every_language(source: Any) -> Iterator[list[ParallelRecord]]:
    """All records of the files from English to each language that the config names."""
    for language in sorted(set(source.config.codes) - {"en"}):
        source.config.target_language = language
        yield list(source.read("all"))


@pytest.mark.shared
def test_real_translation_memory(shared_data: Path) -> None:
    source = real(shared_data, "po_tm", "po_tm")
    whole = list(source.read("all"))
    assert len(whole) == 2635
    assert sum("\n" in record.source for record in whole) == 3
    assert not any("\\n" in record.source for record in whole)
    parts = {split: list(source.read(split)) for split in SHARES}
    assert sum(map(len, parts.values())) == 2635
    segments = {split: {record.source for record in part} for split, part in parts.items()}
    assert not segments["train"] & (segments["val"] | segments["test"])
    assert source.num_bad == 0


@pytest.mark.shared
@pytest.mark.parametrize(("language", "count"), [("zh", 3132), ("pt_BR", 3113), ("ta", 250), ("ar", 2674)])
def test_real_translation_memory_in_other_languages(shared_data: Path, language: str, count: int) -> None:
    records = list(real(shared_data, "po_tm", "po_tm", f"data.target_language={language}").read("all"))
    assert len(records) == count
    assert {record.language for record in records} == {language}


@pytest.mark.shared
def test_real_law_text(shared_data: Path) -> None:
    records = list(real(shared_data, "dgt", "dgt_en_nl_300").read("all"))
    assert len(records) == 300
    assert set(records[0].meta) == {"nl_baseline_nmt", "nl_fuzzy_repair_nmt"}
    assert records[0].target == "Algemene geneeskunde en medische specialismen"


@pytest.mark.shared
def test_real_news_in_all_languages(shared_data: Path) -> None:
    found = list(in_every_language(real(shared_data, "ntrex", "ntrex")))
    assert [len(records) for records in found] == [1997] * 22
    assert {records[0].source for records in found} == {"Welsh AMs worried about 'looking like muppets'"}
    assert sorted(records[0].language for records in found)[:4] == ["ar", "bn", "cs", "de"]


@pytest.mark.shared
def test_real_short_sentences_in_all_languages(shared_data: Path) -> None:
    source = real(shared_data, "tatoeba", "tatoeba_laser")
    counts = {records[0].language: len(records) for records in in_every_language(source)}
    assert len(counts) == 20
    assert {name: count for name, count in counts.items() if count != 1000} == {"sw": 390, "te": 234, "th": 548}
