"""Rows: JSON lines, JSON arrays and tables, each with the place of its errors."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from athlos.data.rows import Row, json_rows, tsv_rows
from athlos.errors import DataError

VALUES = st.dictionaries(st.text(max_size=3), st.text(max_size=8) | st.integers() | st.lists(st.none()), max_size=3)


def read(path: Path, text: str) -> tuple[list[Row], list[DataError]]:
    path.write_text(text, encoding="utf-8", newline="")
    errors: list[DataError] = []
    rows = tsv_rows(path, errors.append) if path.suffix == ".tsv" else json_rows(path, errors.append)
    return list(rows), errors


@given(rows=st.lists(VALUES, min_size=1, max_size=5), indent=st.sampled_from([None, 2]), ascii_only=st.booleans())
def test_array_and_lines_give_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]], indent: int | None, ascii_only: bool
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    array, array_errors = read(folder / "a.json", " \n" + json.dumps(rows, indent=indent, ensure_ascii=ascii_only))
    lines, line_errors = read(folder / "b.json", "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows))
    assert [row.values for row in array] == [row.values for row in lines] == rows
    assert [row.index for row in array] == [row.index for row in lines] == list(range(1, len(rows) + 1))
    assert array_errors == line_errors == []


def test_elements_of_an_array_know_their_line(tmp_path: Path) -> None:
    rows, errors = read(tmp_path / "a.json", '\ufeff[\n {"a": 1},\n\n 7, {"a":\n 2}\n]\n')
    assert [(row.line, row.index, row.values) for row in rows] == [(2, 1, {"a": 1}), (4, 3, {"a": 2})]
    [error] = errors
    assert (error.line, error.field, error.reason) == (4, "[1]", "expected a JSON object, got int")
    with pytest.raises(DataError) as caught:
        rows[1].need("b", str)
    assert str(caught.value).startswith(f"{tmp_path / 'a.json'}:4 field '[2].b': missing")


@pytest.mark.parametrize(("text", "line"), [('[{"a": 1},\n{"a" 2}]', 2), ('[{"a": 1}\n\n{"a": 2}]', 3), ("[{},\n ", 2)])
def test_a_broken_array_names_the_line(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(DataError, match="not JSON") as caught:
        read(tmp_path / "a.json", text)
    assert caught.value.line == line


def test_empty_files_and_arrays_have_no_rows(tmp_path: Path) -> None:
    assert (
        read(tmp_path / "a.json", "")
        == read(tmp_path / "a.json", "\n \n")
        == read(tmp_path / "a.json", "[ ]")
        == ([], [])
    )


def test_a_broken_line_is_reported_and_the_rest_is_read(tmp_path: Path) -> None:
    rows, errors = read(tmp_path / "a.jsonl", '{"a": 1}\n{"a": \n\n[2]\n{"a": 3}\n')
    assert [(row.line, row.values["a"]) for row in rows] == [(1, 1), (5, 3)]
    assert [error.line for error in errors] == [2, 4]


def test_table_cells_may_hold_tabs_quotes_and_line_ends(tmp_path: Path) -> None:
    text = 'id\ttext\r\n1\t"a ""b""\tc\nd"\r\n2\tshort\n3\n4\tदो\n'
    rows, errors = read(tmp_path / "a.tsv", text)
    assert [(row.line, row.values) for row in rows] == [
        (2, {"id": "1", "text": 'a "b"\tc\nd'}), (4, {"id": "2", "text": "short"}), (6, {"id": "4", "text": "दो"}),
    ]  # fmt: skip
    [error] = errors
    assert (error.line, error.reason) == (5, "1 columns, the header has 2")


def test_fields_of_nested_rows_are_named_in_full() -> None:
    row = Row(values={"list": [{"names": ["a", 3]}, 5]}, file="f.json", index=1, line=9)
    children = row.children("list")
    with pytest.raises(DataError, match=r"f.json:9 field 'list\[0\].names\[1\]': expected str, got int"):
        next(children).texts("names")
    with pytest.raises(DataError, match=r"field 'list\[1\]': expected dict, got int"):
        next(children)


def test_parallel_lists_of_unequal_length_are_refused() -> None:
    row = Row(values={"pair": {"left": [1, 2], "right": [3]}}, file="f.json", index=1)
    with pytest.raises(DataError, match=r"field 'pair': 'left' has 2 items, 'right' has 1"):
        row.pairs("pair", "left", "right")
    with pytest.raises(DataError, match=r"field 'pair.down': missing"):
        row.pairs("pair", "left", "down")
