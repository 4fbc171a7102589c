"""A run folder comes back whole out of its line, and no file of records stops its reader."""

import dataclasses
import gzip
import json
import math
import random
import shlex
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report.run_folders import png, rows, write_run, write_sweep

from athlos.errors import DataError
from athlos.report.reading import collect, read_run
from athlos.runs.records import (
    RECORDS,
    Curve,
    RunRecord,
    add_records,
    line_of,
    read_lines,
    read_records,
    record_of,
    without_paths,
    write_lines,
)

LINE = {"run": "a", "config": {"study": "s"}, "status": {"state": "finished"}, "metrics": {"m": 1.0}}


def comparable(record: RunRecord) -> dict[str, Any]:
    """What a record keeps, with nan as a text, so that it equals itself."""
    parts = dataclasses.asdict(dataclasses.replace(record, path=Path(), predictions={}, figures=[]))
    parts["curves"] = {name: (list(curve.steps), list(curve.values)) for name, curve in record.curves.items()}
    return json.loads(json.dumps(parts, default=str), parse_constant=str)


def packed(file: Path, *lines: bytes | dict[str, Any]) -> Path:
    texts = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    file.write_bytes(gzip.compress(b"".join(text + b"\n" for text in texts)))
    return file


def read(file: Path) -> tuple[list[str], list[str]]:
    """Names of the records of a file, and what is said of its damage."""
    damage: list[DataError] = []
    return [record.name for record in read_records(file, damage=damage)], [str(error) for error in damage]


# There and back


def test_a_run_comes_back_as_its_folder_was_read(tmp_path: Path):
    curve = [{"step": step, "time": 0, "train/loss": value} for step, value in [(5, 0.1 + 0.2), (2, 1e-300), (9, None)]]
    folder = write_run(
        tmp_path / "results" / "run",
        metrics={"test/acc": 1 / 3, "test/nan": None},
        curve=curve,
        details={"test/acc": {"n": 9, "undefined": 1, "low": 0.1, "high": 0.5}},
        predictions={"math": rows(3)},
        figures={"a.png": png()},
        config={"data.languages": ["\u0e44\u0e17\u0e22", "\u4e2d"], "data.none": None},
    )
    whole = read_run(folder, name="run")
    add_records(tmp_path / RECORDS, [whole])
    [kept] = collect(tmp_path / RECORDS)
    assert comparable(kept) == comparable(whole)
    assert list(whole.curves["train/loss"].steps) == [2, 5, 9], "there is a curve to lose"
    assert math.isnan(kept.metrics["test/nan"])
    assert (kept.predictions, kept.figures, kept.path) == ({}, [], tmp_path / RECORDS / "demo" / "run")


def test_problems_of_a_folder_are_kept(tmp_path: Path):
    folder = write_run(tmp_path / "run", metrics={})
    (folder / "events").mkdir()
    (folder / "events" / "metrics.jsonl").write_text("nonsense\n")
    record = read_run(folder, name="run")
    assert record_of(line_of(record), file=tmp_path).problems == record.problems
    assert record.problems == ["events/metrics.jsonl: 1 damaged line left out"]


def test_undefined_values_are_null_and_the_text_is_json(tmp_path: Path):
    curve = Curve(steps=array("q", [1]), values=array("d", [math.nan]))
    record = RunRecord(path=tmp_path / "r", name="r", metrics={"a": math.nan, "b": math.inf}, curves={"c": curve})
    add_records(tmp_path / RECORDS, [record])
    line = json.loads(gzip.decompress((tmp_path / RECORDS).read_bytes()), parse_constant=pytest.fail)
    assert line["metrics"] == {"a": None, "b": None}
    assert line["curves"] == {"c": {"steps": [1], "values": [None]}}


