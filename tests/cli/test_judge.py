"""`athlos judge`."""

import json
from pathlib import Path

import pytest

from athlos.cli.main import main

ROWS = [
    {"premise": "Paris is the capital of France.", "hypothesis": "The capital of France is Paris.", "label": True},
    {"premise": "Paris is the capital of France.", "hypothesis": "Rome is in Italy.", "label": False, "id": 7},
    {"premise": "It rains in Rome.", "hypothesis": "It rains in Rome today.", "label": 1},
    {"premise": "", "hypothesis": "Nothing.", "label": 0},
]


def lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def pairs(tmp_path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text(lines(ROWS), encoding="utf-8")
    return path


def said(capsys, *words: object) -> tuple[int, str, str]:
    code = main(["judge", "progress=false", "eval.bootstrap=20", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_each_pair_is_scored_and_labels_are_compared(pairs, tmp_path, capsys):
    out = tmp_path / "scores.jsonl"
    code, told, _ = said(capsys, pairs, "judge=overlap", "--out", out)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert code == 0
    assert [row["score"] for row in rows] == [1.0, 0.0, 2 / 3, 0.0]
    assert [row["is_supported"] for row in rows] == [True, False, True, False]
    added = {"score", "is_supported", "judge"}
    assert [{key: value for key, value in row.items() if key not in added} for row in rows] == ROWS
    assert rows[0]["judge"] in told
    assert "pairs      4; labelled true 2, false 2" in told
    assert "scores     mean 0.417; 50.0% are 0.5 or more" in told
    assert "agreement  not shown to be better than word overlap: AUROC 1.000 [1.000, 1.000] against 1.000" in told


def test_without_labels_the_recorded_table_says_what_the_judge_is_worth(pairs, capsys):
    pairs.write_text(lines([{key: row[key] for key in ("premise", "hypothesis")} for row in ROWS]))
    told = {name: said(capsys, pairs, f"judge={name}")[1] for name in ("lexical", "cover")}
    assert (
        "agreement  no labels here; on ExpertQA's human labels not shown to be better than word overlap: AUROC"
        in told["lexical"]
    )
    assert "on ExpertQA's human labels not shown to be better than word overlap: AUROC 0.500" in told["cover"]
    assert "agreement  no labels here; not measured on ExpertQA" in said(capsys, pairs, "judge.window_words=9")[1]


def test_a_smaller_choice_of_pairs_lies_within_a_greater_one(pairs, tmp_path, capsys):
    many = [{"premise": f"p{n}", "hypothesis": f"h{n}", "label": n % 3 == 0} for n in range(30)]
    pairs.write_text(lines(many))
    chosen = []
    for limit in (2, 5):
        _, told, _ = said(capsys, pairs, "--limit", limit, "--out", tmp_path / "out")
        chosen.append([json.loads(line)["premise"] for line in (tmp_path / "out").read_text().splitlines()])
        assert f"pairs      {2 * limit} of 30; labelled true {limit}, false {limit}" in told
    assert set(chosen[0]) < set(chosen[1])
    assert chosen[1] == [row["premise"] for row in many if row["premise"] in chosen[1]]


def test_a_table_holds_a_row_for_each_judge(pairs, tmp_path, capsys):
    table = tmp_path / "table.json"
    for name in ("overlap", "cover", "overlap"):
        assert said(capsys, pairs, f"judge={name}", "--table", table)[0] == 0
    judges = json.loads(table.read_text())["judges"]
    assert [row["identity"]["judge"] for row in judges.values()] == ["cover", "lexical"]
    assert all(row["labels"] == [True, False, True, False] for row in judges.values())
    cover, overlap = judges.values()
    assert (cover["scores"], overlap["scores"]) == ([0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.666667, 0.0])
    assert cover["pairs"] == overlap["pairs"]
    pairs.write_text(lines(ROWS[:1]))
    assert "have not both labels" in said(capsys, pairs, "--table", table)[2]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "2: not JSON: Expecting property name enclosed in double quotes at column 2"),
        ("[]", "2: expected a JSON object, got list"),
        ('{"premise": "a", "hypotesis": "b"}', "2 field 'hypothesis': missing; did you mean 'hypotesis'?"),
        ('{"premise": 1, "hypothesis": "b"}', "2 field 'premise': expected str, got int"),
        ('{"premise": "a", "hypothesis": " "}', "2 field 'hypothesis': empty"),
        ('{"premise": "a", "hypothesis": "b", "label": "yes"}', "2 field 'label': got 'yes', expected true or false"),
        ('{"premise": "a", "hypothesis": "\\ud83d"}', "2 field 'hypothesis': half of a surrogate pair"),
    ],
)
def test_a_bad_line_is_named(pairs, capsys, line, reason):
    pairs.write_text(f"{lines(ROWS[:1])}{line}\n")
    code, _, error = said(capsys, pairs)
    assert (code, len(error.splitlines())) == (3, 1)
    assert f"error: {pairs}:{reason}" in error


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["nowhere.jsonl"], "error: nowhere.jsonl: No such file or directory"),
        (["judge=exact"], "error: FILE: got none, expected one file of pairs, or data=... whose claims people judged"),
        (["a", "b"], "error: FILE: got a, b, expected one file"),
        (["a", "data=expertqa"], "error: FILE: got a, expected one file"),
        (["a", "judge=lexica"], "error: judge: got 'lexica'; did you mean 'lexical'?"),
        (["a", "judge.thresold=1"], "error: judge.thresold: unknown key; did you mean 'judge.threshold'?"),
        (["a", "judge.threshold=2"], "error: judge.threshold: got 2.0, expected a number in (0, 1]"),
        (["a", "--limit", "0"], "error: --limit: got 0, expected an integer >= 1"),
        (["a", "judge=nli"], "error: judge.source: no value"),
    ],
)
def test_a_wrong_word_is_one_line(tmp_path, monkeypatch, capsys, words, reason):
    monkeypatch.chdir(tmp_path)
    code, _, error = said(capsys, *words)
    assert code in (2, 3)
    assert len(error.splitlines()) == 1
    assert error.startswith(reason)


