"""Rows: JSON lines, JSON arrays and tables, each with the place of its errors."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import athlos.data.rows
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
        (2, {"id": "1", "text": 'a "b"\tc\nd'}),
        (4, {"id": "2", "text": "short"}),
        (6, {"id": "4", "text": "दो"}),
    ]
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


# Values that JSON can write and nothing after it can hold


@pytest.mark.parametrize("kind", [(str, int, float), float])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("NaN", "expected a finite number, got nan"),
        ("-Infinity", "expected a finite number, got -inf"),
        ("1e999", "expected a finite number, got inf"),
        ("true", "got bool"),
        ("null", "got NoneType"),
    ],
)
def test_what_is_no_number_is_refused_as_one(tmp_path: Path, kind: type, value: str, reason: str) -> None:
    [row], _ = read(tmp_path / "a.json", f'{{"answer": {value}}}')
    with pytest.raises(DataError, match=reason) as caught:
        row.need("answer", kind)
    assert (caught.value.line, caught.value.field) == (1, "answer")


def test_a_field_of_truth_values_takes_them(tmp_path: Path) -> None:
    [row], _ = read(tmp_path / "a.json", '{"is_gold": true}')
    assert row.need("is_gold", (bool, str)) is True


@pytest.mark.parametrize(
    ("value", "field"),
    [(r'"18 \ud83d"', "q"), (r'["a", {"b": "\uDE00 x"}]', "q[1].b"), (r'"\ude00\ud83d"', "q")],
)
@pytest.mark.parametrize("is_array", [False, True])
def test_half_a_surrogate_pair_is_refused_with_its_field(
    tmp_path: Path, value: str, field: str, is_array: bool
) -> None:
    good = r'{"q": "\ud83d\ude00 and \\ud83d"}'
    bad = f'{{"q": {value}}}'
    rows, [error] = read(tmp_path / "a.json", f"[{good},\n{bad},\n{good}]" if is_array else f"{good}\n{bad}\n{good}")
    assert [row.values["q"] for row in rows] == ["\U0001f600 and \\ud83d"] * 2
    assert (error.line, error.field) == (2, f"[1].{field}" if is_array else field)
    assert "half of a surrogate pair" in error.reason
    str(error).encode()  # the message itself can be written


@pytest.mark.parametrize("text", ['{"a": ' + "9" * 4301 + "}", "[" * 100_000, '{"a": ' * 100_000])
@pytest.mark.parametrize("is_array", [False, True])
def test_numbers_and_depths_beyond_python_are_refused(tmp_path: Path, text: str, is_array: bool) -> None:
    path = tmp_path / "a.json"
    if is_array:
        with pytest.raises(DataError, match="cannot be read") as caught:
            read(path, f'[{{"b": 1}},\n{text}]')
        assert caught.value.line == 2
    else:
        rows, [error] = read(path, f'{{"b": 1}}\n{text}\n{{"b": 2}}')
        assert [row.line for row in rows] == [1, 3]
        assert (error.line, "cannot be read" in error.reason) == (2, True)


@pytest.mark.parametrize(
    ("name", "content", "line", "field"),
    [
        ("a.json", b'{"a": "b"}\n{"a": "\xff"}\n{"a": "b"}\n', 2, None),
        ("a.json", b'[{"a": "b"},\n{"a": "\xff"},\n{"a": "b"}]', 2, "[1].a"),
        ("a.tsv", b'a\tc\nb\t"1\n2"\n\xffb\tc\nb\td\n', 4, "a"),
    ],
)
def test_bytes_that_are_not_utf8_cost_one_row(
    tmp_path: Path, name: str, content: bytes, line: int, field: str | None
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    errors: list[DataError] = []
    rows = list((tsv_rows if name.endswith("tsv") else json_rows)(path, errors.append))
    assert [row.values["a"] for row in rows] == ["b", "b"]
    assert [(error.line, error.field, error.reason[:9]) for error in errors] == [(line, field, "not UTF-8")]


# Arrays are streamed


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 20])
def test_an_array_streams_the_same_whatever_the_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(athlos.data.rows, "CHUNK", chunk)
    text = '\ufeff\n [ {"a": "x],\u00e9"} ,\n12, {"b": [1,\n2]},\n\n {} ]\n\n'
    rows, [error] = read(tmp_path / "a.json", text)
    assert [(row.line, row.values) for row in rows] == [(2, {"a": "x],\u00e9"}), (3, {"b": [1, 2]}), (6, {})]
    assert (error.line, error.field) == (3, "[1]")
    assert read(tmp_path / "a.json", " [\n]") == ([], [])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[\n{"a": 1}\n{"a": 2}]', 3),
        ('[\n{"a": 1},\n{"a" 2}]', 3),
        ('[\n{"a": 1},\n]', 3),
        ('[\n{"a": 1}', 2),
        ('[\n{"a": 1}\n]\n[]', 3),
    ],
)
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_an_array_that_ends_wrongly_names_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, text: str, line: int
) -> None:
    monkeypatch.setattr(athlos.data.rows, "CHUNK", chunk)
    with pytest.raises(DataError, match="not JSON") as caught:
        read(tmp_path / "a.json", text)
    assert caught.value.line == line


def test_an_array_is_not_read_ahead_of_need(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    filler = "x" * (3 * athlos.data.rows.CHUNK)
    path.write_text(f'[{{"first": 1}}, "{filler}" broken', encoding="utf-8")
    assert next(json_rows(path, pytest.fail)).values == {"first": 1}
