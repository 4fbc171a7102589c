"""Run folders from anybody: whatever lies in one, it is listed with a note, and nothing outside the results is read.

Each case is read in a process of its own with little memory and little time, because what goes wrong here is a crash
below Python, a hang, or a memory that fills.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

MEMORY_BYTES, SECONDS = 2**30, 20
SECRET = "s3cr3t-of-this-machine"
READER = """
import json, os, resource, signal, sys, traceback
from pathlib import Path
from athlos.report.payload import payload
from athlos.report.reading import collect
from athlos.report.writing import embedded_json

def read(results):
    records = collect(Path(results))
    data = embedded_json(payload(records, title="t", root="r", num_predictions=50))
    data.encode()
    found = [
        {"name": record.name, "state": record.state, "problems": record.problems, "metrics": list(record.metrics),
         "rows": {name: len(file.rows) for name, file in record.predictions.items()}, "figures": len(record.figures)}
        for record in records
    ]
    return {"records": found, "data": data}

memory, seconds = map(int, sys.argv[1:3])
read(sys.argv[3])  # fills the caches that the children then share
for line in sys.stdin:
    results, answer = json.loads(line)
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        signal.alarm(seconds)
        code = 1
        try:
            Path(answer).write_text(json.dumps(read(results)), encoding="utf-8")
            code = 0
        except BaseException:
            Path(answer).write_text(traceback.format_exc(), encoding="utf-8", errors="replace")
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Reads each folder of results it is told of in a child of its own; importing once saves a second a case."""


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    whole = run_folder(tmp_path_factory.mktemp("whole") / "run")
    command = [sys.executable, "-c", READER, str(MEMORY_BYTES), str(SECONDS), str(whole)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


Collect = Callable[[Path], dict[str, Any]]
Check = Callable[..., dict[str, Any]]


@pytest.fixture
def collected(reader: subprocess.Popen[str], tmp_path_factory: pytest.TempPathFactory) -> Collect:
    """What the report reads of a folder of results; fails when the reader crashes, hangs or needs much memory."""
    answer = tmp_path_factory.mktemp("answer") / "answer.json"

    def ask(results: Path) -> dict[str, Any]:
        assert reader.stdin is not None
        assert reader.stdout is not None
        reader.stdin.write(json.dumps([str(results), str(answer)]) + "\n")
        reader.stdin.flush()
        code = int(reader.stdout.readline())
        text = answer.read_text(encoding="utf-8") if answer.is_file() else ""
        assert code == 0, f"ended with {code}: {text[-1500:]}"
        found = json.loads(text)
        found["data"] = json.loads(found["data"], parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        return found

    return ask


@pytest.fixture
def checked(collected: Collect) -> Check:
    """The record of the bad run; its neighbour must be whole, and nothing private in the data of the page."""

    def check(results: Path, *, bad: str = "bad") -> dict[str, Any]:
        run_folder(results / "good")
        found = collected(results)
        by_name = {record["name"]: record for record in found["records"]}
        assert by_name["good"] == {
            "name": "good", "state": "finished", "problems": [], "metrics": ["test/acc"], "rows": {"suite": 1},
            "figures": 1,
        }  # fmt: skip
        assert SECRET not in json.dumps(found["data"])
        assert len(by_name) == 2
        return by_name[bad]

    return check


def run_folder(path: Path) -> Path:
    """A run with everything in it, and nothing wrong."""
    for name in ("events", "predictions", "figures"):
        (path / name).mkdir(parents=True)
    (path / "config.yaml").write_text("study: s\nseed: 1\n", encoding="utf-8")
    (path / "status.json").write_text('{"state": "finished", "wall_s": 1.0}', encoding="utf-8")
    (path / "metrics.json").write_text('{"test/acc": 0.5}', encoding="utf-8")
    (path / "provenance.json").write_text('{"seed": 1}', encoding="utf-8")
    (path / "events" / "metrics.jsonl").write_text('{"step": 1, "time": 1.0, "loss": 2.0}\n', encoding="utf-8")
    (path / "predictions" / "suite.jsonl").write_text('{"id": 1, "text": "answer"}\n', encoding="utf-8")
    Image.new("RGB", (2, 2)).save(path / "figures" / "plot.png")
    return path


def test_a_run_with_nothing_wrong_has_no_problems(tmp_path: Path, checked: Check) -> None:
    run_folder(tmp_path / "bad")
    assert checked(tmp_path)["problems"] == []


# Texts that are made to hurt a parser

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 40)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}\n" for level in range(1, 20)
)
CONFIGS = {
    "a tag that runs code": "study: !!python/object/apply:os.system ['true']\n",
    "a tag of a Python object": "study: !!python/object:athlos.errors.DataError {}\n",
    "a tag nobody knows": "study: !mine 3\n",
    "laughing aliases": LAUGHS,
    "laughing merges": MERGES,
    "a tower of aliases": "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 1500)),
    "an alias of itself": "a: &a [*a]\n",
    "a mapping in itself": "a: &a {b: *a}\n",
    "lists in lists": "a: " + "[" * 100_000 + "]" * 100_000 + "\n",
    "lists in lists, not so deep": "a: " + "[" * 700 + "]" * 700 + "\n",
    "mappings in mappings": "a: " + "{b: " * 700 + "1" + "}" * 700 + "\n",
    "blocks in blocks": "".join(" " * level + "a:\n" for level in range(900)),
    "an empty integer": 'a: !!int ""\n',
    "a wrong date": 'a: !!timestamp "now"\n',
    "a wrong truth": 'a: !!bool "perhaps"\n',
    "a long sexagesimal": "a: 1" + ":59" * 400 + ".5\n",
    "a very long sexagesimal": "a: 1" + ":59" * 600_000 + "\n",
    "a very long integer": "a: 0x" + "f" * 300_000 + "\n",
    "a list as a key": "? [a, b]\n: 1\n",
    "a day that is none": "a: 2024-13-45\n",
    "two documents": "a: 1\n---\nb: 2\n",
    "a list": "- a\n",
    "nothing": "",
    "bytes": "a: \x00\n",
}


@pytest.mark.parametrize("text", CONFIGS.values(), ids=CONFIGS)
def test_a_hostile_config_is_noted(tmp_path: Path, checked: Check, text: str) -> None:
    (run_folder(tmp_path / "bad") / "config.yaml").write_text(text, encoding="utf-8")
    record = checked(tmp_path)
    assert any(problem.startswith("config.yaml: ") for problem in record["problems"]), record["problems"]
    assert all(len(problem) < 300 and problem.isprintable() for problem in record["problems"])
    assert record["state"] == "finished"
    assert record["metrics"] == ["test/acc"]


DEEP = {"arrays": "[" * 100_000 + "]" * 100_000, "objects": '{"a":' * 100_000 + "1" + "}" * 100_000}


@pytest.mark.parametrize("file", ["status.json", "metrics.json", "metric_details.json", "provenance.json"])
@pytest.mark.parametrize(
    "text", [f'{{"a": {DEEP["arrays"]}}}', DEEP["objects"], "[1]", '{"a', '{"a": 1' + "0" * 9999 + "}"]
)
def test_hostile_json_is_noted(tmp_path: Path, checked: Check, file: str, text: str) -> None:
    (run_folder(tmp_path / "bad") / file).write_text(text, encoding="utf-8")
    record = checked(tmp_path)
    assert any(problem.startswith(f"{file}: ") for problem in record["problems"]), record["problems"]


@pytest.mark.parametrize("file", ["status.json", "metrics.json", "metric_details.json", "provenance.json"])
@pytest.mark.parametrize("depth", [200, 450, 900])
def test_nested_json_that_can_be_read_does_no_harm(tmp_path: Path, checked: Check, file: str, depth: int) -> None:
    arrays, objects = "[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth
    text = f'{{"message": {arrays}, "x": {objects}}}'
    (run_folder(tmp_path / "bad") / file).write_text(text, encoding="utf-8")
    assert checked(tmp_path)["rows"] == {"suite": 1}


@pytest.mark.parametrize(
    "value", ["NaN", "-Infinity", "1e999", "[NaN]", '{"a": [1e999]}', '"\\ud800"', '{"\\udc00": 1}']
)
def test_values_that_json_or_utf8_do_not_know(tmp_path: Path, checked: Check, value: str) -> None:
    run = run_folder(tmp_path / "bad")
    for file in ("status.json", "metrics.json", "metric_details.json", "provenance.json"):
        (run / file).write_text(f'{{"state": "finished", "start": {value}, "x": {value}}}', encoding="utf-8")
    (run / "predictions" / "suite.jsonl").write_text(f'{{"a": {value}}}\n', encoding="utf-8")
    (run / "config.yaml").write_text('a: .nan\nb: [.inf]\nc: "\\uD800"\n? .nan\n: 1\n', encoding="utf-8")
    assert checked(tmp_path)["rows"] == {"suite": 1}


def test_hostile_curves_are_noted(tmp_path: Path, checked: Check) -> None:
    lines = [
        DEEP["arrays"],
        "[1]",
        '"step"',
        '{"step": "x"}',
        '{"step": 1e99}',
        '{"step": 1%s}' % ("0" * 30),
        "NaN",
        "\x00",
    ]
    path = run_folder(tmp_path / "bad") / "events" / "metrics.jsonl"
    path.write_text(
        "".join(f"{line}\n" for line in lines) + '{"step": 1, "loss": 1}\n{"step": 2, "lo', encoding="utf-8"
    )
    assert checked(tmp_path)["problems"] == ["events/metrics.jsonl: 8 damaged lines left out"]


def test_hostile_predictions_are_noted(tmp_path: Path, checked: Check) -> None:
    folder = run_folder(tmp_path / "bad") / "predictions"
    rows = ['{"text": "%s"}' % ("x" * 1_000_000), '{"text": "%s"}' % ("y" * 3_000_000), DEEP["arrays"], "[1]", "\x00"]
    nested = '{"a": %s}' % ("[" * 900 + "]" * 900)
    (folder / "long.jsonl").write_text("".join(f"{row}\n" for row in [*rows, nested, '{"id": 1}']), encoding="utf-8")
    record = checked(tmp_path)
    assert any(problem.startswith("predictions/long.jsonl: ") for problem in record["problems"])
    assert record["rows"]["suite"] == 1
    assert record["rows"]["long"] >= 1


# Files that are too large, or no files


def make_sparse(path: Path, *, gigabytes: int) -> None:
    """A file of this length with nothing on the disk."""
    path.unlink(missing_ok=True)
    with path.open("wb") as handle:
        handle.truncate(gigabytes * 10**9)


FILES = [
    "config.yaml", "status.json", "metrics.json", "metric_details.json", "provenance.json", "events/metrics.jsonl",
    "predictions/suite.jsonl", "figures/plot.png",
]  # fmt: skip


@pytest.mark.parametrize("file", FILES)
def test_a_giant_file_is_noted(tmp_path: Path, checked: Check, file: str) -> None:
    make_sparse(run_folder(tmp_path / "bad") / file, gigabytes=200)
    assert any(problem.startswith(file) for problem in checked(tmp_path)["problems"])


@pytest.mark.parametrize("file", FILES)
def test_a_pipe_that_nobody_writes_to_is_noted(tmp_path: Path, checked: Check, file: str) -> None:
    path = run_folder(tmp_path / "bad") / file
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert any(problem.startswith(file) for problem in checked(tmp_path)["problems"])


@pytest.mark.parametrize("file", [file for file in FILES if file != "config.yaml"])
def test_a_folder_in_place_of_a_file_is_noted(tmp_path: Path, checked: Check, file: str) -> None:
    path = run_folder(tmp_path / "bad") / file
    path.unlink(missing_ok=True)
    path.mkdir()
    assert any(problem.startswith(file) for problem in checked(tmp_path)["problems"])


@pytest.mark.parametrize("content", [b"<svg onload=alert(1)>", b"", b"\x89PNG", b"GIF89a"])
def test_a_png_that_is_none_is_noted(tmp_path: Path, checked: Check, content: bytes) -> None:
    (run_folder(tmp_path / "bad") / "figures" / "plot.png").write_bytes(content)
    record = checked(tmp_path)
    assert any(problem.startswith("figures/plot.png") for problem in record["problems"])
    assert record["figures"] == 0


# Links


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Files beside the results that the report must not read."""
    folder = tmp_path / "outside"
    run = run_folder(folder / "private_run")
    secret = json.dumps({"state": SECRET, SECRET: 1.0, "step": 1})
    for file in FILES[:-1]:
        (run / file).write_text(secret + "\n", encoding="utf-8")
    (run / "figures" / "plot.png").write_bytes(b"\x89PNG\r\n\x1a\n" + SECRET.encode())
    return run