def test_the_same_runs_give_the_same_bytes(tmp_path: Path):
    write_sweep(tmp_path / "results", lrs=[1e-3], seeds=[1, 2, 3])
    records = collect(tmp_path / "results")
    contents = set()
    for number in range(3):
        file = tmp_path / f"{number}.jsonl.gz"
        chance = random.Random(number)
        for record in chance.sample(records, len(records)):
            record.config = dict(chance.sample([*record.config.items()], len(record.config)))
            add_records(file, [record])
        contents.add(file.read_bytes())
    [content] = contents
    assert content[4:8] == bytes(4), "the header of gzip holds no time"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_run_recorded_again_replaces_its_line_alone(tmp_path: Path):
    def run(name: str, value: float, study: str = "s") -> RunRecord:
        return RunRecord(path=tmp_path / name, name=name, config={"study": study}, metrics={"m": value})

    file = tmp_path / RECORDS
    assert add_records(file, [run("a", 1.0), run("b", 2.0)]) == 0
    assert add_records(file, [run("b", 3.0), run("b", 4.0, study="t")]) == 1
    assert [(record.study, record.name, record.metrics["m"]) for record in read_records(file, damage=[])] == [
        ("s", "a", 1.0),
        ("s", "b", 3.0),
        ("t", "b", 4.0),
    ]


def test_lines_can_be_read_changed_and_written(tmp_path: Path):
    file = packed(tmp_path / RECORDS, LINE, {**LINE, "run": "b", "of a later version": 1})
    damage: list[DataError] = []
    lines = [{**line, "config": {"study": "new"}} for _, line in read_lines(file, damage=damage)]
    write_lines(file, lines)
    assert [record.study for record in read_records(file, damage=damage)] == ["new", "new"]
    assert damage == []
    assert b"of a later version" in gzip.decompress(file.read_bytes())


# Damage


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "Expecting property name"),
        (b"[1]", "no JSON object"),
        (b"", "Expecting value"),
        (b'{"run": "\xff"}', "'utf-8' codec can't decode"),
        (b'{"run": ' + b"[" * 9000 + b"]" * 9000 + b"}", "nested too deeply"),
        ({**LINE, "run": 7}, "no name of a run"),
        ({**LINE, "config": []}, "'config' is no object"),
        ({**LINE, "phases": {}}, "'phases' is no list"),
        ({**LINE, "metrics": {"m": "high"}}, "'metrics': m is no number"),
        ({**LINE, "metrics": {"m": True}}, "'metrics': m is no number"),
        ({**LINE, "curves": {"c": {"steps": [1, 2], "values": [1]}}}, "'curves': c has not as many steps as values"),
        ({**LINE, "curves": {"c": [1]}}, "'curves': c has not as many steps as values"),
        ({**LINE, "curves": {"c": {"steps": [1.5], "values": [1]}}}, "'curves': c has a step or a value"),
        ({**LINE, "curves": {"c": {"steps": [2**70], "values": [1]}}}, "'curves': c has a step or a value"),
        ({**LINE, "curves": {"c": {"steps": [1], "values": ["x"]}}}, "'curves': c has a step or a value"),
    ],
)
def test_a_damaged_line_is_named_and_passed_over(tmp_path: Path, line: bytes | dict[str, Any], reason: str):
    file = packed(tmp_path / RECORDS, LINE, line, {**LINE, "run": "z"})
    names, damage = read(file)
    assert names == ["a", "z"]
    assert [text.partition(": ")[0] for text in damage] == [f"{file}:2"]
    assert reason in damage[0]


