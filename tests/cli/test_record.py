"""`athlos record`: what it keeps, what it leaves out, and how it fails."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.report.run_folders import decay, write_run, write_sweep

from athlos.report.ledger import read_records
from athlos.report.reading import collect
from athlos.runs.records import RECORDS

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a study `demo` in a project of its own, which is the current folder."""
    (tmp_path / "project" / "experiments" / "demo").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project" / "experiments" / "demo"


def test_runs_of_a_folder_are_kept_and_read_again(tmp_path: Path, study: Path, run: Run):
    write_sweep(tmp_path / "results", lrs=[1e-3], seeds=[1, 2])
    code, printed, _ = run("record", str(tmp_path / "results"), "--study", "demo")
    assert (code, printed.strip()) == (0, f"experiments/demo/{RECORDS}")
    kept, folders = collect(study), collect(tmp_path / "results")
    assert [record.name for record in kept] == [record.path.name for record in folders]
    assert [record.metrics.keys() for record in kept] == [record.metrics.keys() for record in folders]
    assert [record.curves == other.curves for record, other in zip(kept, folders, strict=True)] == [True, True]
    before = (study / RECORDS).read_bytes()
    assert run("record", *map(str, (tmp_path / "results" / "demo").iterdir()), "--study", "demo")[0] == 0
    assert (study / RECORDS).read_bytes() == before, "recorded again, by their own folders"


def test_runs_that_have_not_ended_are_left_out(tmp_path: Path, study: Path, run: Run, caplog: pytest.LogCaptureFixture):
    write_run(tmp_path / "results" / "running", state="running")
    write_run(tmp_path / "results" / "failed", state="failed", error="NumericalError")
    write_run(tmp_path / "results" / "torn", metrics={})
    (tmp_path / "results" / "torn" / "config.yaml").write_text("a: [")
    assert run("record", str(tmp_path / "results"), "--study", "demo")[0] == 0
    assert [(record.name, record.status["error"]) for record in collect(study)] == [("failed", "NumericalError")]
    assert f"left out {tmp_path / 'results' / 'running'}: its state is 'running'" in caplog.text
    assert f"left out {tmp_path / 'results' / 'torn'}: config.yaml: cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("provenance", "warning"),
    [
        ({"commit": "0" * 40, "dirty": False}, ""),
        ({"commit": "0" * 40, "dirty": True}, "made with changes that were not committed"),
        ({"commit": None}, "made by code of no known commit"),
    ],
)
def test_code_that_is_not_committed_is_warned_of(
    tmp_path: Path, study: Path, run: Run, caplog: pytest.LogCaptureFixture, provenance: dict, warning: str
):
    write_run(tmp_path / "r", metrics={}, provenance=provenance)
    assert run("record", str(tmp_path / "r"), "--study", "demo")[0] == 0
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [message.removeprefix(f"{tmp_path / 'r'}: ") for message in said] == ([warning] if warning else [])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{}/missing", "--study", "demo"], 3, "{}/missing: no run folder found"),
        (["{}/running", "--study", "demo"], 3, "{}/running: no run to record; expected a state of finished or failed"),
        (["{}/run", "--study", "demi"], 2, "--study: got 'demi'; did you mean 'demo'? Available: demo; --new makes"),
        (["{}/run", "--study", "../x", "--new"], 2, "--study: got '../x', expected a name of small letters"),
        (["{}/run", "{}/other/run", "--study", "demo"], 3, "{}/other/run: has the study and the name of {}/run"),
    ],
)
def test_errors_are_one_line_and_write_nothing(
    tmp_path: Path, study: Path, run: Run, arguments: list[str], code: int, message: str
):
    write_run(tmp_path / "run", metrics={})
    write_run(tmp_path / "other" / "run", metrics={})
    write_run(tmp_path / "running", state="running")
    found, printed, error = run("record", *(argument.format(tmp_path) for argument in arguments))
    assert (found, printed) == (code, "")
    assert message.replace("{}", str(tmp_path)) in error
    assert list(study.iterdir()) == []


def test_a_new_study_is_made_when_asked_for(tmp_path: Path, study: Path, run: Run):
    write_run(tmp_path / "run", metrics={})
    assert run("record", str(tmp_path / "run"), "--study", "fresh", "--new")[0] == 0
    assert [record.name for record in collect(study.parent)] == ["fresh/run"]


def test_long_curves_are_thinned_and_keep_their_ends(tmp_path: Path, study: Path, run: Run):
    write_run(tmp_path / "run", metrics={}, curve=decay(lr=1e-3, seed=1, steps=range(1, 3001)))
    assert run("record", str(tmp_path / "run"), "--study", "demo")[0] == 0
    [record] = collect(study)
    steps = record.curves["train/loss"].steps
    assert len(steps) <= 1000
    assert (steps[0], steps[-1]) == (1, 3000)


def test_report_and_claims_read_records_and_folders_side_by_side(tmp_path: Path, study: Path, run: Run):
    write_run(tmp_path / "run", metrics={"m": 1.0}, config={"seed": 1})
    assert run("record", str(tmp_path / "run"), "--study", "demo")[0] == 0
    write_run(study / "more" / "run", metrics={"m": 2.0}, config={"seed": 2})
    code, printed, error = run("report", str(study), "--out", str(tmp_path / "page.html"))
    assert (code, error) == (0, "")
    page = Path(printed.strip()).read_text()
    assert json.dumps("more/run") in page
    files = [Path("experiments") / "demo" / RECORDS, Path("experiments")]
    assert [(record.name, record.seed) for record in read_records(files).usable] == [
        ("experiments/demo/run", 1),
        ("experiments/demo/more/run", 2),
    ], "a run that is met twice counts once"


def test_a_damaged_line_is_named_by_the_readers(
    tmp_path: Path, study: Path, run: Run, caplog: pytest.LogCaptureFixture
):
    write_run(tmp_path / "run", metrics={})
    assert run("record", str(tmp_path / "run"), "--study", "demo")[0] == 0
    with gzip.open(study / RECORDS, "ab") as file:
        file.write(b"{\n" * 12)
    assert [record.name for record in collect(study)] == ["run"]
    named = [record.message for record in caplog.records if record.message.startswith("passed over")]
    assert named[0].startswith(f"passed over {study / RECORDS}:2: ")
    assert named[-1] == f"passed over 2 more lines of {study / RECORDS}"