@pytest.mark.parametrize("file", FILES)
def test_a_link_out_of_the_results_is_not_read(tmp_path: Path, checked: Check, outside: Path, file: str) -> None:
    path = run_folder(tmp_path / "results" / "bad") / file
    path.unlink(missing_ok=True)
    path.symlink_to(outside / file)
    record = checked(tmp_path / "results")
    assert SECRET not in record["metrics"]
    assert record["figures"] == (0 if file.startswith("figures") else 1)
    assert any(problem.startswith(file) for problem in record["problems"])


@pytest.mark.parametrize("folder", ["events", "predictions", "figures"])
def test_a_linked_folder_out_of_the_results_is_not_read(
    tmp_path: Path, checked: Check, outside: Path, folder: str
) -> None:
    path = run_folder(tmp_path / "results" / "bad") / folder
    shutil.rmtree(path)
    path.symlink_to(outside / folder)
    record = checked(tmp_path / "results")
    assert record["figures"] == (0 if folder == "figures" else 1)
    assert any(problem.startswith(folder) for problem in record["problems"])


def test_a_link_to_a_device_is_not_read(tmp_path: Path, checked: Check) -> None:
    run = run_folder(tmp_path / "bad")
    for file in FILES:
        (run / file).unlink(missing_ok=True)
        (run / file).symlink_to("/dev/zero")
    assert {problem.partition(":")[0] for problem in checked(tmp_path)["problems"]} >= set(FILES)