def test_what_cannot_judge_or_be_written_is_one_line(pairs, tmp_path, capsys):
    assert said(capsys, pairs, "judge=none")[2] == "error: judge: got none, expected one, such as judge=lexical\n"
    pairs.with_name("empty").write_text("\n")
    assert said(capsys, pairs.with_name("empty"))[2].endswith("empty: no pairs in it\n")
    code, _, error = said(capsys, pairs, "--out", tmp_path / "no" / "folder")
    assert (code, error) == (3, f"error: {tmp_path}/no/folder: cannot write: No such file or directory\n")


def test_the_claims_of_data_that_people_judged_are_pairs(tmp_path, capsys):
    claims = [
        {"claim_string": "Cats purr.", "evidence": ["Cats purr.", "Dogs bark."], "support": "Complete"},
        {"claim_string": "Cats fly.", "evidence": ["Cats purr."], "support": "Incomplete"},
        {"claim_string": "Cats sing.", "evidence": [], "support": "Missing"},
        {"claim_string": "Cats sit.", "evidence": ["Cats."], "support": "Partial"},
    ]
    labels = dict.fromkeys(("informativeness", "worthiness", "correctness", "reliability", "reason_missing_support"))
    answer = {"answer_string": "x", "revised_answer_string": "x", "attribution": [], "usefulness": None}
    answers = {"sys": {**answer, "claims": [{**claim, **labels} for claim in claims]}}
    row = {"question": "q", "metadata": {}, "answers": answers}
    (tmp_path / "rand_test.jsonl").write_text(json.dumps(row) + "\n")
    data = ("data=expertqa", "data.layout=claims", f"data.dir={tmp_path}", "judge=overlap")
    _, told, _ = said(capsys, *data, "--out", tmp_path / "out")
    assert "pairs      2; labelled true 1, false 1" in told
    rows = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert [(row["id"], row["label"], row["score"]) for row in rows] == [
        ("1-sys#1", True, 1.0),
        ("1-sys#2", False, 0.5),
    ]
    assert "has no claims that people judged; name a FILE" in said(capsys, "data=shakespeare")[2]
