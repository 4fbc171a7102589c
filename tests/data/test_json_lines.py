"""Files of rows: what was written comes back, and a line that a kill cut off is taken away."""

from athlos.data.json_lines import read_rows, write_rows


def test_rows_come_back_whatever_their_texts_hold(tmp_path):
    rows = [{"text": "a\u2028b\x85c\nd"}, {"text": "日本"}, []]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows


def test_a_cut_line_is_taken_away_before_others_follow(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 1}\n{"n": 2', encoding="utf-8")
    assert read_rows(path) == [{"n": 1}]
    assert path.read_text() == '{"n": 1}\n'