def test_folders_outside_and_circles_are_not_walked(tmp_path: Path, checked: Check, outside: Path) -> None:
    run_folder(tmp_path / "results" / "bad")
    (tmp_path / "results" / "circle").symlink_to(tmp_path / "results")
    (tmp_path / "results" / "up").symlink_to(tmp_path)
    (tmp_path / "results" / "private").symlink_to(outside)
    (tmp_path / "results" / "root").symlink_to("/")
    assert checked(tmp_path / "results")["problems"] == []


def test_the_results_themselves_may_be_a_link(tmp_path: Path, checked: Check) -> None:
    run_folder(tmp_path / "elsewhere" / "bad")
    (tmp_path / "results").symlink_to(tmp_path / "elsewhere")
    assert checked(tmp_path / "results")["problems"] == []


# Names

ODD = ["\x1b[31mred", "two\nlines", "<img src=x onerror=alert(1)>", "\u202egnp.exe", "'\";--", "x" * 200]


@pytest.mark.parametrize("name", [*(name.encode() for name in ODD), b"\xff\xfe"], ids=range(len(ODD) + 1))
def test_odd_names_are_listed(tmp_path: Path, collected: Collect, name: bytes) -> None:
    decoded = os.fsdecode(name)
    run = run_folder(tmp_path / decoded)
    (run / "predictions" / f"{decoded}.jsonl").write_text('{"id": 1}\n[broken\n', encoding="utf-8")
    (run / "figures" / f"{decoded}.svg").write_text("<svg>", encoding="utf-8")
    shutil.copyfile(run / "figures" / "plot.png", run / "figures" / f"{decoded}.png")
    metrics = json.dumps({os.fsencode(decoded).decode("utf-8", "replace"): 1.0})
    (run / "metrics.json").write_text(metrics, encoding="utf-8")
    found = collected(tmp_path)
    [record] = found["records"]
    assert record["figures"] == 2
    assert len(record["rows"]) == 2
    assert len(record["problems"]) == 2
    assert all(problem.encode() for problem in record["problems"])