def test_a_cut_file_gives_the_lines_before(tmp_path: Path):
    noise = random.Random(0)
    lines = [{**LINE, "run": f"{number:02}", "note": noise.randbytes(2000).hex()} for number in range(40)]
    whole = packed(tmp_path / RECORDS, *lines).read_bytes()
    (tmp_path / RECORDS).write_bytes(whole[: len(whole) // 2])
    names, damage = read(tmp_path / RECORDS)
    assert names == [f"{number:02}" for number in range(len(names))]
    assert 10 <= len(names) <= 20
    assert "Compressed file ended" in damage[-1]


def test_a_half_written_last_line_is_named(tmp_path: Path):
    (tmp_path / RECORDS).write_bytes(gzip.compress(json.dumps(LINE).encode() + b'\n{"run": "b"'))
    names, damage = read(tmp_path / RECORDS)
    assert (names, damage[0].partition(": ")[0]) == (["a"], f"{tmp_path / RECORDS}:2")


@pytest.mark.parametrize("content", [b"", b"no gzip at all", gzip.compress(b"", mtime=0)])
def test_a_file_that_holds_nothing_is_no_crash(tmp_path: Path, content: bytes):
    (tmp_path / RECORDS).write_bytes(content)
    names, damage = read(tmp_path / RECORDS)
    assert (names, len(damage)) == ([], int(content == b"no gzip at all"))


@given(position=st.integers(0, 400), byte=st.integers(0, 255))
def test_no_changed_byte_is_a_crash(tmp_path_factory: pytest.TempPathFactory, position: int, byte: int):
    file = packed(tmp_path_factory.mktemp("flipped") / RECORDS, LINE, {**LINE, "run": "b"})
    content = bytearray(file.read_bytes())
    content[position % len(content)] = byte
    file.write_bytes(content)
    read(file)


def test_a_damaged_file_is_not_written_over(tmp_path: Path):
    file = packed(tmp_path / RECORDS, LINE, b"{")
    before = file.read_bytes()
    with pytest.raises(DataError, match=rf"{RECORDS}:2: .*; nothing was written"):
        add_records(file, [RunRecord(path=tmp_path / "r", name="r")])
    assert file.read_bytes() == before


# Paths of the machine, and the command


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("/home/me/data/wikitext2", "wikitext2"),
        ("/home/my name/data", "data"),
        ("~/data/x", "x"),
        ("data.dir=/home/me/x.txt", "data.dir=x.txt"),
        ("hydra.searchpath=[file:///home/me/conf]", "hydra.searchpath=[conf]"),
        ("data.files={train:/a/b.txt,val:/a/c.txt}", "data.files={train:b.txt,val:c.txt}"),
        ("cannot write /tmp/x/y: disk full", "cannot write y: disk full"),
        ("../shared/data/wikitext2", "../shared/data/wikitext2"),
        ("./here/x", "./here/x"),
        ("run:lab_base", "run:lab_base"),
        ("https://host.org/a/b", "https://host.org/a/b"),
        ("either/or, 1/2/3, </think>/a", "either/or, 1/2/3, </think>/a"),
    ],
)
def test_absolute_paths_are_cut_to_their_name(text: str, kept: str):
    assert without_paths({"a": [text, 1, None]}) == {"a": [kept, 1, None]}


def test_a_line_says_nothing_of_the_machine(tmp_path: Path):
    here = str(tmp_path / "data")
    record = RunRecord(
        path=tmp_path / "r",
        name="r",
        config={"data.dir": here, "run_dir": here, "cache_dir": here},
        status={"message": f"no file {here}"},
        provenance={"overrides": [f"data.dir={here}", f"results_dir={here}", f"+run_dir={here}", "seed=1"]},
    )
    line = line_of(record)
    assert str(tmp_path.parent) not in json.dumps(line)
    assert line["provenance"]["overrides"] == ["data.dir=data", "seed=1"]


def test_the_command_is_what_was_typed():
    overrides = ["experiment=lab", "decoding.stop=['a b']", "model.name='x y'"]
    record = RunRecord(path=Path("r"), name="r", provenance={"overrides": overrides})
    assert shlex.split(record.command or "") == ["athlos", "run", *overrides]
    record.provenance["command"] = "athlos run seed=1\n"
    assert record.command == "athlos run seed=1?", "a stored command comes first, on one line"
    assert RunRecord(path=Path("r"), name="r", config={"study": "s"}).command is None


def test_the_command_of_a_benchmark():
    config = {
        "benchmark": "b",
        "study": "b",
        "options.equal_rows": 4,
        "options.contexts": [512, 1024],
        "options.none": None,
        "options.flag": True,
        "options.off": False,
    }
    command = RunRecord(path=Path("r"), name="r", config=config).command
    assert command == "python benchmarks/b.py --equal-rows 4 --contexts 512 1024 --flag"
